"""Whether idle alerts were raised and cleared as machines really stood: once each, and none without cause."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from cloud.views import AlertView
from contract.delivery import Alert
from contract.states import MachineState
from simulator.truth import History
from tests.chaos.listener import Heard
from tests.chaos.schedule import IDLE_ALERT_SECS
from tests.support.judge import Span
from tests.support.kept import US, Stored

_STANDING: Final = frozenset({MachineState.IDLE, MachineState.STOPPED})
_NEVER_US: Final = 2**62
_ALERT_US: Final = round(IDLE_ALERT_SECS * US)
_EDGE_US: Final = US
_LATE_US: Final = 5 * US
"""So long after its threshold an alert is promised at the latest."""
_ACT_US: Final = 5 * US
"""So long the cloud side has known of a stand, or of its end, and run, when it must have acted on it."""
_ENDING_US: Final = 2 * US
"""So long before the end of the factory the gap begins that follows it."""
_UNKNOWN_US: Final = 10 * US
"""So long before a stand a word of its machine may be the last before it; heartbeats come much more often."""
_HEALING_US: Final = 12 * US
"""So long after a fault that blinds the gateway what a machine is told to do may still be wrong."""


class Stand(NamedTuple):
    """When a machine stood idle or stopped: from its first such state to the next other one [us]."""

    from_us: int
    to_us: int


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was going on beside the factory.

    stored: all records of the store
    news: the receipts that told of something new, in order of time
    faults: all of them, as they were played
    blinding: those of them by which nobody could read the machine
    live_us, over_us: [us] since when the factory showed the present, and when it was asked to end
    """

    stored: Sequence[Stored]
    news: Sequence[Heard]
    faults: Sequence[Span]
    blinding: Sequence[Span]
    live_us: int
    over_us: int


def news(receipts: Iterable[Heard]) -> list[Heard]:
    """Return the receipts that tell of something new: a broker repeats the last one by itself."""
    found: list[Heard] = []
    newest = -1
    for heard in receipts:
        ends = [heard.receipt.stored_through, *(last for _, last in heard.receipt.stored_beyond)]
        if max(ends) > newest:
            newest = max(ends)
            found.append(heard)
    return found


@dataclass
class Judged:
    """What became of the alerts.

    expected: how many stands there were of which the cloud side knew long enough, and watched
    """

    raised: int = 0
    cleared: int = 0
    expected: int = 0
    faults: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)


def judge(
    histories: Mapping[str, History], alerts: Iterable[AlertView], told: Iterable[bytes], evidence: Evidence
) -> Judged:
    """Hold the store's idle alerts, and those that were published, against how machines stood.

    told: the messages on topics of alerts
    """
    found = Judged()
    by_machine: dict[str, list[AlertView]] = {machine: [] for machine in histories}
    ids: set[str] = set()
    for alert in alerts:
        ids.add(alert.id)
        if alert.kind != "idle" or f"{alert.line}/{alert.machine}" not in by_machine:
            found.faults.append(f"an alert that nobody asked for: {alert.id}")
            continue
        by_machine[f"{alert.line}/{alert.machine}"].append(alert)
    published = {msgspec.json.decode(body, type=Alert).id for body in told}
    found.faults += [f"{one} was published and is not in the store" for one in sorted(published - ids)]
    for machine, history in histories.items():
        mine = sorted(by_machine[machine], key=lambda alert: alert.raised_epochtime)
        _judge_machine(machine, list(_stands(history)), mine, evidence, found)
    return found


def _judge_machine(
    machine: str, stands: Sequence[Stand], alerts: Sequence[AlertView], evidence: Evidence, found: Judged
) -> None:
    by_stand: dict[Stand, list[AlertView]] = {stand: [] for stand in stands}
    for alert in alerts:
        found.raised += 1
        found.cleared += alert.cleared_epochtime is not None
        since_us = round(alert.since_epochtime * US)
        stand = next((one for one in stands if one.from_us - _EDGE_US <= since_us <= one.to_us), None)
        if stand is None:
            found.faults.append(f"{machine}: {alert.id} is of a stand at {since_us} that never was")
            continue
        by_stand[stand].append(alert)
        _judge_alert(machine, stand, alert, evidence, found)
    for stand, raised in by_stand.items():
        if len(raised) > 1:
            found.faults.append(f"{machine}: {len(raised)} alerts for the stand of {stand.from_us}")
        _judge_stand(machine, stand, raised, evidence, found)


