"""Raised once, escalated while nobody answers, cleared once; muted, flapping, restarted in between."""

from typing import Any

import pytest

from cloud.alerts import life, notify
from cloud.alerts.conditions import Condition, Phase
from cloud.alerts.life import Memory
from cloud.alerts.rule_tables import RuleTable, StepTable
from cloud.alerts.subjects import Subject
from cloud.views import AlertView, MuteView

SEC = 1_000_000
FILLER = Subject("berlin", "packaging", "line-1", "filler-1")
STEPS = (StepTable(after_secs=600.0, level=2), StepTable(after_secs=1800.0, level=4))


class Rig:
    """One rule for one subject, judged second by second with whatever it is said to be."""

    def __init__(self, kind: str = "idle", subject: Subject = FILLER, **keys: Any) -> None:
        self.rule = RuleTable.model_validate({"name": "r", "kind": kind, "clear_after_secs": 0} | keys)
        self.subject = subject
        self.memory = Memory()
        self.open: dict[str, AlertView] = {}
        self.mutes: list[MuteView] = []
        self.told: list[tuple[float, str | None]] = []

    def at(self, now: float, phase: Phase | None, since: float | None = None) -> None:
        """Judge; None: the rule does not watch the subject any more."""
        since_us = None if since is None else round(since * SEC)
        conditions = [] if phase is None else [Condition(self.rule, self.subject, phase, since_us, "text")]
        now_us = round(now * SEC)
        for _ in range(2):  # asking again changes nothing
            for change in life.step(
                conditions, self.open.values(), self.memory, now_us=now_us, mutes=self.mutes, steps=STEPS
            ):
                self.told.append((now, change.event))
                if change.alert.state == "cleared":
                    self.last = self.open.pop(change.alert.id)
                    self.last = change.alert
                else:
                    self.open[change.alert.id] = change.alert

    def restart(self) -> None:
        self.memory = Memory()

    def mute(self, from_: float, until: float, place: str = "berlin/packaging/line-1", **keys: Any) -> None:
        self.mutes.append(
            MuteView(
                id=1, place=place, from_epochtime=from_, until_epochtime=until, who="Ana", why="w", **keys
            )
        )

    @property
    def only(self) -> AlertView:
        (alert,) = self.open.values()
        return alert


def test_an_alert_is_raised_once_and_cleared_once() -> None:
    rig = Rig()
    for now in range(10, 20):
        rig.at(now, "met", 5)
    alert = rig.only
    assert (alert.since_epochtime, alert.raised_epochtime, alert.state, alert.level) == (5, 10, "open", 1)
    for now in range(20, 25):
        rig.at(now, "over", 19.5)
    assert rig.told == [(10, "raised"), (20, "cleared")]
    assert (rig.last.ended_epochtime, rig.last.cleared_epochtime, rig.last.outcome) == (19.5, 20, "text")


def test_a_condition_that_is_only_present_raises_nothing_and_clears_nothing() -> None:
    rig = Rig()
    rig.at(1, "present", 0)
    assert rig.told == []
    rig.at(2, "met", 0)
    rig.at(3, "present", 2)
    rig.at(4, "unknown")
    assert rig.told == [(2, "raised")]


@pytest.mark.parametrize("kind", ["plc", "gateway", "backlog", "disk"])
@pytest.mark.parametrize(("now", "raised"), [(29.999, 0), (30, 1)])
def test_kinds_without_a_timeline_are_met_once_present_for_long_enough(
    kind: str, now: float, raised: int
) -> None:
    rig = Rig(kind, after_secs=30, above_records=1) if kind == "backlog" else Rig(kind, after_secs=30)
    rig.at(0, "present")
    rig.at(now, "present")
    assert len(rig.told) == raised


def test_a_connection_that_is_tried_again_and_again_has_been_down_since_the_first() -> None:
    rig = Rig("plc", after_secs=30)
    for now in range(100, 140):
        rig.at(now, "present", now - now % 3)
    assert rig.told == [(129, "raised")]
    assert rig.only.since_epochtime == 99


