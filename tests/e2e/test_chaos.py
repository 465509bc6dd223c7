"""What is played of `make chaos` with every change, in about three minutes of two cores.

- Each kind of fault of the catalogue once (`tours`), each alone and most beside what another one left behind:
  on one and two lines, with and without a past that is played first, servers that take five items per call,
  and tags that come after their port.
- What once failed because the product was wrong, each whole schedule as it was.
- A product that errs with each machine in another way: loses, doubles, shifts, invents or miscounts records,
  closes shifts with a unit too many, raises idle alerts twice, never or late, never clears them. The judge
  finds each error at its machine, and nothing at the machines that are left alone.
- A product that acknowledges before it commits, to the PLC and to the gateway, and is killed.

Only in `make chaos`: mixtures of faults, and processes that are killed while the past is played.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from sys import executable

import pytest

from tests.chaos import faults
from tests.chaos.history import once_failed
from tests.chaos.mutants import ERRORS, MUTANTS
from tests.chaos.schedule import KINDS, Fault, Schedule, Stand, schedule, tours
from tests.chaos.trial import Outcome, machine_in, play

pytestmark = pytest.mark.slow
JOBS = 4
"""Most of a trial is waiting: so many at a time leave two cores some air, as `make chaos JOBS=4` shows."""
BY_MACHINE = "err-machine-by-machine"
EARLY = {"acknowledge-to-the-plc-early": "kill gateway", "acknowledge-to-the-gateway-early": "kill cloud"}
"""What shows only when somebody is killed at the wrong moment."""
LINES, MACHINES = 3, 4
STANDS = {"filler-3": 15.0, "capper-3": 22.0, "labeller-3": 22.0, "packer-3": 15.0}
"""How long a machine stands idle that an alert goes wrong for: long enough to be due beyond doubt, and over
long enough before the end where it is to be cleared, also when everything is late [s]."""


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


def of_each_error() -> Schedule:
    """A factory in which every machine of ERRORS has what its error shows in, and two machines have none."""
    names = [
        f"{kind}-{line + 1}" for line in range(LINES) for kind in ("filler", "capper", "labeller", "packer")
    ]
    stands = [
        Stand(at_secs=0.5, secs=secs, detail=(names.index(name) + 0.5) / len(names))
        for name, secs in STANDS.items()
    ]
    return Schedule(
        seed=7, lines=LINES, machines=MACHINES, history_secs=900.0, stands=tuple(stands), live_secs=27.0
    )


def with_a_kill(kind: str) -> Schedule:
    """A schedule in which one is killed while much of the past is played."""
    kill = Fault(kind=kind, at_secs=1.0, secs=0.2, detail=0.5)
    return Schedule(seed=7, machines=2, history_secs=900.0, in_the_past=(kill,), live_secs=2.0)


TOURS = {f"tour {one.seed}": one for one in tours()}
ONCE_FAILED = {f"seed {one.schedule.seed}": one.schedule for one in once_failed() if not one.was_judge}
MUTATED = {name: with_a_kill(EARLY[name]) if name in EARLY else of_each_error() for name in MUTANTS}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What the judge says of all of these, played side by side; the longest begin."""
    folder = tmp_path_factory.mktemp("chaos")
    every = TOURS | ONCE_FAILED | MUTATED
    planned = dict(sorted(every.items(), key=lambda item: -item[1].live_secs))
    with ProcessPoolExecutor(JOBS, mp_context=get_context("spawn")) as pool:
        waiting = {
            name: pool.submit(
                play,
                one,
                folder / name.replace(" ", "-"),
                oee=[executable, "-m", *(["tests.chaos.mutants", name] if name in MUTANTS else ["oee"])],
            )
            for name, one in planned.items()
        }
        return {name: outcome.result() for name, outcome in waiting.items()}


def test_nothing_is_lost_whatever_goes_wrong(played: dict[str, Outcome]) -> None:
    assert wrong([played[name] for name in TOURS]) == {}
    assert sum(played[name].delivered for name in TOURS) > 2000


def test_what_once_failed_does_not_fail_again(played: dict[str, Outcome]) -> None:
    assert wrong([played[name] for name in ONCE_FAILED]) == {}


def test_the_judge_finds_nothing_wrong_with_machines_that_are_left_alone(played: dict[str, Outcome]) -> None:
    outcome = played[BY_MACHINE]
    assert len(ERRORS) == LINES * MACHINES - 2
    assert {machine_in(fault) for fault in outcome.wrong} == {
        name for name, error in ERRORS.items() if error != "raise late"
    }, outcome
    assert outcome.delivered > 2000


@pytest.mark.parametrize(("machine", "error"), ERRORS.items())
def test_the_judge_catches_an_error_with_one_machine(
    played: dict[str, Outcome], machine: str, error: str
) -> None:
    outcome = played[BY_MACHINE]
    where, said = {
        "lose": (outcome.unexplained, "is nowhere"),
        "double": (outcome.duplicates, "is stored twice"),
        "reorder": (outcome.phantoms, "true is"),
        "invent": (outcome.phantoms, "true is"),
        "miscount": (outcome.phantoms, "true is"),
        "misjudge": (outcome.others, "total_units is"),
        "raise twice": (outcome.others, "2 alerts for the stand"),
        "never raise": (outcome.others, "no alert though it stood"),
        "raise late": (outcome.slow, "after its threshold"),
        "never clear": (outcome.others, "was not cleared though it ran again"),
    }[error]
    assert [fault for fault in where if machine_in(fault) == machine and said in fault], outcome


def test_the_judge_catches_an_acknowledgement_to_the_plc_before_the_commit(
    played: dict[str, Outcome],
) -> None:
    outcome = played["acknowledge-to-the-plc-early"]
    assert [*outcome.unexplained, *outcome.others], outcome


def test_the_judge_catches_a_receipt_before_the_commit(played: dict[str, Outcome]) -> None:
    outcome = played["acknowledge-to-the-gateway-early"]
    assert outcome.unexplained, outcome
