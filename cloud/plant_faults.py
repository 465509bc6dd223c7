"""Finds what is wrong between the tables of a plant.toml whose keys and types are right."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from itertools import combinations, pairwise
from typing import Any, NamedTuple

from cloud.errors import Fault
from cloud.plant_tables import (
    OFF,
    WEEKDAYS,
    BreakTable,
    CalendarTable,
    ExceptionTable,
    PlantFile,
    RotationTable,
    ShiftTable,
)
from cloud.toml_file import as_written, item_name, key_path

_DAY = 24 * 3600
_WEEK = 7 * _DAY
_MAX_CYCLE_DAYS = 3660
_SOME_MONDAY = date(1970, 1, 5)

Complaint = tuple[str, str, str]
"""Key path, what is wrong, what is allowed."""


def faults_between(
    file: str, raw: Mapping[str, Any], tables: PlantFile, positions: Mapping[str, Sequence[int]]
) -> list[Fault]:
    """Return the faults that no single key has: overlaps, names that nobody defines, things said twice.

    raw: the file as written, for names whose own tables are faulty; tables: what is left of it
    positions: where in the file its rows stand
    """
    found = [
        *_calendars(raw, tables),
        *_rates(raw),
        *_machines(raw, tables),
        *_reasons(raw, tables),
        *_starts_of_lines(tables),
    ]
    return [Fault(file, as_written(path, positions), *rest) for path, *rest in dict.fromkeys(found)]


def calendar_overlaps(calendar: CalendarTable) -> list[str]:
    """Return which shifts of a calendar overlap around its exceptions and changes of version."""
    return [problem for _, problem, _ in _overlaps_around("", calendar)]


def _names(raw: Mapping[str, Any], key: str) -> list[str]:
    table = raw.get(key)
    return list(table) if isinstance(table, dict) else []


def _rows(raw: Any, key: str) -> list[Mapping[str, Any]]:
    rows = raw.get(key) if isinstance(raw, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _one_of(names: Iterable[str]) -> str:
    listed = sorted(names)
    return f"defined are: {', '.join(listed)}" if listed else "none is defined"


# Rates and machines


def _rates(raw: Mapping[str, Any]) -> Iterator[Complaint]:
    machines = raw.get("machine")
    for index, machine in enumerate(machines if isinstance(machines, list) else ()):
        if not isinstance(machine, dict):
            continue
        yield from _rate(raw, ("machine", index), machine)
        products = machine.get("products")
        for product, rate in products.items() if isinstance(products, dict) else ():
            if isinstance(rate, dict):
                yield from _rate(raw, ("machine", index, "products", product), rate)


def _rate(raw: Mapping[str, Any], place: Sequence[int | str], rate: Mapping[str, Any]) -> Iterator[Complaint]:
    said = [key for key in ("ideal_run_rate", "ideal_cycle_secs") if key in rate]
    if len(said) != 1:
        problem = "has two ideal rates" if said else "has no ideal rate"
        yield key_path(raw, place), problem, "one of ideal_run_rate (units per minute) and ideal_cycle_secs"


def _machines(raw: Mapping[str, Any], tables: PlantFile) -> Iterator[Complaint]:
    yield from _names_of_machines(raw)
    bottlenecks: dict[tuple[str, str], str] = {}
    for machine in tables.machine:
        place = f"machine[{item_name(machine.name)}]"
        key = (machine.area, machine.line, machine.name)
        if machine.bottleneck and (other := bottlenecks.setdefault(key[:2], machine.name)) != machine.name:
            yield (
                f"{place}.bottleneck",
                f"{other} is the bottleneck of {machine.line}",
                "one machine per line",
            )
        if machine.counter_jitter >= 2 ** (machine.counter_bits - 1):
            yield (
                f"{place}.counter_jitter",
                f"is {machine.counter_jitter}",
                f"must be below half of the {machine.counter_bits}-bit counter",
            )
    yield from _lines(raw, tables, set(bottlenecks))


def _names_of_machines(raw: Mapping[str, Any]) -> Iterator[Complaint]:
    """Name machines that stand twice or work by no calendar, as written: a rate of zero hides neither."""
    seen: set[tuple[str, ...]] = set()
    for row in _rows(raw, "machine"):
        key = tuple(said for part in ("area", "line", "name") if isinstance(said := row.get(part), str))
        if not isinstance(row.get("name"), str):
            continue
        place = f"machine[{item_name(row['name'])}]"
        if key in seen and len(key) == 3:
            yield place, f"{'/'.join(key)} stands twice", "one [[machine]] per area, line and name"
        seen.add(key)
        calendar = row.get("calendar")
        if isinstance(calendar, str) and calendar not in _names(raw, "calendar"):
            yield f"{place}.calendar", f"unknown calendar {calendar!r}", _one_of(_names(raw, "calendar"))


def _lines(
    raw: Mapping[str, Any], tables: PlantFile, bottlenecks: set[tuple[str, str]]
) -> Iterator[Complaint]:
    lines = [(str(row.get("area")), str(row.get("line"))) for row in _rows(raw, "machine")]
    known = _line_names(raw)
    for name, line in tables.line.items():
        if name not in known:
            yield f"line.{name}", "no machine is on this line", _one_of({line for _, line in lines})
        elif line.definitions.line_from == "bottleneck":
            for area, found in sorted(set(lines)):
                if name in (found, f"{area}/{found}") and (area, found) not in bottlenecks:
                    yield (
                        f"line.{name}.definitions.line_from",
                        "the line has no bottleneck",
                        "one of its machines must say bottleneck = true",
                    )
    if tables.definitions.line_from == "bottleneck" and (bare := sorted(set(lines) - bottlenecks)):
        yield (
            "definitions.line_from",
            f"no bottleneck on {', '.join('/'.join(line) for line in bare)}",
            "one machine of each line must say bottleneck = true",
        )
    for machine in tables.machine:
        for key in ("line_from", "production_date"):
            if key in machine.definitions.model_fields_set:
                yield (
                    f"machine[{item_name(machine.name)}].definitions.{key}",
                    "cannot differ between the machines of a line",
                    "allowed in [definitions] and [line.NAME.definitions]",
                )


def _line_names(raw: Mapping[str, Any]) -> set[str]:
    rows = _rows(raw, "machine")
    return {str(row.get("line")) for row in rows} | {f"{row.get('area')}/{row.get('line')}" for row in rows}


def _scope(
    raw: Mapping[str, Any], place: str, lines: Iterable[str], machines: Iterable[str]
) -> Iterator[Complaint]:
    known = {str(row.get("name")) for row in _rows(raw, "machine")}
    for name in lines:
        if name not in _line_names(raw):
            yield f"{place}.lines", f"unknown line {name!r}", _one_of(_line_names(raw))
    for name in machines:
        if name not in known:
            yield f"{place}.machines", f"unknown machine {name!r}", _one_of(known)


# Lines whose machines work by several calendars


def _starts_of_lines(tables: PlantFile) -> Iterator[Complaint]:
    """Name shifts of a line that start together and are two: a line's shift is known by its start."""
    calendars: dict[tuple[str, str], set[str]] = {}
    for machine in tables.machine:
        if machine.calendar in tables.calendar:
            calendars.setdefault((machine.area, machine.line), set()).add(machine.calendar)
    for (area, line), names in calendars.items():
        definitions = [tables.definitions]
        definitions += [
            tables.line[name].definitions for name in (line, f"{area}/{line}") if name in tables.line
        ]
        by_end = any(said.production_date == "next_day" for said in definitions)
        for one, other in combinations(sorted(names), 2):
            for shift, another, day in _together(tables.calendar[one], tables.calendar[other], by_end=by_end):
                problem = (
                    f"shift {another} starts on {day:%A} together with shift {shift} of calendar {one},"
                    f" and {area}/{line} works by both"
                )
                allowed = "shifts of one line that start together have one name and production date"
                yield f"calendar.{other}", problem, allowed


