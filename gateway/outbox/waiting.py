"""What waits in an outbox: the newest as rows, and what has waited long as packs before them."""

from collections.abc import Iterator, Sequence
from typing import Final

from gateway.errors import OutboxCorruptError
from gateway.outbox.database import DROP_ORDER, Database
from gateway.outbox.packing import Record
from gateway.outbox.packs import Packs, Spans, Step, widen
from gateway.outbox.port import KINDS, Kind, Stored

ROW_BYTES: Final = 32
"""What a row costs beside its payload, in the file."""
KIND_CODE: Final[dict[Kind, int]] = {kind: code for code, kind in enumerate(KINDS)}

_KIND_CODES: Final = frozenset(KIND_CODE.values())
_TOPICS: Final = 1 << 32
_FRESH_ROWS: Final = 500
_RUN_BYTES: Final = 1 << 20
"""Payloads that are packed together at most, so that unpacking them takes little memory."""


class Waiting:
    """Rows and packs as one. Whoever calls what writes has begun a transaction.

    Every method raises PackCorruptError where a pack is not the one that was written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._run = database.run
        self.packs = Packs(database)
        self._fresh: list[Stored] = []
        """The newest rows, in one piece: they are wanted at once, and need not be read from the file."""
        self.begin()

    def begin(self) -> None:
        """Find the oldest that waits."""
        standing = self._database.standing
        self._fresh.clear()
        oldest = self.oldest(0)
        standing.first = oldest[0] if oldest else standing.next
        standing.drop_from = [standing.first] * len(DROP_ORDER)

    def oldest(self, since: int) -> tuple[int, int] | None:
        """Return sequence and moment [us since 1970] of the oldest record; none below `since` is there."""
        packed = self.packs.oldest() if self._database.standing.packed else None
        if packed is not None:
            return packed
        row: tuple[int, int] | None = self._run(
            "SELECT sequence, epoch_us FROM records WHERE sequence >= ? ORDER BY sequence LIMIT 1", (since,)
        ).fetchone()
        return row

    def read(self, first: int, last: int, *, max_records: int, max_bytes: int) -> list[Stored]:
        """Return records with first <= sequence <= last, ascending, at least one where there is one."""
        found: list[Stored] = []
        size = 0
        for stored in self._each(first, last, max_records):
            size += len(stored.payload) + 1
            if len(found) == max_records or (found and size > max_bytes):
                break
            found.append(stored)
        return found

    def _each(self, first: int, last: int, max_rows: int) -> Iterator[Stored]:
        fresh = self._fresh
        if fresh and fresh[0].sequence <= first and last <= fresh[-1].sequence:
            at = first - fresh[0].sequence
            yield from fresh[at : at + min(last + 1 - first, max_rows)]
            return
        if self._database.standing.packed:
            yield from self.packs.read(first, last)
        name = self._database.topic_name
        rows = self._run(
            "SELECT sequence, topic, payload FROM records WHERE sequence BETWEEN ? AND ?"
            " ORDER BY sequence LIMIT ?",
            (first, last, max_rows),
        )
        for sequence, topic, payload in rows:
            yield Stored(sequence, name(topic) or "", payload)

    def insert(self, rows: Sequence[Record]) -> None:
        """Add rows; their sequences are above all that wait."""
        self._database.run_many("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
        standing = self._database.standing
        standing.records += len(rows)
        standing.bytes += sum(len(row.payload) for row in rows) + ROW_BYTES * len(rows)
        self._remember(rows[-_FRESH_ROWS:])

    def _remember(self, rows: Sequence[Record]) -> None:
        """Keep rows that follow the newest; where a write was taken back, others take their place."""
        fresh, name = self._fresh, self._database.topic_name
        if fresh and rows and fresh[-1].sequence + 1 != rows[0].sequence:
            fresh.clear()
        fresh += [Stored(row.sequence, name(row.topic) or "", row.payload) for row in rows]
        del fresh[:-_FRESH_ROWS]

    def has_to_pack(self, *, rows_kept: int, run_records: int) -> bool:
        """Tell whether a whole run waits beyond the rows that are kept."""
        standing = self._database.standing
        return standing.records - standing.packed >= rows_kept + run_records

    def pack_oldest(self, run_records: int) -> bool:
        """Pack the oldest rows, one run, or as many of them as are not too large together; False for none."""
        run = self._oldest_rows(run_records)
        if run:
            self._fresh.clear()
            self._remove_rows(run[0].sequence, run[-1].sequence)
            self.packs.add(run[0].sequence, run)
        return bool(run)

    def _oldest_rows(self, most: int) -> list[Record]:
        rows = self._run(
            "SELECT sequence, epoch_us, kind, topic, payload FROM records ORDER BY sequence LIMIT ?", (most,)
        )
        run: list[Record] = []
        size = 0
        for row in rows:
            record = self._believed(Record(*row))
            size += len(record.payload)
            if run and size > _RUN_BYTES:
                break
            run.append(record)
        return run

    def _believed(self, record: Record) -> Record:
        """Return a row as it is; raise OutboxCorruptError where it cannot have been written like that."""
        if (
            type(record.epoch_us) is int
            and type(record.payload) is bytes
            and record.kind in _KIND_CODES
            and 0 <= record.topic < _TOPICS
            and self._database.topic_name(record.topic) is not None
        ):
            return record
        raise OutboxCorruptError(f"what is stored as {record.sequence} is no record")

    def remove(self, first: int, last: int, step: Step, spans: Spans | None = None) -> int:
        """Remove records with first <= sequence <= last, as far as the step goes; return how far it went.

        spans: to be widened by what is removed
        """
        self._fresh.clear()
        if self._database.standing.packed:
            through = self.packs.remove(first, last, step, spans)
            if step.is_over:
                return through
        end = self._database.value(
            "SELECT max(sequence) FROM"
            " (SELECT sequence FROM records WHERE sequence BETWEEN ? AND ? ORDER BY sequence LIMIT ?)",
            first,
            last,
            step.left,
        )
        if end is None:
            return last
        if spans is not None:
            self._widen_by_rows(first, end, spans)
        step.left -= self._remove_rows(first, end)
        return end if step.is_over else last

    def _widen_by_rows(self, first: int, last: int, spans: Spans) -> None:
        for topic, since_us, until_us in self._run(
            "SELECT topic, min(epoch_us), max(epoch_us) FROM records WHERE sequence BETWEEN ? AND ?"
            " GROUP BY topic",
            (first, last),
        ):
            widen(spans, topic, since_us, until_us)

    def _remove_rows(self, first: int, last: int) -> int:
        count, size = self._run(
            "SELECT count(*), coalesce(sum(length(payload)), 0) FROM records WHERE sequence BETWEEN ? AND ?",
            (first, last),
        ).fetchone()
        self._run("DELETE FROM records WHERE sequence BETWEEN ? AND ?", (first, last))
        self._uncount_rows(count, size)
        return int(count)

    def _uncount_rows(self, count: int, payload_bytes: int) -> None:
        standing = self._database.standing
        standing.records -= count
        standing.bytes -= payload_bytes + ROW_BYTES * count

    def drop(self, target_bytes: int, spans: Spans) -> None:
        """Drop the oldest in the order of the ranks until so many bytes are free; widen spans by them."""
        self._fresh.clear()
        standing = self._database.standing
        enough = standing.bytes - target_bytes
        for rank, kinds in enumerate(DROP_ORDER):
            while standing.packed and standing.bytes > enough:
                last = self.packs.drop_oldest(rank, standing.drop_from[rank], spans)
                if last is None:
                    break
                standing.drop_from[rank] = last + 1
            while standing.bytes > enough and (rows := self._rows_of(kinds, standing.drop_from[rank])):
                standing.drop_from[rank] = self._drop_rows(rows, enough, spans) + 1

    def _rows_of(self, kinds: Sequence[Kind], since: int) -> list[tuple[int, int, int, int]]:
        marks = ", ".join(str(KIND_CODE[kind]) for kind in kinds)
        return self._run(
            "SELECT sequence, epoch_us, topic, length(payload) FROM records"  # noqa: S608 - codes of our own
            f" WHERE sequence >= ? AND kind IN ({marks}) ORDER BY sequence LIMIT 500",
            (since,),
        ).fetchall()

    def _drop_rows(self, rows: Sequence[tuple[int, int, int, int]], enough: int, spans: Spans) -> int:
        """Delete rows until no more bytes than enough are held; return the last sequence that went."""
        taken = []
        size = 0
        excess = self._database.standing.bytes - enough
        for sequence, epoch_us, topic, payload_bytes in rows:
            taken.append((sequence,))
            size += payload_bytes
            widen(spans, topic, epoch_us, epoch_us)
            if size + ROW_BYTES * len(taken) >= excess:
                break
        self._database.run_many("DELETE FROM records WHERE sequence = ?", taken)
        self._uncount_rows(len(taken), size)
        return int(taken[-1][0])
