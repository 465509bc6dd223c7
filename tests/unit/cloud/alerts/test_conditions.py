"""Each rule at both sides of its limits; breaks, planned stops, unknown time, silence."""

from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from cloud.alerts import conditions
from cloud.alerts.conditions import Condition, Moment, Past, Stretch
from cloud.alerts.rule_tables import RuleTable
from cloud.alerts.subjects import Subject
from cloud.alerts.windows import Tally
from contract.delivery import ConnectionStatus, Status
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
SEC = 1_000_000
T0 = 1_625_032_800  # 2021-06-30T06:00Z
FILLER = Subject("berlin", "packaging", "line-1", "filler-1")
GATEWAY = Subject("berlin", gateway="gw-1")
PLC = GATEWAY._replace(connection="plc-1")
NAMES = {"17": ("Jam at infeed", "jam", 17, "E017"), "jam": ("Jam at infeed", "jam", 17, "E017")}


def rule(kind: str, **keys: Any) -> RuleTable:
    return RuleTable.model_validate({"name": "r", "kind": kind} | keys)


def past(
    *stretches: tuple[float, float, MachineState], breaks: tuple[float, float] = (0, 0), **keys: Any
) -> Past:
    """Return a past of stretches [s since T0], cut at the edges of a break; `reason`, `is_planned`."""
    parts = []
    for start, end, state in stretches:
        cuts = sorted({start, end, *(edge for edge in breaks if start < edge < end)})
        for low, high in pairwise(cuts):
            in_break = breaks[0] <= low < breaks[1]
            parts.append(
                Stretch(
                    round((T0 + low) * SEC),
                    round((T0 + high) * SEC),
                    state,
                    not in_break,
                    keys.get("reason") if state not in (RUNNING, UNKNOWN) else None,
                )
            )
    return Past(tuple(parts), keys.get("is_planned", True))


def at(now: float, watching_since: float | None = -10_000) -> Moment:
    since_us = None if watching_since is None else round((T0 + watching_since) * SEC)
    return Moment(round((T0 + now) * SEC), ZoneInfo("Europe/Berlin"), since_us)


def idle(found: Past, now: float, *, after: float = 300, **keys: Any) -> Condition:
    return conditions.idle(rule("idle", **keys), FILLER, found, round(after * SEC), NAMES, at(now))


# -- idle and stopped


@pytest.mark.parametrize("state", [IDLE, STOPPED])
@pytest.mark.parametrize(("now", "phase"), [(399.999, "present"), (400, "met"), (5000, "met")])
def test_a_stand_is_met_at_its_threshold_and_not_before(state: MachineState, now: float, phase: str) -> None:
    found = idle(past((0, 100, RUNNING), (100, now, state)), now)
    assert (found.phase, found.since_us) == (phase, (T0 + 100) * SEC)


def test_what_is_not_heard_of_does_not_count_as_standing() -> None:
    """Nobody knows whether a machine that stood when it was last heard of stands still."""
    stood = past((0, 400, IDLE))
    assert idle(stood._replace(heard_us=(T0 + 299) * SEC), 400).phase == "present"
    assert idle(stood._replace(heard_us=(T0 + 300) * SEC), 400).phase == "met"


def test_idle_and_stopped_are_one_stand() -> None:
    found = idle(past((0, 200, IDLE), (200, 310, STOPPED)), 310)
    assert (found.phase, found.since_us) == ("met", T0 * SEC)


@pytest.mark.parametrize("state", [RUNNING, FAULTED, CHANGEOVER, PLANNED])
def test_other_states_are_over_however_long(state: MachineState) -> None:
    assert idle(past((0, 100, IDLE), (100, 50_000, state)), 50_000).phase == "over"


def test_a_rule_may_ask_for_other_states() -> None:
    stands = past((0, 400, CHANGEOVER))
    assert idle(stands, 400, states=["changeover"]).phase == "met"
    assert idle(past((0, 400, IDLE)), 400, states=["changeover"]).phase == "over"


