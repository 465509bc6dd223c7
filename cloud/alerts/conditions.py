"""Judges one rule for one subject at one instant: pure, the clock is an argument.

A condition is `over`; or `present`, but not for long enough to raise an alert; or `met`; or `unknown`, where
nobody knows. Unknown raises nothing and clears nothing: an outage alone never looks like an idle machine.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any, Final, Literal, NamedTuple

from cloud.alerts.rule_tables import RuleTable
from cloud.alerts.subjects import Subject
from cloud.alerts.windows import Tally
from contract.delivery import ConnectionStatus, Status
from contract.states import MachineState

Phase = Literal["over", "present", "met", "unknown"]
Names = Mapping[str, Sequence[object]]
"""By a stop's reason: its name, then all that it is known by: its key in plant.toml and the PLC's codes."""
STATUS_STALE_US: Final = 60_000_000
"""A gateway says what it does every ten seconds; one that says nothing for so long is not there."""
_SETTLED_US: Final = 5_000_000
"""How long after we are connected every retained status has come."""
_FOR_EVER_US: Final = 1 << 62
_STILL_TOO_MUCH: Final = 0.8
"""A backlog is over when it has fallen to this share of its limit."""
_IS: Final = {
    MachineState.RUNNING: "runs",
    MachineState.IDLE: "is idle",
    MachineState.STOPPED: "is stopped",
    MachineState.FAULTED: "is down",
    MachineState.CHANGEOVER: "is in a changeover",
    MachineState.PLANNED_STOP: "is in a planned stop",
    MachineState.UNKNOWN: "sends no data",
}
_HAS: Final = {
    MachineState.IDLE: "has been idle",
    MachineState.STOPPED: "has been stopped",
    MachineState.FAULTED: "has been down",
    MachineState.CHANGEOVER: "has been in a changeover",
    MachineState.PLANNED_STOP: "has been in a planned stop",
}


class Condition(NamedTuple):
    """How a rule stands for a subject at an instant."""

    rule: RuleTable
    subject: Subject
    phase: Phase
    since_us: int | None
    """Since when it is so; None: since it is first seen so."""
    text: str = ""
    """Met: what is wrong. Over: how it ended."""


class Stretch(NamedTuple):
    """A stretch of a machine's timeline."""

    start_us: int
    end_us: int
    state: MachineState
    is_production: bool
    reason: str | None = None


class Past(NamedTuple):
    """A machine's timeline back to where it last began, or ceased, to run or to be known."""

    stretches: tuple[Stretch, ...]
    """Ascending, without holes, the last one ends now."""
    is_planned: bool
    """Whether the instant lies within a shift and not in a planned stop; breaks are within."""
    heard_us: int = _FOR_EVER_US
    """[us] The machine's last record: what it has done since is only assumed."""

    @property
    def state(self) -> MachineState:
        """Return what the machine does now."""
        return self.stretches[-1].state if self.stretches else MachineState.UNKNOWN


