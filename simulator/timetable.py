"""When the factory is meant to work: local shifts with breaks and planned stops, as UTC instants.

Written for the oracle: nothing here is shared with the product's calendar.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

US_PER_SEC: Final = 1_000_000
_WEEK: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A shift of the week in local time; `end` at or before `start` means the next day.

    breaks: (start "HH:MM", minutes)
    days: on which it starts; empty: on each
    """

    name: str
    start: str
    end: str
    breaks: tuple[tuple[str, int], ...] = ()
    days: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PlannedStop:
    """A stop that the calendar knows of: local start "YYYY-MM-DDTHH:MM", length [minutes]."""

    start: str
    minutes: int
    reason: str = "maintenance"


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """The working week of a factory."""

    name: str
    timezone: str
    shifts: tuple[Shift, ...]
    planned_stops: tuple[PlannedStop, ...] = ()


class Window(NamedTuple):
    """One shift on one day [us since 1970, UTC]; `pauses` are breaks and planned stops inside, sorted."""

    shift: str
    date: str
    start_us: int
    end_us: int
    breaks: tuple[tuple[int, int], ...]
    planned_stops: tuple[tuple[int, int], ...]


def windows(timetable: Timetable, from_us: int, to_us: int) -> list[Window]:
    """Return the shifts that touch [from_us, to_us), in order of start."""
    zone = ZoneInfo(timetable.timezone)
    day = datetime.fromtimestamp(from_us / US_PER_SEC, zone).date() - timedelta(days=2)
    last = datetime.fromtimestamp(to_us / US_PER_SEC, zone).date() + timedelta(days=1)
    stops = [_stop(stop, zone) for stop in timetable.planned_stops]
    found = []
    while day <= last:
        for shift in timetable.shifts:
            if shift.days and _WEEK[day.weekday()] not in shift.days:
                continue
            window = _window(shift, day, zone, stops)
            if window.start_us < to_us and window.end_us > from_us:
                found.append(window)
        day += timedelta(days=1)
    return sorted(found, key=lambda window: window.start_us)


def windows_from(timetable: Timetable, from_us: int) -> Iterator[Window]:
    """Return the shifts that end after from_us, for ever; ends where the timetable has no shift at all."""
    if not timetable.shifts:
        return
    span_us = 7 * 86_400 * US_PER_SEC
    seen_us = from_us
    start_us = from_us
    while True:
        for window in windows(timetable, start_us, start_us + span_us):
            if window.end_us > seen_us:
                seen_us = window.end_us
                yield window
        start_us += span_us


def iso(at_us: int) -> str:
    """Write an instant as ISO 8601 in UTC."""
    return datetime.fromtimestamp(at_us // US_PER_SEC, UTC).isoformat().replace("+00:00", "Z")


def _window(shift: Shift, day: date, zone: ZoneInfo, stops: list[tuple[int, int]]) -> Window:
    start_us = _instant(day, shift.start, zone)
    overnight = shift.end <= shift.start
    end_us = _instant(day + timedelta(days=overnight), shift.end, zone)
    breaks = []
    for at, minutes in shift.breaks:
        begin_us = _instant(day + timedelta(days=overnight and at < shift.start), at, zone)
        breaks.append((begin_us, min(begin_us + minutes * 60 * US_PER_SEC, end_us)))
    inside = [(max(a, start_us), min(b, end_us)) for a, b in stops if a < end_us and b > start_us]
    return Window(shift.name, day.isoformat(), start_us, end_us, tuple(sorted(breaks)), tuple(sorted(inside)))


def _stop(stop: PlannedStop, zone: ZoneInfo) -> tuple[int, int]:
    begin = datetime.fromisoformat(stop.start).replace(tzinfo=zone)
    begin_us = round(begin.timestamp()) * US_PER_SEC
    return begin_us, begin_us + stop.minutes * 60 * US_PER_SEC


def _instant(day: date, wall: str, zone: ZoneInfo) -> int:
    at = time(0) if wall == "24:00" else time.fromisoformat(wall)
    day += timedelta(days=wall == "24:00")
    return round(datetime.combine(day, at, zone).timestamp()) * US_PER_SEC