@pytest.mark.parametrize(("now", "phase"), [(2099.999, "present"), (2100, "met")])
def test_breaks_do_not_count_but_do_not_end_a_stand(now: float, phase: str) -> None:
    assert idle(past((0, now, IDLE), breaks=(200, 2000)), now).phase == phase


def test_unknown_time_begins_the_count_anew() -> None:
    seen = past((5000, 5299, IDLE))
    assert idle(seen, 5299).phase == "present"
    assert idle(past((0, 4000, IDLE), (4000, 5000, UNKNOWN), (5000, 5299, IDLE)), 5299).phase == "present"


def test_an_outage_is_neither_idle_nor_over() -> None:
    assert idle(past((290, 90_000, UNKNOWN)), 90_000).phase == "unknown"
    assert idle(Past((), is_planned=True), 5).phase == "unknown"


def test_outside_planned_time_every_stand_is_over() -> None:
    found = idle(past((0, 4000, IDLE), is_planned=False), 4000)
    assert (found.phase, found.text) == ("over", "filler-1 on line-1: planned time is over")


def test_a_threshold_of_zero_is_off() -> None:
    assert idle(past((0, 4000, IDLE)), 4000, after=0).phase == "present"


def test_an_idle_machine_is_told_in_plain_words_and_plant_time() -> None:
    found = idle(past((0, 400, IDLE), reason="17"), 400)
    assert found.text == (
        "filler-1 on line-1 has been idle since 08:00:00, 6 min of planned time: Jam at infeed"
    )
    later = idle(past((0, 400, IDLE), (400, 420, CHANGEOVER)), 420)
    assert later.text == "filler-1 on line-1 is in a changeover since 08:06:40"
    assert idle(past((0, 9, IDLE), (9, 10, RUNNING)), 10).text.endswith("runs again since 08:00:09")
    night = idle(past((-30_000, 400, IDLE)), 400)
    assert "since 2021-06-29 23:40," in night.text


# -- fault codes


@pytest.mark.parametrize(
    ("codes", "reason", "state", "phase"),
    [
        ([], None, FAULTED, "met"),
        ([], "17", STOPPED, "over"),
        ([17], "17", FAULTED, "met"),
        ([17], "17", STOPPED, "met"),
        ([18], "17", FAULTED, "over"),
        (["E0*"], "17", FAULTED, "met"),
        (["jam"], "17", FAULTED, "met"),
        (["jam"], "jam", FAULTED, "met"),
        (["9*"], "99", FAULTED, "met"),
        ([17], "17", RUNNING, "over"),
        ([17], None, FAULTED, "over"),
        ([17], "17", UNKNOWN, "unknown"),
    ],
)
def test_a_fault_is_one_of_the_codes(
    codes: list[int | str], reason: str | None, state: MachineState, phase: str
) -> None:
    found = conditions.fault(
        rule("fault", codes=codes), FILLER, past((0, 5, state), reason=reason), NAMES, at(5)
    )
    assert found.phase == phase


@pytest.mark.parametrize(("now", "phase"), [(59.999, "present"), (60, "met")])
def test_a_fault_may_have_to_last(now: float, phase: str) -> None:
    asked = rule("fault", after_secs=60)
    assert conditions.fault(asked, FILLER, past((0, now, FAULTED)), NAMES, at(now)).phase == phase
    in_break = past((0, now, FAULTED), breaks=(0, 1000))
    assert conditions.fault(asked, FILLER, in_break, NAMES, at(now)).phase == "present"


def test_a_fault_begins_with_its_code() -> None:
    first = past((0, 50, FAULTED), reason="99").stretches
    second = past((50, 80, FAULTED), reason="17").stretches
    found = conditions.fault(rule("fault", codes=[17]), FILLER, Past(first + second, True), NAMES, at(80))
    assert found.since_us == (T0 + 50) * SEC
    assert found.text == "filler-1 on line-1 has been down since 08:00:50: Jam at infeed"


