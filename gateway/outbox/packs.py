"""The packs of an outbox: what waits long, many records in one row of the file.

A run is a stretch of sequences that was packed together, one pack for each rank of what a full outbox drops,
so that the oldest of a rank go by whole packs. Runs do not overlap; a run is named by the first sequence that
it began with, which stays its name when that record has left; a pack's id is four times that, and its rank.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.errors import OutboxCorruptError, PackCorruptError
from gateway.outbox.database import DROP_ORDER, Database
from gateway.outbox.packing import Columns, PackDamagedError, Record, columns_of, pack, unpack
from gateway.outbox.port import KINDS, Stored

_COLUMNS: Final = "id, rank, first, last, records, length(content)"
_RANKS: Final = 4
_ROW_BYTES: Final = 64
_CACHED_RUNS: Final = 4
"""Runs kept unpacked: each of a few uplinks reads one in many steps."""
_WHOLE_COST: Final = 50
_REWRITTEN_COST: Final = 5
_RANK_OF_KIND: Final = [
    next(rank for rank, kinds in enumerate(DROP_ORDER) if kind in kinds) for kind in KINDS
]

Spans = dict[int, tuple[int, int]]
"""By topic, the moments of the first and the last record that was dropped [us since 1970]."""


@dataclass(slots=True)
class Step:
    """How much may still be done at once, in deletions of a row (about a microsecond each)."""

    left: int

    @property
    def is_over(self) -> bool:
        """Tell whether the rest has to wait for another turn."""
        return self.left <= 0


def run_of(number: int) -> int:
    """Return the run of a pack's id."""
    return number // _RANKS


def file_bytes(content_bytes: int) -> int:
    """Return what a pack takes of the file: its row, and a thirtieth for pages that it does not fill."""
    return content_bytes + content_bytes // 30 + _ROW_BYTES


def widen(spans: Spans, topic: int, since_us: int, until_us: int) -> None:
    """Let a topic's span cover these moments too."""
    known = spans.get(topic, (since_us, until_us))
    spans[topic] = min(known[0], since_us), max(known[1], until_us)


@dataclass(frozen=True, slots=True)
class _Pack:
    """A row of the table, without its content."""

    id: int
    rank: int
    first: int
    last: int
    records: int
    size: int

    @property
    def run(self) -> int:
        """Return what its run is named by."""
        return run_of(self.id)

    @property
    def bytes(self) -> int:
        """Return what it takes of the file."""
        return file_bytes(self.size)


def _believed(row: Sequence[object]) -> _Pack:
    """Return a row as a pack; raise OutboxCorruptError where it cannot have been written like that."""
    numbers = [value for value in row if isinstance(value, int)]
    if len(numbers) == len(row) and numbers[0] % _RANKS == numbers[1] and numbers[4] > 0:
        return _Pack(*numbers)
    raise OutboxCorruptError(f"what is stored as pack {row[0]} is none")


