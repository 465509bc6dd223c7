"""From files alone to figures: the way to check any number, with the same functions that the service uses."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from cloud.errors import AskedError
from cloud.ingest import files as telemetry_files
from cloud.ingest.files import BadLine
from cloud.oee import records, rollup, timeline
from cloud.oee.calendar import YEARS, begin_of_shift_before, instant
from cloud.oee.corrections import Correction, cuts, in_force, planned_stops
from cloud.oee.counters import beyond_width
from cloud.oee.figures import Figures
from cloud.oee.frame import Frame, Window
from cloud.oee.pieces import Piece, Rules
from cloud.oee.records import Names, Records
from cloud.oee.rollup import Level, Per
from cloud.oee.totals import timeline as judged
from cloud.plant import Plant
from contract.machine_key import MachineKey

Moment = date | datetime
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Progress = Callable[[int], None]
"""Is told how many bytes of a file were read since it was last called."""
PieceSource = Callable[[Frame, Rules], Piece]
"""Builds the timeline that the figures of a frame depend on."""


@dataclass(frozen=True)
class Computation:
    """What files come to."""

    figures: list[Figures]
    records: int
    """Without repeated ones."""
    refused: list[BadLine]
    not_in_plant: dict[MachineKey, int]
    """Records of machines that the plant does not name."""


def compute(
    plant: Plant,
    files: Sequence[Path],
    *,
    since: Moment | None = None,
    until: Moment | None = None,
    per: Per = "shift",
    level: Level = "machine",
    corrections: Sequence[Correction] = (),
    progress: Progress | None = None,
) -> Computation:
    """Return the figures of telemetry files.

    corrections: what people said of the past; those that were taken back are left out
    since, until: [since, until) to take the windows of: dates mean production dates, moments without a time
        zone are local to the site; by default every window that a record falls into
    """
    names = Names()
    for key in plant.machines:
        names.machine(key)
    read, refused = read_telemetry(files, names, progress)
    known = np.array([key in plant.machines for key in names.machines], dtype=np.bool_)[read.machine]
    strangers = Counter(names.machines[index] for index in read.machine[~known].tolist())
    read = read.take(known)
    figures = figures_of(
        read, plant, names, since=since, until=until, per=per, level=level, corrections=corrections
    )
    return Computation(figures, len(known), refused, dict(strangers))


def figures_of(
    read: Records,
    plant: Plant,
    names: Names,
    *,
    since: Moment | None = None,
    until: Moment | None = None,
    per: Per = "shift",
    level: Level = "machine",
    corrections: Sequence[Correction] = (),
) -> list[Figures]:
    """Return the figures of records."""
    first_us = int(read.time_us.min()) if len(read) else None
    last_us = int(read.time_us.max()) if len(read) else None
    return figures_from(
        lambda frame, rules: timeline.build(read, rules, frame.cuts),
        plant,
        names,
        (first_us, last_us),
        since=since,
        until=until,
        per=per,
        level=level,
        corrections=corrections,
        remarks=_remarks(read, plant, names),
    )


def figures_from(
    source: PieceSource,
    plant: Plant,
    names: Names,
    extent: tuple[int | None, int | None],
    *,
    since: Moment | None = None,
    until: Moment | None = None,
    per: Per = "shift",
    level: Level = "machine",
    corrections: Sequence[Correction] = (),
    remarks: Mapping[MachineKey, tuple[str, ...]] | None = None,
) -> list[Figures]:
    """Return the figures of a timeline, wherever it was built.

    extent: [us] of the first and the last record, which since and until may be left out for
    """
    if len(plant.by_timezone) > 1:
        return [
            row
            for part in plant.by_timezone
            for row in figures_from(
                source,
                part,
                names,
                extent,
                since=since,
                until=until,
                per=per,
                level=level,
                corrections=[item for item in corrections if item.machine_key in part.machines],
                remarks=remarks,
            )
        ]
    first_us, last_us = extent
    from_us = first_us if since is None else instant_us(plant, since)
    to_us = last_us if until is None else instant_us(plant, until)
    if from_us is None or to_us is None:
        return []
    if until is None:
        to_us = max(to_us, from_us + 1)  # a record at a window's end ends it and opens no other
    if to_us <= from_us:
        raise AskedError(f"nothing lies from {since} until {until}: the end is not after the beginning")
    whole_range = per in ("range", "product", "order")
    valid = in_force(corrections)
    begin_us = from_us
    if since is not None and not whole_range:
        begin_us = begin_of_shift_before(plant.machines.values(), from_us)
    frame = Frame.over(
        plant,
        names,
        begin_us,
        to_us,
        widen="none" if whole_range else "day",
        cuts=cuts(valid),
        planned_stops=planned_stops(valid),
    )
    rules = Rules.of(plant, names)
    found = judged(source(frame, rules), frame, plant, names, rules=rules, corrections=valid)

    def wanted(window: Window) -> bool:
        return _begins_before(window, until, to_us) and not _ends_before(window, since, from_us)

    return rollup.figures(
        found,
        plant,
        names,
        per=per,
        level=level,
        wanted=(lambda _: True) if whole_range else wanted,
        outside_shifts=True,
        remarks=remarks or {},
    )


def read_telemetry(
    files: Iterable[Path], names: Names, progress: Progress | None = None
) -> tuple[Records, list[BadLine]]:
    """Return the records of JSONL files, also gzipped, and what no line of them could be read as.

    A line is one object of the telemetry contract, a gap, or an array of such objects.
    """
    tables: list[Records] = []
    refused: list[BadLine] = []
    for file in files:
        done = 0
        for batch in telemetry_files.read(file):
            tables.append(records.unordered([*batch.records, *batch.gaps], names))
            refused += batch.bad_lines
            if progress:
                progress(batch.read_bytes - done)
                done = batch.read_bytes
    return records.merged(tables, names), refused


def parse_moment(text: str) -> Moment:
    """Read an ISO date or moment of the years 1970 to 2999; raise AskedError for anything else."""
    try:
        found = date.fromisoformat(text) if len(text) <= len("2021-06-30") else datetime.fromisoformat(text)
    except ValueError:
        found = date.min
    if found.year not in YEARS:
        raise AskedError(
            f"{text!r} is neither a date such as 2021-06-30 nor a moment such as 2021-06-30T06:00"
        )
    return found


def _remarks(read: Records, plant: Plant, names: Names) -> dict[MachineKey, tuple[str, ...]]:
    modulus = Rules.of(plant, names).modulus
    found: set[int] = set()
    for value in (read.total, read.off, read.good):
        found.update(beyond_width(read.machine, value, modulus).tolist())
    return {
        names.machines[index]: (f"a counter reads more than counter_bits = {_bits(modulus[index])} can hold",)
        for index in sorted(found)
    }


def _bits(modulus: int) -> int:
    return int(modulus).bit_length() - 1


def instant_us(plant: Plant, moment: Moment) -> int:
    """Return when a date begins, or a moment is, at sites of one time zone."""
    return moment_us(next(iter(plant.sites.values())).timezone, moment)


def moment_us(zone: ZoneInfo, moment: Moment) -> int:
    """Return when a date begins, or a moment is, in a time zone, unless the moment says its own [us]."""
    if not isinstance(moment, datetime):
        return instant(zone, datetime.combine(moment, time()))
    if moment.tzinfo is None:
        return instant(zone, moment)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _begins_before(window: Window, until: Moment | None, to_us: int) -> bool:
    if until is None or isinstance(until, datetime) or window.production_date is None:
        return window.start_us < to_us
    return window.production_date < until


def _ends_before(window: Window, since: Moment | None, from_us: int) -> bool:
    if since is None or isinstance(since, datetime) or window.production_date is None:
        return window.end_us <= from_us
    return window.production_date < since