# -- speed and rejects


def tally(running: float, ideal: float, total: int = 0, off: int = 0) -> Tally:
    return Tally(600 * SEC, round(running * SEC), round(ideal * SEC), total, off)


@pytest.mark.parametrize(
    ("ideal", "phase"), [(479.9, "met"), (480, "present"), (491.9, "present"), (492, "over")]
)
def test_speed_is_met_below_its_limit_and_over_beyond_its_margin(ideal: float, phase: str) -> None:
    found = conditions.speed(
        rule("speed", below_percent=80), FILLER, past((0, 1, RUNNING)), tally(600, ideal)
    )
    assert found.phase == phase


def test_speed_is_unknown_until_a_window_of_running_is_known() -> None:
    assert conditions.speed(rule("speed"), FILLER, past((0, 1, RUNNING)), None).phase == "unknown"
    assert conditions.speed(rule("speed"), FILLER, past((0, 1, IDLE)), tally(0, 0)).phase == "unknown"
    off = past((0, 1, IDLE), is_planned=False)
    assert conditions.speed(rule("speed"), FILLER, off, tally(600, 1)).phase == "over"


@pytest.mark.parametrize(
    ("total", "off", "phase"),
    [
        (1000, 51, "met"),
        (1000, 50, "present"),
        (1000, 31, "present"),
        (1000, 30, "over"),
        (50, 3, "met"),
        (49, 49, "unknown"),
        (0, 0, "unknown"),
    ],
)
def test_rejects_are_met_above_their_limit_when_enough_was_made(total: int, off: int, phase: str) -> None:
    found = conditions.rejects(rule("rejects"), FILLER, past((0, 1, RUNNING)), tally(600, 1, total, off))
    assert found.phase == phase
    assert conditions.rejects(rule("rejects"), FILLER, past((0, 1, RUNNING)), None).phase == "unknown"


# -- OEE of the running shift


@pytest.mark.parametrize(
    ("value", "planned", "phase"),
    [
        (0.799, 3600, "met"),
        (0.8, 3600, "present"),
        (0.819, 3600, "present"),
        (0.82, 3600, "over"),
        (0.1, 3599, "over"),
        (None, 9000, "unknown"),
    ],
)
def test_oee_is_judged_by_the_target_after_an_hour_of_the_shift(
    value: float | None, planned: float, phase: str
) -> None:
    planned_us = round(planned * SEC)
    assert conditions.oee(rule("oee"), FILLER, {"oee": value}, planned_us, 0.8, "1").phase == phase


def test_oee_has_a_limit_of_its_own_and_ends_with_the_shift() -> None:
    asked = rule("oee", below_percent=50, after_secs=60)
    line = Subject("berlin", "packaging", "line-1")
    found = conditions.oee(asked, line, {"oee": 0.49}, 60 * SEC, 0.8, "2")
    assert found.text == "OEE of line-1 in shift 2 is 49.0 % after 60 s (target 50.0 %)"
    assert conditions.oee(asked, FILLER, {"oee": 0.5}, 60 * SEC, 0.8, "2").phase == "present"
    assert conditions.oee(asked, FILLER, None, 0, 0.8, "").phase == "over"


# -- no data


@pytest.mark.parametrize(("now", "phase"), [(159.999, "present"), (160, "met")])
def test_a_machine_without_data_is_met_at_its_threshold(now: float, phase: str) -> None:
    found = conditions.no_data(rule("no_data"), FILLER, past((100, now, UNKNOWN)), at(now))
    assert (found.phase, found.since_us) == (phase, (T0 + 100) * SEC)