def test_a_clock_that_is_set_back_delays_no_alert_and_no_end_of_one_for_longer_than_its_threshold() -> None:
    rig = Rig("disk", after_secs=60, clear_after_secs=10)
    rig.at(3600, "present")
    rig.at(100, "present")
    rig.at(159, "present")
    assert rig.told == []
    rig.at(160, "present")
    rig.at(4000, "over")
    rig.at(200, "over")
    rig.at(210, "over")
    assert rig.told == [(160, "raised"), (210, "cleared")]


def test_the_longest_names_make_an_id_that_messages_carry_whole() -> None:
    rig = Rig(name="r" * 64, subject=Subject(*(level * 64 for level in "salm")))
    rig.at(10, "met", 5)
    alert = rig.only
    assert len(alert.id) <= life.MAX_ID_CHARACTERS
    assert notify.message(alert, "raised", 10 * SEC).id == alert.id
    rig.at(20, "over", 19)
    rig.at(30, "met", 29)
    assert rig.only.id != alert.id


def test_unknown_time_does_not_begin_a_count_anew() -> None:
    rig = Rig("plc", after_secs=30)
    rig.at(100, "present")
    rig.at(110, "unknown")
    rig.at(130, "present")
    assert rig.told == [(130, "raised")]


def test_flapping_is_damped_and_counted() -> None:
    rig = Rig(clear_after_secs=10)
    rig.at(100, "met", 50)
    for start in (110, 130, 150):
        rig.at(start, "over", start)
        rig.at(start + 9.999, "over", start)
        rig.at(start + 9.9999, "met", start + 9.9999)
    assert rig.only.returns == 3
    assert [event for _, event in rig.told if event] == ["raised"]
    rig.at(200, "over", 200)
    rig.at(210, "over", 200)
    assert [event for _, event in rig.told if event] == ["raised", "cleared"]
    message = notify.message(rig.last, "cleared", 210 * SEC)
    assert message.message == "text; it lasted 2 min and came back 3 times"


def test_a_restart_repeats_nothing_and_goes_on() -> None:
    rig = Rig(clear_after_secs=10)
    rig.at(100, "met", 50)
    rig.restart()
    rig.at(101, "met", 50)
    rig.at(110, "over", 105)
    rig.restart()
    rig.at(114.9, "over", 105)
    rig.at(115, "over", 105)
    assert rig.told == [(100, "raised"), (115, "cleared")]


def test_an_alert_escalates_by_time_until_somebody_answers() -> None:
    rig = Rig()
    rig.at(0, "met", 0)
    rig.at(599.9, "met", 0)
    assert rig.only.level == 1
    rig.at(600, "met", 0)
    rig.restart()
    rig.at(700, "unknown")
    rig.at(1800, "unknown")
    assert rig.told == [(0, "raised"), (600, "escalated"), (1800, "escalated")]
    assert rig.only.level == 4


def test_a_step_that_was_missed_is_skipped() -> None:
    rig = Rig()
    rig.at(0, "met", 0)
    rig.restart()
    rig.at(5000, "met", 0)
    assert rig.told == [(0, "raised"), (5000, "escalated")]
    assert rig.only.level == 4


def test_an_acknowledged_alert_does_not_escalate() -> None:
    rig = Rig()
    rig.at(0, "met", 0)
    seen = life.acknowledged(rig.only, "Ana", "on my way", 10 * SEC)
    rig.open[seen.id] = seen
    rig.at(5000, "met", 0)
    assert rig.told == [(0, "raised")]
    assert (rig.only.state, rig.only.acknowledged_by, rig.only.note) == ("acknowledged", "Ana", "on my way")
    message = notify.message(seen, "acknowledged", 10 * SEC)
    assert (message.by, message.note, message.message) == ("Ana", "on my way", "Ana looks after it: text")


def test_a_rule_has_steps_of_its_own_or_none() -> None:
    rig = Rig(escalate=[{"after_secs": 5, "level": 9}])
    rig.at(0, "met", 0)
    rig.at(5, "met", 0)
    assert rig.only.level == 9
    rig = Rig(escalate=[])
    rig.at(0, "met", 0)
    rig.at(50_000, "met", 0)
    assert rig.only.level == 1


def test_nothing_escalates_while_its_condition_is_over() -> None:
    rig = Rig(clear_after_secs=1000)
    rig.at(0, "met", 0)
    rig.at(599, "over", 599)
    rig.at(601, "over", 599)
    assert rig.told == [(0, "raised")]


