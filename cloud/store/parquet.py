"""The history: closed days as Parquet files, one per site and UTC day.

    ROOT/site=berlin/day=2021-06-30/records.parquet

A file holds the whole day of a site, sorted by area, line, machine, time, gateway and sequence, each record
once. It is only ever replaced as a whole: a reader sees the old file or the new one, also after a power cut.
"""

import fcntl
import heapq
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cloud.errors import HistoryError
from cloud.oee.records import Names, Records, merged
from cloud.store.parquet_columns import COUNTED, FOR_FIGURES, IDENTITY, SCHEMA, TEXTS, USUAL, records_of
from contract.machine_key import MachineKey

US_PER_DAY: Final = 86_400_000_000
FILE: Final = "records.parquet"
_UNFINISHED: Final = ".records.parquet.unfinished"
_ZSTD_LEVEL: Final = 3
_LEVELS: Final = ("area", "line", "machine")

_SPANS: Final = "oee_machines"
"""The key of a file's metadata: a JSON object of [first, last time in us] by area/line/machine."""

Levels = tuple[str, str, str]
"""area, line, machine"""
Span = tuple[int, int]
"""[us] times of the first and the last record."""
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
        return sorted(
            Partition(path.parent.parent.name.removeprefix("site="), day, path)
            for path in self.root.glob(f"site={site or '*'}/day=*/{FILE}")
            if (day := _day(path.parent.name.removeprefix("day="))) is not None
        )

    def between(self, from_us: int, to_us: int, sites: Collection[str] | None = None) -> list[Partition]:
        """Return the partitions that share time with [from_us, to_us), by day and site."""
        found = [
            partition
            for partition in self.partitions()
            if partition.start_us < to_us
            and partition.end_us > from_us
            and (sites is None or partition.site in sites)
        ]
        return sorted(found, key=lambda partition: (partition.day, partition.site))

    def spans(self, partition: Partition) -> Mapping[Levels, Span]:
        """Return the machines of a partition, each with the times of its first and last record."""
        with _mapped(partition.path):
            stat = partition.path.stat()
            version = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if self._known.get(partition.path, (None, None))[0] != version:
                metadata = pq.read_metadata(partition.path).metadata
                spans = json.loads(metadata[_SPANS.encode()])
                self._known[partition.path] = (
                    version,
                    {tuple(key.split("/")): (first, last) for key, (first, last) in spans.items()},
                )
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
        wanted = None if machines is None else {key[1:] for key in machines if key.site == partition.site}
        if not partition.path.exists() or (wanted is not None and not wanted):
            return
        asked = SCHEMA.names if columns is None else [name for name in SCHEMA.names if name in columns]
        with _mapped(partition.path), pq.ParquetFile(partition.path, read_dictionary=TEXTS) as file:
            for group in range(file.num_row_groups):
                names = _telling(file.metadata.row_group(group), asked) if sparse else asked
                if wanted is None:
                    yield file.read_row_group(group, columns=names, use_threads=False)
                elif _may_hold(file.metadata.row_group(group), wanted):
                    whole = file.read_row_group(group, columns=list({*_LEVELS, *names}), use_threads=False)
                    found = [block.rows for block in _blocks(whole) if block.machine in wanted]
                    if found:
                        yield pa.concat_tables(found).select(names)

    def scan(
        self,
        names: Names,
        from_us: int,
        to_us: int,
        *,
        machines: Collection[MachineKey] | None = None,
        identified: bool = False,
    ) -> Iterator[Records]:
        """Return the records of [from_us, to_us), a few whole machines of a day at a time, the days in order.

        identified: whether gateway and sequence matter, for merging with records from elsewhere
        """
        columns = (*FOR_FIGURES, *IDENTITY) if identified else FOR_FIGURES
        sites = None if machines is None else {key.site for key in machines}
        for partition in self.between(from_us, to_us, sites):
            for table in self.tables(partition, machines=machines, columns=columns, sparse=True):
                records = records_of(table, partition.site, names)
                if not from_us <= partition.start_us or not partition.end_us <= to_us:
                    records = records.take((records.time_us >= from_us) & (records.time_us < to_us))
                if len(records):
                    yield records

    def records(
        self, names: Names, from_us: int, to_us: int, machines: Collection[MachineKey] | None = None
    ) -> Records:
        """Return the records of [from_us, to_us) as one table."""
        return merged(list(self.scan(names, from_us, to_us, machines=machines, identified=True)), names)

    def before(self, names: Names, at_us: int, machines: Collection[MachineKey]) -> Iterator[Records]:
        """Return each machine's records before an instant, back to the last one that has a counter.

        The stretches come in the order of time, as those of `scan`.
        """
        missing, found = set(machines), list[Records]()
        for partition in reversed(self.between(-US_PER_DAY, at_us, {key.site for key in machines})):
            here = {
                key
                for key in missing
                if key.site == partition.site
                and (span := self.spans(partition).get(key[1:])) is not None
                and span[0] < at_us
            }
            for table in self.tables(partition, machines=here, columns=(*FOR_FIGURES, *IDENTITY)):
                records = records_of(table, partition.site, names)
                records = records.take(_since_last_count(records, at_us))
                found.append(records)
                counted = (records.total >= 0) | (records.off >= 0) | (records.good >= 0)
                missing -= {names.machines[index] for index in np.unique(records.machine[counted]).tolist()}
            if not missing:
                break
        return reversed(found)

    def extent(self, machines: Collection[MachineKey]) -> tuple[int | None, int | None]:
        """Return the time of the first and the last record of any of the machines."""
        spans = [
            span
            for partition in self.partitions()
            for levels, span in self.spans(partition).items()
            if MachineKey(partition.site, *levels) in machines
        ]
        return min((span[0] for span in spans), default=None), max((span[1] for span in spans), default=None)

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


def _day(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise HistoryError(f"{path}: {error}") from error


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


def _since_last_count(records: Records, at_us: int) -> npt.NDArray[np.intp]:
    """Return the rows before an instant, of each machine from its last that has a counter on."""
    early = np.flatnonzero(records.time_us < at_us)
    counted = ((records.total >= 0) | (records.off >= 0) | (records.good >= 0))[early]
    machine = records.machine[early]
    keep = np.zeros(len(early), dtype=np.bool_)
    for index in np.unique(machine).tolist():
        low, high = np.searchsorted(machine, (index, index + 1))
        last = np.flatnonzero(counted[low:high])
        keep[low + (last[-1] if len(last) else 0) : high] = True
    return early[keep]


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
            times = block.rows["time"]
            spans["/".join(block.machine)] = (times[0].value, times[-1].value)
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