def _together(one: CalendarTable, other: CalendarTable, *, by_end: bool) -> Iterator[tuple[str, str, date]]:
    """Yield each pair of shifts of two calendars that start together under other names, with a day of it.

    by_end: whether shifts of one name are two when one of them alone ends after midnight
    """
    plain = [calendar.model_copy(update={"holidays": (), "exceptions": ()}) for calendar in (one, other)]
    changes = {_SOME_MONDAY}
    changes |= {calendar.valid_from for calendar in (one, other) if calendar.valid_from is not None}
    changes |= {version.valid_from for calendar in (one, other) for version in calendar.version}
    weeks = {change + timedelta(days=after) for change in changes for after in range(7)}
    dated = {exception.date for calendar in (one, other) for exception in calendar.exceptions}
    found: set[tuple[str, str]] = set()
    for day, (first, second) in [
        *((day, plain) for day in sorted(weeks)),
        *((day, (one, other)) for day in dated),
    ]:
        for span in _spans_on("", first, day, 0):
            for after in _spans_on("", second, day, 0):
                differ = span.name != after.name or (by_end and (span.end > _DAY) != (after.end > _DAY))
                if span.start == after.start and differ and (span.name, after.name) not in found:
                    found.add((span.name, after.name))
                    yield span.name, after.name, day


