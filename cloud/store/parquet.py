"""The history: closed days as Parquet files, one per site and UTC day.

    ROOT/site=berlin/day=2021-06-30/records.parquet

A file holds the whole day of a site, sorted by area, line, machine, time, gateway and sequence, each record
once. It is only ever replaced as a whole: a reader sees the old file or the new one, also after a power cut.
"""

import fcntl
import functools
import heapq
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cloud.errors import HistoryError
from cloud.oee.columns import Ints, firsts
from cloud.oee.records import Names, Records, merged
from cloud.store.parquet_columns import COUNTED, FOR_FIGURES, IDENTITY, SCHEMA, TEXTS, USUAL, records_of
from contract.machine_key import MachineKey

US_PER_DAY: Final = 86_400_000_000
FILE: Final = "records.parquet"
_UNFINISHED: Final = ".records.parquet.unfinished"
_ZSTD_LEVEL: Final = 3
_ALWAYS: Final = 2**62
_LEVELS: Final = ("area", "line", "machine")

_SPANS: Final = "oee_machines"
"""The key of a file's metadata: a JSON object of Span by area/line/machine."""

Levels = tuple[str, str, str]
"""area, line, machine"""
_Version = tuple[int, int, int]


class Partition(NamedTuple):
    """The file of one site and UTC day."""

    site: str
    day: date
    path: Path

    @property
    def start_us(self) -> int:
        """Return the first instant of the day."""
        return day_start_us(self.day)

    @property
    def end_us(self) -> int:
        """Return the first instant after the day."""
        return self.start_us + US_PER_DAY


class Span(NamedTuple):
    """[us] when a machine's records lie in a partition."""

    first_us: int
    last_us: int
    first_count_us: int | None
    """Of the first record that has any counter; None where none has."""
    last_count_us: int | None


class Block(NamedTuple):
    """The rows of one machine."""

    machine: Levels
    rows: pa.Table