class Packs:
    """The table of packs. Whoever calls what writes has begun a transaction.

    Every method raises PackCorruptError where a pack is not the one that was written, and OutboxCorruptError
    where what its row says of it is not.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._run = database.run
        self._unpacked: dict[int, list[Stored]] = {}

    def oldest(self) -> tuple[int, int] | None:
        """Return sequence and moment [us since 1970] of the oldest record."""
        row: tuple[int, int] | None = self._run(
            "SELECT first, first_us FROM packs WHERE id < ((SELECT min(id) FROM packs) / ?1 + 1) * ?1"
            " ORDER BY first LIMIT 1",
            (_RANKS,),
        ).fetchone()
        return row

    def read(self, first: int, last: int) -> Iterator[Stored]:
        """Yield records with first <= sequence <= last, ascending."""
        for run in self._runs(first, last):
            stored = self._unpack_run(run)
            for one in stored[bisect_left(stored, first, key=lambda one: one.sequence) :]:
                if one.sequence > last:
                    return
                yield one

    def add(self, run: int, records: Iterable[Record]) -> None:
        """Pack a run's records."""
        by_rank: dict[int, list[Record]] = {}
        for record in records:
            by_rank.setdefault(_RANK_OF_KIND[record.kind], []).append(record)
        for rank, alike in by_rank.items():
            self._insert(run, rank, alike)

    def adopt(self, run: int, rank: int, content: bytes, columns: Columns) -> None:
        """Take a pack as it is; columns are what is known of its records."""
        first, first_us = min(zip(columns.sequences, columns.epochs_us, strict=True))
        self._store(run, rank, (first, max(columns.sequences), first_us, len(columns.sequences)), content)

    def remove(self, first: int, last: int, step: Step, spans: Spans | None = None) -> int:
        """Remove records with first <= sequence <= last, as far as the step goes; return how far it went.

        spans: to be widened by what is removed
        """
        for run in self._runs(first, last):
            end = run
            for one in self._packs_of(run):
                end = max(end, one.last)
                if one.first <= last and one.last >= first:
                    self._remove_from(one, first, last, step, spans)
            if step.is_over:
                return min(last, end)
        return last

    def drop_oldest(self, rank: int, since: int, spans: Spans) -> int | None:
        """Remove the oldest pack of a rank that ends at or after a sequence; return its last one.

        None when there is none; spans are widened by what it held.
        """
        row = self._run(
            f"SELECT {_COLUMNS} FROM packs WHERE rank = ?"  # noqa: S608 - words of our own
            " AND id >= coalesce((SELECT max(id) FROM packs WHERE id < ?), 0) / ? * ? ORDER BY id LIMIT 1",
            (rank, (since + 1) * _RANKS, _RANKS, _RANKS),
        ).fetchone()
        if row is None:
            return None
        oldest = _believed(row)
        self._widen_by(oldest, oldest.first, oldest.last, spans)
        self._delete(oldest)
        return oldest.last

    def discard(self, run: int, rank: int) -> tuple[int, bytes]:
        """Remove a pack that cannot be read; return how many records it had, and its content."""
        one = next(one for one in self._packs_of(run) if one.rank == rank)
        content = self._run("SELECT CAST(content AS BLOB) FROM packs WHERE id = ?", (one.id,)).fetchone()[0]
        self._delete(one)
        return one.records, content

    def _runs(self, first: int, last: int) -> Iterator[int]:
        """Yield the runs that may hold sequences between the two, ascending."""
        value, end = self._database.value, (last + 1) * _RANKS
        at = value("SELECT max(id) FROM packs WHERE id < ?", (first + 1) * _RANKS)
        run = first if at is None else run_of(at)
        if at is not None and any(one.last >= first for one in self._packs_of(run)):
            yield run
        following = "SELECT min(id) FROM packs WHERE id >= ? AND id < ?"
        while (at := value(following, (run + 1) * _RANKS, end)) is not None:
            run = run_of(at)
            yield run

    def _packs_of(self, run: int) -> list[_Pack]:
        rows = self._run(
            f"SELECT {_COLUMNS} FROM packs WHERE id >= ? AND id < ?",  # noqa: S608 - words of our own
            (run * _RANKS, (run + 1) * _RANKS),
        )
        return [_believed(row) for row in rows]

    def _unpack_run(self, run: int) -> list[Stored]:
        stored = self._unpacked.pop(run, None)
        if stored is None:
            records = [record for one in self._packs_of(run) for record in self._records(one)]
            records.sort()
            name = self._database.topic_name
            stored = [Stored(one.sequence, name(one.topic) or "", one.payload) for one in records]
        self._unpacked[run] = stored
        while len(self._unpacked) > _CACHED_RUNS:
            del self._unpacked[next(iter(self._unpacked))]
        return stored

    def _records(self, one: _Pack) -> list[Record]:
        try:
            records = unpack(self._content(one))
        except PackDamagedError as error:
            raise PackCorruptError(one.run, one.rank, str(error)) from error
        self._check(one, {record.topic for record in records}, [record.sequence for record in records])
        return records

    def _columns(self, one: _Pack) -> Columns:
        try:
            columns = columns_of(self._content(one))
        except PackDamagedError as error:
            raise PackCorruptError(one.run, one.rank, str(error)) from error
        self._check(one, set(columns.topics), sorted(columns.sequences))
        return columns

    def _check(self, one: _Pack, topics: set[int], sequences: Sequence[int]) -> None:
        """Raise unless what a pack holds is what its row says."""
        if (sequences[0], sequences[-1], len(sequences)) != (one.first, one.last, one.records):
            raise OutboxCorruptError(f"pack {one.id} holds other records than its row says")
        if any(self._database.topic_name(topic) is None for topic in topics):
            raise PackCorruptError(one.run, one.rank, "a pack names topics that the file does not have")

    def _content(self, one: _Pack) -> bytes:
        content = self._run("SELECT content FROM packs WHERE id = ?", (one.id,)).fetchone()[0]
        if isinstance(content, bytes):
            return content
        raise PackCorruptError(one.run, one.rank, "what is stored as a pack is none")

    def _remove_from(self, one: _Pack, first: int, last: int, step: Step, spans: Spans | None) -> None:
        if spans is not None:
            step.left -= one.records
            self._widen_by(one, first, last, spans)
        if first <= one.first and one.last <= last:
            step.left -= _WHOLE_COST
            self._delete(one)
            return
        step.left -= one.records * _REWRITTEN_COST
        kept = [record for record in self._records(one) if not first <= record.sequence <= last]
        if len(kept) < one.records:
            self._delete(one)  # before its rest is written, so that it finds room on a full disk
            if kept:
                self._insert(one.run, one.rank, kept)

    def _widen_by(self, one: _Pack, first: int, last: int, spans: Spans) -> None:
        columns = self._columns(one)
        for topic, sequence, epoch_us in zip(
            columns.topics, columns.sequences, columns.epochs_us, strict=True
        ):
            if first <= sequence <= last:
                widen(spans, topic, epoch_us, epoch_us)

    def _insert(self, run: int, rank: int, records: Sequence[Record]) -> None:
        oldest, newest = records[0], records[-1]
        known = (oldest.sequence, newest.sequence, oldest.epoch_us, len(records))
        self._store(run, rank, known, pack(records))

    def _store(self, run: int, rank: int, known: tuple[int, int, int, int], content: bytes) -> None:
        self._run(
            "INSERT INTO packs VALUES (?, ?, ?, ?, ?, ?, ?)", (run * _RANKS + rank, rank, *known, content)
        )
        self._count(known[-1], file_bytes(len(content)))

    def _delete(self, one: _Pack) -> None:
        self._unpacked.pop(one.run, None)
        self._run("DELETE FROM packs WHERE id = ?", (one.id,))
        self._count(-one.records, -one.bytes)

    def _count(self, records: int, size: int) -> None:
        standing = self._database.standing
        standing.records += records
        standing.packed += records
        standing.bytes += size