# Reasons and rules


def _reasons(raw: Mapping[str, Any], tables: PlantFile) -> Iterator[Complaint]:
    meanings: dict[str, str] = {key: key for key in tables.reason}
    for key, reason in tables.reason.items():
        for code in reason.codes:
            if (other := meanings.setdefault(str(code), key)) != key:
                yield f"reason.{key}.codes", f"{code!r} already means {other}", "one reason per code"
    for index, rule in enumerate(tables.rule):
        place = f"rule[{index + 1}]"
        yield from _reason(raw, f"{place}.reason", rule.reason)
        yield from _scope(raw, place, rule.lines, rule.machines)
        if (
            rule.at_least_secs is not None
            and rule.below_secs is not None
            and rule.below_secs <= rule.at_least_secs
        ):
            yield f"{place}.below_secs", f"is {rule.below_secs}", "must be greater than at_least_secs"


def _reason(raw: Mapping[str, Any], place: str, reason: str) -> Iterator[Complaint]:
    if reason not in _names(raw, "reason"):
        yield place, f"unknown reason {reason!r}", _one_of(_names(raw, "reason"))


# Calendars


class _Span(NamedTuple):
    """A shift on the wall clock [s since the week or day 0 begins]."""

    start: int
    end: int
    name: str
    day: str
    place: str
    source: str
    """The version or the exception that it comes from."""


def _calendars(raw: Mapping[str, Any], tables: PlantFile) -> Iterator[Complaint]:
    for name, calendar in tables.calendar.items():
        place = f"calendar.{name}"
        table = raw["calendar"][name]
        before: date | None = calendar.valid_from
        known = _shift_names(table)
        yield from _week(place, known, calendar.shifts, calendar.rotation)
        for index, version in enumerate(calendar.version):
            at = f"{place}.version[{index + 1}]"
            yield from _week(at, known, version.shifts, version.rotation)
            if before is not None and version.valid_from <= before:
                yield f"{at}.valid_from", f"is {version.valid_from}", f"must be later than {before}"
            before = version.valid_from
        yield from _dated(raw, place, table, calendar)


def _shift_names(calendar: Mapping[str, Any]) -> set[str]:
    """Return the shifts of a calendar as written, of all its versions."""
    tables = (calendar, *_rows(calendar, "version"))
    return {str(row.get("name")) for table in tables for row in _rows(table, "shifts")}


def _week(
    place: str, known: set[str], shifts: Sequence[ShiftTable], rotation: RotationTable | None
) -> Iterator[Complaint]:
    for shift in shifts:
        at = f"{place}.shifts[{item_name(shift.name)}]"
        if not shift.days:
            yield f"{at}.days", "is empty", "allowed: one or more of mon to sun"
        yield from _breaks(at, shift.start, shift.end, shift.breaks)
        if sum(shift.name == other.name and bool(set(shift.days) & set(other.days)) for other in shifts) > 1:
            yield at, "the name stands twice on one day", "one shift per name and day"
    spans = sorted(
        _Span(start, end, shift.name, day, f"{place}.shifts[{item_name(shift.name)}]", "week")
        for shift in shifts
        for day in shift.days
        for start, end in [_span(WEEKDAYS.index(day) * _DAY, shift.start, shift.end)]
    )
    if spans:
        first = spans[0]
        yield from _overlaps([*spans, first._replace(start=first.start + _WEEK, end=first.end + _WEEK)])
    if rotation is not None:
        yield from _rotation(f"{place}.rotation", rotation, known)


