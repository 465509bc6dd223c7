"""Lists the shifts that a plant's calendars come to, as `oee calendar` shows them."""

import csv
import io
import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

from rich import box
from rich.table import Table

from cloud.oee.calendar import ShiftWindow, shifts_between
from cloud.plant import Machine, Plant
from cloud.render import plain
from contract.machine_key import MachineKey

Format = Literal["table", "json", "csv"]
_US_PER_MINUTE: Final = 60_000_000


class CalendarRow(NamedTuple):
    """One shift as the machines named follow it."""

    site: str
    calendar: str
    production_date: str
    shift: str
    start: str
    """ISO 8601, local with offset."""
    end: str
    crew: str
    shift_minutes: float
    break_minutes: float
    planned_minutes: float
    is_exception: bool
    machines: tuple[str, ...]
    """area/line/machine of each."""


def calendar_rows(
    plant: Plant, from_us: int, to_us: int, machines: Collection[MachineKey] | None = None
) -> list[CalendarRow]:
    """Return the shifts that start in [from_us, to_us), one row for all machines that agree in them.

    machines: the machines to look at, all when None; raise UnknownMachineError for one not in the plant
    """
    chosen = plant.machines.values() if machines is None else map(plant.machine, machines)
    followers: dict[tuple[str, ShiftWindow], list[Machine]] = {}
    for machine in chosen:
        for shift in shifts_between(machine, from_us, to_us):
            if from_us <= shift.start_us:
                followers.setdefault((machine.key.site, shift), []).append(machine)
    ordered = sorted(
        followers.items(), key=lambda item: (item[0][0], item[0][1].start_us, item[0][1].calendar)
    )
    return [_row(shift, found) for (_, shift), found in ordered]


def render_calendar(rows: Sequence[CalendarRow], form: Literal["json", "csv"]) -> str:
    """Return rows as a JSON array of objects, or as CSV with a heading."""
    if form == "json":
        return json.dumps([row._asdict() for row in rows], indent=2) + "\n"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CalendarRow._fields)
    writer.writerows([*row[:-1], " ".join(row.machines)] for row in rows)
    return text.getvalue()


def calendar_table(rows: Sequence[CalendarRow]) -> Table:
    """Return rows as a table for people, times local to the site."""
    table = Table(title="Shifts", caption="times are local to the site", box=box.SIMPLE_HEAD)
    for heading in ("site", "calendar", "date", "shift", "start", "end", "crew"):
        table.add_column(heading)
    for heading in ("length", "breaks", "planned"):
        table.add_column(plain(f"{heading} [min]"), justify="right")
    table.add_column("machines")
    for row in rows:
        table.add_row(
            row.site,
            row.calendar,
            row.production_date,
            row.shift + (" *" if row.is_exception else ""),
            f"{datetime.fromisoformat(row.start):%a %d %b %H:%M}",
            f"{datetime.fromisoformat(row.end):%a %d %b %H:%M}",
            row.crew or "-",
            *(f"{minutes:g}" for minutes in (row.shift_minutes, row.break_minutes, row.planned_minutes)),
            _summary(row.machines),
        )
    if not all(row.crew for row in rows):
        table.caption = f"{table.caption}; crew -: none is planned"
    if any(row.is_exception for row in rows):
        table.caption = f"{table.caption}; * differs from the ordinary week"
    return table


def _row(shift: ShiftWindow, machines: Sequence[Machine]) -> CalendarRow:
    zone = machines[0].timezone
    return CalendarRow(
        site=machines[0].key.site,
        calendar=shift.calendar,
        production_date=shift.production_date.isoformat(),
        shift=shift.name,
        start=_local(zone, shift.start_us),
        end=_local(zone, shift.end_us),
        crew=shift.crew,
        shift_minutes=(shift.end_us - shift.start_us) / _US_PER_MINUTE,
        break_minutes=sum(end_us - start_us for start_us, end_us in shift.breaks) / _US_PER_MINUTE,
        planned_minutes=shift.planned_us / _US_PER_MINUTE,
        is_exception=shift.is_exception,
        machines=tuple("/".join(machine.key[1:]) for machine in machines),
    )


def _local(zone: ZoneInfo, instant_us: int) -> str:
    return datetime.fromtimestamp(instant_us // 1_000_000, zone).isoformat()


def _summary(machines: Iterable[str], shown: int = 3) -> str:
    names = list(machines)
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
