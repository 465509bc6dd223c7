"""Shifts of single dates as a planning system says: other times, cancelled, or extra ones, before they begin.

They are laid over the calendars of plant.toml as exceptions. A shift that has begun stays what it is: what
was not worked of it is said as a planned stop, which revises its figures.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, time
from types import MappingProxyType
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from cloud.masterdata.config import FIELDS, REQUIRED, MasterDataTable
from cloud.masterdata.rows import BadRow, Row, is_empty, is_yes, text_of
from cloud.masterdata.sources import source_of
from cloud.masterdata.sync import Change, Notes, Outcome, Sync
from cloud.oee.calendar import YEARS, ShiftWindow, local_date, shifts_between
from cloud.oee.corrections import Correction
from cloud.plant import Calendar, Machine, Plant
from cloud.plant_faults import calendar_overlaps
from cloud.plant_tables import ExceptionTable

_DAY_US: Final = 86_400_000_000
_NEAR_DAYS: Final = 2
_LATELY_US: Final = 7 * _DAY_US
"""How long ago a shift may have begun for a change of it to be worth a word; older rows are passed by."""


class Entry(msgspec.Struct, frozen=True):
    """One shift of one date."""

    ref: str
    site: str
    calendar: str
    date: str
    shift: str
    start: str | None = None
    end: str | None = None
    crew: str = ""
    cancelled: bool = False
    is_deleted: bool = False

    def exception(self) -> ExceptionTable:
        """Return it as plant.toml would say it; raise ValidationError when that cannot be said."""
        said = {
            "date": date.fromisoformat(self.date),
            "shift": self.shift,
            "cancelled": self.cancelled,
            "start": self.start,
            "end": self.end,
            "crew": self.crew,
        }
        return ExceptionTable.model_validate(said)


Entries = Mapping[str, Entry]
"""By ref."""


def entries_of(notes: Notes, source: str) -> dict[str, Entry]:
    """Return the shifts that a source says."""
    body = notes.note(_note_name(source))
    return {} if body is None else msgspec.json.decode(body, type=dict[str, Entry])


def scheduled(plant: Plant, entries: Iterable[Entry]) -> Plant:
    """Return a plant whose calendars have some exceptions more; of calendars that it lacks none."""
    by_calendar: dict[tuple[str, str], list[ExceptionTable]] = {}
    for entry in entries:
        by_calendar.setdefault((entry.site, entry.calendar), []).append(entry.exception())
    if not by_calendar:
        return plant
    sites = {
        name: replace(
            site,
            calendars=MappingProxyType(
                {
                    key: _with(calendar, by_calendar.get((name, key), ()))
                    for key, calendar in site.calendars.items()
                }
            ),
        )
        for name, site in plant.sites.items()
    }
    machines = {key: _moved(machine, sites) for key, machine in plant.machines.items()}
    return Plant(sites=MappingProxyType(sites), machines=MappingProxyType(machines))


def read_entry(row: Row, table: MasterDataTable, plant: Plant) -> Entry | BadRow:
    """Read one row of a source of shifts."""
    said = {field: row.get(table.column(field)) for field in FIELDS["shift"]}
    ref = text_of(said["ref"]) or "(without ref)"
    missing = [field for field in REQUIRED["shift"] if is_empty(said[field])]
    if missing:
        return BadRow(ref, f"{', '.join(table.column(field) for field in missing)} is empty or missing")
    found = _calendars(plant, text_of(said["calendar"]))
    if len(found) != 1:
        named = text_of(said["calendar"]) or "none is named"
        return BadRow(ref, f"calendar {named!r} is {len(found)} calendars of the plant: say site/calendar")
    ((site, calendar),) = found
    try:
        day = date.fromisoformat(_day_text(said["date"]))
    except ValueError:
        day = date.min
    if day.year not in YEARS:
        return BadRow(ref, f"{text_of(said['date'])!r} is not a date such as 2026-11-23")
    entry = Entry(
        ref=ref,
        site=site,
        calendar=calendar.name,
        date=day.isoformat(),
        shift=text_of(said["shift"]),
        start=_clock_text(said["start"]),
        end=_clock_text(said["end"]),
        crew=text_of(said["crew"]),
        cancelled=is_yes(said["cancelled"]),
        is_deleted=is_yes(said["deleted"]),
    )
    return _checked(entry, calendar)


class Schedule(Sync):
    """One source of shifts, worked in whenever `run` is called."""

    def __init__(
        self,
        table: MasterDataTable,
        notes: Notes,
        *,
        base: Callable[[], Plant],
        plant: Callable[[], Plant],
        changed: Callable[[], None],
        now_us: Callable[[], int],
    ) -> None:
        """Make it.

        base: the plant as plant.toml says it
        plant: the plant in force
        changed: called when the shifts have changed
        """
        super().__init__(table, notes, plant=plant, corrections=_none, correct=_never, now_us=now_us)
        self._base = base
        self._changed = changed

    def read(self, row: Row, plant: Plant) -> Any:
        """Read one row."""
        return read_entry(row, self.table, plant)

    def work(self, rows: Iterable[Any], made: Sequence[Correction]) -> Outcome:
        """Take the shifts that have not begun."""
        del made
        entries = entries_of(self._notes, self.table.name)
        before = dict(entries)
        changes, bad_rows, passed, unchanged = [], [], [], 0
        for row in {row.ref: row for row in rows}.values():
            if isinstance(row, BadRow):
                bad_rows.append(row)
                continue
            known = entries.get(row.ref)
            if row == known or (row.is_deleted and known is None):
                unchanged += 1
                continue
            problem = self._problem(row, known, entries)
            if problem is None:
                days = _LATELY_US // _DAY_US
                passed.append(BadRow(row.ref, f"shift {row.shift} of {row.date} began over {days} days ago"))
            elif problem:
                bad_rows.append(BadRow(row.ref, problem))
            else:
                changes.append(Change(row.ref, known, None if row.is_deleted else row))
                entries = _put(entries, row)
        if entries != before:
            self._notes.set_note(_note_name(self.table.name), msgspec.json.encode(entries))
            self._changed()
        return Outcome(changes, bad_rows, unchanged, passed)

    def _problem(self, entry: Entry, known: Entry | None, entries: Entries) -> str | None:
        """Return why an entry may not be taken, '' when it may; None for one that is long past."""
        now_us, plant = self._now_us(), scheduled(self._base(), entries.values())
        after = scheduled(self._base(), _put(entries, entry).values())
        touched = [
            *_windows(plant, entry),
            *_windows(after, entry),
            *(() if known is None else _windows(plant, known)),
        ]
        starts = [window.start_us for window in touched]
        if starts and min(starts) <= now_us - _LATELY_US:
            return None
        if starts and min(starts) <= now_us:
            return (
                f"shift {entry.shift} of {entry.date} has begun and keeps its times: "
                "say what was not worked of it as a row of kind planned_stop"
            )
        return "" if entry.is_deleted else "; ".join(_overlaps(after, entry))


def _checked(entry: Entry, calendar: Calendar) -> Entry | BadRow:
    """Return an entry that can be laid out, or why it cannot."""
    names = {shift.name for version in calendar.versions for shift in version.shifts}
    if (entry.start is None) != (entry.end is None):
        return BadRow(entry.ref, "says a start or an end alone: say both or neither")
    if entry.shift not in names and entry.start is None and not entry.cancelled and not entry.is_deleted:
        known = ", ".join(sorted(names))
        return BadRow(entry.ref, f"shift {entry.shift!r} is not of the calendar ({known}): say start and end")
    try:
        entry.exception()
    except ValidationError as error:
        fault = error.errors()[0]
        return BadRow(entry.ref, f"{fault['loc'][0]}: {fault['msg'].removeprefix('Value error, ')}")
    return entry


def _calendars(plant: Plant, name: str) -> list[tuple[str, Calendar]]:
    return [
        (site.name, calendar)
        for site in plant.sites.values()
        for calendar in site.calendars.values()
        if not name or name in (calendar.name, f"{site.name}/{calendar.name}")
    ]


def _windows(plant: Plant, entry: Entry) -> list[ShiftWindow]:
    """Return the shift of an entry as a plant has it now."""
    day_us = round(datetime.fromisoformat(f"{entry.date}T00:00+00:00").timestamp() * 1e6)
    for machine in plant.machines.values():
        if (machine.site.name, machine.calendar.name) == (entry.site, entry.calendar):
            return [
                window
                for window in shifts_between(machine, day_us - _DAY_US, day_us + 2 * _DAY_US)
                if window.name == entry.shift
                and local_date(machine.timezone, window.start_us).isoformat() == entry.date
            ]
    return []


def _overlaps(plant: Plant, entry: Entry) -> list[str]:
    """Return which shifts overlap around an entry, as a plant has them."""
    table, day = plant.sites[entry.site].calendars[entry.calendar].table, date.fromisoformat(entry.date)
    near = tuple(each for each in table.exceptions if abs((each.date - day).days) <= _NEAR_DAYS)
    return calendar_overlaps(table.model_copy(update={"exceptions": near}))


def _put(entries: Entries, entry: Entry) -> dict[str, Entry]:
    """Return the entries with one more; of two for the same shift the later holds."""
    place = (entry.site, entry.calendar, entry.date, entry.shift)
    kept = {
        ref: other
        for ref, other in entries.items()
        if ref != entry.ref and (other.site, other.calendar, other.date, other.shift) != place
    }
    return kept if entry.is_deleted else {**kept, entry.ref: entry}


def _with(calendar: Calendar, exceptions: Sequence[ExceptionTable]) -> Calendar:
    said = {(exception.date, exception.shift) for exception in exceptions}
    own = [each for each in calendar.table.exceptions if (each.date, each.shift) not in said]
    table = calendar.table.model_copy(update={"exceptions": (*own, *exceptions)})
    return replace(calendar, table=table)


def _moved(machine: Machine, sites: Mapping[str, Any]) -> Machine:
    site = sites[machine.site.name]
    return replace(machine, site=site, calendar=site.calendars[machine.calendar.name])


def _day_text(value: Any) -> str:
    return value.isoformat()[:10] if isinstance(value, date) else text_of(value)[:10]


def _clock_text(value: Any) -> str | None:
    if is_empty(value):
        return None
    moment = value.time() if isinstance(value, datetime) else value
    return moment.strftime("%H:%M:%S") if isinstance(moment, time) else text_of(moment)


def preview(table: MasterDataTable, notes: Notes, plant: Plant, now_us: int) -> Outcome:
    """Return what reading a source from its beginning would change; raise MasterDataError.

    plant: as plant.toml says it
    """
    scratch = _Scratch({_note_name(table.name): notes.note(_note_name(table.name)) or b"{}"})
    in_force = scheduled(plant, entries_of(scratch, table.name).values())
    schedule = Schedule(
        table,
        scratch,
        base=lambda: plant,
        plant=lambda: in_force,
        changed=lambda: None,
        now_us=lambda: now_us,
    )
    rows = source_of(table).read(None).rows
    return schedule.work([schedule.read(found.row, plant) for found in rows], ())


class _Scratch:
    """Notes that nobody else reads."""

    def __init__(self, kept: dict[str, bytes]) -> None:
        self._kept = kept

    def note(self, name: str) -> bytes | None:
        return self._kept.get(name)

    def set_note(self, name: str, body: bytes) -> None:
        self._kept[name] = body


def _note_name(source: str) -> str:
    return f"schedule:{source}"


def _none() -> Sequence[Correction]:
    return ()


def _never(correction: Correction) -> int:
    raise AssertionError(correction)
