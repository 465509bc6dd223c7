"""The file of an outbox: what its tables are, and transactions that leave memory as they leave the disk.

Layout: `records` waits, a row each; `packs` wait too, many records in a row, all of them older than any of
`records`; `topics` numbers what both name; `places` are the ranges that each uplink has acknowledged;
`ledger` holds the next sequence and the sums; `checkpoints` say where reading each source goes on; `marks`
say how long the daemon had run when a sequence was given; `quarantine` keeps what an uplink would not take.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, get_args

from gateway.outbox.faults import mapped
from gateway.outbox.port import DropCause, Kind

CAUSES: Final[tuple[DropCause, ...]] = get_args(DropCause)
DROP_ORDER: Final[tuple[tuple[Kind, ...], ...]] = (("analogue",), ("counter", "state"), ("gap",))
"""Which kinds go first when it is full; a place in it is a rank."""

_FORM: Final = """
PRAGMA page_size = 4096;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
"""
"""Of a new file only: to say it again of an old one would write to it, for which a full disk has no room."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (
    sequence INTEGER PRIMARY KEY, epoch_us INTEGER NOT NULL, kind INTEGER NOT NULL,
    topic INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS packs (
    id INTEGER PRIMARY KEY, rank INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    first_us INTEGER NOT NULL, records INTEGER NOT NULL, content BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS packs_by_rank ON packs (rank);
CREATE TABLE IF NOT EXISTS topics (id INTEGER PRIMARY KEY, topic TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS places (
    uplink TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (uplink, first)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkpoints (source TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (sequence INTEGER PRIMARY KEY, running_us INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS quarantine (
    sequence INTEGER NOT NULL, uplink TEXT NOT NULL, topic TEXT NOT NULL, reason TEXT NOT NULL,
    payload BLOB NOT NULL);
"""


@dataclass(slots=True)
class Standing:
    """What is held, as the ledger has it, and where looking for the oldest begins.

    records: all that wait, as rows or packed
    packed: those of them that are packed
    bytes: what both take of the file
    first, next: no sequence below first waits; next is given next
    drop_from: by rank, no record below it is of that rank
    """

    records: int = 0
    packed: int = 0
    bytes: int = 0
    quarantined: int = 0
    dropped: dict[DropCause, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))
    first: int = 0
    next: int = 0
    drop_from: list[int] = field(default_factory=lambda: [0] * len(DROP_ORDER))

    def copy(self) -> "Standing":
        """Return one that stays as it is."""
        return replace(self, dropped=self.dropped.copy(), drop_from=self.drop_from.copy())


class Database:
    """One open file; `standing` and the topics' numbers follow its transactions.

    Every method raises OutboxError, as OutboxCorruptError or OutboxFullError where it is that.
    """

    def __init__(self, path: Path) -> None:
        self.standing = Standing()
        self._topic_names: dict[int, str] = {}
        self._topic_ids: dict[str, int] = {}
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.run = self.connection.execute
        self.run_many = self.connection.executemany
        try:
            with mapped():
                self._load()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        self.run("PRAGMA synchronous = FULL")
        self.run("PRAGMA cache_size = -500")
        self.run("PRAGMA journal_size_limit = 16777216")
        if self.run("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            self.connection.executescript(_FORM)
        self.connection.executescript(_SCHEMA)
        for number, topic in self.run("SELECT id, topic FROM topics"):
            self._know(number, topic)
        ledger: dict[str, int] = dict(self.run("SELECT name, value FROM ledger"))
        self.ran_us = ledger.get("running_us", 0)
        self.standing = Standing(
            records=ledger.get("records", 0),
            packed=ledger.get("packed", 0),
            bytes=ledger.get("bytes", 0),
            quarantined=ledger.get("quarantined", 0),
            dropped={cause: ledger.get(f"dropped_{cause}", 0) for cause in CAUSES},
            next=ledger.get("next_sequence", 0),
        )

    def save(self, running_us: int) -> None:
        """Write the standing down, in a transaction of the caller's."""
        standing = self.standing
        self.run_many(
            "INSERT OR REPLACE INTO ledger VALUES (?, ?)",
            [
                ("records", standing.records),
                ("packed", standing.packed),
                ("bytes", standing.bytes),
                ("quarantined", standing.quarantined),
                *((f"dropped_{cause}", count) for cause, count in standing.dropped.items()),
                ("next_sequence", standing.next),
                ("running_us", running_us),
            ],
        )

    # Topics

    def topic_number(self, topic: str) -> int:
        """Return a topic's number, given in a transaction of the caller's where it has none."""
        known = self._topic_ids.get(topic)
        if known is not None:
            return known
        number = max(self._topic_names, default=0) + 1
        self.adopt_topics({number: topic})
        return number

    def topic_name(self, number: int) -> str | None:
        """Return a number's topic; None where the file names none."""
        return self._topic_names.get(number)

    def adopt_topics(self, names: dict[int, str]) -> None:
        """Give topics these numbers, in a transaction of the caller's."""
        self.run_many("INSERT INTO topics VALUES (?, ?)", names.items())
        for number, topic in names.items():
            self._know(number, topic)

    def _know(self, number: int, topic: str) -> None:
        self._topic_names[number] = topic
        self._topic_ids[topic] = number

    # Transactions

    @contextlib.contextmanager
    def transaction(self, *, lazy: bool = False) -> Iterator[None]:
        """Commit or leave everything, in memory too, as it was; a lazy one may be lost with the power."""
        standing, topics = self.standing.copy(), len(self._topic_ids)
        with self._lazily() if lazy else contextlib.nullcontext():
            try:
                with mapped():
                    self.run("BEGIN IMMEDIATE")
                    yield
                    self.run("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    if self.connection.in_transaction:
                        self.run("ROLLBACK")
                self.standing = standing
                for topic in list(self._topic_ids)[topics:]:
                    del self._topic_names[self._topic_ids.pop(topic)]
                raise

    @contextlib.contextmanager
    def _lazily(self) -> Iterator[None]:
        with mapped():
            self.run("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            with contextlib.suppress(sqlite3.Error):
                self.run("PRAGMA synchronous = FULL")

    def value(self, question: str, *arguments: int) -> int | None:
        """Return the one integer that a question asks for; None where there is none."""
        row = self.run(question, arguments).fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()
