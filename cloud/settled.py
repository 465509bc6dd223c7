"""Sums of production days that are over and heard to their end, kept so that a long range costs little.

A day's sums depend on the records of the day, of a reach around it, and on the first readings beyond. All of
them lie in the past that leaves a mark when it changes, before they are kept here; and what is kept counts
only while the store says that nothing of the machine's past has changed since. So it is what would be made
from the records at that moment, to the last unit.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from cloud.evaluation import Evaluation
from cloud.oee.calendar import DayWindow, production_days
from cloud.oee.totals import Group, Totals, totals
from cloud.plant import Machine, Plant
from cloud.store.port import Store
from cloud.store.rows import ABSENT, US_PER_HOUR, counted
from contract.machine_key import MachineKey

_DAYS_KEPT: Final = 20_000
"""Of all machines together; what was asked for longest ago makes room."""
_DAYS_AT_ONCE: Final = 64
"""Of how many machines' days the records are read in one go."""

_Place = tuple[Machine, int, int]
"""A machine as one plant has it, and when its production day begins and ends."""


class DaySums(NamedTuple):
    """What one machine did in one production day."""

    day: dict[Group, Totals]
    """Of the whole day; empty where nothing is known of it."""
    shifts: dict[Group, Totals]


class _Kept(NamedTuple):
    changes: int
    """How often the machine's past had changed before the records were read."""
    sums: DaySums


class _Span(NamedTuple):
    from_us: int
    to_us: int


class Settled:
    """May be asked from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Place, _Kept] = OrderedDict()
        self._heard: dict[int, tuple[int, int]] = {}
        """By machine: the live figures' beginning when it was looked up, and until when it was heard then."""

    def days(
        self, plant: Plant, machines: Sequence[MachineKey], from_us: int, to_us: int, now_us: int
    ) -> Iterator[DaySums]:
        """Yield the sums of each machine's production days that touch [from_us, to_us), until now."""
        live_from_us = dict(self._store.live_from_us)  # before the changes: what comes later leaves its mark
        changes = self._store.changes()
        missing: dict[_Span, dict[MachineKey, set[DayWindow]]] = {}
        for key in machines:
            number = self._store.names.find("machine", tuple(key))
            unknown: set[DayWindow] = set()
            for day in production_days(plant.machines[key], from_us, to_us):
                kept = self._known(plant.machines[key], day, changes.get(number, 0))
                if kept is None:
                    unknown.add(day)
                else:
                    yield kept
            if unknown:
                span = _Span(min(unknown).start_us, max(unknown).end_us)
                missing.setdefault(span, {})[key] = unknown
        evaluation = Evaluation(plant, self._store)
        for span, unknown_days in missing.items():
            at_once = max(1, _DAYS_AT_ONCE * 24 * US_PER_HOUR // (span.to_us - span.from_us))
            keys = list(unknown_days)
            for first in range(0, len(keys), at_once):
                for key, day, sums in _made(evaluation, keys[first : first + at_once], span, now_us):
                    if day not in unknown_days[key]:
                        continue
                    yield sums
                    number = self._store.names.find("machine", tuple(key))
                    if self._is_settled(number, day, live_from_us, evaluation.reach_us):
                        self._keep(plant.machines[key], day, _Kept(changes.get(number, 0), sums))

    def _known(self, machine: Machine, day: DayWindow, changes: int) -> DaySums | None:
        place = (machine, day.start_us, day.end_us)
        with self._lock:
            kept = self._kept.get(place)
            if kept is None or kept.changes != changes:
                return None
            self._kept.move_to_end(place)
            return kept.sums

    def _keep(self, machine: Machine, day: DayWindow, kept: _Kept) -> None:
        with self._lock:
            self._kept[machine, day.start_us, day.end_us] = kept
            while len(self._kept) > _DAYS_KEPT:
                self._kept.popitem(last=False)

    def _is_settled(self, number: int, day: DayWindow, live_from_us: dict[int, int], reach_us: int) -> bool:
        """Tell whether all that a day depends on lies in time that leaves a mark when it changes."""
        if number == ABSENT or number not in live_from_us:
            return False
        begins_us = live_from_us[number]
        if self._heard.get(number, (None, 0))[0] != begins_us:
            self._heard[number] = (begins_us, self._heard_until(number, begins_us))
        return day.end_us + reach_us <= self._heard[number][1]

    def _heard_until(self, number: int, before_us: int) -> int:
        """Return where the last whole hour before an instant begins in which a machine told a counter."""
        rows = self._store.read_before([number], before_us // US_PER_HOUR * US_PER_HOUR)
        told = counted(rows)
        return min((int(rows["time_us"][at[-1]]) // US_PER_HOUR * US_PER_HOUR for at in told), default=0)


def _made(
    evaluation: Evaluation, machines: Sequence[MachineKey], span: _Span, now_us: int
) -> Iterator[tuple[MachineKey, DayWindow, DaySums]]:
    """Yield the sums of machines' days in a span, made from the records."""
    whole, _ = evaluation.timeline(machines, span.from_us, min(span.to_us, now_us), now_us, widen="day")
    by_day, by_shift = (totals(whole, evaluation.plant, evaluation.names, by=by) for by in ("day", "shift"))
    for key in machines:
        of_machine = [
            {group: total for group, total in found.items() if group.machine == key}
            for found in (by_day, by_shift)
        ]
        for day in production_days(evaluation.plant.machines[key], span.from_us, min(span.to_us, now_us)):
            within = (
                {
                    group: total
                    for group, total in found.items()
                    if day.start_us <= group.window.start_us and group.window.end_us <= day.end_us
                }
                for found in of_machine
            )
            yield key, day, DaySums(*within)
