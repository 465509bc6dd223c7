"""The file itself: one writing connection, one reading, transactions that leave nothing when they fail."""

import contextlib
import json
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cloud.errors import StoreError
from cloud.store.ledger import Ledger
from cloud.store.rows import Names
from cloud.store.schema import LATER_TABLES, SCHEMA, SCHEMA_VERSION

_BUSY_SECS: Final = 30.0
_CACHE_KIB: Final = 4_000
"""Of pages per connection. The system keeps the file's pages in any case; ours would double them for good."""


class Database:
    """What all parts of the store share."""

    def __init__(self, path: Path) -> None:
        """Open or make the file; raise StoreError when that cannot be."""
        self._path = path
        self.names = Names()
        self.live_from_us: dict[int, int] = {}
        self._locked: dict[int, tuple[int, int]] = {}
        """By machine: before which instant its time is locked, and when that was last said."""
        self._ledgers: dict[int, Ledger] = {}
        self._countless_before: dict[int, int] = {}
        """By machine that was looked through: the hour before which no record tells a counter."""
        self._counting: set[int] = set()
        """Machines that have told any since the file was opened."""
        self._write_lock = threading.RLock()
        self._read_lock = threading.RLock()
        self._closed = False
        with _mapped(path):
            self._writer = _connect(path)
            self._reader = _connect(path)
            with self._transaction(fresh=False):
                self._lay_out()
        self._seen_version = -1
        with _mapped(path), self._write_lock:
            self._look_for_others()

    def back_up(self, target: Path) -> None:
        """Write a consistent copy of everything but the history to a new file."""
        with _mapped(target), contextlib.closing(_connect(self._path)) as source:
            # One statement reads one snapshot, whatever is written meanwhile.
            source.execute("VACUUM INTO ?", (str(target),))

    def close(self) -> None:
        """Give the store back; it can be opened again."""
        with self._write_lock, self._read_lock, _mapped(self._path):
            if not self._closed:
                self._closed = True
                self._reader.close()
                self._writer.close()

    @contextmanager
    def _transaction(self, *, fresh: bool = True) -> Iterator[sqlite3.Connection]:
        """Lend the writing connection for one transaction; after an error nothing of it stays anywhere."""
        with self._write_lock, _mapped(self._path):
            ledgers = dict(self._ledgers) if fresh else {}
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                if fresh and self._look_for_others():
                    ledgers = dict(self._ledgers)
                yield self._writer
                self._writer.executemany(
                    "INSERT INTO name (kind, id, name) VALUES (?, ?, ?)",
                    [(kind, number, json.dumps(name)) for kind, number, name in self.names.unsaved],
                )
                self._writer.execute("COMMIT")
                self.names.unsaved.clear()
            except BaseException:
                self._ledgers = ledgers
                self.names.forget_unsaved()
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock, _mapped(self._path):
            yield self._reader

    def _lay_out(self) -> None:
        """Make the tables of a new file; refuse a file of a later version."""
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreError(f"{self._path} was written by a later version of this program")
        if version == 0:
            for statement in SCHEMA.split(";\n"):
                self._writer.execute(statement)
            self._writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        for statement in LATER_TABLES.split(";\n"):
            self._writer.execute(statement)

    def _look_for_others(self) -> bool:
        """Read names and ledgers again when another process, such as an import, has written since."""
        (version,) = self._writer.execute("PRAGMA data_version").fetchone()
        if version == self._seen_version:
            return False
        self._seen_version = version
        self._countless_before.clear()
        names = Names()
        for kind, number, name in self._writer.execute("SELECT kind, id, name FROM name ORDER BY kind, id"):
            found = json.loads(name)
            names.load(kind, number, tuple(found) if isinstance(found, list) else found)
        intervals: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for gateway, first, last in self._writer.execute("SELECT gateway, first, last FROM stored_range"):
            intervals[gateway].append((first, last))
        bases = dict(self._writer.execute("SELECT id, first_sequence FROM gateway"))
        self.names = names
        self._ledgers = {
            gateway: Ledger(intervals[gateway], bases.get(gateway)) for gateway in {*intervals, *bases}
        }
        return True


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error


def mark_dirty(
    connection: sqlite3.Connection, hours: Iterable[tuple[int, int]], why: str | None, machines: Iterable[int]
) -> None:
    """Mark hours of machines as changed; a mark is higher than every chunk and mark before it.

    machines: those whose past has changed at all
    """
    connection.executemany(
        "INSERT INTO dirty (machine, hour, mark, why) VALUES (?1, ?2,"
        " coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'chunk'), 0)"
        " + coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'correction'), 0), ?3)"
        " ON CONFLICT (machine, hour) DO UPDATE SET mark = excluded.mark, why = coalesce(excluded.why, why)",
        ((machine, hour, why) for machine, hour in hours),
    )
    connection.executemany(
        "INSERT INTO changed (machine, times) VALUES (?, 1)"
        " ON CONFLICT (machine) DO UPDATE SET times = times + 1",
        ((machine,) for machine in machines),
    )
