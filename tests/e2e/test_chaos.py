"""What is played of `make chaos` with every change: each kind of fault, what once failed, and mutants."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sys import executable

import pytest

from tests.chaos import faults
from tests.chaos.history import once_failed
from tests.chaos.mutants import MUTANTS
from tests.chaos.schedule import KINDS, Fault, Schedule, schedule, tours
from tests.chaos.trial import Outcome, play_all

pytestmark = pytest.mark.slow
JOBS = 3
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


def test_nothing_is_lost_whatever_goes_wrong(tmp_path: Path) -> None:
    outcomes = list(play_all(tours(), tmp_path, jobs=JOBS))
    assert wrong(outcomes) == {}
    assert sum(outcome.delivered for outcome in outcomes) > 2000


def test_what_once_failed_does_not_fail_again(tmp_path: Path) -> None:
    assert wrong(list(play_all([one.schedule for one in once_failed()], tmp_path, jobs=JOBS))) == {}


def short(killed: str | None) -> Schedule:
    """A schedule in which much of the past is played, so that shifts close in it; and one may be killed."""
    kill = Fault(kind=killed, at_secs=1.0, secs=0.2, detail=0.5) if killed else None
    return Schedule(
        seed=7, machines=2, history_secs=900.0, in_the_past=(kill,) if kill else (), live_secs=2.0
    )


@pytest.fixture(scope="module")
def mutants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What the judge says of each mutant, and of the product as it is."""
    folder = tmp_path_factory.mktemp("mutants")

    def judged(name: str) -> Outcome:
        oee = [executable, "-m", *(["tests.chaos.mutants", name] if name in MUTANTS else ["oee"])]
        (outcome,) = play_all([short(EARLY.get(name))], folder / name, oee=oee)
        return outcome

    names = [*MUTANTS, "as it is"]
    with ThreadPoolExecutor(JOBS) as pool:
        return dict(zip(names, pool.map(judged, names), strict=True))


def test_the_judge_finds_nothing_wrong_with_the_product(mutants: dict[str, Outcome]) -> None:
    assert mutants["as it is"].wrong == []
    assert mutants["as it is"].delivered > 300


@pytest.mark.parametrize("name", MUTANTS)
def test_the_judge_catches_a_product_that_errs(mutants: dict[str, Outcome], name: str) -> None:
    outcome = mutants[name]
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
