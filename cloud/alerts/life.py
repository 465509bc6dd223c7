"""The life of alerts: raised once, escalated while nobody answers, cleared once. Pure.

Against flapping a condition must be over for `clear_after_secs` before its alert is cleared; one that comes
back before is counted on the alert and told to nobody. A muted place raises and escalates nothing; what is
still wrong when the mute ends is raised then.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from cloud.alerts.conditions import Condition
from cloud.alerts.rule_tables import StepTable
from cloud.alerts.subjects import Subject, lies_in
from cloud.views import AlertView, MuteView

Key = tuple[str, Subject]
"""(name of the rule, what it is of)"""
Event = Literal["raised", "escalated", "acknowledged", "cleared"]
MAX_ID_CHARACTERS: Final = 256
_TIMED: Final = frozenset({"plc", "gateway", "backlog", "disk"})
"""Kinds whose condition is met once it has been present for `after_secs`; the others say so themselves."""


class Change(NamedTuple):
    """An alert as it is from now on."""

    event: Event | None
    """What is told; None: the record is corrected and nobody is told."""
    alert: AlertView


class Memory:
    """What is remembered between looks, and may be lost: since when a condition is as it is."""

    def __init__(self) -> None:
        self._seen: dict[Key, tuple[bool, int]] = {}
        self._looked_us = 0
        self.leaving: set[Key] = set()
        """Open alerts whose condition is over, but not for long enough."""

    def since_us(self, key: Key, condition: Condition, now_us: int) -> int:
        """Return since when a condition is present, or over, as far as it is known; of what is not, now."""
        if condition.phase == "unknown":
            return now_us
        self._forget_the_future(now_us)
        is_on = condition.phase != "over"
        was_on, since_us = self._seen.get(key, (not is_on, now_us))
        if was_on != is_on:
            since_us = now_us if condition.since_us is None else condition.since_us
        elif condition.since_us is not None:
            # a connection that cannot be made goes through several states, each since another moment
            is_timed = condition.rule.kind in _TIMED and is_on
            since_us = min(since_us, condition.since_us) if is_timed else condition.since_us
        self._seen[key] = (is_on, since_us)
        return since_us

    def _forget_the_future(self, now_us: int) -> None:
        """After the clock was set back, have what began later begin now."""
        if now_us < self._looked_us:
            self._seen = {key: (is_on, min(since, now_us)) for key, (is_on, since) in self._seen.items()}
        self._looked_us = now_us

    def keep_only(self, keys: Iterable[Key]) -> None:
        """Forget what is not watched any more."""
        wanted = set(keys)
        self._seen = {key: seen for key, seen in self._seen.items() if key in wanted}
        self.leaving &= wanted


def key_of(alert: AlertView) -> Key:
    """Return what an alert is of."""
    return alert.rule, Subject(
        alert.site, alert.area, alert.line, alert.machine, alert.gateway, alert.connection
    )


def step(
    conditions: Sequence[Condition],
    open_alerts: Iterable[AlertView],
    memory: Memory,
    *,
    now_us: int,
    mutes: Sequence[MuteView] = (),
    steps: Sequence[StepTable] = (),
) -> list[Change]:
    """Return what changes now; applying the changes and asking again changes nothing.

    mutes: in force, or ended not long ago
    steps: how alerts escalate whose rule says nothing of it
    """
    known = {key_of(alert): alert for alert in open_alerts}
    by_key = {(each.rule.name, each.subject): each for each in conditions}
    memory.keep_only(by_key)
    changes: list[Change] = []
    for key, condition in by_key.items():
        since_us = memory.since_us(key, condition, now_us)
        alert = known.get(key)
        if alert is None:
            if _is_met(condition, since_us, now_us) and not muted_until(mutes, *key, now_us):
                changes.append(Change("raised", _raised(condition, since_us, now_us)))
        else:
            escalation = steps if condition.rule.escalate is None else condition.rule.escalate
            changes += _going_on(alert, key, condition, since_us, memory, now_us, mutes, escalation)
    changes += [
        Change("cleared", _cleared(alert, f"{key[1].name} is not watched any more", now_us, now_us))
        for key, alert in known.items()
        if key not in by_key
    ]
    return changes


def acknowledged(alert: AlertView, by: str, note: str, now_us: int) -> AlertView:
    """Return the alert as seen by somebody, who now looks after it."""
    return msgspec.structs.replace(
        alert,
        state="acknowledged",
        acknowledged_epochtime=now_us / 1e6,
        acknowledged_by=by[:256],
        note=note[:1024] or None,
    )


def corrected(alert: AlertView, since_us: int, ended_us: int | None) -> AlertView:
    """Return the alert with the times that late records tell; one that came back ended with its last stand.

    ended_us: None where the end is not known better
    """
    ended = alert.ended_epochtime
    if ended is not None and ended_us is not None and not alert.returns:
        ended = min(ended, ended_us / 1e6)
    return msgspec.structs.replace(alert, since_epochtime=since_us / 1e6, ended_epochtime=ended)


def muted_until(mutes: Iterable[MuteView], rule: str, subject: Subject, now_us: int) -> int | None:
    """Return until when alerts of a rule and subject wake nobody; None when they may."""
    ends = [
        round(mute.end_epochtime * 1e6)
        for mute in _covering(mutes, rule, subject)
        if mute.from_epochtime * 1e6 <= now_us < mute.end_epochtime * 1e6
    ]
    return max(ends, default=None)


def _covering(mutes: Iterable[MuteView], rule: str, subject: Subject) -> Iterator[MuteView]:
    return (
        mute
        for mute in mutes
        if lies_in(subject.place, mute.place) and (not mute.rules or rule in mute.rules)
    )


def _is_met(condition: Condition, since_us: int, now_us: int) -> bool:
    if condition.phase == "present" and condition.rule.kind in _TIMED:
        return now_us - since_us >= (condition.rule.after_us or 0)
    return condition.phase == "met"


def _going_on(
    alert: AlertView,
    key: Key,
    condition: Condition,
    since_us: int,
    memory: Memory,
    now_us: int,
    mutes: Sequence[MuteView],
    steps: Sequence[StepTable],
) -> Iterator[Change]:
    """Yield what becomes of an open alert."""
    if condition.phase == "over":
        memory.leaving.add(key)
        if now_us - since_us >= condition.rule.clear_after_us:
            memory.leaving.discard(key)
            yield Change("cleared", _cleared(alert, condition.text, since_us, now_us))
        return
    if condition.phase != "unknown" and key in memory.leaving:
        memory.leaving.discard(key)
        alert = msgspec.structs.replace(alert, returns=alert.returns + 1)
        yield Change(None, alert)
    level = _level(alert, mutes, key, steps, now_us)
    if level > alert.level:
        yield Change("escalated", msgspec.structs.replace(alert, level=level))


def _level(
    alert: AlertView,
    mutes: Sequence[MuteView],
    key: Key,
    steps: Sequence[StepTable],
    now_us: int,
) -> int:
    """Return how urgent an alert has become; the time in which it was muted does not count."""
    if alert.state != "open" or muted_until(mutes, *key, now_us):
        return alert.level
    ended = [mute.end_epochtime for mute in _covering(mutes, *key) if mute.end_epochtime * 1e6 <= now_us]
    age_secs = now_us / 1e6 - max([alert.raised_epochtime, *ended])
    return max([alert.level, *(each.level for each in steps if age_secs >= each.after_secs)])


def _raised(condition: Condition, since_us: int, now_us: int) -> AlertView:
    rule, subject = condition.rule, condition.subject
    return AlertView(
        id=_id(f"{rule.name}-{subject.place}", now_us),
        rule=rule.name,
        kind=rule.kind,
        **subject._asdict(),
        state="open",
        level=rule.level,
        message=condition.text,
        advice=rule.advice,
        since_epochtime=since_us / 1e6,
        raised_epochtime=now_us / 1e6,
    )


def _id(name: str, now_us: int) -> str:
    """Return an id as short as messages carry it, where levels have the longest names, too."""
    whole = f"{name}-{now_us}"
    if len(whole) <= MAX_ID_CHARACTERS:
        return whole
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    end = f"-{digest}-{now_us}"
    return name[: MAX_ID_CHARACTERS - len(end)] + end


def _cleared(alert: AlertView, outcome: str, ended_us: int, now_us: int) -> AlertView:
    return msgspec.structs.replace(
        alert,
        state="cleared",
        cleared_epochtime=now_us / 1e6,
        ended_epochtime=max(alert.since_epochtime, ended_us / 1e6),
        outcome=outcome,
    )
