"""The outbox in one SQLite file: WAL, synchronous FULL, a lock against a second process.

Beside the file lie `outbox.ceiling`, a sequence that was never reached, so that a new outbox begun after the
file was lost does not repeat one, and `outbox.reserve`, room to work with when the disk is full.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from contract import topics
from gateway.errors import OutboxCorruptError, OutboxError, OutboxFullError, PackCorruptError
from gateway.outbox import repair
from gateway.outbox.database import Database
from gateway.outbox.faults import mapped
from gateway.outbox.files import check_writable, lock, read_ceiling, write_ceiling
from gateway.outbox.packing import Record
from gateway.outbox.packs import Spans, Step
from gateway.outbox.places import Places
from gateway.outbox.port import Draft, GapDraft, OutboxStatistics, Stored
from gateway.outbox.ranges import Range, Ranges
from gateway.outbox.room import Alarm, Room
from gateway.outbox.waiting import KIND_CODE, Waiting

DEFAULT_MAX_BYTES: Final = 8_000_000_000
DEFAULT_MAX_AGE_US: Final = 40 * 86_400 * 1_000_000
DEFAULT_ROWS_KEPT: Final = 50_000
DEFAULT_RUN_RECORDS: Final = 1_000

_CEILING_STEP: Final = 10_000_000
_MARK_EVERY_US: Final = 600 * 1_000_000
_KEPT_FREE_PAGES: Final = 4_000
_REMOVED_AT_ONCE: Final = 20_000
_LEAST_DROPPED_BYTES: Final = 16_384
_MOST_DROPPED_BYTES: Final = 4_194_304
_ROWS_SHARE: Final = 3_000
"""A small outbox keeps fewer rows: one for so many bytes that it may hold, a tenth of them."""
_MENDINGS: Final = 20
"""How much damage one reading goes past; a disk that has more is no longer believed."""
_QUARANTINE_MAX: Final = 1_000
_FULL_AT_START: Final = "the disk is full: the oldest records are dropped until there is room on it"


class SqliteOutbox:
    """Store and forward on disk; implements `gateway.outbox.port.Outbox`.

    folder: data folder of the gateway; `outbox.sqlite` and its companions live there
    gateway: its name, for the gaps that stand for what had to be dropped
    uplinks: names; a record leaves when all of them have acknowledged it
    clock_us: [us since 1970] where the sequences of a new outbox begin
    running_us: [us] any monotonic clock; the age of a record counts the time that the daemon ran, so that a
        wrong clock throws nothing away
    max_bytes: of rows and packs; the file itself is a little larger
    max_age_us: [us]
    rows_kept: how many of the newest that wait are not packed, however long they wait
    run_records: how many are packed together
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
        rows_kept: int = DEFAULT_ROWS_KEPT,
        run_records: int = DEFAULT_RUN_RECORDS,
    ) -> None:
        self.path = folder / "outbox.sqlite"
        self._ceiling_path = folder / "outbox.ceiling"
        self._gateway = gateway
        self._clock_us = clock_us
        self._running_us = running_us
        self._max_bytes = max_bytes
        self._max_age_us = max_age_us
        self._rows_kept = min(rows_kept, max_bytes // _ROWS_SHARE)
        self._run_records = run_records
        self._log = structlog.get_logger("outbox").bind(file=str(self.path))
        self._alarm = Alarm(self._log)
        self._room = Room(folder / "outbox.reserve", self._alarm)
        self._uplinks = tuple(uplinks)
        self._listeners: list[Callable[[], None]] = []
        self._places = Places(uplinks)
        self._appended = self._ceiling = 0
        self._dirty = False
        self._damage: str | None = None
        check_writable(folder)
        self._lock = lock(folder / "outbox.lock")
        try:
            self._begin()
        except OutboxFullError as error:
            os.close(self._lock)
            raise OutboxFullError(f"there is no room for an outbox in {folder}: {error}") from error
        except BaseException:
            os.close(self._lock)
            raise

    # What the rest of the gateway uses

    @property
    def next_sequence(self) -> int:
        """Return the sequence that the next record will get."""
        return self._database.standing.next

    @property
    def first_sequence(self) -> int:
        """Return a sequence below which no record will ever be sent again; often the oldest that waits."""
        return self._database.standing.first

    def append(self, drafts: Sequence[Draft], checkpoints: Mapping[str, bytes] | None = None) -> int:
        """Put all on disk in one transaction and return the last sequence given."""
        if not drafts and not checkpoints:
            return self.next_sequence - 1
        try:
            self._with_room(lambda: self._insert(drafts, checkpoints or {}))
        except OutboxCorruptError as error:
            self._mend(error)
            self._insert(drafts, checkpoints or {})
        self._appended += len(drafts)
        for appended in self._listeners if drafts else ():
            appended()
        return self.next_sequence - 1

    def checkpoint(self, source: str) -> bytes | None:
        """Return the last checkpoint that was appended for a source."""
        with mapped():
            row = self._database.run("SELECT value FROM checkpoints WHERE source = ?", (source,)).fetchone()
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
        self._places.use(uplinks)
        self._dirty = True

    def read(self, first: int, last: int, *, max_records: int, max_bytes: int) -> list[Stored]:
        """Return records with first <= sequence <= last, ascending, at least one where there is one."""
        for _ in range(_MENDINGS):
            try:
                return self._read(first, last, max_records, max_bytes)
            except OutboxCorruptError as error:
                self._mend(error)
        return self._read(first, last, max_records, max_bytes)

    def _read(self, first: int, last: int, max_records: int, max_bytes: int) -> list[Stored]:
        with mapped():
            return self._waiting.read(first, last, max_records=max_records, max_bytes=max_bytes)

    def acknowledged(self, uplink: str) -> Ranges:
        """Return what an uplink has acknowledged, as far as it still matters."""
        return self._places.acknowledged(uplink)

    def acknowledge(self, uplink: str, ranges: Sequence[Range]) -> None:
        """Note that an uplink has delivered these; written with the next flush."""
        standing = self._database.standing
        self._places.acknowledge(
            uplink, ((max(first, standing.first), min(last, standing.next - 1)) for first, last in ranges)
        )
        self._dirty = True

    def quarantine(self, uplink: str, sequence: int, reason: str) -> None:
        """Set aside, whole, a record that this uplink can never deliver; it counts as acknowledged."""
        with contextlib.suppress(OutboxError):
            found = self.read(sequence, sequence, max_records=1, max_bytes=0)
            with self._database.transaction():
                self._move_aside(uplink, found, reason)
        self.acknowledge(uplink, [(sequence, sequence)])
        self._log.error("record quarantined", uplink=uplink, sequence=sequence, reason=reason)

    def _move_aside(self, uplink: str, found: Sequence[Stored], reason: str) -> None:
        run, standing = self._database.run, self._database.standing
        for stored in found:
            run(
                "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?)",
                (stored.sequence, uplink, stored.topic, reason[:500], stored.payload),
            )
        run(
            "DELETE FROM quarantine WHERE rowid <= (SELECT max(rowid) FROM quarantine) - ?",
            (_QUARANTINE_MAX,),
        )
        standing.quarantined += 1
        standing.dropped["refused"] += 1

    def skip_past(self, sequence: int) -> None:
        """Never give out this sequence nor one below it."""
        if sequence < self.next_sequence:
            return
        with self._database.transaction():
            self._database.standing.next = sequence + 1
            self._reserve()
            self._save()

    def flush(self) -> bool:
        """Write down acknowledgements, remove what all uplinks have; return whether more is left to do.

        When nothing is left to remove, the oldest rows are packed where many wait, a run at a time.
        """
        return self._tidy(self._settle) or self._tidy(self._pack)

    def statistics(self) -> OutboxStatistics:
        """Return what is held and what was given up; one row is read."""
        standing = self._database.standing
        oldest: tuple[int, int] | None = None
        with contextlib.suppress(OutboxError), mapped():
            oldest = self._waiting.oldest(standing.first)
        return OutboxStatistics(
            records=standing.records,
            bytes=standing.bytes,
            oldest_us=oldest[1] if oldest else None,
            first_sequence=oldest[0] if oldest else standing.next,
            next_sequence=standing.next,
            dropped=standing.dropped.copy(),
            quarantined=standing.quarantined,
            damaged_files=self._damaged_files,
            appended=self._appended,
            alarm=self._alarm.text or self._damage,
        )

    def pending(self, uplink: str) -> int:
        """Return how many records the uplink has not acknowledged (an upper bound where several differ)."""
        standing = self._database.standing
        settled = self._places.count(uplink, standing.first, standing.next)
        return max(0, min(standing.records, standing.next - standing.first - settled))

    def close(self) -> None:
        """Flush and let go of the file."""
        while self._tidy(self._settle):
            pass
        self._database.close()
        os.close(self._lock)

    # Opening

    def _begin(self) -> None:
        try:
            self._open()
        except OutboxCorruptError as error:
            self._replace(str(error))

    def _open(self) -> None:
        self._database = Database(self.path)
        try:
            with mapped():
                self._load()
        except BaseException:
            self._database.close()
            raise

    def _load(self) -> None:
        database = self._database
        self._room.let_grow(database.connection)
        self._ran_before_us = database.ran_us - self._running_us()
        self._ceiling = read_ceiling(self._ceiling_path)
        if database.standing.next == 0:
            database.standing.next = max(self._clock_us(), self._ceiling)
        self._waiting = Waiting(database)
        self._last_mark_us = database.value("SELECT max(running_us) FROM marks") or 0
        self._aged_through = -1
        self._places = Places(self._uplinks)
        self._places.restore(database.run("SELECT uplink, first, last FROM places"))
        self._damaged_files = repair.count_aside(self.path.parent)
        self._dirty = True
        try:
            self._note_standing()
        except OutboxFullError:
            self._room.make(database.connection)
            self._alarm.sound(_FULL_AT_START)

    def _note_standing(self) -> None:
        with self._database.transaction():
            self._reserve()
            self._save()

    def _reserve(self) -> None:
        """Keep the ceiling, on disk, above every sequence that may be given."""
        following = self._database.standing.next
        if following + _CEILING_STEP // 2 > self._ceiling:
            ceiling = following + _CEILING_STEP
            write_ceiling(self._ceiling_path, ceiling)
            self._ceiling = ceiling

    # Damage

    def _mend(self, error: OutboxCorruptError) -> None:
        """Put aside what is damaged: one pack where it is no more than that, else the file."""
        if isinstance(error, PackCorruptError):
            self._give_up_pack(error)
        else:
            self._database.close()
            self._replace(str(error))

    def _give_up_pack(self, error: PackCorruptError) -> None:
        with self._database.transaction():
            records, content = self._waiting.packs.discard(error.run, error.rank)
            self._save()
        kept_as = repair.keep_pack(self.path.parent, self._clock_us(), content)
        self._damaged_files = repair.count_aside(self.path.parent)
        self._damage = f"{records} records of the outbox were damaged ({error}); they are kept as {kept_as}"
        self._log.error("outbox damaged", reason=str(error), lost_records=records, kept_as=kept_as)

    def _replace(self, reason: str) -> None:
        """Put the damaged file aside and begin a new one with what could be read of it."""
        aside = repair.put_aside(self.path, self._clock_us())
        delivered = self._places
        self._open()
        self._places.restore(delivered.rows())
        with self._database.transaction():
            saved = repair.take_over(aside, self._database, self._waiting)
            self._reserve()
            self._save()
        self._waiting.begin()
        self._damage = (
            f"the outbox was damaged ({reason}): {saved} records were saved; it is kept as {aside.name}"
        )
        self._log.error("outbox damaged", reason=reason, saved_records=saved, kept_as=aside.name)

    # Writing

    def _insert(self, drafts: Sequence[Draft], checkpoints: Mapping[str, bytes]) -> None:
        with self._database.transaction():
            if drafts:
                self._insert_rows(drafts)
                self._reserve()
                self._save()
            if checkpoints:
                self._database.run_many(
                    "INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", checkpoints.items()
                )

    def _insert_rows(self, drafts: Sequence[Draft]) -> None:
        standing, number = self._database.standing, self._database.topic_number
        self._waiting.insert(
            [
                Record(
                    sequence,
                    draft.epoch_us,
                    KIND_CODE[draft.kind],
                    number(draft.topic),
                    draft.encode(sequence),
                )
                for sequence, draft in enumerate(drafts, standing.next)
            ]
        )
        standing.next += len(drafts)

    def _with_room(self, write: Callable[[], None]) -> None:
        """Write within the bounds; on a full disk give up the oldest, once, and try again."""
        if self._database.standing.bytes > self._max_bytes:
            self._drop(f"the outbox is full ({self._max_bytes} bytes)")
        with contextlib.suppress(OutboxFullError):
            write()
            return
        if self._room.is_capped:  # by us, when the disk was full; it may have room again
            self._room.let_grow(self._database.connection)
            with contextlib.suppress(OutboxFullError):
                write()
                return
        self._room.make(self._database.connection)
        try:
            self._again(write)
        except OutboxFullError as error:
            self._alarm.sound(f"no room for records: {error}")
            raise

    def _again(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OutboxFullError:
            self._drop("the disk is full")
            write()

    def _drop(self, reason: str) -> None:
        """Drop about a hundredth of what is held, in the order of the policy, with a gap per machine."""
        held_bytes = self._database.standing.bytes
        target_bytes = min(max(held_bytes // 100, _LEAST_DROPPED_BYTES), _MOST_DROPPED_BYTES)
        lost: Spans = {}
        with self._database.transaction():
            standing = self._database.standing
            held = standing.records
            self._waiting.drop(target_bytes, lost)
            standing.dropped["full"] += held - standing.records
            self._insert_rows(list(self._gaps(lost, reason)))
            self._save()
        if lost:
            self._alarm.sound(f"{reason}: the oldest records are dropped")

    def _gaps(self, lost: Spans, cause: str) -> Iterator[GapDraft]:
        for topic, (from_us, to_us) in lost.items():
            parsed = topics.parse(self._database.topic_name(topic) or "")
            if isinstance(parsed, topics.MachineTopic):
                yield GapDraft(parsed.machine, self._gateway, from_us, to_us, cause)

    # Keeping it small

    def _tidy(self, work: Callable[[], bool]) -> bool:
        """Do work that can wait when it fails; return whether more is left to do."""
        try:
            return work()
        except PackCorruptError as error:
            with contextlib.suppress(OutboxError):  # it will be met again
                self._mend(error)
        except OutboxCorruptError as error:
            self._mend(error)
        except OutboxError as error:
            self._alarm.sound(f"acknowledgements cannot be written: {error}")
            self._room.make(self._database.connection)
        return False

    def _settle(self) -> bool:
        now_us = self._running_us() + self._ran_before_us
        marked = now_us - self._last_mark_us >= _MARK_EVERY_US
        self._room.keep(self._database.connection)
        self._alarm.settle(has_room=self._database.standing.bytes < self._max_bytes * 0.9)
        if not self._dirty and not marked:
            return False
        step = Step(_REMOVED_AT_ONCE)
        removed: list[Range] = []
        # A lost acknowledgement only repeats a record, so that this needs no fsync of its own.
        with self._database.transaction(lazy=True):
            if marked:
                self._mark(now_us)
            self._drop_aged(step)
            self._save_places()
            removed.extend(self._remove_settled(step))
            if not step.is_over:
                self._find_first()
            self._save()
            self._shrink()
        # Only now: what could not be deleted has to stay acknowledged.
        self._places.forget(removed, self._database.standing.first)
        if marked:
            self._last_mark_us = now_us
        self._dirty = step.is_over
        return step.is_over

    def _pack(self) -> bool:
        """Pack a run where more rows wait than are kept; it has to wait itself where the disk is full."""
        bounds = {"rows_kept": self._rows_kept, "run_records": self._run_records}
        if not self._waiting.has_to_pack(**bounds):
            return False
        with contextlib.suppress(OutboxFullError), self._database.transaction(lazy=True):
            packed = self._waiting.pack_oldest(self._run_records)
            self._save()
            return packed and self._waiting.has_to_pack(**bounds)
        return False

    def _shrink(self) -> None:
        """Give the disk back, bit by bit, what an outage made the file grow by."""
        run = self._database.run
        if run("PRAGMA freelist_count").fetchone()[0] > _KEPT_FREE_PAGES:
            run("PRAGMA incremental_vacuum(500)").fetchall()

    def _mark(self, now_us: int) -> None:
        """Note how long the daemon had run by the next sequence, and find what is too old by that."""
        following = self._database.standing.next
        self._database.run("INSERT OR REPLACE INTO marks VALUES (?, ?)", (following, now_us))
        aged = self._database.value(
            "SELECT max(sequence) FROM marks WHERE running_us <= ?", now_us - self._max_age_us
        )
        if aged is not None:
            self._aged_through = aged - 1
            self._database.run("DELETE FROM marks WHERE sequence < ?", (aged,))

    def _drop_aged(self, step: Step) -> None:
        standing = self._database.standing
        if self._aged_through < standing.first:
            return
        lost: Spans = {}
        held = standing.records
        self._waiting.remove(standing.first, self._aged_through, step, lost)
        standing.dropped["age"] += held - standing.records
        self._insert_rows(list(self._gaps(lost, "older than the outbox may hold")))
        if lost:
            self._alarm.sound("records were older than the outbox may hold and are dropped")

    def _save_places(self) -> None:
        self._database.run("DELETE FROM places")
        self._database.run_many(
            "INSERT INTO places VALUES (?, ?, ?)",
            self._places.rows(),
        )

    def _remove_settled(self, step: Step) -> Iterator[Range]:
        """Delete, as far as the step goes, what every uplink has; yield what no longer waits."""
        standing = self._database.standing
        for first, last in self._places.to_remove(standing.first, standing.next):
            if step.is_over:
                return
            yield first, self._waiting.remove(first, last, step)

    def _find_first(self) -> None:
        standing = self._database.standing
        oldest = self._waiting.oldest(standing.first)
        standing.first = max(standing.first, oldest[0] if oldest else standing.next)

    def _save(self) -> None:
        self._database.save(self._running_us() + self._ran_before_us)
