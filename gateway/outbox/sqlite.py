"""The outbox in one SQLite file: WAL, synchronous FULL, a lock against a second process.

Layout: `records` waits; `places` are the ranges that each uplink has acknowledged; `ledger` holds the next
sequence and the sums; `checkpoints` say where reading each source goes on; `marks` say how
long the daemon had run when a sequence was given; `quarantine` keeps what an uplink would not take.
Beside it lie `outbox.ceiling`, a sequence that was never reached, so that a new outbox begun after the file
was lost does not repeat one, and `outbox.reserve`, room to work with when the disk is full.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, get_args

import structlog

from contract import topics
from gateway.errors import OutboxCorruptError, OutboxError, OutboxFullError
from gateway.outbox.faults import mapped
from gateway.outbox.files import check_writable, lock, read_ceiling, write_ceiling
from gateway.outbox.port import KINDS, Draft, DropCause, GapDraft, Kind, OutboxStatistics, Stored
from gateway.outbox.ranges import Range, Ranges, intersection
from gateway.outbox.room import Alarm, Room
from gateway.outbox.salvage import Salvaged, salvage

DEFAULT_MAX_BYTES: Final = 8_000_000_000
DEFAULT_MAX_AGE_US: Final = 40 * 86_400 * 1_000_000
ROW_BYTES: Final = 32
"""What a row costs beside its payload, in the file."""

_CEILING_STEP: Final = 10_000_000
_MARK_EVERY_US: Final = 600 * 1_000_000
_KEPT_FREE_PAGES: Final = 4_000
_DELETE_STEP: Final = 20_000
_QUARANTINE_MAX: Final = 1_000
_EVICTION_ORDER: Final[tuple[tuple[Kind, ...], ...]] = (("analogue",), ("counter", "state"), ("gap",))
_KIND_CODE: Final[dict[Kind, int]] = {kind: code for code, kind in enumerate(KINDS)}
_CAUSES: Final[tuple[DropCause, ...]] = get_args(DropCause)

_SCHEMA: Final = """
PRAGMA page_size = 4096;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS records (
    sequence INTEGER PRIMARY KEY, epoch_us INTEGER NOT NULL, kind INTEGER NOT NULL,
    topic INTEGER NOT NULL, payload BLOB NOT NULL);
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