def _judge_alert(machine: str, stand: Stand, alert: AlertView, evidence: Evidence, found: Judged) -> None:
    """An alert comes of a stand beyond the threshold, and is cleared after it and not before.

    Whoever has not been told yet that a machine ran again takes two stands for one, and raises the alert of
    the second by the length of both.
    """
    raised_us = round(alert.raised_epochtime * US)
    stood_us = min(stand.to_us, raised_us) - stand.from_us
    if stand.to_us - stand.from_us >= _ALERT_US and _known_us(machine, stand.from_us, evidence) > raised_us:
        stood_us = _ALERT_US
    if stood_us < _ALERT_US and not _is_blind(machine, stand.from_us, raised_us, evidence):
        found.faults.append(
            f"{machine}: {alert.id} though it stood from {stand.from_us} to {stand.to_us} only"
        )
    if alert.cleared_epochtime is None:
        known_us = _known_us(machine, stand.to_us, evidence)
        if _acting_us(known_us, evidence) <= evidence.over_us:
            found.faults.append(f"{machine}: {alert.id} was not cleared though it ran again at {stand.to_us}")
    else:
        cleared_us = round(alert.cleared_epochtime * US)
        if cleared_us < stand.to_us and not _is_blind(machine, stand.from_us, cleared_us, evidence):
            found.faults.append(
                f"{machine}: {alert.id} was cleared at {cleared_us}, it stood until {stand.to_us}"
            )


def _judge_stand(
    machine: str, stand: Stand, alerts: Sequence[AlertView], evidence: Evidence, found: Judged
) -> None:
    """Whoever knew long enough, and watched, has raised an alert; who was disturbed by nothing, in time."""
    due_us = stand.from_us + _ALERT_US
    end_us = min(stand.to_us, evidence.over_us - _ENDING_US)
    if stand.from_us < evidence.live_us or _is_blind(machine, stand.from_us, end_us, evidence):
        return
    known_us = _known_us(machine, due_us, evidence)
    if _acting_us(known_us, evidence) <= end_us:
        found.expected += 1
        if not alerts:
            found.faults.append(
                f"{machine}: no alert though it stood from {stand.from_us} to {stand.to_us}"
                f", which was known at {known_us}"
            )
    raised_us = min((round(alert.raised_epochtime * US) for alert in alerts), default=due_us)
    is_alone = not any(
        fault.from_us <= raised_us and fault.to_us + _HEALING_US >= stand.from_us for fault in evidence.faults
    )
    if is_alone and raised_us > due_us + _LATE_US:
        late_secs = (raised_us - due_us) / US
        found.late.append(
            f"{machine}: the alert of {stand.from_us} came {late_secs:.1f} s after its threshold"
        )


def _is_blind(machine: str, from_us: int, to_us: int, evidence: Evidence) -> bool:
    """Tell whether the machine could not be read at some time from then to then, or was not for sure."""
    return any(
        span.from_us <= to_us and span.to_us + _HEALING_US >= from_us
        for span in evidence.blinding
        if span.machine in ("", machine)
    ) or any(
        record.at_us <= to_us and (record.gap_until_us or record.at_us + _UNKNOWN_US) >= from_us
        for record in evidence.stored
        if record.machine == machine and record.shown.state == "unknown"
    )


def _known_us(machine: str, at_us: int, evidence: Evidence) -> int:
    """Return when all that the machine did up to an instant was known to be stored [us]."""
    sequences = [
        record.sequence
        for record in evidence.stored
        if record.machine == machine and record.at_us >= at_us and record.gap_until_us is None
    ]
    if not sequences:
        return _NEVER_US
    first = min(sequences)
    return min(
        (heard.at_us for heard in evidence.news if heard.receipt.stored_through >= first), default=_NEVER_US
    )


def _acting_us(known_us: int, evidence: Evidence) -> int:
    """Return by when a cloud side that has known something since then must have acted on it."""
    heard = [one.at_us for one in evidence.news]
    since_us = known_us
    for fault in sorted(evidence.faults):
        if fault.what.endswith("cloud") and fault.from_us <= since_us + _ACT_US and fault.to_us >= since_us:
            place = bisect_left(heard, fault.to_us)
            since_us = heard[place] if place < len(heard) else _NEVER_US
    return since_us + _ACT_US


def _stands(history: History) -> Iterator[Stand]:
    """Yield when a machine stood.

    What it did last it does for ever: its PLC goes on to show it when the factory has ended.
    """
    since_us: int | None = None
    for at_us, state in [*history.states, (_NEVER_US, MachineState.RUNNING)]:
        if state in _STANDING and since_us is None:
            since_us = at_us
        elif state not in _STANDING and since_us is not None:
            yield Stand(since_us, at_us)
            since_us = None
