"""What `oee corrections ...` does. Each returns the exit code and prints for people or programs.

All work beside the running service, through its store: who may use its folder may correct. The service takes
a correction up with its next look, and revises the closed shifts that it touches.
"""

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from cloud.commands import OK, opened, told
from cloud.errors import AskedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud.oee.corrections import Correction, Kind
    from cloud.plant import Machine, Plant
    from cloud.render import Format

_MOMENTARY = ("off_quality", "comment")
"""Kinds that may be of one moment."""


class Span(NamedTuple):
    """Which time a correction is of, as it was typed: a shift, or moments local to the site."""

    since: str | None = None
    until: str | None = None
    shift: str | None = None
    """`DATE/NAME`, such as `2021-06-30/1`."""


class Amounts(NamedTuple):
    """What is said of that time, as far as the kind of correction asks for it."""

    reason: str | None = None
    units: int | None = None
    product: str | None = None
    order: str | None = None
    rate: float | None = None


@told
def add(config: Path, kind: "Kind", machine: str, span: Span, said: Amounts, *, why: str, by: str) -> int:
    """Make a correction of one machine's past; raise AskedError when it may not be made."""
    from cloud.clock import clock_us
    from cloud.correcting import Corrections
    from cloud.oee.corrections import Correction
    from contract.machine_key import MachineKey

    with opened(config) as (_, plant, store):
        try:
            found = plant.machine(MachineKey.parse(machine))
        except ValueError as error:
            raise AskedError(f"{machine}: {error}") from error
        from_us, to_us = _range_us(found, kind, span)
        wanted = Correction(
            machine=str(found.key),
            kind=kind,
            from_us=from_us,
            to_us=to_us,
            who=by,
            when_us=0,
            why=why,
            **said._asdict(),
        )
        number = Corrections(store, plant=lambda: plant, now_us=clock_us).correct(wanted)
        _tell(number, wanted, found.timezone)
    return OK


@told
def take_back(config: Path, number: int, *, why: str, by: str) -> int:
    """Take a correction back by one more, which voids it; raise AskedError when none of that number is."""
    from cloud.clock import clock_us
    from cloud.correcting import Corrections
    from cloud.oee.corrections import Correction

    with opened(config) as (_, plant, store):
        made = Corrections(store, plant=lambda: plant, now_us=clock_us)
        taken = next((each for each in made.all() if each.number == number), None)
        if taken is None:
            raise AskedError(f"there is no correction {number}; see `oee corrections list`")
        wanted = Correction(
            machine=taken.machine,
            kind="void",
            from_us=taken.from_us,
            to_us=taken.to_us,
            who=by,
            when_us=0,
            why=why,
            voids=number,
        )
        _tell(made.correct(wanted), wanted, plant.machine(taken.machine_key).timezone)
    return OK


@told
def show(
    config: Path,
    *,
    place: str | None = None,
    since: str | None = None,
    until: str | None = None,
    past: bool = False,
    form: "Format" = "table",
) -> int:
    """Print the corrections in force; with past, also those taken back, and what took them back.

    place: only of what lies below, `site/area/line/machine` from the left
    since, until: only those that touch this time
    form: json is what `oee compute --corrections` reads
    """
    import msgspec

    from cloud.clock import clock_us
    from cloud.correcting import Corrections
    from cloud.oee.corrections import in_force, touched

    with opened(config) as (_, plant, store):
        made = Corrections(store, plant=lambda: plant, now_us=clock_us).all()
        wanted = _within(plant, since, until)
        chosen = [
            each
            for each in (made if past else in_force(made))
            for _, from_us, to_us in [touched(each, made)]
            if _lies_in(each.machine, place) and wanted[0] < to_us and from_us < wanted[1]
        ]
        if form == "json":
            text = msgspec.json.format(msgspec.json.encode(chosen), indent=2).decode()
            print(text)
        elif form == "csv":
            _print_csv(chosen)
        elif chosen:
            _print_table(chosen, plant)
        else:
            print("nothing was corrected")
    return OK


def _range_us(machine: "Machine", kind: str, span: Span) -> tuple[int, int]:
    """Return [from, to) of what was typed."""
    from cloud.compute import moment_us, parse_moment

    if span.shift is not None:
        if span.since is not None or span.until is not None:
            raise AskedError("say either --shift or --from and --to")
        return _shift_us(machine, span.shift)
    if span.since is None or (span.until is None and kind not in _MOMENTARY):
        raise AskedError(
            f"say of which time: --from and --to, or --shift such as 2021-06-30/{_a_shift(machine)}"
        )
    from_us, to_us = (
        moment_us(machine.timezone, parse_moment(text)) for text in (span.since, span.until or span.since)
    )
    return from_us, max(to_us, from_us + 1) if span.until is None else to_us