class History:
    """A folder of partitions. Any number of readers; writers wait for each other."""

    def __init__(self, root: Path, *, rows_per_group: int = 250_000) -> None:
        self.root = root
        self._rows_per_group = rows_per_group
        self._known: dict[Path, tuple[_Version, dict[Levels, Span]]] = {}

    def partitions(self, site: str | None = None) -> list[Partition]:
        """Return the partitions that exist, by site and day."""
        sites = None if site is None else {site}
        return sorted(partition for partition in self._days(sites) if partition.path.exists())

    def between(self, from_us: int, to_us: int, sites: Collection[str] | None = None) -> list[Partition]:
        """Return the partitions that share time with [from_us, to_us), by day and site."""
        found = [
            partition
            for partition in self._days(sites)
            if partition.start_us < to_us and partition.end_us > from_us and partition.path.exists()
        ]
        return sorted(found, key=lambda partition: (partition.day, partition.site))

    def spans(self, partition: Partition) -> Mapping[Levels, Span]:
        """Return the machines of a partition, each with the times of its first and last record."""
        with _mapped(partition.path):
            stat = partition.path.stat()
            version = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if self._known.get(partition.path, (None, None))[0] != version:
                self._known[partition.path] = (version, _read_spans(partition.path))
        return self._known[partition.path][1]

    def add(self, site: str, day: date, tables: Iterable[pa.Table]) -> Partition:
        """Take records of one site and day in, and return their partition.

        A record that the partition has already, by gateway and sequence, changes nothing.

        tables: of SCHEMA, in the order of their machines and each with whole machines, so that a day can be
        larger than memory
        """
        partition = self._partition(site, day)
        with self._writing(), _mapped(partition.path):
            partition.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = (block for table in tables for block in _blocks(table))
            _write(partition.path, _merged(self._stored(partition), fresh), self._rows_per_group)
        return partition

    def forget(self, site: str, before: date) -> list[Partition]:
        """Delete a site's partitions of days before a date; return those that were."""
        with self._writing():
            old = [partition for partition in self.partitions(site) if partition.day < before]
            for partition in old:
                with _mapped(partition.path):
                    doomed = partition.path.parent.with_name(f".{partition.path.parent.name}")
                    partition.path.parent.rename(doomed)
                    shutil.rmtree(doomed)
        return old

    def tables(
        self,
        partition: Partition,
        *,
        machines: Collection[MachineKey] | None = None,
        columns: Collection[str] | None = None,
        sparse: bool = False,
    ) -> Iterator[pa.Table]:
        """Return a partition's rows in order, a stretch of whole machines at a time.

        machines: which to read, all when None; columns: of SCHEMA, all when None
        sparse: whether columns may be left out in which the stretch has nothing but null, or but good quality
        """
        for load in _stretches(partition, machines, columns, sparse=sparse):
            table = load()
            if len(table):
                yield table

    def stretches(
        self,
        names: Names,
        from_us: int,
        to_us: int,
        *,
        machines: Collection[MachineKey] | None = None,
        identified: bool = False,
    ) -> Iterator[Callable[[], Records]]:
        """Return what reads the records of [from_us, to_us), a few whole machines of a day at a time.

        The days come in order. Each may be called from any thread, where the names allow it.

        identified: whether gateway and sequence matter, for merging with records from elsewhere
        """
        columns = (*FOR_FIGURES, *IDENTITY) if identified else FOR_FIGURES
        sites = None if machines is None else {key.site for key in machines}
        for partition in self.between(from_us, to_us, sites):
            span = None if from_us <= partition.start_us and partition.end_us <= to_us else (from_us, to_us)
            for load in _stretches(partition, machines, columns, sparse=True):
                yield functools.partial(_records, load, partition.site, names, span)

    def scan(
        self,
        names: Names,
        from_us: int,
        to_us: int,
        *,
        machines: Collection[MachineKey] | None = None,
        identified: bool = False,
    ) -> Iterator[Records]:
        """Return the records that `stretches` reads."""
        for load in self.stretches(names, from_us, to_us, machines=machines, identified=identified):
            records = load()
            if len(records):
                yield records

    def records(
        self, names: Names, from_us: int, to_us: int, machines: Collection[MachineKey] | None = None
    ) -> Records:
        """Return the records of [from_us, to_us) as one table."""
        return merged(list(self.scan(names, from_us, to_us, machines=machines, identified=True)), names)

    def before(self, names: Names, at_us: int, machines: Collection[MachineKey]) -> Iterator[Records]:
        """Return each machine's records before an instant, from the last one that has a counter on.

        The stretches come in the order of time, as those of `scan`.
        """
        earlier = self.between(-US_PER_DAY, at_us, {key.site for key in machines})
        since: dict[MachineKey, date] = {}
        for partition in reversed(earlier):
            for key, span in self._missing(partition, machines, since):
                if span.first_count_us is not None and span.first_count_us < at_us:
                    since[key] = partition.day
        for partition in reversed(earlier):  # of what never counts, the last state alone
            since |= {
                key: partition.day
                for key, span in self._missing(partition, machines, since)
                if span.first_us < at_us
            }
        for partition in earlier:
            here = {key for key, day in since.items() if day <= partition.day}
            for records in self._identified(partition, here, names):
                yield records.take(_from_last_count(records, at_us))

    def after(self, names: Names, at_us: int, machines: Collection[MachineKey]) -> Iterator[Records]:
        """Return each machine's records from an instant on, up to the first one that has a counter."""
        later = self.between(at_us, _ALWAYS, {key.site for key in machines})
        until: dict[MachineKey, date] = {}
        for partition in later:
            for key, span in self._missing(partition, machines, until):
                if span.last_count_us is not None and span.last_count_us >= at_us:
                    until[key] = partition.day
        for partition in later:
            here = {key for key, day in until.items() if day >= partition.day}
            for records in self._identified(partition, here, names):
                yield records.take(_to_first_count(records, at_us))

    def _days(self, sites: Collection[str] | None) -> Iterator[Partition]:
        """Return the partitions that have a folder, in no order; asked with every read, so it only lists."""
        for site in _names(self.root, "site="):
            if sites is None or site in sites:
                for name in _names(self.root / f"site={site}", "day="):
                    if (day := _day(name)) is not None:
                        yield self._partition(site, day)

    def _missing(
        self, partition: Partition, machines: Iterable[MachineKey], found: Collection[MachineKey]
    ) -> list[tuple[MachineKey, Span]]:
        """Return the machines of a partition that are not found yet."""
        spans = self.spans(partition)
        return [
            (key, spans[key[1:]])
            for key in machines
            if key not in found and key.site == partition.site and key[1:] in spans
        ]

    def _identified(
        self, partition: Partition, machines: Collection[MachineKey], names: Names
    ) -> Iterator[Records]:
        for table in self.tables(partition, machines=machines, columns=(*FOR_FIGURES, *IDENTITY)):
            yield records_of(table, partition.site, names)

    def extent(self, machines: Collection[MachineKey]) -> tuple[int | None, int | None]:
        """Return the time of the first and the last record of any of the machines."""
        spans = [
            span
            for partition in self.partitions()
            for levels, span in self.spans(partition).items()
            if MachineKey(partition.site, *levels) in machines
        ]
        first_us = min((span.first_us for span in spans), default=None)
        return first_us, max((span.last_us for span in spans), default=None)

    def _partition(self, site: str, day: date) -> Partition:
        return Partition(site, day, self.root / f"site={site}" / f"day={day.isoformat()}" / FILE)

    def _stored(self, partition: Partition) -> Iterator[Block]:
        for table in self.tables(partition):
            yield from _blocks(table)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with _mapped(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.root / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def day_of(time_us: int) -> date:
    """Return the UTC day of an instant."""
    return date(1970, 1, 1) + timedelta(days=time_us // US_PER_DAY)


def day_start_us(day: date) -> int:
    """Return the first instant of a UTC day."""
    return (day - date(1970, 1, 1)).days * US_PER_DAY


def _read_spans(path: Path) -> dict[Levels, Span]:
    """Return what a file's metadata says of its machines; raise HistoryError when it says nothing."""
    try:
        spans = json.loads((pq.read_metadata(path).metadata or {})[_SPANS.encode()])
        return {
            (area, line, machine): Span(*span)
            for key, span in spans.items()
            for area, line, machine in [key.split("/")]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise HistoryError(f"{path}: was not written by this program: {error!r}") from error


def _names(folder: Path, key: str) -> list[str]:
    """Return the values that folders in a folder have of a key."""
    with _mapped(folder):
        try:
            return [name.removeprefix(key) for name in os.listdir(folder) if name.startswith(key)]  # noqa: PTH208
        except FileNotFoundError:
            return []


def _day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if day.isoformat() == text else None


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise HistoryError(f"{path}: {error}") from error


def _stretches(
    partition: Partition,
    machines: Collection[MachineKey] | None,
    columns: Collection[str] | None,
    *,
    sparse: bool,
) -> Iterator[Callable[[], pa.Table]]:
    """Return what reads a partition's row groups; they stay readable when the file is replaced meanwhile."""
    wanted = None if machines is None else {key[1:] for key in machines if key.site == partition.site}
    if not partition.path.exists() or (wanted is not None and not wanted):
        return
    asked = SCHEMA.names if columns is None else [name for name in SCHEMA.names if name in columns]
    with _mapped(partition.path):
        source = pa.OSFile(str(partition.path))
        metadata = pq.read_metadata(source)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if wanted is None or _may_hold(group, wanted):
            names = _telling(group, asked) if sparse else asked
            yield functools.partial(_read, partition.path, source, metadata, number, names, wanted)


def _read(
    path: Path,
    source: pa.NativeFile,
    metadata: pq.FileMetaData,
    group: int,
    names: list[str],
    wanted: Collection[Levels] | None,
) -> pa.Table:
    with _mapped(path):
        file = pq.ParquetFile(source, metadata=metadata, read_dictionary=TEXTS)
        if wanted is None:
            return file.read_row_group(group, columns=names, use_threads=False)
        whole = file.read_row_group(group, columns=list({*_LEVELS, *names}), use_threads=False)
    found = [block.rows for block in _blocks(whole) if block.machine in wanted]
    return (pa.concat_tables(found) if found else whole.slice(0, 0)).select(names)


def _records(load: Callable[[], pa.Table], site: str, names: Names, span: tuple[int, int] | None) -> Records:
    """Return what a stretch holds, of [from, to) where a span says so."""
    records = records_of(load(), site, names)
    if span is None:
        return records
    return records.take((records.time_us >= span[0]) & (records.time_us < span[1]))


def _may_hold(group: pq.RowGroupMetaData, wanted: Collection[Levels]) -> bool:
    """Tell by a row group's statistics whether any of the machines can be in it."""
    bounds = [group.column(SCHEMA.get_field_index(level)).statistics for level in _LEVELS]
    return any(
        all(
            bound is None or not bound.has_min_max or bound.min <= name <= bound.max
            for bound, name in zip(bounds, machine, strict=True)
        )
        for machine in wanted
    )


def _telling(group: pq.RowGroupMetaData, names: Iterable[str]) -> list[str]:
    """Return the columns of a row group in which anything stands that records do not mean anyway."""
    found = []
    for name in names:
        bound = group.column(SCHEMA.get_field_index(name)).statistics
        nothing = bound is not None and bound.has_null_count and bound.null_count == group.num_rows
        plain = bound is not None and bound.has_min_max and bound.min == bound.max == USUAL.get(name)
        if not (nothing or plain):
            found.append(name)
    return found


def _span(rows: pa.Table) -> Span:
    """Return when one machine's sorted rows lie."""
    time = rows["time"].combine_chunks().view(pa.int64())
    counted = np.zeros(len(rows), dtype=np.bool_)
    for name in ("total_units", "off_quality_units", "good_units"):
        counted |= rows[name].is_valid().to_numpy()
    places = np.flatnonzero(counted)
    ends = (time[int(places[0])].as_py(), time[int(places[-1])].as_py()) if len(places) else (None, None)
    return Span(time[0].as_py(), time[-1].as_py(), *ends)


def _counters(records: Records) -> Iterator[tuple[slice, list[Ints]]]:
    """Return the rows of each machine, and where among them each of its counters is told."""
    starts = np.flatnonzero(firsts(records.machine)).tolist() if len(records) else []
    for start, end in pairwise([*starts, len(records)]):
        rows = slice(start, end)
        told = [np.flatnonzero(counter[rows] >= 0) for counter in (records.total, records.off, records.good)]
        yield rows, [places for places in told if len(places)]


def _from_last_count(records: Records, at_us: int) -> Ints:
    """Return the rows before an instant, of each machine from its last reading of every counter on."""
    early = np.flatnonzero(records.time_us < at_us)
    kept = [
        early[rows.start + min((places[-1] for places in told), default=0) : rows.stop]
        for rows, told in _counters(records.take(early))
    ]
    return np.concatenate([early[:0], *kept])


def _to_first_count(records: Records, at_us: int) -> Ints:
    """Return the rows from an instant on, of each machine up to its first reading of every counter."""
    late = np.flatnonzero(records.time_us >= at_us)
    kept = []
    for rows, told in _counters(records.take(late)):
        last = max((places[0] for places in told), default=rows.stop - rows.start - 1)
        kept.append(late[rows.start : rows.start + last + 1])
    return np.concatenate([late[:0], *kept])


def _blocks(table: pa.Table) -> Iterator[Block]:
    """Return a table's stretches of one machine each."""
    if not len(table):
        return
    columns = [table[level].unify_dictionaries().combine_chunks() for level in _LEVELS]
    new = np.zeros(len(table), dtype=np.bool_)
    new[0] = True
    for column in columns:
        indexes = column.indices.to_numpy()
        new[1:] |= indexes[1:] != indexes[:-1]
    begin = np.flatnonzero(new)
    for first, last in zip(begin.tolist(), [*begin[1:].tolist(), len(table)], strict=True):
        area, line, machine = (column[first].as_py() for column in columns)
        yield Block((area, line, machine), table.slice(first, last - first))


def _merged(stored: Iterable[Block], fresh: Iterable[Block]) -> Iterator[Block]:
    """Return each machine's rows, sorted and once each, from two streams in the order of their machines."""
    both = heapq.merge(_whole(stored), _whole(fresh), key=lambda block: block.machine)
    for machine, blocks in groupby(both, key=lambda block: block.machine):
        found = [block.rows for block in blocks]
        yield Block(machine, found[0] if len(found) == 1 else _sorted(found))


def _whole(blocks: Iterable[Block]) -> Iterator[Block]:
    """Return one sorted block per machine."""
    before: Levels | None = None
    for machine, found in groupby(blocks, key=lambda block: block.machine):
        if before is not None and machine < before:
            raise ValueError(f"{'/'.join(machine)} comes after {'/'.join(before)}")
        before = machine
        yield Block(machine, _sorted([block.rows for block in found]))


def _sorted(tables: list[pa.Table]) -> pa.Table:
    """Return one machine's rows by time, gateway and sequence, without repetitions."""
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    time = table["time"].chunk(0).view(pa.int64()).to_numpy()
    gateway = _ranks(table["gateway"].chunk(0))
    sequence = table["sequence"].chunk(0).to_numpy()
    later = (time[1:] > time[:-1]) | (
        (time[1:] == time[:-1]) & (gateway[1:] == gateway[:-1]) & (sequence[1:] > sequence[:-1])
    )
    if later.all():
        return table
    order = np.lexsort((sequence, gateway, time))
    same = np.zeros(len(order), dtype=np.bool_)
    same[1:] = (np.diff(gateway[order]) == 0) & (np.diff(sequence[order]) == 0) & (np.diff(time[order]) == 0)
    return table.take(pa.array(order[~same]))


def _ranks(column: pa.DictionaryArray) -> npt.NDArray[np.int64]:
    """Return what sorts texts as texts."""
    texts = column.dictionary.to_pylist()
    rank = np.empty(len(texts), dtype=np.int64)
    rank[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
    found: npt.NDArray[np.int64] = rank[column.indices.to_numpy()]
    return found


def _write(path: Path, machines: Iterable[Block], rows_per_group: int) -> None:
    """Put a file in place of another at once, on disk when this returns."""
    spans: dict[str, Span] = {}

    def noted() -> Iterator[pa.Table]:
        for block in machines:
            spans["/".join(block.machine)] = _span(block.rows)
            yield block.rows

    unfinished = path.with_name(_UNFINISHED)
    with unfinished.open("wb") as file:
        writer = pq.ParquetWriter(
            file,
            SCHEMA,
            compression="zstd",
            compression_level=_ZSTD_LEVEL,
            use_dictionary=list(TEXTS),
            column_encoding=dict.fromkeys(COUNTED, "DELTA_BINARY_PACKED"),
        )
        with writer:
            for group in _row_groups(noted(), rows_per_group):
                writer.write_table(group, row_group_size=len(group))
            writer.add_key_value_metadata({_SPANS: json.dumps(spans)})
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    _sync_folder(path.parent)


def _row_groups(machines: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Return whole machines together, as many as a row group may have rows."""
    waiting: list[pa.Table] = []
    for table in machines:
        if waiting and sum(map(len, waiting)) + len(table) > rows:
            yield pa.concat_tables(waiting).unify_dictionaries().combine_chunks()
            waiting = []
        waiting.append(table)
    if waiting:
        yield pa.concat_tables(waiting).unify_dictionaries().combine_chunks()


def _sync_folder(folder: Path) -> None:
    for each in (folder, folder.parent):
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
