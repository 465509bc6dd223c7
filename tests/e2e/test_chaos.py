"""What is played of `make chaos` with every change: each kind of fault, what once failed, and mutants."""

from concurrent.futures import ThreadPoolExecutor
from sys import executable

import pytest

from tests.chaos import faults
from tests.chaos.history import once_failed
from tests.chaos.mutants import MUTANTS
from tests.chaos.schedule import KINDS, Fault, Schedule, schedule, tours
from tests.chaos.trial import Outcome, play_all

pytestmark = pytest.mark.slow
JOBS = 3
AS_IT_IS = "as it is"
EARLY = {"acknowledge-to-the-plc-early": "kill gateway", "acknowledge-to-the-gateway-early": "kill cloud"}
"""What shows only when somebody is killed at the wrong moment."""


def test_every_kind_of_fault_can_be_done() -> None:
    assert faults.unknown_kinds() == []


def test_a_seed_means_the_same_for_ever() -> None:
    assert schedule(17) == schedule(17)
    assert schedule(17) != schedule(18)


def test_every_kind_of_fault_is_played() -> None:
    assert {fault.kind for tour in tours() for fault in tour.faults} == set(KINDS)


def wrong(outcomes: list[Outcome]) -> dict[int, list[str]]:
    """Return what was wrong, by seed; how busy a process was hangs on the machine: `make chaos` judges it."""
    return {outcome.seed: outcome.wrong[:6] for outcome in outcomes if outcome.wrong}


def short(killed: str | None) -> Schedule:
    """A schedule in which much of the past is played, so that shifts close in it; and one may be killed."""
    kill = Fault(kind=killed, at_secs=1.0, secs=0.2, detail=0.5) if killed else None
    return Schedule(
        seed=7, machines=2, history_secs=900.0, in_the_past=(kill,) if kill else (), live_secs=2.0
    )


TOURS = {f"tour {one.seed}": one for one in tours()}
ONCE_FAILED = {f"seed {one.schedule.seed}": one.schedule for one in once_failed() if not one.was_judge}
MUTATED = {name: short(EARLY.get(name)) for name in [*MUTANTS, AS_IT_IS]}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What the judge says of all of these, played side by side; the longest begin."""
    folder = tmp_path_factory.mktemp("chaos")

    def judged(name: str, schedule: Schedule) -> Outcome:
        oee = [executable, "-m", *(["tests.chaos.mutants", name] if name in MUTANTS else ["oee"])]
        (outcome,) = play_all([schedule], folder / name, oee=oee)
        return outcome

    planned = TOURS | ONCE_FAILED | MUTATED
    with ThreadPoolExecutor(JOBS) as pool:
        waiting = {name: pool.submit(judged, name, one) for name, one in planned.items()}
        return {name: outcome.result() for name, outcome in waiting.items()}


def test_nothing_is_lost_whatever_goes_wrong(played: dict[str, Outcome]) -> None:
    assert wrong([played[name] for name in TOURS]) == {}
    assert sum(played[name].delivered for name in TOURS) > 2000


def test_what_once_failed_does_not_fail_again(played: dict[str, Outcome]) -> None:
    assert wrong([played[name] for name in ONCE_FAILED]) == {}


def test_the_judge_finds_nothing_wrong_with_the_product(played: dict[str, Outcome]) -> None:
    assert played[AS_IT_IS].wrong == []
    assert played[AS_IT_IS].delivered > 300


@pytest.mark.parametrize("name", MUTANTS)
def test_the_judge_catches_a_product_that_errs(played: dict[str, Outcome], name: str) -> None:
    outcome = played[name]
    found = {
        "lose": outcome.unexplained,
        "double": outcome.duplicates,
        "reorder": outcome.phantoms,
        "invent": outcome.phantoms,
        "miscount": outcome.phantoms,
        "acknowledge-to-the-plc-early": [*outcome.unexplained, *outcome.others],
        "acknowledge-to-the-gateway-early": outcome.unexplained,
        "misjudge": [fault for fault in outcome.others if "total_units" in fault],
    }
    assert found[name], outcome