class Moment(NamedTuple):
    """The instant that is judged, and the plant's time."""

    now_us: int
    zone: tzinfo
    watching_since_us: int | None
    """Since when we hear what gateways say; None while we do not."""

    def has_watched(self, span_us: int) -> bool:
        """Tell whether silence of so long would have been heard."""
        return self.watching_since_us is not None and self.now_us - self.watching_since_us >= span_us

    def clock(self, at_us: int) -> str:
        """Write an instant as the plant's clock shows it; with its date when that is not today's."""
        local, today = (datetime.fromtimestamp(us // 1_000_000, self.zone) for us in (at_us, self.now_us))
        return f"{local:%H:%M:%S}" if local.date() == today.date() else f"{local:%Y-%m-%d %H:%M}"


def standing(past: Past, states: frozenset[MachineState]) -> tuple[int, int] | None:
    """Return when the unbroken stand in these states began, and how much of it is planned production [us].

    None when the machine does not stand.
    """
    found = list(_tail(past.stretches, states))
    if not found:
        return None
    return found[-1].start_us, _counted_us(
        found, _FOR_EVER_US if past.state is MachineState.UNKNOWN else past.heard_us
    )


def _counted_us(stretches: Iterable[Stretch], heard_us: int) -> int:
    """Return how much of these is planned production, up to when the machine was last heard of [us].

    Nobody knows whether one that stood then stands still: an outage alone raises nothing.
    """
    return sum(max(0, min(each.end_us, heard_us) - each.start_us) for each in stretches if each.is_production)


def stand_at(
    rule: RuleTable, stretches: Sequence[Stretch], names: Names, at_us: int
) -> tuple[int, int | None] | None:
    """Return the beginning and the end of the stand that a rule saw at an instant, by a whole timeline.

    The end is None where the stand goes on, or where nobody knows what came after it. None for all when the
    machine did not stand then.
    """
    fits = _fitting(rule, names)
    index = next(
        (place for place, each in enumerate(stretches) if each.start_us <= at_us < each.end_us), None
    )
    if index is None or not fits(stretches[index]):
        return None
    first = last = index
    while first > 0 and fits(stretches[first - 1]):
        first -= 1
    while last + 1 < len(stretches) and fits(stretches[last + 1]):
        last += 1
    is_known = last + 1 < len(stretches) and stretches[last + 1].state is not MachineState.UNKNOWN
    return stretches[first].start_us, stretches[last].end_us if is_known else None


def _fitting(rule: RuleTable, names: Names) -> Callable[[Stretch], bool]:
    """Return what tells whether a rule of machines sees a stretch as one in which they stand."""
    if rule.kind == "fault":
        return lambda each: _is_fault(rule, each, names)
    states = frozenset({MachineState.UNKNOWN}) if rule.kind == "no_data" else rule.standing_states
    return lambda each: each.state in states


def idle(
    rule: RuleTable, subject: Subject, past: Past, after_us: int, names: Names, moment: Moment
) -> Condition:
    """Judge a machine that stands though it is meant to run; an `after_us` of 0 is off."""
    if past.state is MachineState.UNKNOWN:
        return Condition(rule, subject, "unknown", None)
    stand = standing(past, rule.standing_states)
    if stand is None or not past.is_planned:
        return _over(rule, subject, past, moment)
    since_us, counted_us = stand
    if counted_us < after_us or after_us <= 0:
        return Condition(rule, subject, "present", since_us)
    text = f"{subject.name} {_HAS[past.state]} since {moment.clock(since_us)}"
    text += f", {span(counted_us)} of planned time"
    return Condition(rule, subject, "met", since_us, _because(text, past.stretches[-1].reason, names))


def fault(rule: RuleTable, subject: Subject, past: Past, names: Names, moment: Moment) -> Condition:
    """Judge a machine that stands for one of the rule's codes, or that is down where it names none."""
    if past.state is MachineState.UNKNOWN:
        return Condition(rule, subject, "unknown", None)
    stand = list(_while(past.stretches, _fitting(rule, names)))
    if not stand or not past.is_planned:
        return _over(rule, subject, past, moment)
    since_us = stand[-1].start_us
    counted_us = _counted_us(stand, past.heard_us)
    if counted_us < (rule.after_us or 0):
        return Condition(rule, subject, "present", since_us)
    text = f"{subject.name} {_HAS[past.state]} since {moment.clock(since_us)}"
    return Condition(rule, subject, "met", since_us, _because(text, past.stretches[-1].reason, names))


def no_data(rule: RuleTable, subject: Subject, past: Past, moment: Moment) -> Condition:
    """Judge a machine of which nothing is known in planned time: PLC, gateway or network."""
    if past.state is not MachineState.UNKNOWN:
        return Condition(rule, subject, "over", None, f"{subject.name} sends data again")
    if not past.is_planned:
        return Condition(rule, subject, "over", None, f"{subject.name}: planned time is over")
    after_us = rule.after_us or 0
    if not moment.has_watched(after_us) or not past.stretches:
        return Condition(rule, subject, "unknown", None)
    since_us, counted_us = standing(past, frozenset({MachineState.UNKNOWN})) or (moment.now_us, 0)
    if counted_us < after_us:
        return Condition(rule, subject, "present", since_us)
    return Condition(
        rule, subject, "met", since_us, f"{subject.name} has sent no data since {moment.clock(since_us)}"
    )


def speed(rule: RuleTable, subject: Subject, past: Past, tally: Tally | None) -> Condition:
    """Judge the speed over the last `window_secs` of running; None: not so much running is known."""
    limit = rule.below or 0.0
    if not past.is_planned and past.state is not MachineState.UNKNOWN:
        return Condition(rule, subject, "over", None, f"{subject.name}: planned time is over")
    if tally is None or tally.running_us <= 0:
        return Condition(rule, subject, "unknown", None)
    found = tally.ideal_us / tally.running_us
    text = (
        f"{subject.name} ran at {_percent(found)} of its ideal speed over {span(tally.running_us)} of running"
    )
    phase: Phase = "met" if found < limit else "over" if found >= _sum(limit, rule.margin) else "present"
    return Condition(
        rule, subject, phase, None, f"{text} (limit {_percent(limit)})" if phase == "met" else text
    )


def rejects(rule: RuleTable, subject: Subject, past: Past, tally: Tally | None) -> Condition:
    """Judge the share of off-quality units of the last `window_secs`; None: not so much time is known."""
    limit = rule.above_percent / 100
    if not past.is_planned and past.state is not MachineState.UNKNOWN:
        return Condition(rule, subject, "over", None, f"{subject.name}: planned time is over")
    if tally is None or tally.total_units < rule.min_units:
        return Condition(rule, subject, "unknown", None)
    found = tally.off_quality_units / tally.total_units
    text = (
        f"{subject.name} made {tally.off_quality_units} rejects of {tally.total_units} units"
        f" ({_percent(found)}) in {span(rule.window_us)}"
    )
    phase: Phase = (
        "met" if found > limit else "over" if found <= max(0.0, _sum(limit, -rule.margin)) else "present"
    )
    return Condition(
        rule, subject, phase, None, f"{text} (limit {_percent(limit)})" if phase == "met" else text
    )


def oee(
    rule: RuleTable,
    subject: Subject,
    figures: Mapping[str, Any] | None,
    planned_us: int,
    target: float,
    shift: str,
) -> Condition:
    """Judge the OEE of the running shift, once so much of its planned time is over.

    figures: of the running shift; None when none runs
    planned_us: [us] of planned production time until now, of one machine, also where a line is judged
    target: the machine's own, for a rule that names no limit
    """
    if figures is None:
        return Condition(rule, subject, "over", None, f"{subject.name}: the shift is over")
    found = figures["oee"]
    if found is None:
        return Condition(rule, subject, "unknown", None)
    limit = target if rule.below is None else rule.below
    text = f"OEE of {subject.name} in shift {shift} is {_percent(found)} after {span(planned_us)}"
    if planned_us < (rule.after_us or 0):
        return Condition(rule, subject, "over", None, f"{subject.name}: the shift is over")
    phase: Phase = (
        "met" if found < limit else "over" if found >= min(1.0, _sum(limit, rule.margin)) else "present"
    )
    return Condition(
        rule, subject, phase, None, f"{text} (target {_percent(limit)})" if phase == "met" else text
    )


def plc(
    rule: RuleTable,
    subject: Subject,
    status: Status | None,
    received_us: int | None,
    connection: ConnectionStatus | None,
    moment: Moment,
) -> Condition:
    """Judge a PLC connection, as its gateway sees it; while that is away nobody knows."""
    if status is None or received_us is None or not speaks(status, received_us, moment):
        return Condition(rule, subject, "unknown", None)
    if connection is None:
        return Condition(rule, subject, "over", None, f"{subject.name} is not read any more")
    since_us = _here_us(connection.since_epochtime, status, received_us)
    if connection.state in ("connected", "stopped"):
        how = "is connected again" if connection.state == "connected" else "was switched off"
        return Condition(rule, subject, "over", since_us, f"{subject.name} {how}")
    how = "cannot be read" if connection.state == "failed" else "does not answer"
    text = f"{subject.name} {how}"
    if isinstance(connection.last_error, str):
        text += f" ({connection.last_error})"
    return Condition(rule, subject, "present", since_us, text)


def gateway(
    rule: RuleTable, subject: Subject, status: Status | None, received_us: int | None, moment: Moment
) -> Condition:
    """Judge whether a gateway is there: by its last will, or by its silence.

    One that starts together with us, as after a loss of power, has its time to come.
    """
    watched_us = max(_SETTLED_US, rule.after_us or 0)
    if status is None or received_us is None or not moment.has_watched(watched_us):
        return Condition(rule, subject, "unknown", None)
    began_us = moment.watching_since_us or 0
    heard_us = began_us if received_us > moment.now_us else max(received_us, began_us)
    if status.online and moment.now_us - heard_us < STATUS_STALE_US:
        return Condition(rule, subject, "over", None, f"{subject.name} is online again")
    how = "has said nothing" if status.online else "has been offline"
    text = f"{subject.name} {how} since {moment.clock(received_us)}; its records wait on its disk"
    return Condition(rule, subject, "present", received_us, text)


def backlog(
    rule: RuleTable, subject: Subject, status: Status | None, received_us: int | None, moment: Moment
) -> Condition:
    """Judge what a gateway could not deliver yet."""
    if status is None or received_us is None or not speaks(status, received_us, moment):
        return Condition(rule, subject, "unknown", None)
    oldest = status.oldest_epochtime
    age_secs = 0.0
    if isinstance(oldest, float) and status.backlog_records:
        age_secs = (moment.now_us - _here_us(oldest, status, received_us)) / 1e6
    shares = [
        amount / limit
        for amount, limit in (
            (status.backlog_records, rule.above_records),
            (status.backlog_bytes / 1e6, rule.above_mb),
            (age_secs, rule.above_age_secs),
        )
        if limit is not None
    ]
    size = f"{status.backlog_records:,} records ({status.backlog_bytes / 1e6:,.1f} MB)"
    text = f"{subject.name} has {size} to deliver"
    if age_secs:
        text += f", the oldest {span(round(age_secs * 1e6))} old"
    if max(shares) > 1:
        return Condition(rule, subject, "present", None, text)
    return Condition(rule, subject, "over" if max(shares) <= _STILL_TOO_MUCH else "unknown", None, text)


def disk(rule: RuleTable, subject: Subject, free_bytes: int | None, total_bytes: int | None) -> Condition:
    """Judge the space that is left where records are kept."""
    if free_bytes is None or not total_bytes:
        return Condition(rule, subject, "unknown", None)
    share, limit = free_bytes / total_bytes, rule.free_below_percent / 100
    text = f"The disk of {subject.name} has {_percent(share)} free ({free_bytes / 1e9:,.1f} GB)"
    if share < limit:
        return Condition(rule, subject, "present", None, text)
    return Condition(rule, subject, "over" if share >= _sum(limit, rule.margin) else "unknown", None, text)


def speaks(status: Status | None, received_us: int | None, moment: Moment) -> bool:
    """Tell whether what a gateway last said still holds."""
    return (
        status is not None
        and status.online
        and received_us is not None
        and moment.watching_since_us is not None
        and received_us >= moment.watching_since_us
        and moment.now_us - received_us < STATUS_STALE_US
    )


def _here_us(epochtime: float, status: Status, received_us: int) -> int:
    """Return by our clock when something was that a gateway tells of by its own: they may be hours apart."""
    return received_us - max(0, round((status.epochtime - epochtime) * 1e6))


def span(duration_us: int) -> str:
    """Write a duration for a sentence: `45 s`, `7 min`, `2 h 05 min`."""
    secs = duration_us // 1_000_000
    if secs < 120:
        return f"{secs} s"
    minutes = secs // 60
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _over(rule: RuleTable, subject: Subject, past: Past, moment: Moment) -> Condition:
    """Return that a machine does not stand any more; since when its timeline says."""
    if not past.is_planned:
        return Condition(rule, subject, "over", None, f"{subject.name}: planned time is over")
    same = list(_tail(past.stretches, frozenset({past.state})))
    since_us = same[-1].start_us if same else moment.now_us
    again = " again" if past.state is MachineState.RUNNING else ""
    text = f"{subject.name} {_IS[past.state]}{again} since {moment.clock(since_us)}"
    return Condition(rule, subject, "over", since_us, text)


def _is_fault(rule: RuleTable, stretch: Stretch, names: Names) -> bool:
    if not rule.codes:
        return stretch.state is MachineState.FAULTED
    if stretch.state in (MachineState.RUNNING, MachineState.UNKNOWN) or stretch.reason is None:
        return False
    return rule.fits_code((stretch.reason, *names.get(stretch.reason, ())))


def _tail(stretches: Sequence[Stretch], states: frozenset[MachineState]) -> Iterator[Stretch]:
    """Iterate over the last stretches that are in one of these states, newest first."""
    return _while(stretches, lambda stretch: stretch.state in states)


def _while(stretches: Sequence[Stretch], fits: Callable[[Stretch], bool]) -> Iterator[Stretch]:
    for stretch in reversed(stretches):
        if not fits(stretch):
            return
        yield stretch


def _because(text: str, reason: str | None, names: Names) -> str:
    return text if reason is None else f"{text}: {names.get(reason, (reason,))[0]}"


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f} %"


def _sum(limit: float, margin: float) -> float:
    """Return two ratios together, as they are written: 0.8 and 0.02 are 0.82."""
    return round(limit + margin, 9)
