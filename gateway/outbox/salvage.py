"""Reads what can still be read of a damaged outbox file."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from gateway.outbox.database import DROP_ORDER
from gateway.outbox.packing import Columns, PackDamagedError, Record, columns_of
from gateway.outbox.packs import run_of
from gateway.outbox.port import KINDS

MAX_ROWS: Final = 200_000
"""From each end; more would keep a start waiting."""
MAX_PACKS: Final = 4_000
"""From each end, some four million records; more would keep a start waiting."""


class FoundPack(NamedTuple):
    """A whole pack of a damaged file, and what is known of its records."""

    run: int
    rank: int
    content: bytes
    columns: Columns


class _Numbered(msgspec.Struct):
    sequence: int


_NUMBERED: Final = msgspec.json.Decoder(_Numbered)
_TOPICS: Final = 1 << 32
_UP: Final = 1
_DOWN: Final = -1
_FIRST_KEY: Final = 0
_LAST_KEY: Final = 1 << 60
_MAX_LEAPS: Final = 1_000
"""Over damaged places, from each end."""


class Wreck:
    """A damaged file. What it yields comes from both ends and goes past what cannot be read.

    topics: by number, the names that records and packs refer to; none where they cannot be read
    """

    def __init__(self, path: Path) -> None:
        self.topics: dict[int, str] = {}
        self._connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        with contextlib.suppress(sqlite3.Error):
            names = dict(self._connection.execute("SELECT topic, id FROM topics ORDER BY id DESC"))
            self.topics = {number: topic for topic, number in names.items() if _is_topic(number, topic)}

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def packs(self) -> Iterator[FoundPack]:
        """Yield, each once, packs that are whole and whose topics are known; their runs do not overlap."""
        read = end = -1
        for number, pack in self._whole_packs(_UP):
            if number > read and (pack.run > end or pack.run == run_of(read)):
                read, end = number, max(end, *pack.columns.sequences)
                yield pack
        run = following = above = 1 << 62
        for number, pack in self._whole_packs(_DOWN):
            if number <= read:
                return
            if number >= above:
                continue
            above = number
            if pack.run < run:
                following, run = run, pack.run
            last = max(pack.columns.sequences)
            if last < following and (pack.run > end or pack.run == run_of(read)):
                yield pack

    def rows(self, above: int) -> Iterator[Record]:
        """Yield, each once, whole rows with a sequence above this.

        A row counts as whole when its payload is JSON that tells the sequence it is stored under.
        """
        read = above
        for row in self._whole_rows(_UP):
            if row.sequence > read:
                read = row.sequence
                yield row
        before = 1 << 62
        for row in self._whole_rows(_DOWN):
            if row.sequence <= read:
                return
            if row.sequence < before:
                before = row.sequence
                yield row

    def _whole_packs(self, way: int) -> Iterator[tuple[int, FoundPack]]:
        for number, rank, content in self._walk("id, rank, content", "packs", way, MAX_PACKS):
            with contextlib.suppress(PackDamagedError):
                if isinstance(content, bytes) and rank in range(len(DROP_ORDER)):
                    pack = FoundPack(run_of(number), rank, content, columns_of(content))
                    if self._is_known(pack):
                        yield number, pack

    def _is_known(self, pack: FoundPack) -> bool:
        columns = pack.columns
        return (
            min(columns.sequences) >= pack.run
            and self.topics.keys() >= set(columns.topics)
            and max(columns.kinds) < len(KINDS)
        )

    def _whole_rows(self, way: int) -> Iterator[Record]:
        for row in self._walk("sequence, epoch_us, kind, topic, payload", "records", way, MAX_ROWS):
            record = Record(*row)
            if self._is_whole(record):
                yield record

    def _walk(self, columns: str, table: str, way: int, most: int) -> Iterator[tuple[Any, ...]]:
        """Yield rows from one end on, going past what cannot be read; the first column is the key."""
        key = columns.split(",", maxsplit=1)[0]
        edge, order = (">=", "ASC") if way == _UP else ("<=", "DESC")
        question = (
            f"SELECT {columns} FROM {table}"  # noqa: S608 - words of our own
            f" WHERE {key} {edge} ? ORDER BY {key} {order} LIMIT ?"
        )
        at: int | None = _FIRST_KEY if way == _UP else _LAST_KEY
        for _ in range(_MAX_LEAPS):
            try:
                for row in self._connection.execute(question, (at, most)):
                    at, most = row[0] + way, most - 1
                    yield row
            except sqlite3.Error:
                at = None if at is None else self._beyond(question, at, way)
            else:
                return
            if at is None:
                return

    def _beyond(self, question: str, at: int, way: int) -> int | None:
        """Return a key further on from where reading is possible again, close to where it was not."""
        near, far = 0, 1
        while not self._can_read(question, at + way * far):
            near, far = far, far * 2
            if not _FIRST_KEY <= at + way * far <= _LAST_KEY:
                return None
        while far - near > 1:
            middle = (near + far) // 2
            if self._can_read(question, at + way * middle):
                far = middle
            else:
                near = middle
        return at + way * far

    def _can_read(self, question: str, at: int) -> bool:
        try:
            self._connection.execute(question, (at, 1)).fetchall()
        except sqlite3.Error:
            return False
        return True

    def _is_whole(self, record: Record) -> bool:
        return (
            isinstance(record.epoch_us, int)
            and isinstance(record.payload, bytes)
            and record.topic in self.topics
            and record.kind in range(len(KINDS))
            and _tells(record.payload, record.sequence)
        )


def _is_topic(number: object, topic: object) -> bool:
    return isinstance(topic, str) and isinstance(number, int) and 0 < number < _TOPICS


def _tells(payload: bytes, sequence: int) -> bool:
    try:
        return _NUMBERED.decode(payload).sequence == sequence
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
