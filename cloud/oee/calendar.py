"""Turns a machine's calendar into instants: shifts, breaks, planned stops, local hours and days.

Everything here is in microseconds since 1970 (UTC). Times of the calendar are local to the site and become
instants one by one; two local times are never subtracted from each other. Around a change of the clocks:

- a local time that stands twice means its first occurrence (so the night of the autumn change has 9 hours);
- a local time that is left out means the instant at which the clock jumps (7 hours in spring); what lies
  wholly inside the missing hour has no length, and is left out;
- breaks and planned stops last their minutes as a stop-watch shows them, but never beyond their shift; of two
  breaks that a jump would lay over each other the later one follows the other;
- the repeated part of an hour is an hour window of its own, and the jump is an edge between two.

A production day begins at local midnight. Where a shift runs across midnight it begins at that shift's end
(production_date = "shift_start") or at that shift's start ("next_day"), so days hold whole shifts and leave
no gap.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from cloud.plant import Calendar, Machine, Plant
from cloud.plant_tables import (
    WEEKDAYS,
    BreakTable,
    CalendarVersionTable,
    ExceptionTable,
    PlannedStopTable,
    ShiftTable,
)
from contract.machine_key import MachineKey

NOT_SCHEDULED: Final = 0
PRODUCTION: Final = 1
BREAK: Final = 2
PLANNED_STOP: Final = 3

YEARS: Final = range(1970, 3000)
"""What is asked or said beyond these is a slip: it would be laid out day by day, to where no date is."""

Widen = Literal["none", "hour", "shift", "day"]
Instants = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]
Indexes = npt.NDArray[np.int32]

_US: Final = 1_000_000
_MINUTE_US: Final = 60 * _US
_HOUR_US: Final = 60 * _MINUTE_US
_DAY_US: Final = 24 * _HOUR_US
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - the origin of wall-clock arithmetic
_MIDNIGHT: Final = time()
_ONE_DAY: Final = timedelta(days=1)
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_CACHED_GRIDS: Final = 32
_LOOK_BACK_DAYS: Final = (2, 14, 400)
"""How far back a shift is looked for: over a weekend, over holidays, over a year's rest."""
_CACHED_DAYS: Final = 16_384


class ShiftWindow(NamedTuple):
    """One shift that is, or was, to be worked: [start_us, end_us)."""

    name: str
    start_us: int
    end_us: int
    production_date: date
    crew: str
    calendar: str
    planned_us: int
    """[us] planned production time: without planned stops, and without breaks unless these are a loss."""
    breaks: tuple[tuple[int, int], ...]
    is_exception: bool
    """Whether it differs from the ordinary week: overtime, other times, an extra shift."""


class HourWindow(NamedTuple):
    """One local hour, [start_us, end_us); fold is 1 for the part that the clock shows a second time."""

    start_us: int
    end_us: int
    date: date
    hour: int
    fold: int


class DayWindow(NamedTuple):
    """One production day or one local calendar day, [start_us, end_us)."""

    start_us: int
    end_us: int
    date: date


class StopWindow(NamedTuple):
    """Time for which a machine is meant to stand, [start_us, end_us), with its reason ('' without one)."""

    start_us: int
    end_us: int
    reason: str


@dataclass(frozen=True, eq=False)
class Grid:
    """A calendar over a range, cut wherever a shift, break, planned stop, local hour or day begins or ends.

    The n intervals are [edges[i], edges[i + 1]). Windows keep their whole length even where the range ends
    within them.
    """

    edges: Instants
    """n + 1 instants [us], strictly increasing."""
    category: Codes
    """n of NOT_SCHEDULED, PRODUCTION, BREAK, PLANNED_STOP."""
    shift: Indexes
    """n indexes into shifts, -1 outside."""
    hour: Indexes
    """n indexes into hours."""
    day: Indexes
    """n indexes into days."""
    local_day: Indexes
    """n indexes into local_days."""
    planned_stop_reason: Indexes
    """n indexes into reasons, -1 where there is none."""
    shifts: tuple[ShiftWindow, ...]
    hours: tuple[HourWindow, ...]
    days: tuple[DayWindow, ...]
    """Production days."""
    local_days: tuple[DayWindow, ...]
    reasons: tuple[str, ...]

    @property
    def start_us(self) -> int:
        """Return the first instant of the range."""
        return int(self.edges[0])

    @property
    def end_us(self) -> int:
        """Return the first instant after the range."""
        return int(self.edges[-1])


