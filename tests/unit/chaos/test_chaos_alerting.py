"""The judge of alerts, given alerts that should not be, and stands that should have one."""

import msgspec
import pytest

from cloud.alerts.notify import message
from cloud.views import AlertView
from contract.delivery import Receipt
from contract.states import MachineState
from simulator.truth import History
from tests.chaos import alerting
from tests.chaos.alerting import Evidence
from tests.chaos.listener import Heard
from tests.chaos.schedule import IDLE_ALERT_SECS
from tests.support.judge import Span
from tests.support.kept import US, Shown, Stored

MACHINE = "line-1/filler-1"
STOOD = (100.0, 120.0)
DUE = STOOD[0] + IDLE_ALERT_SECS
OVER = 150.0


def history(*stands: tuple[float, float]) -> dict[str, History]:
    """A machine that stood between these times [s], and ran otherwise."""
    states = [(0, MachineState.RUNNING)]
    for from_secs, to_secs in stands:
        states += [(round(from_secs * US), MachineState.IDLE), (round(to_secs * US), MachineState.RUNNING)]
    return {MACHINE: History(line="line-1", machine="filler-1", ideal_run_rates={}, states=states)}


def alert(since: float, raised: float, cleared: float | None) -> AlertView:
    """One idle alert of the machine [s]."""
    return AlertView(
        id=f"idle-{raised}",
        rule="idle",
        site="demo-plant",
        area="packaging",
        line="line-1",
        machine="filler-1",
        state="open" if cleared is None else "cleared",
        level=1,
        message="filler-1 has been idle",
        since_epochtime=since,
        raised_epochtime=raised,
        cleared_epochtime=cleared,
    )


RIGHT = alert(STOOD[0], DUE + 1, STOOD[1] + 1)


def record(at_secs: float, state: str = "running") -> Stored:
    """What is stored each second; its sequence is the second."""
    return Stored(
        MACHINE, round(at_secs * US), Shown(state, 1, 0, None, "SKU-1"), "gw", round(at_secs), "good"
    )


def judged(
    *alerts: AlertView,
    stands: tuple[tuple[float, float], ...] = (STOOD,),
    faults: tuple[Span, ...] = (),
    blinding: tuple[Span, ...] = (),
    quiet: tuple[float, float] = (0, 0),
    told: tuple[AlertView, ...] = (),
    unknown: tuple[float, float] = (0, 0),
) -> alerting.Judged:
    """Judge these alerts, where each second's record was known to be stored half a second later.

    quiet: in this time [s] no receipt was sent
    unknown: in this time [s] the machine's state was not known
    """
    heard = [
        Heard(round((second + 0.5) * US), Receipt(stored_through=second))
        for second in range(1, 150)
        if not quiet[0] <= second <= quiet[1]
    ]
    stored = [
        record(second, "unknown" if unknown[0] < second < unknown[1] else "running") for second in range(150)
    ]
    evidence = Evidence(
        stored=stored,
        news=alerting.news(heard),
        faults=[*faults, *blinding],
        blinding=blinding,
        live_us=US,
        over_us=round(OVER * US),
    )
    bodies = [msgspec.json.encode(message(one, "raised", round(DUE * US))) for one in told]
    return alerting.judge(history(*stands), alerts, bodies, evidence)


def span(from_secs: float, to_secs: float, what: str) -> Span:
    return Span(round(from_secs * US), round(to_secs * US), what)


def test_one_alert_for_one_stand_is_right() -> None:
    found = judged(RIGHT, told=(RIGHT,))
    assert found.faults == found.late == []
    assert (found.raised, found.cleared, found.expected) == (1, 1, 1)


@pytest.mark.parametrize(
    ("alerts", "stands", "said"),
    [
        ((), (STOOD,), "no alert though it stood"),
        ((RIGHT, alert(101, 110, 121)), (STOOD,), "2 alerts for the stand"),
        ((RIGHT,), (), "that never was"),
        ((alert(100, 101, 121),), (STOOD,), "only"),
        ((alert(100, 104, 103),), ((100, 102),), "only"),
        ((alert(100, 104, None),), (STOOD,), "was not cleared"),
        ((alert(100, 104, 110),), (STOOD,), "it stood until"),
    ],
)
def test_what_should_not_be_is_named(
    alerts: tuple[AlertView, ...], stands: tuple[tuple[float, float], ...], said: str
) -> None:
    (fault,) = judged(*alerts, stands=stands).faults
    assert said in fault


def test_an_alert_that_was_published_and_not_kept_is_named() -> None:
    (fault,) = judged(RIGHT, told=(RIGHT, alert(130, 135, None))).faults
    assert "is not in the store" in fault


def test_an_alert_after_its_time_is_late_and_no_fault() -> None:
    found = judged(alert(STOOD[0], DUE + 5.5, STOOD[1] + 1))
    assert found.faults == []
    assert "came 5.5 s after" in found.late[0]


def test_a_cloud_side_that_is_back_in_time_owes_the_alert() -> None:
    killed = span(DUE - 1, DUE + 2, "kill cloud")
    assert "no alert" in judged(faults=(killed,), quiet=(DUE - 1, DUE + 4)).faults[0]
    assert judged(RIGHT, faults=(killed,), quiet=(DUE - 1, DUE + 4)).expected == 1


def test_an_alert_may_come_early_where_nobody_knew_that_the_machine_had_run_in_between() -> None:
    early = alert(STOOD[0], DUE - 1, STOOD[1] + 1)
    assert judged(early, quiet=(STOOD[0] - 1, DUE)).faults == []
    assert "only" in judged(early).faults[0]
    assert "only" in judged(early, stands=((STOOD[0], DUE - 1),), quiet=(STOOD[0] - 1, DUE)).faults[0]


def test_nobody_is_held_to_what_he_could_not_know() -> None:
    """Neither a cloud side that was away for the rest of the stand, nor one that heard of it too late."""
    killed = span(DUE - 1, STOOD[1] + 1, "kill cloud")
    assert judged(faults=(killed,), quiet=(DUE - 1, STOOD[1] + 3)).faults == []
    assert judged(faults=(span(DUE, STOOD[1], "hang gateway uplink"),), quiet=(DUE, STOOD[1])).faults == []
    assert judged(blinding=(span(DUE, DUE + 1, "kill plc"),)).faults == []
    assert judged(unknown=(STOOD[0] - 2, DUE)).faults == []


def test_a_receipt_that_the_broker_repeats_says_nothing_of_the_cloud_side() -> None:
    heard = [Heard(at, Receipt(stored_through=through)) for at, through in ((1, 5), (2, 5), (3, 6), (4, 2))]
    assert [one.at_us for one in alerting.news(heard)] == [1, 3]
