"""Decides when an alert is raised and when it is cleared: pure, the clock is an argument.

The idle rule: a machine that is idle or stopped, for longer than its threshold of planned production time,
raises one alert; the alert is cleared when the machine is known to do something else, or when planned time
is over. Breaks, planned stops, time outside shifts and unknown time do not count towards the threshold. An
unbroken stand ends where time becomes unknown, since nobody knows what happened meanwhile; a raised alert
stays as it is during such time.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from contract.machine_key import MachineKey
from contract.states import MachineState

IDLE_RULE: Final = "idle"
_STANDING: Final = frozenset({MachineState.IDLE, MachineState.STOPPED})

Interval = tuple[int, int]
"""[start_us, end_us)"""


class Stretch(NamedTuple):
    """A stretch of a machine's timeline in one state."""

    start_us: int
    end_us: int
    state: MachineState


class Standing(NamedTuple):
    """How a machine stands at an instant, as far as the idle rule asks."""

    state: MachineState
    since_us: int
    """When the unbroken stand began; the instant itself when the machine does not stand."""
    counted_us: int
    """[us] of the stand within planned production time."""
    is_planned: bool
    """Whether the instant lies within a shift and not in a planned stop; breaks are within."""


class OpenAlert(NamedTuple):
    """An alert that was raised and not yet cleared."""

    id: str
    machine: MachineKey
    since_us: int


class Change(NamedTuple):
    """An alert to raise or to clear."""

    event: Literal["raised", "cleared"]
    id: str
    rule: str
    machine: MachineKey
    since_us: int
    """When the condition began."""
    message: str


def standing(
    stretches: Sequence[Stretch], production: Sequence[Interval], now_us: int, *, is_planned: bool
) -> Standing:
    """Return how a machine stands now.

    stretches: its timeline up to now_us, ascending and without holes
    production: planned production time, ascending and disjoint
    """
    if not stretches:
        return Standing(MachineState.UNKNOWN, now_us, 0, is_planned)
    state = stretches[-1].state
    if state not in _STANDING:
        return Standing(state, now_us, 0, is_planned)
    since_us = now_us
    for stretch in reversed(stretches):
        if stretch.state not in _STANDING:
            break
        since_us = stretch.start_us
    counted_us = sum(max(0, min(end_us, now_us) - max(start_us, since_us)) for start_us, end_us in production)
    return Standing(state, since_us, counted_us, is_planned)


def idle(
    standings: Mapping[MachineKey, Standing],
    thresholds_us: Mapping[MachineKey, int],
    open_alerts: Iterable[OpenAlert],
    now_us: int,
) -> list[Change]:
    """Return what changes now; applying the changes and asking again changes nothing.

    thresholds_us: [us] by machine; a machine without one, or with 0, raises nothing
    """
    raised = {alert.machine: alert for alert in open_alerts}
    changes: list[Change] = []
    for machine, stands in standings.items():
        threshold_us = thresholds_us.get(machine, 0)
        alert = raised.get(machine)
        if alert is not None and _is_over(stands):
            changes.append(_cleared(alert, stands))
        elif (
            alert is None
            and threshold_us > 0
            and stands.is_planned
            and stands.state in _STANDING
            and stands.counted_us >= threshold_us
        ):
            changes.append(_raised(machine, stands, threshold_us, now_us))
    changes += [
        Change(
            "cleared", alert.id, IDLE_RULE, alert.machine, alert.since_us, f"{alert.machine} left the plant"
        )
        for alert in raised.values()
        if alert.machine not in standings
    ]
    return changes


def _is_over(stands: Standing) -> bool:
    if stands.state is MachineState.UNKNOWN:
        return False
    return stands.state not in _STANDING or not stands.is_planned


def _raised(machine: MachineKey, stands: Standing, threshold_us: int, now_us: int) -> Change:
    minutes = stands.counted_us / 60e6
    return Change(
        "raised",
        f"{IDLE_RULE}-{machine}-{now_us}",
        IDLE_RULE,
        machine,
        stands.since_us,
        f"{machine.machine} on {machine.line} is {stands.state} for {_duration(minutes)} of planned time"
        f" (allowed: {_duration(threshold_us / 60e6)})",
    )


def _cleared(alert: OpenAlert, stands: Standing) -> Change:
    machine = alert.machine
    why = f"is {stands.state} again" if stands.is_planned else "is out of planned time"
    return Change(
        "cleared",
        alert.id,
        IDLE_RULE,
        machine,
        alert.since_us,
        f"{machine.machine} on {machine.line} {why.replace('_', ' ')}",
    )


def _duration(minutes: float) -> str:
    return f"{minutes:.0f} min" if minutes >= 2 else f"{minutes * 60:.0f} s"