def test_silence_is_no_news_while_we_do_not_listen() -> None:
    silent = past((0, 900, UNKNOWN))
    for since, phase in ((None, "unknown"), (841, "unknown"), (840, "met")):
        assert conditions.no_data(rule("no_data"), FILLER, silent, at(900, since)).phase == phase
    night = past((0, 900, UNKNOWN), is_planned=False)
    assert conditions.no_data(rule("no_data"), FILLER, night, at(900)).phase == "over"
    assert conditions.no_data(rule("no_data"), FILLER, past((0, 9, IDLE)), at(9)).phase == "over"
    in_break = past((0, 900, UNKNOWN), breaks=(0, 900))
    assert conditions.no_data(rule("no_data"), FILLER, in_break, at(900)).phase == "present"


# -- gateways


def status(*, online: bool = True, **keys: Any) -> Status:
    return Status(gateway="gw-1", site="berlin", online=online, epochtime=T0 + 90, **keys)


def connection(state: Any, since: float = 50, **keys: Any) -> ConnectionStatus:
    return ConnectionStatus(
        name="plc-1", endpoint="opc.tcp://plc", state=state, since_epochtime=T0 + since, **keys
    )


@pytest.mark.parametrize(
    ("state", "phase"),
    [("connected", "over"), ("stopped", "over"), ("silent", "present"), ("failed", "present")],
)
def test_a_connection_is_as_its_gateway_says(state: str, phase: str) -> None:
    said = connection(state, last_error="no answer")
    found = conditions.plc(rule("plc"), PLC, status(), (T0 + 90) * SEC, said, at(100))
    assert (found.phase, found.since_us) == (phase, (T0 + 50) * SEC)
    if phase == "present":
        how = "cannot be read" if state == "failed" else "does not answer"
        assert found.text == f"PLC plc-1 at gateway gw-1 {how} (no answer)"


@pytest.mark.parametrize("ahead_secs", [-3600, 3600])
def test_a_gateway_whose_clock_is_wrong_tells_of_connections_and_backlogs_in_time(ahead_secs: int) -> None:
    said = connection("silent", since=50 + ahead_secs)
    told = status(backlog_records=1, oldest_epochtime=T0 + 39.0 + ahead_secs)
    told = msgspec.structs.replace(told, epochtime=told.epochtime + ahead_secs)
    heard = (T0 + 90) * SEC
    assert conditions.plc(rule("plc"), PLC, told, heard, said, at(100)).since_us == (T0 + 50) * SEC
    old, new = (rule("backlog", above_age_secs=limit) for limit in (60, 62))
    assert conditions.backlog(old, GATEWAY, told, heard, at(100)).phase == "present"
    assert conditions.backlog(new, GATEWAY, told, heard, at(100)).phase == "unknown"


def test_a_gateway_that_falls_silent_is_missed_also_when_the_clock_was_set_back_meanwhile() -> None:
    heard = (T0 + 3600) * SEC
    set_back = {"rule": rule("gateway"), "subject": GATEWAY, "status": status(), "received_us": heard}
    assert conditions.gateway(**set_back, moment=at(159.999, 100)).phase == "over"
    assert conditions.gateway(**set_back, moment=at(160, 100)).phase == "present"


def test_nobody_knows_of_a_connection_whose_gateway_is_away() -> None:
    said, heard = connection("silent"), (T0 + 90) * SEC

    def phase(told: Status | None, moment: Moment, received_us: int | None = heard) -> str:
        return conditions.plc(rule("plc"), PLC, told, received_us, said, moment).phase

    assert phase(status(online=False), at(100)) == "unknown"
    assert phase(None, at(100), None) == "unknown"
    assert phase(status(), at(100, None)) == "unknown"
    assert phase(status(), at(100, 91)) == "unknown"
    assert phase(status(), at(149.999)) == "present"
    assert phase(status(), at(150)) == "unknown"