class SqliteOutbox:
    """Store and forward on disk; implements `gateway.outbox.port.Outbox`.

    folder: data folder of the gateway; `outbox.sqlite` and its companions live there
    gateway: its name, for the gaps that stand for what had to be dropped
    uplinks: names; a record leaves when all of them have acknowledged it
    clock_us: [us since 1970] where the sequences of a new outbox begin
    running_us: [us] any monotonic clock; the age of a record counts the time that the daemon ran, so that a
        wrong clock throws nothing away
    max_bytes: of payloads and rows; the file itself is a little larger
    max_age_us: [us]
    """

    def __init__(
        self,
        folder: Path,
        *,
        gateway: str,
        uplinks: Sequence[str],
        clock_us: Callable[[], int],
        running_us: Callable[[], int],
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_age_us: int = DEFAULT_MAX_AGE_US,
    ) -> None:
        self.path = folder / "outbox.sqlite"
        self._ceiling_path = folder / "outbox.ceiling"
        self._gateway = gateway
        self._clock_us = clock_us
        self._running_us = running_us
        self._max_bytes = max_bytes
        self._max_age_us = max_age_us
        self._log = structlog.get_logger("outbox").bind(file=str(self.path))
        self._alarm = Alarm(self._log)
        self._room = Room(folder / "outbox.reserve", self._alarm)
        self._uplinks = tuple(uplinks)
        self._listeners: list[Callable[[], None]] = []
        self._places: dict[str, Ranges] = {}
        self._sums: dict[str, int] = {}
        self._topic_ids: dict[str, int] = {}
        self._topic_names: dict[int, str] = {}
        self._eviction_at: list[int] = []
        self._next = self._first = self._ceiling = 0
        self._appended = 0
        self._dirty = False
        self._damage: str | None = None
        check_writable(folder)
        self._lock = lock(folder / "outbox.lock")
        try:
            self._begin()
        except BaseException:
            os.close(self._lock)
            raise

    # What the rest of the gateway uses

    @property
    def next_sequence(self) -> int:
        """Return the sequence that the next record will get."""
        return self._next

    @property
    def first_sequence(self) -> int:
        """Return a sequence below which no record will ever be sent again; often the oldest that waits."""
        return self._first

    def append(self, drafts: Sequence[Draft], checkpoints: Mapping[str, bytes] | None = None) -> int:
        """Put all on disk in one transaction and return the last sequence given."""
        if not drafts and not checkpoints:
            return self._next - 1
        try:
            self._with_room(lambda: self._insert(drafts, checkpoints or {}))
        except OutboxCorruptError as error:
            self._replace_corrupt(str(error))
            self._insert(drafts, checkpoints or {})
        self._appended += len(drafts)
        for appended in self._listeners if drafts else ():
            appended()
        return self._next - 1

    def checkpoint(self, source: str) -> bytes | None:
        """Return the last checkpoint that was appended for a source."""
        with mapped():
            row = self._connection.execute(
                "SELECT value FROM checkpoints WHERE source = ?", (source,)
            ).fetchone()
        return row[0] if row else None

    def subscribe(self, appended: Callable[[], None]) -> None:
        """Have `appended()` called after each append."""
        self._listeners.append(appended)

    def unsubscribe(self, appended: Callable[[], None]) -> None:
        """Call it no more."""
        self._listeners.remove(appended)

    def use_uplinks(self, uplinks: Sequence[str]) -> None:
        """Serve these from now on: new ones from the oldest record, the places of others forgotten."""
        self._uplinks = tuple(uplinks)
        self._places = {name: self._places.get(name, Ranges()) for name in uplinks}
        self._dirty = True

    def read(self, first: int, last: int, *, max_records: int, max_bytes: int) -> list[Stored]:
        """Return records with first <= sequence <= last, ascending, at least one where there is one."""
        found: list[Stored] = []
        size = 0
        try:
            with mapped():
                rows = self._connection.execute(
                    "SELECT sequence, topic, payload FROM records WHERE sequence BETWEEN ? AND ?"
                    " ORDER BY sequence LIMIT ?",
                    (first, last, max_records),
                )
                for sequence, topic, payload in rows:
                    size += len(payload) + 1
                    if found and size > max_bytes:
                        break
                    found.append(Stored(sequence, self._topic_names[topic], payload))
        except OutboxCorruptError as error:
            self._replace_corrupt(str(error))
            return []
        return found

    def acknowledged(self, uplink: str) -> Ranges:
        """Return what an uplink has acknowledged, as far as it still matters."""
        return self._places[uplink].copy()

    def acknowledge(self, uplink: str, ranges: Sequence[Range]) -> None:
        """Note that an uplink has delivered these; written with the next flush."""
        self._places[uplink].update(
            (max(first, self._first), min(last, self._next - 1)) for first, last in ranges
        )
        self._dirty = True

    def quarantine(self, uplink: str, sequence: int, reason: str) -> None:
        """Set aside, whole, a record that this uplink can never deliver; it counts as acknowledged."""

        def move() -> None:
            for stored in self.read(sequence, sequence, max_records=1, max_bytes=0):
                self._connection.execute(
                    "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?)",
                    (sequence, uplink, stored.topic, reason[:500], stored.payload),
                )
            self._connection.execute(
                "DELETE FROM quarantine WHERE rowid <= (SELECT max(rowid) FROM quarantine) - ?",
                (_QUARANTINE_MAX,),
            )
            self._add("quarantined", 1)
            self._add("dropped_refused", 1)

        with contextlib.suppress(OutboxError), self._transaction():
            move()
        self.acknowledge(uplink, [(sequence, sequence)])
        self._log.error("record quarantined", uplink=uplink, sequence=sequence, reason=reason)

    def skip_past(self, sequence: int) -> None:
        """Never give out this sequence nor one below it."""
        if sequence < self._next:
            return
        with self._transaction():
            self._next = sequence + 1
            self._reserve()
            self._save_ledger()

    def flush(self) -> bool:
        """Write down acknowledgements, remove what all uplinks have; return whether more is left to do."""
        try:
            return self._flush()
        except OutboxCorruptError as error:
            self._replace_corrupt(str(error))
        except OutboxError as error:
            self._alarm.sound(f"acknowledgements cannot be written: {error}")
            self._room.make(self._connection)
        return False

    def statistics(self) -> OutboxStatistics:
        """Return what is held and what was given up; one row is read."""
        oldest: tuple[int, int] | None = None
        with contextlib.suppress(OutboxError), mapped():
            oldest = self._connection.execute(
                "SELECT sequence, epoch_us FROM records WHERE sequence >= ? ORDER BY sequence LIMIT 1",
                (self._first,),
            ).fetchone()
        return OutboxStatistics(
            records=self._sums["records"],
            bytes=self._sums["bytes"],
            oldest_us=oldest[1] if oldest else None,
            first_sequence=oldest[0] if oldest else self._next,
            next_sequence=self._next,
            dropped={cause: self._sums[f"dropped_{cause}"] for cause in _CAUSES},
            quarantined=self._sums["quarantined"],
            damaged_files=self._damaged_files,
            appended=self._appended,
            alarm=self._alarm.text or self._damage,
        )

    def pending(self, uplink: str) -> int:
        """Return how many records the uplink has not acknowledged (an upper bound where several differ)."""
        settled = sum(
            last - first + 1 for first, last in self._places[uplink].present(self._first, self._next)
        )
        return max(0, min(self._sums["records"], self._next - self._first - settled))

    def close(self) -> None:
        """Flush and let go of the file."""
        while self.flush():
            pass
        self._connection.close()
        os.close(self._lock)

    # Opening

    def _begin(self) -> None:
        try:
            self._open()
        except OutboxCorruptError as error:
            self._replace_corrupt(str(error))

    def _open(self) -> None:
        self._connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            with mapped():
                self._load()
        except BaseException:
            self._connection.close()
            raise

    def _load(self) -> None:
        run = self._connection.execute
        run("PRAGMA synchronous = FULL")
        run("PRAGMA cache_size = -500")
        run("PRAGMA journal_size_limit = 16777216")
        self._connection.executescript(_SCHEMA)
        self._room.let_grow(self._connection)
        self._topic_names = dict(run("SELECT id, topic FROM topics"))
        self._topic_ids = {topic: number for number, topic in self._topic_names.items()}
        ledger: dict[str, int] = dict(run("SELECT name, value FROM ledger"))
        names = ("records", "bytes", "quarantined", *(f"dropped_{cause}" for cause in _CAUSES))
        self._sums = {name: ledger.get(name, 0) for name in names}
        self._ran_before_us = ledger.get("running_us", 0) - self._running_us()
        self._next = ledger.get("next_sequence", 0)
        new = self._next == 0
        self._ceiling = read_ceiling(self._ceiling_path)
        if new:
            self._next = max(self._clock_us(), self._ceiling)
        self._first = self._first_waiting()
        self._last_mark_us: int = next(run("SELECT max(running_us) FROM marks"))[0] or 0
        self._places = {name: Ranges() for name in self._uplinks}
        for uplink, first, last in run("SELECT uplink, first, last FROM places"):
            if uplink in self._places:
                self._places[uplink].add(first, last)
        self._eviction_at = [self._first] * len(_EVICTION_ORDER)
        self._damaged_files = sum(1 for _ in self.path.parent.glob("outbox.damaged-*.sqlite"))
        self._dirty = True
        with self._transaction():
            self._reserve()
            self._save_ledger()

    def _first_waiting(self) -> int:
        row = self._connection.execute("SELECT min(sequence) FROM records").fetchone()
        return self._next if row[0] is None else int(row[0])

    def _reserve(self) -> None:
        """Keep the ceiling, on disk, above every sequence that may be given."""
        if self._next + _CEILING_STEP // 2 > self._ceiling:
            ceiling = self._next + _CEILING_STEP
            write_ceiling(self._ceiling_path, ceiling)
            self._ceiling = ceiling

    def _replace_corrupt(self, reason: str) -> None:
        """Put the damaged file aside and begin a new one with what could be read of it."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        stamp = self._clock_us()
        aside = self.path.with_name(f"outbox.damaged-{stamp}.sqlite")
        for suffix in ("", "-wal", "-shm"):
            damaged = self.path.with_name(self.path.name + suffix)
            with contextlib.suppress(FileNotFoundError):
                damaged.rename(aside.with_name(aside.name + suffix))
        delivered = self._places
        self._open()
        self._places = {name: delivered.get(name, place) for name, place in self._places.items()}
        saved = self._take_over(salvage(aside))
        self._damage = (
            f"the outbox was damaged ({reason}): {saved} records were saved; it is kept as {aside.name}"
        )
        self._log.error("outbox damaged", reason=reason, saved_records=saved, kept_as=aside.name)

    def _take_over(self, found: Mapping[int, Salvaged]) -> int:
        """Store salvaged records under the sequences that they have."""
        if not found:
            return 0
        with self._transaction():
            rows = [
                (row.sequence, row.epoch_us, row.kind, self._topic_number(row.topic), row.payload)
                for row in found.values()
            ]
            self._connection.executemany("INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?)", rows)
            self._next = max(self._next, max(found) + 1)
            self._add("records", len(rows))
            self._add("bytes", sum(len(row[4]) + ROW_BYTES for row in rows))
            self._reserve()
            self._save_ledger()
        self._first = self._first_waiting()
        self._eviction_at = [self._first] * len(_EVICTION_ORDER)
        return len(rows)

    # Writing

    def _insert(self, drafts: Sequence[Draft], checkpoints: Mapping[str, bytes]) -> None:
        with self._transaction():
            if drafts:
                self._insert_rows(drafts)
                self._reserve()
                self._save_ledger()
            if checkpoints:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", checkpoints.items()
                )

    def _insert_rows(self, drafts: Sequence[Draft]) -> None:
        ids = self._topic_ids
        rows: list[tuple[int, int, int, int, bytes]] = []
        size = 0
        for sequence, draft in enumerate(drafts, self._next):
            payload = draft.encode(sequence)
            size += len(payload)
            topic = draft.topic
            number = ids.get(topic) or self._topic_number(topic)
            rows.append((sequence, draft.epoch_us, _KIND_CODE[draft.kind], number, payload))
        self._connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
        self._next += len(rows)
        self._add("records", len(rows))
        self._add("bytes", size + ROW_BYTES * len(rows))

    def _topic_number(self, topic: str) -> int:
        known = self._topic_ids.get(topic)
        if known is not None:
            return known
        number = len(self._topic_ids) + 1
        self._connection.execute("INSERT INTO topics VALUES (?, ?)", (number, topic))
        self._topic_ids[topic] = number
        self._topic_names[number] = topic
        return number

    def _with_room(self, write: Callable[[], None]) -> None:
        """Write within the bounds; on a full disk give up the oldest, once, and try again."""
        if self._sums["bytes"] > self._max_bytes:
            self._evict(f"the outbox is full ({self._max_bytes} bytes)")
        try:
            write()
        except OutboxFullError:
            self._room.make(self._connection)
            try:
                self._again(write)
            except OutboxFullError as error:
                self._alarm.sound(f"no room for records: {error}")
                raise

    def _again(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OutboxFullError:
            self._evict("the disk is full")
            write()

    def _evict(self, reason: str) -> None:
        """Drop about a hundredth of what is held, in the order of the policy, with a gap per machine."""
        target = max(self._sums["bytes"] // 100, 16_384)
        with self._transaction():
            freed = 0
            lost: dict[int, tuple[int, int]] = {}
            for stage, kinds in enumerate(_EVICTION_ORDER):
                while freed < target and (rows := self._candidates(stage, kinds)):
                    taken = []
                    for sequence, epoch_us, topic, size in rows:
                        taken.append((sequence,))
                        freed += size + ROW_BYTES
                        since, until = lost.get(topic, (epoch_us, epoch_us))
                        lost[topic] = (min(since, epoch_us), max(until, epoch_us))
                        if freed >= target:
                            break
                    self._connection.executemany("DELETE FROM records WHERE sequence = ?", taken)
                    self._add("records", -len(taken))
                    self._add("dropped_full", len(taken))
                    self._eviction_at[stage] = taken[-1][0] + 1
            self._add("bytes", -freed)
            self._insert_rows(list(self._gaps(lost, reason)))
            self._save_ledger()
        if freed:
            self._alarm.sound(f"{reason}: the oldest records are dropped")

    def _candidates(self, stage: int, kinds: Sequence[Kind]) -> list[tuple[int, int, int, int]]:
        marks = ", ".join(str(_KIND_CODE[kind]) for kind in kinds)
        return self._connection.execute(
            "SELECT sequence, epoch_us, topic, length(payload) FROM records"  # noqa: S608 - codes of our own
            f" WHERE sequence >= ? AND kind IN ({marks}) ORDER BY sequence LIMIT 500",
            (self._eviction_at[stage],),
        ).fetchall()

    def _gaps(self, lost: dict[int, tuple[int, int]], cause: str) -> Iterator[GapDraft]:
        for topic, (from_us, to_us) in lost.items():
            parsed = topics.parse(self._topic_names[topic])
            if isinstance(parsed, topics.MachineTopic):
                yield GapDraft(parsed.machine, self._gateway, from_us, to_us, cause)

    def _flush(self) -> bool:
        now_us = self._running_us() + self._ran_before_us
        marked = now_us - self._last_mark_us >= _MARK_EVERY_US
        self._room.keep(self._connection)
        self._alarm.settle(has_room=self._sums["bytes"] < self._max_bytes * 0.9)
        if not self._dirty and not marked:
            return False
        # A lost acknowledgement only repeats a record, so that this needs no fsync of its own.
        with self._lazily(), self._transaction():
            if marked:
                self._connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (self._next, now_us))
                self._drop_aged(now_us - self._max_age_us)
            self._save_places()
            more = self._remove_settled()
            self._save_ledger()
            self._shrink()
        # Only now: what could not be deleted has to stay acknowledged.
        for place in self._places.values():
            place.discard(0, self._first - 1)
        if marked:
            self._last_mark_us = now_us
        self._dirty = more
        return more

    def _shrink(self) -> None:
        """Give the disk back, bit by bit, what an outage made the file grow by."""
        if self._connection.execute("PRAGMA freelist_count").fetchone()[0] > _KEPT_FREE_PAGES:
            self._connection.execute("PRAGMA incremental_vacuum(500)").fetchall()

    def _drop_aged(self, before_us: int) -> None:
        row = self._connection.execute(
            "SELECT max(sequence) FROM marks WHERE running_us <= ?", (before_us,)
        ).fetchone()
        if row[0] is None:
            return
        through = row[0] - 1
        lost = {
            topic: (since, until)
            for topic, since, until in self._connection.execute(
                "SELECT topic, min(epoch_us), max(epoch_us) FROM records WHERE sequence <= ? GROUP BY topic",
                (through,),
            )
        }
        self._add("dropped_age", self._delete(self._first, through))
        self._connection.execute("DELETE FROM marks WHERE sequence < ?", (row[0],))
        self._insert_rows(list(self._gaps(lost, "older than the outbox may hold")))
        if lost:
            self._alarm.sound("records were older than the outbox may hold and are dropped")

    def _save_places(self) -> None:
        self._connection.execute("DELETE FROM places")
        self._connection.executemany(
            "INSERT INTO places VALUES (?, ?, ?)",
            ((name, first, last) for name, place in self._places.items() for first, last in place),
        )

    def _remove_settled(self) -> bool:
        """Delete, a step at a time, what every uplink has."""
        left = _DELETE_STEP
        for first, last in intersection(list(self._places.values())).present(self._first, self._next):
            left -= self._delete(first, last, left)
            if left <= 0:
                return True
        self._first = max(self._first, self._first_waiting())
        return False

    def _delete(self, first: int, last: int, limit: int | None = None) -> int:
        if limit is not None:
            row = self._connection.execute(
                "SELECT max(sequence) FROM (SELECT sequence FROM records WHERE sequence BETWEEN ? AND ?"
                " ORDER BY sequence LIMIT ?)",
                (first, last, limit),
            ).fetchone()
            if row[0] is None:
                return 0
            last = row[0]
        count, size = self._connection.execute(
            "SELECT count(*), coalesce(sum(length(payload)), 0) FROM records WHERE sequence BETWEEN ? AND ?",
            (first, last),
        ).fetchone()
        self._connection.execute("DELETE FROM records WHERE sequence BETWEEN ? AND ?", (first, last))
        self._add("records", -count)
        self._add("bytes", -size - ROW_BYTES * count)
        return int(count)

    def _add(self, name: str, amount: int) -> None:
        self._sums[name] += amount

    def _save_ledger(self) -> None:
        running_us = self._running_us() + self._ran_before_us
        self._connection.executemany(
            "INSERT OR REPLACE INTO ledger VALUES (?, ?)",
            [*self._sums.items(), ("next_sequence", self._next), ("running_us", running_us)],
        )

    @contextlib.contextmanager
    def _lazily(self) -> Iterator[None]:
        with mapped():
            self._connection.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA synchronous = FULL")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit or leave everything, in memory too, as it was."""
        sums, following, topic_ids = self._sums.copy(), self._next, len(self._topic_ids)
        first, eviction_at = self._first, self._eviction_at.copy()
        try:
            with mapped():
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            self._sums, self._next, self._first, self._eviction_at = sums, following, first, eviction_at
            for topic in list(self._topic_ids)[topic_ids:]:
                del self._topic_names[self._topic_ids.pop(topic)]
            raise
