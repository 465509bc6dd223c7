"""Closes shifts that have ended and revises those that late records or corrections reach.

What is due follows from what is stored and the instant alone, so that it may be asked as often as one likes,
after any restart and whatever the clock did in between. A revision is kept only where figures really changed.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Final, NamedTuple

import structlog

from cloud.evaluation import Evaluation
from cloud.locks import locked_before_us
from cloud.oee.calendar import ShiftWindow, shift_before, shifts_between
from cloud.oee.figures import Figures, Place
from cloud.oee.frame import Window
from cloud.oee.rollup import rolled_up
from cloud.oee.totals import totals
from cloud.plant import Machine
from cloud.store.port import ClosedShift, Dirty
from cloud.store.rows import US_PER_HOUR
from cloud.views import Revision
from contract.machine_key import MachineKey

FIRST: Final = "shift ended"
LATE: Final = "late data"
ONGOING: Final = "a stop went on beyond the end"
_DAY_US: Final = 24 * US_PER_HOUR
"""How much time is closed in one step, so that a long history does not hold up the live figures."""
_SILENT_DAYS: Final = 20
"""How many days of one machine are closed in one step where nothing was told; of two half as many."""
_SILENT_SHIFTS: Final = 400
"""And how many shifts of all of them, where a day has many."""
_NEVER: Final = 2**62
_MAX_WAIT_US: Final = 600_000_000
"""How long late records may keep coming before a revision is made all the same."""

_log = structlog.get_logger("cloud.closing")

Line = tuple[str, str, str]
_Name = tuple[date | None, str | None]


class Step(NamedTuple):
    """What one step closed or revised."""

    shifts: list[ClosedShift]
    is_done: bool
    """Whether nothing more is due now."""


class _Seen(NamedTuple):
    """Since when an hour is dirty."""

    mark: int
    first_us: int
    mark_us: int
    """When this mark was first seen."""


class Closing:
    """One thread's at a time."""

    def __init__(self, evaluation: Evaluation, *, grace_us: int, settle_us: int) -> None:
        self._evaluation = evaluation
        self._plant = evaluation.plant
        self._store = evaluation.store
        self._grace_us = grace_us
        self._settle_us = settle_us
        self._through_us: dict[Line, int] = {}
        """By line: until when all shifts are closed."""
        self._dirty: list[Dirty] = []
        self._seen: dict[tuple[int, int], _Seen] = {}
        """By (machine, hour)."""

    def step(self, now_us: int) -> Step:
        """Close or revise what is due now, at most about a day's worth."""
        self._note_dirty(now_us)
        for line, members in self._plant.lines.items():
            if (step := self._close_line(line, members, now_us)) is not None:
                return step
        return self._revise(now_us)

    def _close_line(self, line: Line, members: Sequence[Machine], now_us: int) -> Step | None:
        through_us = self._begin_of(line, members, now_us)
        if through_us is None:
            return None
        wait_us = self._grace_us + max(
            machine.definitions.small_stop_us + machine.definitions.max_gap_us for machine in members
        )
        until_us = min(now_us - wait_us, through_us + self._chunk_us(members, through_us, now_us))
        ended = [
            window
            for machine in members
            for window in shifts_between(machine, through_us, max(until_us, through_us + 1))
            if through_us < window.end_us <= until_us
        ]
        if not ended:
            if until_us < now_us - wait_us:
                self._through_us[line] = until_us
                return Step([], is_done=False)
            return None
        hours = self._hours_between(
            members, min(window.start_us for window in ended), max(window.end_us for window in ended)
        )
        if not all(self._is_settled(dirty, now_us) for dirty in hours):
            return None
        before = self._before(line, members, ended)
        closed_us = max(window.end_us for window in ended)
        closed = self._evaluate(members, [*before, *ended], closed_us, now_us, FIRST)
        self._store.save_closed(closed, hours)
        self._through_us[line] = closed_us
        if closed:
            _log.info("shifts closed", line="/".join(line), rows=len(closed))
        return Step(closed, is_done=False)

    def _before(
        self, line: Line, members: Sequence[Machine], windows: Sequence[ShiftWindow]
    ) -> list[ShiftWindow]:
        """Return the closed shifts of each machine before some windows that these may still change.

        A stop that went on beyond the end of the last one is known whole by now, and may prove not to be a
        small one. Units that are spread over a silence reach back as far as that does.
        """
        span = self._store.closed_span("/".join(line))
        if span is None:
            return []
        first_us = min(window.start_us for window in windows)
        last_us = max(window.end_us for window in windows)
        found: list[ShiftWindow] = []
        for machine in members:
            before = shift_before(machine, first_us)
            if before is not None and before.start_us >= span[0]:
                silent_us = self._silent_since(machine, first_us, last_us)
                since_us = max(span[0], min(before.start_us, silent_us))
                found += [
                    window
                    for window in shifts_between(machine, since_us, first_us)
                    if since_us <= window.start_us and window.end_us <= first_us
                ]
        return found

    def _silent_since(self, machine: Machine, first_us: int, last_us: int) -> int:
        """Return the reading before an instant, where units are spread from it to one in [first, last]."""
        if machine.definitions.counts_between_samples != "proportional":
            return first_us
        ids = self._evaluation.stored_ids([machine.key])
        following = [self._store.next_time(number, first_us - 1) for number in ids]
        if not any(time_us is not None and time_us <= last_us for time_us in following):
            return first_us
        return int(self._store.read_before(ids, first_us)["time_us"].min(initial=first_us))

    def _hours_between(self, members: Sequence[Machine], from_us: int, to_us: int) -> list[Dirty]:
        """Return the dirty hours that lie within some shifts."""
        ids = set(self._evaluation.stored_ids(machine.key for machine in members))
        return [
            dirty
            for dirty in self._dirty
            if dirty.machine in ids
            and from_us <= dirty.hour * US_PER_HOUR
            and (dirty.hour + 1) * US_PER_HOUR <= to_us
        ]

    def _chunk_us(self, members: Sequence[Machine], from_us: int, now_us: int) -> int:
        """Return how much time is closed in one step: a day, or more of which nothing was ever told."""
        of_a_day = len(shifts_between(members[0], from_us, from_us + _DAY_US)) * len(members)
        silent_us = min(_SILENT_DAYS // len(members), _SILENT_SHIFTS // max(1, of_a_day)) * _DAY_US
        if silent_us <= _DAY_US or now_us < from_us + 2 * _DAY_US:
            return _DAY_US
        until_us = from_us + silent_us
        for number in self._evaluation.stored_ids(machine.key for machine in members):
            next_us = self._store.next_time(number, from_us)
            until_us = until_us if next_us is None else min(until_us, next_us)
        return max(until_us - from_us, _DAY_US)

    def _begin_of(self, line: Line, members: Sequence[Machine], now_us: int) -> int | None:
        """Return from when on shifts are to be closed: the last closed one, else the first record.

        Those that a clock which was ahead has closed before their end are closed again when they end.
        """
        if self._through_us.get(line, _NEVER) > now_us:
            span = self._store.closed_span("/".join(line))
            if span is not None:
                closed_us = span[1] if span[1] <= now_us else self._rightly_closed_us(line, span, now_us)
            else:
                ids = self._evaluation.stored_ids(machine.key for machine in members)
                firsts = [extent[0] for number in ids if (extent := self._store.extent(number))]
                if not firsts:
                    return None
                first_us = min(firsts)
                closed_us = min(
                    (
                        window.start_us
                        for machine in members
                        for window in shifts_between(machine, first_us, first_us + 1)
                    ),
                    default=first_us,
                )
            self._through_us[line] = closed_us
        return self._through_us[line]

    def _rightly_closed_us(self, line: Line, span: tuple[int, int], now_us: int) -> int:
        """Return the end of the last shift of a line that was closed when it had ended by today's clock."""
        shifts = self._store.closed_between("/".join(line), span[0], now_us)
        rightly = (shift.end_us for shift in shifts if shift.revision.made_epochtime * 1e6 <= now_us)
        return max(rightly, default=span[0])

    def _revise(self, now_us: int) -> Step:
        due = self._settled(now_us)
        by_line: defaultdict[Line, list[Dirty]] = defaultdict(list)
        cleaned: list[Dirty] = []
        for dirty in due:
            key = MachineKey(*self._store.names.name("machine", dirty.machine))
            if key in self._plant.machines:
                by_line[key[:3]].append(dirty)
            else:
                cleaned.append(dirty)
        if cleaned:
            self._store.clean(cleaned)
        for line, hours in by_line.items():
            closed = self._revise_line(line, hours, now_us)
            return Step(closed, is_done=len(by_line) == 1)
        return Step([], is_done=True)

    def _revise_line(self, line: Line, hours: Sequence[Dirty], now_us: int) -> list[ClosedShift]:
        members = self._plant.lines[line]
        span = self._store.closed_span("/".join(line))
        touched: set[ShiftWindow] = set()
        for dirty in hours:
            machine = self._plant.machines[MachineKey(*self._store.names.name("machine", dirty.machine))]
            start_us, end_us = dirty.hour * US_PER_HOUR, (dirty.hour + 1) * US_PER_HOUR
            touched.update(shifts_between(machine, start_us, end_us))
            if span is not None:
                near = self._reached(machine, dirty)
                touched.update(window for window in near if window.start_us >= span[0])
        if span is not None and touched:
            # Records from before all that was ever closed: every shift since then gets its figures.
            first_us = min(window.start_us for window in touched)
            for machine in members if first_us < span[0] else ():
                touched.update(shifts_between(machine, first_us, span[0]))
        through_us = self._through_us.get(line, 0)
        windows = sorted(window for window in touched if window.end_us <= through_us)
        why = next((dirty.why for dirty in hours if dirty.why is not None), LATE)
        closed = self._evaluate(members, windows, through_us, now_us, why)
        self._store.save_closed(closed, hours)
        for dirty in hours:
            self._seen.pop((dirty.machine, dirty.hour), None)
        if closed:
            _log.info("shifts revised", line="/".join(line), rows=len(closed))
        return closed

    def _reached(self, machine: Machine, dirty: Dirty) -> Iterator[ShiftWindow]:
        """Yield shifts around an hour that its records can change: also that of the next record after it."""
        start_us, end_us = dirty.hour * US_PER_HOUR, (dirty.hour + 1) * US_PER_HOUR
        reach_us = self._evaluation.reach_us
        yield from shifts_between(machine, start_us - reach_us, end_us + reach_us)
        following_us = self._store.next_time(dirty.machine, end_us - 1)
        if following_us is not None and following_us > end_us + reach_us:
            yield from shifts_between(machine, following_us, following_us + 1)

    def _note_dirty(self, now_us: int) -> None:
        """Look which hours are dirty, and since when their marks stand."""
        self._dirty = self._store.dirty()
        seen: dict[tuple[int, int], _Seen] = {}
        for dirty in self._dirty:
            place = (dirty.machine, dirty.hour)
            before = self._seen.get(place, _Seen(-1, now_us, now_us))
            if max(before.first_us, before.mark_us) > now_us:  # seen by a clock that was ahead
                before = _Seen(before.mark, now_us, now_us)
            seen[place] = before if before.mark == dirty.mark else _Seen(dirty.mark, before.first_us, now_us)
        self._seen = seen

    def _is_settled(self, dirty: Dirty, now_us: int) -> bool:
        """Tell whether an hour is due: after a correction at once, else when no more records come."""
        if dirty.why is not None:
            return True
        seen = self._seen[dirty.machine, dirty.hour]
        return now_us - seen.mark_us >= self._settle_us or now_us - seen.first_us >= _MAX_WAIT_US

    def _settled(self, now_us: int) -> list[Dirty]:
        """Return the settled hours; those of one line wait for each other: one revision, not many."""
        waiting = {self._line_of(dirty) for dirty in self._dirty if not self._is_settled(dirty, now_us)}
        return [
            dirty
            for dirty in self._dirty
            if dirty.why is not None
            or self._line_of(dirty) not in waiting
            or now_us - self._seen[dirty.machine, dirty.hour].first_us >= _MAX_WAIT_US
        ]

    def _line_of(self, dirty: Dirty) -> tuple[str, ...]:
        found: tuple[str, ...] = tuple(self._store.names.name("machine", dirty.machine)[:3])
        return found

    def _evaluate(
        self,
        members: Sequence[Machine],
        windows: Sequence[ShiftWindow],
        closed_us: int,
        now_us: int,
        why: str,
    ) -> list[ClosedShift]:
        """Return revisions of the machines' and their line's shifts where figures differ from the stored.

        A line's shift is closed when it has ended for all of its machines, and locked when it is for any.

        closed_us: until when all shifts are closed with this
        """
        if not windows:
            return []
        self._evaluation.look_for_corrections()
        of_line = _of_line(members, windows)
        locked_us = {machine.key: locked_before_us(self._store, machine, now_us) or 0 for machine in members}
        from_us = min(window.start_us for window in of_line)
        to_us = max(window.end_us for window in of_line)
        keys = [machine.key for machine in members]
        whole, _ = self._evaluation.timeline(keys, from_us, to_us, now_us)
        sums = totals(whole, self._plant, self._evaluation.names)
        wanted = {(window.start_us, window.end_us) for window in windows}
        alone = {
            group: total
            for group, total in sums.items()
            if (group.window.start_us, group.window.end_us) in wanted
            and group.window.end_us > locked_us[group.machine]
        }
        locked = {_name(group.window) for group in sums if group.window.end_us <= locked_us[group.machine]}
        last_us: dict[_Name, int] = {}
        for window in of_line:
            last_us[_name(window)] = max(window.end_us, last_us.get(_name(window), 0))
        together = {
            group: total
            for group, total in sums.items()
            if last_us.get(_name(group.window), _NEVER) <= closed_us and _name(group.window) not in locked
        }
        rows = [
            *rolled_up(alone, self._plant, level="machine"),
            *rolled_up(together, self._plant, level="line"),
        ]
        known_by_start: dict[tuple[Place, int], Figures] = {}
        for (
            row
        ) in rows:  # of two that start together, which the plant refuses but for a change of clocks, one
            known_by_start.setdefault((row.place, row.window.start_us), row)
        revised = (self._revision(row, now_us, why) for row in known_by_start.values())
        return [shift for shift in revised if shift is not None]

    def _revision(self, row: Figures, now_us: int, why: str) -> ClosedShift | None:
        scope = "/".join(part for part in row.place if part is not None)
        before = self._store.closed(scope, row.window.start_us)
        figures = row.to_dict()
        if before:
            last = before[-1]
            if {**figures, "revision": last.revision} == last.figures:
                return None
            figures["revision"] = last.revision + 1
            why = self._why_again(row) if why == FIRST else why
        else:
            why = FIRST
        return ClosedShift(
            scope,
            row.window.start_us,
            row.window.end_us,
            Revision(revision=figures["revision"], made_epochtime=now_us / 1e6, why=why, figures=figures),
        )

    def _why_again(self, row: Figures) -> str:
        """Return why a closed shift changes as another is closed: what came meanwhile, or what went on."""
        place = tuple(part for part in row.place if part is not None)
        for dirty in self._dirty:
            start_us, end_us = dirty.hour * US_PER_HOUR, (dirty.hour + 1) * US_PER_HOUR
            if (
                start_us < row.window.end_us
                and row.window.start_us < end_us
                and tuple(self._store.names.name("machine", dirty.machine)[: len(place)]) == place
            ):
                return LATE if dirty.why is None else dirty.why
        return ONGOING


def _of_line(members: Iterable[Machine], windows: Sequence[ShiftWindow]) -> list[ShiftWindow]:
    """Return the shifts of all machines that are of the same name and date as some windows."""
    names = set(map(_name, windows))
    from_us = min(window.start_us for window in windows) - _DAY_US
    to_us = max(window.end_us for window in windows) + _DAY_US
    return [
        window
        for machine in members
        for window in shifts_between(machine, from_us, to_us)
        if _name(window) in names
    ]


def _name(window: ShiftWindow | Window) -> _Name:
    """Return what a line's shift is known by, whenever it begins and ends for each machine."""
    return window.production_date, window.name if isinstance(window, ShiftWindow) else window.shift