def build_grid(
    plant: Plant,
    machine: MachineKey,
    from_us: int,
    to_us: int,
    *,
    widen: Widen = "shift",
    planned_stops: Iterable[StopWindow] = (),
) -> Grid:
    """Return the grid of a machine's calendar over [from_us, to_us).

    widen: which windows the range grows to hold whole: the local hours, shifts or production days it touches
    planned_stops: further ones, entered afterwards
    """
    if to_us <= from_us:
        raise ValueError("a grid needs a range that ends after it begins")
    return _grid(_schedule(plant.machine(machine)), from_us, to_us, widen, tuple(planned_stops))


def shifts_between(machine: Machine, from_us: int, to_us: int) -> tuple[ShiftWindow, ...]:
    """Return the shifts that share time with [from_us, to_us), in order."""
    return _shifts(_schedule(machine), from_us, to_us)


def shift_at(machine: Machine, instant_us: int) -> ShiftWindow | None:
    """Return the shift that is worked at an instant, if any."""
    return next(iter(shifts_between(machine, instant_us, instant_us + 1)), None)


def shift_before(machine: Machine, instant_us: int) -> ShiftWindow | None:
    """Return the last shift before the one at an instant, or before the instant; None in a year without."""
    running = shift_at(machine, instant_us)
    before_us = instant_us if running is None else running.start_us
    for days in _LOOK_BACK_DAYS:
        shifts = shifts_between(machine, before_us - days * _DAY_US, before_us)
        if shifts:
            return shifts[-1]
    return None


def begin_of_shift_before(machines: Iterable[Machine], instant_us: int) -> int:
    """Return where the shifts before the ones at an instant begin; the instant where none has any."""
    by_calendar = {id(machine.calendar): machine for machine in machines}
    found = (shift_before(machine, instant_us) for machine in by_calendar.values())
    return min((shift.start_us for shift in found if shift is not None), default=instant_us)


def production_days(machine: Machine, from_us: int, to_us: int) -> tuple[DayWindow, ...]:
    """Return the production days that share time with [from_us, to_us), in order."""
    return _days(_schedule(machine), from_us, to_us)