def _a_shift(machine: "Machine") -> str:
    return next((shift.name for version in machine.calendar.versions for shift in version.shifts), "NAME")


def _shift_us(machine: "Machine", shift: str) -> tuple[int, int]:
    """Return when the shift of a production date, `DATE/NAME`, begins and ends."""
    from cloud.compute import parse_moment
    from cloud.oee.calendar import instant, shifts_between

    day, _, name = shift.partition("/")
    date = parse_moment(day)
    if isinstance(date, datetime) or not name:
        raise AskedError(f"{shift!r} names no shift: such as 2021-06-30/{_a_shift(machine)}")
    noon_us = instant(machine.timezone, datetime(date.year, date.month, date.day, 12))  # noqa: DTZ001  local
    near = shifts_between(machine, noon_us - 36 * 3_600_000_000, noon_us + 36 * 3_600_000_000)
    of_day = [window for window in near if window.production_date == date]
    for window in of_day:
        if window.name == name:
            return window.start_us, window.end_us
    names = ", ".join(window.name for window in of_day) or "none"
    raise AskedError(f"{machine.key} has no shift {name!r} on {day}; there are: {names}")


def _within(plant: "Plant", since: str | None, until: str | None) -> tuple[int, int]:
    from cloud.compute import instant_us, parse_moment

    ends = [(-(2**62), min), (2**62, max)]
    first, last = (
        unbounded
        if text is None
        else choose(instant_us(part, parse_moment(text)) for part in plant.by_timezone)
        for text, (unbounded, choose) in zip((since, until), ends, strict=True)
    )
    return first, last


def _lies_in(machine: str, place: str | None) -> bool:
    return place is None or f"{machine}/".startswith(f"{place.strip('/')}/")


def _tell(number: int, said: "Correction", zone: ZoneInfo) -> None:
    from contract.printable import printable

    words = f"{said.machine}, {_moment(said.from_us, zone)} to {_moment(said.to_us, zone)}"
    sys.stdout.write(printable(f"{number}: {_words(said)} by {said.who}: {words}") + "\n")
    sys.stdout.write(
        "A running service shows it with its next look, and revises the shifts that it touches.\n"
    )


def _words(said: "Correction") -> str:
    """Return what is said, beyond of which machine and time."""
    if said.kind == "void":
        return f"takes {said.voids} back"
    parts = [
        said.kind.replace("_", " "),
        said.reason,
        None if said.units is None else f"{said.units:+d} units",
        None if said.rate is None else f"{said.rate:g} units/min",
        None if said.order is None else f"order {said.order}",
        None if said.product is None else f"product {said.product}",
    ]
    return " ".join(part for part in parts if part)


def _moment(at_us: int, zone: ZoneInfo) -> str:
    from cloud.masterdata.rows import OPEN_END_US

    if at_us >= OPEN_END_US:
        return "open"
    return f"{datetime.fromtimestamp(at_us / 1e6, zone):%Y-%m-%d %H:%M:%S}"


def _print_csv(chosen: "Sequence[Correction]") -> None:
    import csv

    from cloud.oee.figures import iso_utc

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["number", "machine", "from", "to", "says", "why", "who", "when"])
    writer.writerows(
        [
            each.number,
            each.machine,
            iso_utc(each.from_us),
            iso_utc(each.to_us),
            _words(each),
            each.why,
            each.who,
            iso_utc(each.when_us),
        ]
        for each in chosen
    )


def _print_table(chosen: "Sequence[Correction]", plant: "Plant") -> None:
    from rich import box
    from rich.table import Table

    from cloud.render import plain, wide_console

    table = Table(*("number", "machine", "from", "to", "says", "why", "by", "on"), box=box.SIMPLE_HEAD)
    for each in chosen:
        site = plant.sites.get(each.machine_key.site)
        zone = ZoneInfo("UTC") if site is None else site.timezone
        table.add_row(
            str(each.number),
            *map(
                plain,
                (
                    each.machine,
                    _moment(each.from_us, zone),
                    _moment(each.to_us, zone),
                    _words(each),
                    each.why,
                    each.who,
                    _moment(each.when_us, zone),
                ),
            ),
        )
    wide_console().print(table, highlight=False)
