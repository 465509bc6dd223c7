"""When an idle machine raises an alert, and when the alert is over."""

import pytest

from cloud.alerts import notify, rules
from cloud.alerts.rules import Change, OpenAlert, Standing, Stretch
from contract.machine_key import MachineKey
from contract.states import MachineState

RUNNING, IDLE, STOPPED, FAULTED, CHANGEOVER, PLANNED, UNKNOWN = (
    MachineState.RUNNING,
    MachineState.IDLE,
    MachineState.STOPPED,
    MachineState.FAULTED,
    MachineState.CHANGEOVER,
    MachineState.PLANNED_STOP,
    MachineState.UNKNOWN,
)
KEY = MachineKey("berlin", "packaging", "line-1", "filler-1")
SEC = 1_000_000
LIMIT = 300 * SEC


def stands(*stretches: tuple[int, int, MachineState], production: list[tuple[int, int]]) -> Standing:
    """Return how a machine stands at the end of stretches given in seconds."""
    now = stretches[-1][1]
    return rules.standing(
        [Stretch(start * SEC, end * SEC, state) for start, end, state in stretches],
        [(start * SEC, end * SEC) for start, end in production],
        now * SEC,
        is_planned=True,
    )


def judge(
    standing: Standing, *, open_alert: OpenAlert | None = None, now_us: int = 9_000 * SEC
) -> list[Change]:
    return rules.idle({KEY: standing}, {KEY: LIMIT}, [open_alert] if open_alert else [], now_us)


ALWAYS = [(0, 100_000)]
OPEN = OpenAlert("idle-1", KEY, 0)


@pytest.mark.parametrize("state", [IDLE, STOPPED])
def test_raises_at_the_threshold_and_not_before(state: MachineState) -> None:
    before = stands((0, 100, RUNNING), (100, 399, state), production=ALWAYS)
    at = stands((0, 100, RUNNING), (100, 400, state), production=ALWAYS)
    assert judge(before) == []
    (change,) = judge(at)
    assert (change.event, change.rule, change.machine) == ("raised", "idle", KEY)
    assert change.since_us == 100 * SEC
    assert "filler-1" in change.message


def test_idle_and_stopped_are_one_stand() -> None:
    standing = stands((0, 200, IDLE), (200, 310, STOPPED), production=ALWAYS)
    assert standing.since_us == 0
    assert [change.event for change in judge(standing)] == ["raised"]


@pytest.mark.parametrize("state", [RUNNING, FAULTED, CHANGEOVER, PLANNED, UNKNOWN])
def test_other_states_raise_nothing_however_long(state: MachineState) -> None:
    assert judge(stands((0, 50_000, state), production=ALWAYS)) == []


def test_breaks_and_planned_stops_do_not_count() -> None:
    production = [(0, 200), (2000, 100_000)]
    assert judge(stands((0, 2099, IDLE), production=production)) == []
    assert len(judge(stands((0, 2100, IDLE), production=production))) == 1


def test_unknown_time_begins_the_count_anew() -> None:
    standing = stands((0, 290, IDLE), (290, 5000, UNKNOWN), (5000, 5200, IDLE), production=ALWAYS)
    assert standing.since_us == 5000 * SEC
    assert judge(standing) == []


def test_an_outage_alone_raises_nothing() -> None:
    assert judge(stands((0, 290, IDLE), (290, 90_000, UNKNOWN), production=ALWAYS)) == []


def test_nothing_is_raised_outside_planned_time() -> None:
    standing = stands((0, 1000, IDLE), production=ALWAYS)._replace(is_planned=False)
    assert judge(standing) == []


def test_a_threshold_of_zero_is_off() -> None:
    standing = stands((0, 1000, IDLE), production=ALWAYS)
    assert rules.idle({KEY: standing}, {KEY: 0}, [], 0) == []
    assert rules.idle({KEY: standing}, {}, [], 0) == []


def test_what_is_raised_is_not_raised_again() -> None:
    assert judge(stands((0, 4000, IDLE), production=ALWAYS), open_alert=OPEN) == []


@pytest.mark.parametrize("state", [RUNNING, FAULTED, CHANGEOVER, PLANNED])
def test_is_cleared_once_when_the_machine_is_known_to_do_something_else(state: MachineState) -> None:
    (change,) = judge(stands((0, 400, IDLE), (400, 401, state), production=ALWAYS), open_alert=OPEN)
    assert (change.event, change.id) == ("cleared", "idle-1")


def test_an_outage_does_not_clear() -> None:
    assert judge(stands((0, 400, IDLE), (400, 9000, UNKNOWN), production=ALWAYS), open_alert=OPEN) == []
    again = stands((0, 400, IDLE), (400, 9000, UNKNOWN), (9000, 9010, IDLE), production=ALWAYS)
    assert judge(again, open_alert=OPEN) == []


def test_is_cleared_when_planned_time_is_over() -> None:
    standing = stands((0, 4000, IDLE), production=ALWAYS)._replace(is_planned=False)
    assert [change.event for change in judge(standing, open_alert=OPEN)] == ["cleared"]


def test_is_cleared_when_the_machine_left_the_plant() -> None:
    (change,) = rules.idle({}, {}, [OPEN], 0)
    assert change.event == "cleared"


def test_a_machine_without_a_past_is_unknown() -> None:
    standing = rules.standing([], [], 5, is_planned=True)
    assert standing.state is UNKNOWN
    assert judge(standing) == []


def test_an_alert_tells_of_its_life() -> None:
    (change,) = judge(stands((0, 400, IDLE), production=ALWAYS), now_us=400 * SEC)
    alert = notify.raised(change, 400 * SEC)
    assert (alert.state, alert.raised_epochtime, alert.since_epochtime) == ("open", 400.0, 0.0)
    seen = notify.acknowledged(alert, "Ana", "on my way", 410 * SEC)
    assert (seen.state, seen.acknowledged_by, seen.note) == ("acknowledged", "Ana", "on my way")
    (over,) = judge(
        stands((0, 400, IDLE), (400, 401, RUNNING), production=ALWAYS),
        open_alert=OpenAlert(alert.id, KEY, 0),
    )
    done = notify.cleared(seen, over, 420 * SEC)
    assert (done.state, done.cleared_epochtime, done.note) == ("cleared", 420.0, "on my way")
    message = notify.message(done, "cleared", 420 * SEC)
    assert (message.event, message.id, message.by) == ("cleared", alert.id, "Ana")