def _span(base: int, start: time, end: time) -> tuple[int, int]:
    """Return a shift's start and end on the wall clock [s]; an end not after the start is the next day's."""
    first, last = _secs(start), _secs(end)
    return base + first, base + last + (_DAY if last <= first else 0)


def _secs(moment: time) -> int:
    return moment.hour * 3600 + moment.minute * 60 + moment.second


def _overlaps(spans: Sequence[_Span]) -> Iterator[Complaint]:
    """Name each pair of neighbours that overlap, with all the days on which they do."""
    found: dict[tuple[str, str, str, float], list[str]] = {}
    for one, after in pairwise(sorted(spans)):
        if after.start < one.end:
            minutes = (min(one.end, after.end) - after.start) / 60
            found.setdefault((after.place, after.name, one.name, minutes), []).append(after.day)
    for (place, name, other, minutes), days in found.items():
        yield (
            place,
            f"shift {name} overlaps shift {other} by {minutes:g} min on {', '.join(days)}",
            "shifts of a calendar may touch, not overlap",
        )


def _breaks(place: str, start: time, end: time, breaks: Sequence[BreakTable]) -> Iterator[Complaint]:
    first, last = _span(0, start, end)
    spans = []
    for index, pause in enumerate(breaks):
        at = f"{place}.breaks[{index + 1}]"
        begin = _secs(pause.start) + (_DAY if _secs(pause.start) < first else 0)
        stop = begin + pause.minutes * 60
        if stop > last:
            yield (
                at,
                f"the break {pause.start:%H:%M} for {pause.minutes} min is outside its shift",
                f"must lie within {start:%H:%M} to {end:%H:%M}",
            )
        spans.append((begin, stop, at))
    for one, next_one in pairwise(sorted(spans)):
        if next_one[0] < one[1]:
            yield next_one[2], "overlaps another break", "breaks of a shift may touch, not overlap"


def _rotation(place: str, rotation: RotationTable, shifts: set[str]) -> Iterator[Complaint]:
    crews, pattern = rotation.crews, rotation.pattern
    if len(set(crews)) != len(crews):
        yield f"{place}.crews", "a crew stands twice", "one name per crew"
    if isinstance(pattern, dict):
        if set(pattern) != set(crews):
            yield (
                f"{place}.pattern",
                f"is for {', '.join(pattern)}",
                f"one pattern per crew: {', '.join(crews)}",
            )
            return
    elif len(pattern) % len(crews):
        yield (
            f"{place}.pattern",
            f"{len(pattern)} days cannot be shared evenly by {len(crews)} crews",
            "a multiple of the number of crews, or one pattern per crew",
        )
        return
    patterns = rotation.patterns
    for word in sorted({word for days in patterns.values() for word in days} - shifts - {OFF}):
        yield f"{place}.pattern", f"{word!r} is no shift", f"{_one_of(shifts)}; {OFF!r} for a day off"
    yield from _two_crews(place, patterns)


def _two_crews(place: str, patterns: Mapping[str, Sequence[str]]) -> Iterator[Complaint]:
    days = max(map(len, patterns.values()))
    for day in range(min(days * len(patterns), _MAX_CYCLE_DAYS)):
        at_work: dict[str, str] = {}
        for crew, pattern in patterns.items():
            word = pattern[day % len(pattern)]
            if word != OFF and (other := at_work.setdefault(word, crew)) != crew:
                yield f"{place}.pattern", f"day {day + 1} has {other} and {crew} on shift {word}", "one crew"
                return


def _dated(
    raw: Mapping[str, Any], place: str, table: Mapping[str, Any], calendar: CalendarTable
) -> Iterator[Complaint]:
    for index, holiday in enumerate(calendar.holidays):
        if holiday.through is not None and holiday.through < holiday.date:
            yield (
                f"{place}.holidays[{index + 1}].through",
                f"is {holiday.through}",
                f"must not be before {holiday.date}",
            )
    for index, stop in enumerate(calendar.planned_stops):
        at = f"{place}.planned_stops[{index + 1}]"
        if isinstance(stop.start, datetime) == bool(stop.days):
            yield f"{at}.days", "does not fit the start", "a moment has no days, a time of day needs them"
        if stop.reason:
            yield from _reason(raw, f"{at}.reason", stop.reason)
        yield from _scope(raw, at, stop.lines, stop.machines)
    yield from _exceptions(place, table, calendar)