def test_a_gateway_is_offline_by_its_last_will_or_by_its_silence() -> None:
    heard = (T0 + 90) * SEC

    def phase(told: Status | None, moment: Moment) -> str:
        return conditions.gateway(rule("gateway"), GATEWAY, told, heard, moment).phase

    assert phase(status(), at(149.999)) == "over"
    assert phase(status(), at(150)) == "present"
    assert phase(status(online=False), at(91)) == "present"
    assert phase(status(online=False), at(100, None)) == "unknown"
    assert phase(status(online=False), at(100, 96)) == "unknown"
    assert phase(status(), at(1000, 950)) == "over"
    assert phase(None, at(100)) == "unknown"


@pytest.mark.parametrize(
    ("limit", "keys", "phase"),
    [
        ({"above_records": 100}, {"backlog_records": 101}, "present"),
        ({"above_records": 100}, {"backlog_records": 100}, "unknown"),
        ({"above_records": 100}, {"backlog_records": 80}, "over"),
        ({"above_mb": 2}, {"backlog_bytes": 2_000_001}, "present"),
        ({"above_mb": 2}, {"backlog_bytes": 1_600_000}, "over"),
        ({"above_age_secs": 60}, {"backlog_records": 1, "oldest_epochtime": T0 + 39.9}, "present"),
        ({"above_age_secs": 60}, {"backlog_records": 1, "oldest_epochtime": T0 + 40.0}, "unknown"),
        ({"above_age_secs": 60}, {"backlog_records": 0, "oldest_epochtime": T0 + 1.0}, "over"),
        ({"above_records": 9, "above_mb": 1}, {"backlog_records": 10}, "present"),
    ],
)
def test_a_backlog_is_met_above_any_of_its_limits(
    limit: dict[str, Any], keys: dict[str, Any], phase: str
) -> None:
    asked = rule("backlog", **limit)
    found = conditions.backlog(asked, GATEWAY, status(**keys), (T0 + 90) * SEC, at(100))
    assert found.phase == phase
    gone = conditions.backlog(asked, GATEWAY, status(online=False, **keys), (T0 + 95) * SEC, at(100))
    assert gone.phase == "unknown"


@pytest.mark.parametrize(
    ("free", "phase"), [(99, "present"), (100, "unknown"), (119, "unknown"), (120, "over"), (None, "unknown")]
)
def test_a_disk_is_met_below_its_limit_and_over_beyond_its_margin(free: int | None, phase: str) -> None:
    assert conditions.disk(rule("disk"), GATEWAY, free, 1000).phase == phase
    assert conditions.disk(rule("disk"), GATEWAY, free, None).phase == "unknown"


# -- what a whole timeline says afterwards


def test_a_stand_is_found_again_in_a_whole_timeline() -> None:
    whole = past((0, 100, RUNNING), (100, 160, IDLE), (160, 200, STOPPED), (200, 300, RUNNING)).stretches
    asked = rule("idle")
    for moment in (100, 150, 199):
        found = conditions.stand_at(asked, whole, NAMES, (T0 + moment) * SEC)
        assert found == ((T0 + 100) * SEC, (T0 + 200) * SEC)
    assert conditions.stand_at(asked, whole, NAMES, (T0 + 50) * SEC) is None
    assert conditions.stand_at(asked, whole, NAMES, (T0 + 999) * SEC) is None


def test_the_end_of_a_stand_is_open_where_nobody_knows_what_came_next() -> None:
    whole = past((0, 100, IDLE), (100, 200, UNKNOWN), (200, 300, RUNNING)).stretches
    assert conditions.stand_at(rule("idle"), whole, NAMES, T0 * SEC) == (T0 * SEC, None)
    assert conditions.stand_at(rule("idle"), whole[:1], NAMES, T0 * SEC) == (T0 * SEC, None)


def test_durations_are_short_and_plain() -> None:
    said = [conditions.span(secs * SEC) for secs in (0, 45, 119, 120, 3599, 3600, 7500)]
    assert said == ["0 s", "45 s", "119 s", "2 min", "59 min", "1 h 00 min", "2 h 05 min"]