def test_a_muted_place_raises_nothing_until_the_mute_ends() -> None:
    rig = Rig()
    rig.mute(0, 100)
    rig.at(50, "met", 0)
    rig.at(99.999, "met", 0)
    assert rig.told == []
    rig.at(100, "met", 0)
    assert rig.told == [(100, "raised")]
    assert rig.only.since_epochtime == 0


def test_a_mute_of_other_places_rules_or_times_is_none() -> None:
    for keys in (
        {"place": "berlin/packaging/line-2"},
        {"place": "berlin/packaging/line"},
        {"rules": ["other"]},
        {"from_": 60},
        {"lifted_epochtime": 40.0, "lifted_by": "Ben"},
    ):
        rig = Rig()
        rig.mute(**({"from_": 0, "until": 100} | keys))
        rig.at(50, "met", 0)
        assert rig.told == [(50, "raised")], keys
    for place in ("berlin", "berlin/packaging", "berlin/packaging/line-1/filler-1"):
        rig = Rig()
        rig.mute(0, 100, place, rules=["r"])
        rig.at(50, "met", 0)
        assert rig.told == [], place


def test_the_time_of_a_mute_does_not_count_towards_escalation() -> None:
    rig = Rig()
    rig.at(0, "met", 0)
    rig.mute(10, 1000)
    rig.at(900, "met", 0)
    rig.at(1599.9, "met", 0)
    assert rig.told == [(0, "raised")]
    rig.at(1600, "met", 0)
    assert rig.told == [(0, "raised"), (1600, "escalated")]


def test_a_muted_alert_that_is_over_is_cleared() -> None:
    rig = Rig()
    rig.at(0, "met", 0)
    rig.mute(10, 1000)
    rig.at(50, "over", 50)
    assert rig.told == [(0, "raised"), (50, "cleared")]


def test_what_is_not_watched_any_more_is_cleared() -> None:
    rig = Rig()
    rig.at(0, "met", 0)
    rig.at(1, None)
    assert rig.told == [(0, "raised"), (1, "cleared")]
    assert rig.last.outcome == "filler-1 on line-1 is not watched any more"


@pytest.mark.parametrize(
    ("returns", "ended_us", "expected"),
    [(0, 80 * SEC, 80.0), (0, 120 * SEC, 100.0), (0, None, 100.0), (2, 80 * SEC, 100.0)],
)
def test_late_records_set_the_times_right(returns: int, ended_us: int | None, expected: float) -> None:
    rig = Rig()
    rig.at(60, "met", 50)
    rig.at(100, "over", 100)
    import msgspec

    alert = msgspec.structs.replace(rig.last, returns=returns)
    better = life.corrected(alert, 40 * SEC, ended_us)
    assert (better.since_epochtime, better.ended_epochtime) == (40.0, expected)
    assert (better.raised_epochtime, better.cleared_epochtime) == (60.0, 100.0)


@pytest.mark.parametrize(
    ("subject", "place", "topic", "name"),
    [
        (
            FILLER,
            "berlin/packaging/line-1/filler-1",
            "oee/v1/berlin/packaging/line-1/filler-1/alert",
            "filler-1 on line-1",
        ),
        (
            Subject("berlin", "packaging", "line-1"),
            "berlin/packaging/line-1",
            "oee/v1/berlin/packaging/line-1/alert",
            "line-1",
        ),
        (
            Subject("berlin", gateway="gw"),
            "berlin/gateways/gw",
            "oee/v1/berlin/gateways/gw/alert",
            "gateway gw",
        ),
        (
            Subject("berlin", gateway="gw", connection="plc 1"),
            "berlin/gateways/gw/plc 1",
            "oee/v1/berlin/gateways/gw/alert",
            "PLC plc 1 at gateway gw",
        ),
        (Subject("berlin"), "berlin", "oee/v1/berlin/alert", "the service at berlin"),
    ],
)
def test_every_subject_has_a_place_a_topic_and_a_name(
    subject: Subject, place: str, topic: str, name: str
) -> None:
    assert (subject.place, subject.topic, subject.name) == (place, topic, name)
    rig = Rig(subject=subject)
    rig.at(10, "met", 5)
    message = notify.message(rig.only, "raised", 10 * SEC)
    assert message.place == place
    assert life.key_of(rig.only) == ("r", subject)