def local_date(zone: ZoneInfo, instant_us: int) -> date:
    """Return what the wall calendar shows at an instant."""
    return date.fromordinal(_EPOCH_ORDINAL + (instant_us + _offset_us(zone, instant_us)) // _DAY_US)


def instant(zone: ZoneInfo, local: datetime) -> int:
    """Return the instant [us] of a local time: the first of two, or the jump that leaves it out."""
    wall_us = (local.replace(tzinfo=None, fold=0) - _EPOCH) // timedelta(microseconds=1)
    first, second = (
        wall_us - _delta_us(local.replace(tzinfo=zone, fold=fold).utcoffset()) for fold in (0, 1)
    )
    return first if first <= second else _transition(zone, second, first)


# One calendar as one kind of machine follows it


@dataclass(frozen=True, eq=False)
class _Schedule:
    """What of a calendar decides a machine's grid; machines that agree in all of it share one."""

    calendar: Calendar
    zone: ZoneInfo
    next_day: bool
    breaks_are_loss: bool
    weekly_stops: tuple[PlannedStopTable, ...]
    dated_stops: tuple[StopWindow, ...]
    losses: frozenset[str]
    """Reasons whose planned stops stay planned production time."""


@lru_cache(maxsize=4096)
def _schedule(machine: Machine) -> _Schedule:
    stops = tuple(stop for stop in machine.calendar.table.planned_stops if _concerns(stop, machine.key))
    losses = frozenset(
        key for key, reason in machine.site.reasons.items() if reason.counts_in not in (None, "excluded")
    )
    rules = (machine.definitions.production_date == "next_day", machine.definitions.breaks == "loss")
    return _shared_schedule(machine.calendar, machine.timezone, rules, stops, losses)


def _concerns(stop: PlannedStopTable, machine: MachineKey) -> bool:
    return (
        not (stop.lines or stop.machines)
        or machine.machine in stop.machines
        or machine.line in stop.lines
        or f"{machine.area}/{machine.line}" in stop.lines
    )


@lru_cache(maxsize=1024)
def _shared_schedule(
    calendar: Calendar,
    zone: ZoneInfo,
    rules: tuple[bool, bool],
    stops: tuple[PlannedStopTable, ...],
    losses: frozenset[str],
) -> _Schedule:
    next_day, breaks_are_loss = rules
    dated = (
        StopWindow(start, start + stop.minutes * _MINUTE_US, stop.reason)
        for stop in stops
        if isinstance(stop.start, datetime)
        for start in [instant(zone, stop.start)]
    )
    return _Schedule(
        calendar=calendar,
        zone=zone,
        next_day=next_day,
        breaks_are_loss=breaks_are_loss,
        weekly_stops=tuple(stop for stop in stops if not isinstance(stop.start, datetime)),
        dated_stops=tuple(sorted(dated)),
        losses=losses,
    )


# One date


@lru_cache(maxsize=_CACHED_DAYS)
def _shifts_on(schedule: _Schedule, day: date) -> tuple[ShiftWindow, ...]:
    """Return the shifts that start on a date."""
    table = schedule.calendar.table
    version = _version(schedule.calendar, day)
    usual = [shift for shift in version.shifts if WEEKDAYS[day.weekday()] in shift.days] if version else []
    exceptions = {exception.shift: exception for exception in table.exceptions if exception.date == day}
    shifts: list[ShiftWindow | None] = []
    if not any(holiday.date <= day <= (holiday.through or holiday.date) for holiday in table.holidays):
        shifts += [_window(schedule, day, shift, None) for shift in usual if shift.name not in exceptions]
    shifts += [
        _window(schedule, day, _usual(usual, version, exception), exception)
        for exception in exceptions.values()
        if not exception.cancelled
    ]
    return tuple(sorted((shift for shift in shifts if shift), key=lambda shift: shift.start_us))


def _version(calendar: Calendar, day: date) -> CalendarVersionTable | None:
    index = bisect_right(calendar.versions, day, key=lambda version: version.valid_from)
    return calendar.versions[index - 1] if index else None


def _usual(
    today: Sequence[ShiftTable], version: CalendarVersionTable | None, exception: ExceptionTable
) -> ShiftTable | None:
    """Return the shift that an exception changes, of that weekday or of another; None for an extra one."""
    shifts = [*today, *(version.shifts if version else ())]
    return next((shift for shift in shifts if shift.name == exception.shift), None)


def _window(
    schedule: _Schedule, day: date, usual: ShiftTable | None, exception: ExceptionTable | None
) -> ShiftWindow | None:
    """Lay one shift out on a date; None where the clock leaves all of it out."""
    start, end = _times(usual, exception)
    if start is None or end is None:
        return None
    zone = schedule.zone
    start_us = instant(zone, datetime.combine(day, start))
    end_us = instant(zone, datetime.combine(day + timedelta(days=end <= start), end))
    if end_us <= start_us:
        return None
    pauses = usual.breaks if usual else ()
    if exception is not None and exception.breaks is not None:
        pauses = exception.breaks
    breaks = _breaks(zone, day, pauses, (start, start_us, end_us))
    name = exception.shift if exception else usual.name if usual else ""
    date_us = _local_midnight(zone, day + _ONE_DAY)
    return ShiftWindow(
        name=name,
        start_us=start_us,
        end_us=end_us,
        production_date=day + _ONE_DAY if schedule.next_day and end_us > date_us else day,
        crew=(exception.crew if exception else "") or _crew(schedule.calendar, day, name),
        calendar=schedule.calendar.name,
        planned_us=_planned_us(
            schedule, (start_us, end_us), breaks, _planned_stops(schedule, start_us, end_us)
        ),
        breaks=breaks,
        is_exception=exception is not None,
    )


def _times(usual: ShiftTable | None, exception: ExceptionTable | None) -> tuple[time | None, time | None]:
    if exception is not None and exception.start is not None and exception.end is not None:
        return exception.start, exception.end
    return (usual.start, usual.end) if usual else (None, None)


def _breaks(
    zone: ZoneInfo, day: date, pauses: Sequence[BreakTable], shift: tuple[time, int, int]
) -> tuple[tuple[int, int], ...]:
    """Return the breaks that begin within a shift, cut at the shift's end.

    No two are of the same time by the clock on the wall; where that jumps, the later one waits for the other.
    """
    first, start_us, end_us = shift
    starts = (
        (
            instant(zone, datetime.combine(day + timedelta(days=pause.start < first), pause.start)),
            pause.minutes,
        )
        for pause in pauses
    )
    found: list[tuple[int, int]] = []
    for pause_us, minutes in sorted(starts):
        begin_us = max(pause_us, found[-1][1]) if found else pause_us
        stop_us = min(begin_us + minutes * _MINUTE_US, end_us)
        if start_us <= begin_us < stop_us:
            found.append((begin_us, stop_us))
    return tuple(found)


def _planned_us(
    schedule: _Schedule,
    shift: tuple[int, int],
    breaks: Iterable[tuple[int, int]],
    stops: Iterable[StopWindow],
) -> int:
    start_us, end_us = shift
    away = [] if schedule.breaks_are_loss else list(breaks)
    away += [(stop.start_us, stop.end_us) for stop in stops if stop.reason not in schedule.losses]
    planned_us, reached = end_us - start_us, start_us
    for begin_us, stop_us in sorted(away):
        planned_us -= max(0, min(stop_us, end_us) - max(begin_us, reached))
        reached = max(reached, stop_us)
    return planned_us


def _crew(calendar: Calendar, day: date, shift: str) -> str:
    version = _version(calendar, day)
    return version.rotation.crew(shift, day) if version and version.rotation else ""


@lru_cache(maxsize=_CACHED_DAYS)
def _stops_on(schedule: _Schedule, day: date) -> tuple[StopWindow, ...]:
    """Return the weekly planned stops that begin on a date."""
    return tuple(
        StopWindow(start_us, start_us + stop.minutes * _MINUTE_US, stop.reason)
        for stop in schedule.weekly_stops
        if WEEKDAYS[day.weekday()] in stop.days and isinstance(stop.start, time)
        for start_us in [instant(schedule.zone, datetime.combine(day, stop.start))]
    )


@lru_cache(maxsize=_CACHED_DAYS)
def _local_midnight(zone: ZoneInfo, day: date) -> int:
    return instant(zone, datetime.combine(day, _MIDNIGHT))


@lru_cache(maxsize=_CACHED_DAYS)
def _day_start(schedule: _Schedule, day: date) -> int:
    """Return the instant at which a production day begins."""
    midnight_us = _local_midnight(schedule.zone, day)
    for shift in _shifts_on(schedule, day - timedelta(days=1)):
        if shift.start_us < midnight_us < shift.end_us:
            return shift.start_us if schedule.next_day else shift.end_us
    return midnight_us


# A range


def _dates(zone: ZoneInfo, from_us: int, to_us: int) -> list[date]:
    """Return the local dates that [from_us, to_us) touches, and one on either side."""
    first = local_date(zone, from_us).toordinal() - 1
    last = local_date(zone, to_us - 1).toordinal() + 1
    return [date.fromordinal(ordinal) for ordinal in range(first, last + 1)]


def _shifts(schedule: _Schedule, from_us: int, to_us: int) -> tuple[ShiftWindow, ...]:
    return tuple(
        shift
        for day in _dates(schedule.zone, from_us, to_us)
        for shift in _shifts_on(schedule, day)
        if shift.start_us < to_us and shift.end_us > from_us
    )


def _planned_stops(schedule: _Schedule, from_us: int, to_us: int) -> list[StopWindow]:
    stops = list(schedule.dated_stops)
    if schedule.weekly_stops:
        before_us = from_us - max(stop.minutes for stop in schedule.weekly_stops) * _MINUTE_US
        stops += [
            stop for day in _dates(schedule.zone, before_us, to_us) for stop in _stops_on(schedule, day)
        ]
    return [stop for stop in stops if stop.start_us < to_us and stop.end_us > from_us]


def _days(schedule: _Schedule, from_us: int, to_us: int) -> tuple[DayWindow, ...]:
    dates = _dates(schedule.zone, from_us, to_us)
    starts = [_day_start(schedule, day) for day in [*dates, dates[-1] + _ONE_DAY]]
    return _day_windows(dates, starts, from_us, to_us)


def _local_days(zone: ZoneInfo, from_us: int, to_us: int) -> tuple[DayWindow, ...]:
    dates = _dates(zone, from_us, to_us)
    starts = [_local_midnight(zone, day) for day in [*dates, dates[-1] + _ONE_DAY]]
    return _day_windows(dates, starts, from_us, to_us)


def _day_windows(
    dates: Sequence[date], starts: Sequence[int], from_us: int, to_us: int
) -> tuple[DayWindow, ...]:
    return tuple(
        DayWindow(start_us, end_us, day)
        for day, (start_us, end_us) in zip(dates, pairwise(starts), strict=True)
        if start_us < to_us and end_us > from_us and start_us < end_us
    )


def _hours(zone: ZoneInfo, from_us: int, to_us: int) -> tuple[HourWindow, ...]:
    """Return the local hours that [from_us, to_us) touches."""
    windows: list[HourWindow] = []
    low, high = from_us - 2 * _HOUR_US, to_us + 2 * _HOUR_US
    pieces = _offsets(zone, low, high)
    for index, (piece_us, offset) in enumerate(pieces):
        end_us = pieces[index + 1][0] if index + 1 < len(pieces) else high
        back = pieces[index - 1][1] - offset if index else 0  # [us] how much of the wall clock comes again
        first_wall = piece_us + offset
        wall = first_wall // _HOUR_US * _HOUR_US
        while wall - offset < end_us:
            start = max(wall - offset, piece_us)
            day, hour = divmod(wall // _HOUR_US, 24)
            windows.append(
                HourWindow(
                    start_us=start,
                    end_us=min(wall + _HOUR_US - offset, end_us),
                    date=date.fromordinal(_EPOCH_ORDINAL + day),
                    hour=hour,
                    fold=int(wall < first_wall + back and back > 0),
                )
            )
            wall += _HOUR_US
    return tuple(window for window in windows if window.start_us < to_us and window.end_us > from_us)


@lru_cache(maxsize=_CACHED_GRIDS)
def _grid(
    schedule: _Schedule, from_us: int, to_us: int, widen: Widen, extra_stops: tuple[StopWindow, ...]
) -> Grid:
    from_us, to_us = _widened(schedule, from_us, to_us, widen)
    shifts = _shifts(schedule, from_us, to_us)
    if extra_stops:
        shifts = tuple(_less(schedule, shift, extra_stops) for shift in shifts)
    stops = [*_planned_stops(schedule, from_us, to_us), *extra_stops]
    hours = _hours(schedule.zone, from_us, to_us)
    days = _days(schedule, from_us, to_us)
    local_days = _local_days(schedule.zone, from_us, to_us)
    breaks = [pause for shift in shifts for pause in shift.breaks]
    windows: list[Sequence[tuple[int, int]]] = [
        [(window.start_us, window.end_us) for window in kind]
        for kind in (shifts, hours, days, local_days, stops)
    ]
    windows.append(breaks)
    cuts = np.array([bound for kind in windows for window in kind for bound in window], dtype=np.int64)
    inside = cuts[(cuts > from_us) & (cuts < to_us)]
    edges = np.unique(np.concatenate([inside, np.array([from_us, to_us], dtype=np.int64)]))
    shift = _painted(edges, windows[0])
    category, reason, reasons = _categories(schedule, edges, shift, breaks, stops)
    return Grid(
        edges=edges,
        category=category,
        shift=shift,
        hour=_painted(edges, windows[1]),
        day=_painted(edges, windows[2]),
        local_day=_painted(edges, windows[3]),
        planned_stop_reason=reason,
        shifts=shifts,
        hours=hours,
        days=days,
        local_days=local_days,
        reasons=reasons,
    )


def _less(schedule: _Schedule, shift: ShiftWindow, extra_stops: Iterable[StopWindow]) -> ShiftWindow:
    """Return a shift whose planned time knows the planned stops that were entered afterwards."""
    stops = [*_planned_stops(schedule, shift.start_us, shift.end_us), *extra_stops]
    planned_us = _planned_us(schedule, (shift.start_us, shift.end_us), shift.breaks, stops)
    return shift._replace(planned_us=planned_us)


def _widened(schedule: _Schedule, from_us: int, to_us: int, widen: Widen) -> tuple[int, int]:
    touched: Sequence[ShiftWindow | HourWindow | DayWindow]
    match widen:
        case "none":
            return from_us, to_us
        case "hour":
            touched = _hours(schedule.zone, from_us, to_us)
        case "shift":
            touched = _shifts(schedule, from_us, to_us)
        case "day":
            touched = _days(schedule, from_us, to_us)
    return (
        min([from_us, *(window.start_us for window in touched)]),
        max([to_us, *(window.end_us for window in touched)]),
    )


def _painted(edges: Instants, windows: Sequence[tuple[int, int]]) -> Indexes:
    """Return for each interval the index of the window that holds it, or -1; windows do not overlap."""
    if not windows:
        return np.full(len(edges) - 1, -1, dtype=np.int32)
    bounds = np.array(windows, dtype=np.int64)
    index = np.searchsorted(bounds[:, 0], edges[:-1], side="right") - 1
    held = (index >= 0) & (edges[:-1] < bounds[index, 1])
    return np.where(held, index, -1).astype(np.int32)


def _categories(
    schedule: _Schedule,
    edges: Instants,
    shift: Indexes,
    breaks: Sequence[tuple[int, int]],
    stops: Sequence[StopWindow],
) -> tuple[Codes, Indexes, tuple[str, ...]]:
    """Return what each interval is, and why; planned stops go before breaks, both only within shifts."""
    reasons = tuple(sorted({stop.reason for stop in stops if stop.reason}))
    scheduled = shift >= 0
    category = np.where(scheduled, PRODUCTION, NOT_SCHEDULED).astype(np.int8)
    for start_us, end_us in breaks:
        category[np.searchsorted(edges, start_us) : np.searchsorted(edges, end_us)] = BREAK
    category[~scheduled] = NOT_SCHEDULED
    reason = np.full(len(edges) - 1, -1, dtype=np.int32)
    for stop in sorted(stops):
        place = slice(*np.searchsorted(edges, (stop.start_us, stop.end_us)))
        inside = scheduled[place]
        if stop.reason:
            reason[place][inside] = reasons.index(stop.reason)
        if stop.reason not in schedule.losses:
            category[place][inside] = PLANNED_STOP
    return category, reason, reasons


# The clock of a time zone


@lru_cache(maxsize=256)
def _offsets(zone: ZoneInfo, from_us: int, to_us: int) -> tuple[tuple[int, int], ...]:
    """Return (from when on [us], what is added to UTC [us]), one entry per change of the clocks."""
    pieces = [(from_us, _offset_us(zone, from_us))]
    probe = from_us
    while probe < to_us:
        after = min(probe + _DAY_US, to_us)
        offset = _offset_us(zone, after)
        if offset != pieces[-1][1]:
            pieces.append((_transition(zone, probe, after), offset))
        probe = after
    return tuple(pieces)


def _transition(zone: ZoneInfo, low_us: int, high_us: int) -> int:
    """Return the first instant after low_us with the offset of high_us; clocks change at whole seconds."""
    after = _offset_us(zone, high_us)
    low, high = low_us // _US, -(-high_us // _US)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset_us(zone, middle * _US) == after else (middle, high)
    return high * _US


def _offset_us(zone: ZoneInfo, instant_us: int) -> int:
    moment = datetime.fromtimestamp(instant_us // _US, UTC)
    return _delta_us(moment.astimezone(zone).utcoffset())


def _delta_us(delta: timedelta | None) -> int:
    assert delta is not None
    return delta // timedelta(microseconds=1)