def _exceptions(place: str, table: Mapping[str, Any], calendar: CalendarTable) -> Iterator[Complaint]:
    known = _shift_names(table)
    seen: set[tuple[date, str]] = set()
    sound = True
    for index, exception in enumerate(calendar.exceptions):
        at = f"{place}.exceptions[{index + 1}]"
        if (exception.date, exception.shift) in seen:
            yield (
                at,
                f"shift {exception.shift} of {exception.date} stands twice",
                "one exception per date and shift",
            )
        seen.add((exception.date, exception.shift))
        timed = (exception.start is not None, exception.end is not None)
        if any(timed) != all(timed):
            yield at, "has one of start and end", "both, or none for the usual times"
            sound = False
        if exception.cancelled and (any(timed) or exception.breaks or exception.crew):
            yield at, "is cancelled and has times, breaks or a crew", "one or the other"
        if exception.shift not in known and not any(timed):
            yield (
                f"{at}.shift",
                f"unknown shift {exception.shift!r}",
                f"{_one_of(known)}; an extra one needs start and end",
            )
            sound = False
        if exception.breaks and (times := _times(place, calendar, exception)) is not None:
            yield from _breaks(at, *times, exception.breaks)
    if sound:
        yield from _overlaps_around(place, calendar)


def _times(place: str, calendar: CalendarTable, exception: ExceptionTable) -> tuple[time, time] | None:
    """Return when an exception's shift begins and ends; None where that is not known."""
    if exception.start is not None and exception.end is not None:
        return exception.start, exception.end
    _, shifts = _in_force(place, calendar, exception.date)
    today = (shift for shift in shifts if WEEKDAYS[exception.date.weekday()] in shift.days)
    return next(((shift.start, shift.end) for shift in today if shift.name == exception.shift), None)


def _overlaps_around(place: str, calendar: CalendarTable) -> Iterator[Complaint]:
    """Lay the days around each exception and each change of version beside each other."""
    days = {exception.date for exception in calendar.exceptions}
    days |= {version.valid_from for version in calendar.version}
    for day in sorted(days):
        spans = [
            span
            for offset in (-1, 0, 1)
            for span in _spans_on(place, calendar, day + timedelta(days=offset), offset * _DAY)
        ]
        for one, after in pairwise(sorted(spans)):
            if one.source != after.source:  # what one week says is judged by that week
                yield from _overlaps((one, after))


def _spans_on(place: str, calendar: CalendarTable, day: date, base: int) -> list[_Span]:
    """Return what starts on a date, as cloud.oee.calendar lays it out."""
    exceptions = {e.shift: (index, e) for index, e in enumerate(calendar.exceptions) if e.date == day}
    source, shifts = _in_force(place, calendar, day)
    holiday = any(h.date <= day <= (h.through or h.date) for h in calendar.holidays)
    today = [shift for shift in shifts if WEEKDAYS[day.weekday()] in shift.days]
    spans = [
        _Span(
            *_span(base, shift.start, shift.end),
            shift.name,
            str(day),
            f"{source}.shifts[{item_name(shift.name)}]",
            source,
        )
        for shift in today
        if not holiday and shift.name not in exceptions
    ]
    for name, (index, exception) in exceptions.items():
        usual = next((shift for shift in (*today, *shifts) if shift.name == name), None)
        start = exception.start or (usual.start if usual else None)
        end = exception.end or (usual.end if usual else None)
        if not exception.cancelled and start is not None and end is not None:
            at = f"{place}.exceptions[{index + 1}]"
            spans.append(_Span(*_span(base, start, end), name, str(day), at, at))
    return spans


def _in_force(place: str, calendar: CalendarTable, day: date) -> tuple[str, tuple[ShiftTable, ...]]:
    """Return the key path and the shifts of the version that holds on a date."""
    found: tuple[str, tuple[ShiftTable, ...]] = (place, calendar.shifts)
    if calendar.valid_from is not None and day < calendar.valid_from:
        found = (place, ())
    for index, version in enumerate(calendar.version):
        if version.valid_from <= day:
            found = (f"{place}.version[{index + 1}]", version.shifts)
    return found
