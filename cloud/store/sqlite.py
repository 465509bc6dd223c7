"""The store in one SQLite file: write-ahead log, synchronous FULL, one writing connection.

Records lie in chunks: the rows of one machine and one hour that came in one batch, as one blob. What is
stored already is known from the ledger of sequences, which is kept in the same transaction, so that a record
costs no key of its own. Small chunks of past hours are joined later.
"""

import contextlib
import json
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from cloud.errors import StoreError
from cloud.store import rows as row_format
from cloud.store.ledger import Ledger
from cloud.store.port import (
    AfterLock,
    Appended,
    Arrivals,
    ClosedShift,
    DeadLetter,
    Delivery,
    Dirty,
    Errand,
    Event,
    JobRun,
    LoggedShift,
    StoredGateway,
)
from cloud.store.rows import ROW, US_PER_HOUR, Names, Rest, Rows, Table
from cloud.views import AlertView, ChannelView, MuteView, Revision
from contract.delivery import Receipt, Status
from contract.machine_key import MachineKey

SCHEMA_VERSION: Final = 1
_BUSY_SECS: Final = 30.0
_MACHINES_PER_READ: Final = 500
_ALWAYS: Final = 2**63 - 1

_SCHEMA: Final = """
CREATE TABLE name (
    kind TEXT NOT NULL,
    id INTEGER NOT NULL,
    name TEXT NOT NULL,         -- JSON
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- marks count on it to grow only
    machine INTEGER NOT NULL,
    hour INTEGER NOT NULL,      -- of all its rows: whole hours since 1970 UTC
    rows BLOB NOT NULL,
    rest BLOB                   -- JSON: [gateway, sequence, object] of the rows that hold more than columns
);
CREATE INDEX chunk_by_machine ON chunk (machine, hour);
CREATE TABLE stored_range (
    gateway INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (gateway, first)
) WITHOUT ROWID;
CREATE TABLE gateway (
    id INTEGER PRIMARY KEY,
    first_sequence INTEGER,
    status BLOB,
    received_us INTEGER
);
CREATE TABLE dirty (
    machine INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    mark INTEGER NOT NULL,
    why TEXT,                   -- what else than late records is the cause
    PRIMARY KEY (machine, hour)
) WITHOUT ROWID;
CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY,
    received_us INTEGER NOT NULL,
    topic TEXT NOT NULL,
    reason TEXT NOT NULL,
    payload BLOB NOT NULL,
    key TEXT UNIQUE
);
CREATE TABLE closed_shift (
    scope TEXT NOT NULL,
    start_us INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    end_us INTEGER NOT NULL,
    body BLOB NOT NULL,         -- JSON of cloud.views.Revision
    PRIMARY KEY (scope, start_us, revision)
) WITHOUT ROWID;
CREATE TABLE alert (
    id TEXT PRIMARY KEY,
    raised_us INTEGER NOT NULL,
    is_open INTEGER NOT NULL,
    body BLOB NOT NULL          -- JSON of cloud.views.AlertView
) WITHOUT ROWID;
CREATE INDEX alert_open ON alert (is_open, raised_us);
CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE job_run (
    name TEXT PRIMARY KEY,
    started_us INTEGER NOT NULL,
    took_us INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    result TEXT NOT NULL,
    error TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE correction (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    body BLOB NOT NULL
);
"""
_LATER_TABLES: Final = """
CREATE TABLE IF NOT EXISTS delivery (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS delivery_by_channel ON delivery (channel, id);
CREATE TABLE IF NOT EXISTS after_lock (
    id INTEGER PRIMARY KEY,
    machine INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    received_us INTEGER NOT NULL,
    rows BLOB NOT NULL,         -- this and the next as in chunk
    rest BLOB
);
CREATE INDEX IF NOT EXISTS after_lock_by_machine ON after_lock (machine, hour);
CREATE TABLE IF NOT EXISTS mute (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    end_us INTEGER NOT NULL,
    body BLOB NOT NULL          -- JSON of cloud.views.MuteView
);
CREATE INDEX IF NOT EXISTS mute_by_end ON mute (end_us);
CREATE TABLE IF NOT EXISTS errand (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS channel (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL          -- JSON of cloud.views.ChannelView
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS closed_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    scope TEXT NOT NULL,
    start_us INTEGER NOT NULL,
    revision INTEGER NOT NULL
);
INSERT INTO closed_log (scope, start_us, revision)
    SELECT scope, start_us, revision FROM closed_shift
    WHERE NOT EXISTS (SELECT 1 FROM closed_log) ORDER BY start_us, scope, revision;
CREATE TABLE IF NOT EXISTS note (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL          -- JSON of the part that wants to know it
) WITHOUT ROWID;
"""
"""Made in files that lack them; programs that do not know them leave them alone."""


class SqliteStore:
    """See cloud.store.port.Store."""

    def __init__(self, path: Path) -> None:
        """Open or make the file; raise StoreError when that cannot be."""
        self._path = path
        self.names = Names()
        self.live_from_us: dict[int, int] = {}
        self._locked: dict[int, tuple[int, int]] = {}
        """By machine: before which instant its time is locked, and when that was last said."""
        self._ledgers: dict[int, Ledger] = {}
        self._first_hours: dict[int, int] = {}
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

    def append(self, arrivals: Arrivals) -> Appended:
        """Keep a batch in one transaction; a record whose (gateway, sequence) is stored changes nothing."""
        with self._transaction() as connection:
            table = self._table(arrivals)
            kept, changed, gateways = self._unknown(table.rows)
            fresh = row_format.in_order(table.rows if kept is None else table.rows[kept])
            self._insert_chunks(connection, self._keep_apart(connection, fresh, table.rest), table.rest)
            for gateway, sequences in changed.items():
                self._note_stored(connection, gateway, sequences)
            connection.executemany(
                "INSERT OR IGNORE INTO dead_letter (received_us, topic, reason, payload, key)"
                " VALUES (?, ?, ?, ?, ?)",
                arrivals.dead_letters,
            )
        return Appended(
            fresh=fresh,
            repeated=len(table.rows) - len(fresh),
            receipts={
                self.names.name("gateway", gateway): self._ledgers[gateway].receipt() for gateway in gateways
            },
        )

    def read(self, machines: Iterable[int], from_us: int, to_us: int) -> Rows:
        """Return the rows of [from_us, to_us) in order."""
        return self._read(machines, from_us, to_us, rest=False).rows

    def read_table(self, machines: Iterable[int], from_us: int, to_us: int) -> Table:
        """Return the rows of [from_us, to_us) in order, with all that they hold beyond their columns."""
        return self._read(machines, from_us, to_us, rest=True)

    def read_before(self, machines: Iterable[int], at_us: int) -> Rows:
        """Return each machine's rows before an instant, back to its last reading of every counter."""
        found: list[Rows] = []
        for machine in machines:
            hour = at_us // US_PER_HOUR + 1
            while (hour_before := self._hour_before(machine, hour)) is not None:
                hour = hour_before
                rows = self.read([machine], hour * US_PER_HOUR, min((hour + 1) * US_PER_HOUR, at_us))
                told = row_format.counted(rows)
                found.append(rows[min((places[-1] for places in told), default=0) :])
                if told:
                    break
        return row_format.in_order(np.concatenate(found)) if found else row_format.empty()

    def read_after(self, machines: Iterable[int], at_us: int) -> Rows:
        """Return each machine's rows from an instant on, up to the first one that has a counter."""
        found: list[Rows] = []
        for machine in machines:
            hour = at_us // US_PER_HOUR - 1
            while (hour_after := self._hour_after(machine, hour)) is not None:
                hour = hour_after
                rows = self.read([machine], max(hour * US_PER_HOUR, at_us), (hour + 1) * US_PER_HOUR)
                told = row_format.counted(rows)
                found.append(rows[: max((places[0] for places in told), default=len(rows)) + 1])
                if told:
                    break
        return row_format.in_order(np.concatenate(found)) if found else row_format.empty()

    def extent(self, machine: int) -> tuple[int, int] | None:
        """Return the time of the first and the last record, None when there is none."""
        with self._reading() as connection:
            first, last = connection.execute(
                "SELECT min(hour), max(hour) FROM chunk WHERE machine = ?", (machine,)
            ).fetchone()
        if first is None:
            return None
        first_rows = self.read([machine], first * US_PER_HOUR, (first + 1) * US_PER_HOUR)
        last_rows = self.read([machine], last * US_PER_HOUR, (last + 1) * US_PER_HOUR)
        return int(first_rows["time_us"][0]), int(last_rows["time_us"][-1])

    def next_time(self, machine: int, after_us: int) -> int | None:
        """Return the time of the first record after an instant."""
        hour = after_us // US_PER_HOUR - 1
        while (hour_after := self._hour_after(machine, hour)) is not None:
            hour = hour_after
            times = self.read([machine], hour * US_PER_HOUR, (hour + 1) * US_PER_HOUR)["time_us"]
            later = times[times > after_us]
            if len(later):
                return int(later[0])
        return None

    def compact(self, before_us: int, limit: int) -> int:
        """Join the small pieces of at most `limit` hours that end before an instant; return how many were."""
        with self._reading() as connection:
            crowded = connection.execute(
                "SELECT machine, hour FROM chunk WHERE hour < ? GROUP BY machine, hour HAVING count(*) > 1"
                " ORDER BY hour LIMIT ?",
                (before_us // US_PER_HOUR, limit),
            ).fetchall()
        for machine, hour in crowded:
            with self._transaction() as connection:
                table = joined(
                    connection.execute(
                        "SELECT rows, rest FROM chunk WHERE machine = ? AND hour = ?", (machine, hour)
                    ).fetchall()
                )
                connection.execute("DELETE FROM chunk WHERE machine = ? AND hour = ?", (machine, hour))
                self._insert_chunks(connection, row_format.in_order(table.rows), table.rest, mark=False)
        return len(crowded)

    def set_status(self, status: Status, received_us: int) -> Receipt:
        """Keep what a gateway said of itself; return what it is to be told."""
        first = None if isinstance(status.first_sequence, msgspec.UnsetType) else status.first_sequence
        with self._transaction() as connection:
            gateway = self.names.id("gateway", (status.site, status.gateway))
            ledger = self._ledgers.setdefault(gateway, Ledger())
            base = first if first is not None else ledger.base
            connection.execute(
                "INSERT INTO gateway (id, first_sequence, status, received_us) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET first_sequence = excluded.first_sequence,"
                # what a broker keeps and says again was heard when it was first said
                " received_us = iif(status = excluded.status, received_us, excluded.received_us),"
                " status = excluded.status",
                (gateway, base, msgspec.json.encode(status), received_us),
            )
        ledger.base = base
        return ledger.receipt()

    def gateways(self) -> list[StoredGateway]:
        """Return all gateways that ever said anything."""
        with self._reading() as connection:
            said = {
                gateway: (status, received_us)
                for gateway, status, received_us in connection.execute(
                    "SELECT id, status, received_us FROM gateway"
                )
            }
        found: list[StoredGateway] = []
        for gateway, name in enumerate(self.names.all("gateway")):
            status, received_us = said.get(gateway, (None, None))
            ledger = self._ledgers.get(gateway, Ledger())
            found.append(
                StoredGateway(
                    gateway=name,
                    status=None if status is None else msgspec.json.decode(status, type=Status),
                    received_us=received_us,
                    receipt=ledger.receipt(),
                )
            )
        return found

    def dead_letter_count(self) -> int:
        """Return how many dead letters are kept."""
        with self._reading() as connection:
            return int(connection.execute("SELECT count(*) FROM dead_letter").fetchone()[0])

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        """Return the newest dead letters, newest first."""
        with self._reading() as connection:
            return [
                DeadLetter(*found)
                for found in connection.execute(
                    "SELECT received_us, topic, reason, payload, key FROM dead_letter"
                    " ORDER BY id DESC LIMIT ?",
                    (limit,),
                )
            ]

    def forget_dead_letters(self, keep: int) -> int:
        """Drop the oldest dead letters beyond a number; return how many were."""
        with self._transaction() as connection:
            return connection.execute(
                "DELETE FROM dead_letter WHERE id <= "
                "coalesce((SELECT id FROM dead_letter ORDER BY id DESC LIMIT 1 OFFSET ?), -1)",
                (keep,),
            ).rowcount

    def dirty(self) -> list[Dirty]:
        """Return all dirty hours."""
        with self._reading() as connection:
            return [
                Dirty(*found) for found in connection.execute("SELECT machine, hour, mark, why FROM dirty")
            ]

    def clean(self, hours: Iterable[Dirty]) -> None:
        """Take back marks, but none that was set anew since."""
        with self._transaction() as connection:
            _clean(connection, hours)

    def save_closed(self, shifts: Sequence[ClosedShift], cleaned: Iterable[Dirty] = ()) -> None:
        """Keep revisions and take back the marks that led to them, in one transaction."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO closed_shift (scope, start_us, revision, end_us, body) VALUES (?, ?, ?, ?, ?)",
                [
                    (
                        shift.scope,
                        shift.start_us,
                        shift.revision.revision,
                        shift.end_us,
                        msgspec.json.encode(shift.revision),
                    )
                    for shift in shifts
                ],
            )
            connection.executemany(
                "INSERT INTO closed_log (scope, start_us, revision) VALUES (?, ?, ?)",
                [(shift.scope, shift.start_us, shift.revision.revision) for shift in shifts],
            )
            _clean(connection, cleaned)

    def closed(self, scope: str, start_us: int) -> list[Revision]:
        """Return all revisions of one closed shift, oldest first."""
        with self._reading() as connection:
            return [
                _revision(body)
                for (body,) in connection.execute(
                    "SELECT body FROM closed_shift WHERE scope = ? AND start_us = ? ORDER BY revision",
                    (scope, start_us),
                )
            ]

    def closed_between(self, scope: str, from_us: int, to_us: int) -> list[ClosedShift]:
        """Return the newest revision of each closed shift that starts in [from_us, to_us), in order."""
        with self._reading() as connection:
            return [
                ClosedShift(scope, start_us, end_us, _revision(body))
                for start_us, end_us, body, _ in connection.execute(
                    "SELECT start_us, end_us, body, max(revision) FROM closed_shift"
                    " WHERE scope = ? AND start_us >= ? AND start_us < ? GROUP BY start_us ORDER BY start_us",
                    (scope, from_us, to_us),
                )
            ]

    def lock(self, machine: int, before_us: int | None, now_us: int) -> int:
        """Keep apart what arrives from now on of a machine's time before an instant; None: nothing."""
        from_us = -_ALWAYS if before_us is None else before_us
        with self._write_lock:
            if before_us is None:
                self._locked.pop(machine, None)
            else:
                self._locked[machine] = (before_us, now_us)
        with self._reading() as connection:
            (waits,) = connection.execute(
                "SELECT count(*) FROM after_lock WHERE machine = ? AND hour >= ?",
                (machine, from_us // US_PER_HOUR),
            ).fetchone()
        return self._count_again(machine, from_us) if waits else 0

    def after_lock(self, machines: Iterable[int], from_us: int, to_us: int) -> AfterLock | None:
        """Return what is kept apart of [from_us, to_us); None when nothing is."""
        found: list[tuple[int, int]] = []
        for machine in machines:
            with self._reading() as connection:
                chunks = connection.execute(
                    "SELECT received_us, rows FROM after_lock WHERE machine = ? AND hour BETWEEN ? AND ?",
                    (machine, from_us // US_PER_HOUR, (to_us - 1) // US_PER_HOUR),
                ).fetchall()
            for received_us, body in chunks:
                times = np.frombuffer(body, dtype=ROW)["time_us"]
                if count := int(((times >= from_us) & (times < to_us)).sum()):
                    found.append((received_us, count))
        if not found:
            return None
        arrivals = [received_us for received_us, _ in found]
        return AfterLock(sum(count for _, count in found), min(arrivals), max(arrivals))

    def closed_span(self, scope: str) -> tuple[int, int] | None:
        """Return the beginning of the first and the end of the last closed shift."""
        with self._reading() as connection:
            first = connection.execute(
                "SELECT start_us FROM closed_shift WHERE scope = ? ORDER BY start_us LIMIT 1", (scope,)
            ).fetchone()
            last = connection.execute(
                "SELECT end_us FROM closed_shift WHERE scope = ? ORDER BY start_us DESC LIMIT 1", (scope,)
            ).fetchone()
        return None if first is None else (int(first[0]), int(last[0]))

    def closed_after(self, position: int, limit: int) -> list[LoggedShift]:
        """Return revisions in the order in which they were made, beyond a position; 0 is before the first."""
        with self._reading() as connection:
            return [
                LoggedShift(number, ClosedShift(scope, start_us, end_us, _revision(body)))
                for number, scope, start_us, end_us, body in connection.execute(
                    "SELECT id, scope, start_us, end_us, body FROM closed_log"
                    " JOIN closed_shift USING (scope, start_us, revision) WHERE id > ? ORDER BY id LIMIT ?",
                    (position, limit),
                )
            ]

    def closed_end(self) -> int:
        """Return the position of the last revision, 0 when there is none."""
        with self._reading() as connection:
            (last,) = connection.execute("SELECT max(id) FROM closed_log").fetchone()
        return int(last or 0)

    def revisions_between(self, scopes: Iterable[str], from_us: int, to_us: int) -> int:
        """Return how many revisions there are of the shifts that start in [from_us, to_us) of some scopes."""
        with self._reading() as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM closed_shift"
                " WHERE scope IN (SELECT value FROM json_each(?)) AND start_us >= ? AND start_us < ?",
                (json.dumps(list(scopes)), from_us, to_us),
            ).fetchone()
        return int(count)

    def note(self, name: str) -> bytes | None:
        """Return what a part of the service wants to know after a restart; None when it never said so."""
        with self._reading() as connection:
            found = connection.execute("SELECT body FROM note WHERE name = ?", (name,)).fetchone()
        return None if found is None else bytes(found[0])

    def set_note(self, name: str, body: bytes) -> None:
        """Keep what a part of the service wants to know after a restart."""
        with self._transaction() as connection:
            _note(connection, name, body)

    def save_alert(
        self, alert: AlertView, topic: str, event: bytes | None, channels: Iterable[str] = ()
    ) -> None:
        """Keep an alert as it is now, and the event that told of the change, in one transaction."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO alert (id, raised_us, is_open, body) VALUES (?, ?, ?, ?)",
                (
                    alert.id,
                    round(alert.raised_epochtime * 1e6),
                    int(alert.state != "cleared"),
                    msgspec.json.encode(alert),
                ),
            )
            if event is not None:
                connection.execute("INSERT INTO event (topic, payload) VALUES (?, ?)", (topic, event))
                _queue(connection, channels, event)

    def queue_delivery(self, alert: AlertView, event: bytes, channels: Iterable[str]) -> None:
        """Keep an alert and queue a message for some channels alone."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE alert SET body = ? WHERE id = ?", (msgspec.json.encode(alert), alert.id)
            )
            _queue(connection, channels, event)

    def alerts(self, *, open_only: bool, limit: int) -> list[AlertView]:
        """Return alerts, newest first."""
        with self._reading() as connection:
            return [
                msgspec.json.decode(body, type=AlertView)
                for (body,) in connection.execute(
                    "SELECT body FROM alert WHERE is_open >= ? ORDER BY raised_us DESC, id DESC LIMIT ?",
                    (int(open_only), limit),
                )
            ]

    def events(self, limit: int) -> list[Event]:
        """Return events that have not reached the broker, oldest first."""
        with self._reading() as connection:
            return [
                Event(*found)
                for found in connection.execute(
                    "SELECT id, topic, payload FROM event ORDER BY id LIMIT ?", (limit,)
                )
            ]

    def event_sent(self, event: int) -> None:
        """Note that an event has reached the broker."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM event WHERE id = ?", (event,))

    def queue_deliveries(self, channels: Iterable[str], payload: bytes, note: str, body: bytes) -> None:
        """Keep a message for some channels and a note that it was made, in one transaction."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO delivery (channel, payload) VALUES (?, ?)",
                ((name, payload) for name in channels),
            )
            _note(connection, note, body)

    def deliveries(self, channel: str, limit: int, after: int = 0) -> list[Delivery]:
        """Return what a channel has not taken yet, oldest first; after: only those behind a delivery."""
        with self._reading() as connection:
            return [
                Delivery(*found)
                for found in connection.execute(
                    "SELECT id, channel, payload FROM delivery"
                    " WHERE channel = ? AND id > ? ORDER BY id LIMIT ?",
                    (channel, after, limit),
                )
            ]

    def delivery_count(self, channel: str) -> int:
        """Return how many messages a channel has not taken yet."""
        with self._reading() as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM delivery WHERE channel = ?", (channel,)
            ).fetchone()
        return int(count)

    def delivery_done(self, delivery: int) -> None:
        """Note that a channel has taken a message, or never will."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM delivery WHERE id = ?", (delivery,))

    def forget_deliveries(self, channels: Iterable[str], kind: str = "") -> int:
        """Drop what waits for any channel of a kind but these; return how many were."""
        with self._transaction() as connection:
            return connection.execute(
                "DELETE FROM delivery WHERE substr(channel, 1, max(0, instr(channel, ':') - 1)) = ?"
                " AND channel NOT IN (SELECT value FROM json_each(?))",
                (kind, json.dumps(list(channels))),
            ).rowcount

    def add_mute(self, mute: MuteView) -> MuteView:
        """Keep a new mute and return it with its number."""
        with self._transaction() as connection:
            number = connection.execute(
                "INSERT INTO mute (end_us, body) VALUES (?, ?)",
                (round(mute.end_epochtime * 1e6), b""),
            ).lastrowid
            assert number is not None
            mute = msgspec.structs.replace(mute, id=number)
            connection.execute("UPDATE mute SET body = ? WHERE id = ?", (msgspec.json.encode(mute), number))
        return mute

    def lift_mute(self, mute: int, by: str, at_us: int) -> MuteView | None:
        """End a mute that is in force; return it, or None when there is none of that number."""
        with self._transaction() as connection:
            found = connection.execute(
                "SELECT body FROM mute WHERE id = ? AND end_us > ?", (mute, at_us)
            ).fetchone()
            if found is None:
                return None
            lifted = msgspec.structs.replace(
                msgspec.json.decode(found[0], type=MuteView), lifted_epochtime=at_us / 1e6, lifted_by=by
            )
            connection.execute(
                "UPDATE mute SET end_us = ?, body = ? WHERE id = ?",
                (at_us, msgspec.json.encode(lifted), mute),
            )
        return lifted

    def mutes(self, since_us: int) -> list[MuteView]:
        """Return the mutes that end, or ended, after an instant, oldest first."""
        with self._reading() as connection:
            return [
                msgspec.json.decode(body, type=MuteView)
                for (body,) in connection.execute(
                    "SELECT body FROM mute WHERE end_us > ? ORDER BY id", (since_us,)
                )
            ]

    def add_errand(self, body: bytes) -> None:
        """Ask something of the running service."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO errand (body) VALUES (?)", (body,))

    def errands(self) -> list[Errand]:
        """Return what is asked of the service, oldest first."""
        with self._reading() as connection:
            return [Errand(*found) for found in connection.execute("SELECT id, body FROM errand ORDER BY id")]

    def errand_done(self, errand: int) -> None:
        """Note that the service has done what was asked."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM errand WHERE id = ?", (errand,))

    def save_channel(self, channel: ChannelView) -> None:
        """Keep what a channel has done."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO channel VALUES (?, ?)", (channel.name, msgspec.json.encode(channel))
            )

    def channels(self) -> list[ChannelView]:
        """Return what channels have done, by name."""
        with self._reading() as connection:
            return [
                msgspec.json.decode(body, type=ChannelView)
                for (body,) in connection.execute("SELECT body FROM channel ORDER BY name")
            ]

    def add_correction(self, text: bytes, machine: MachineKey, hours: Iterable[int], why: str) -> int:
        """Keep a correction for good, with marks on the hours whose figures it changes; return its number."""
        with self._transaction() as connection:
            number = connection.execute("INSERT INTO correction (body) VALUES (?)", (text,)).lastrowid
            index = self.names.id("machine", tuple(machine))
            _mark(connection, ((index, hour) for hour in hours), why)
        assert number is not None
        return number

    def corrections(self, after: int = 0) -> list[tuple[int, bytes]]:
        """Return all corrections beyond a number with their numbers, oldest first."""
        with self._reading() as connection:
            return connection.execute(
                "SELECT id, body FROM correction WHERE id > ? ORDER BY id", (after,)
            ).fetchall()

    def job_runs(self) -> list[JobRun]:
        """Return the last run of each job, by name."""
        with self._reading() as connection:
            return [JobRun(*found) for found in connection.execute("SELECT * FROM job_run ORDER BY name")]

    def save_job_run(self, run: JobRun) -> None:
        """Keep the last run of a job."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO job_run VALUES (?, ?, ?, ?, ?, ?, ?)", run)

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

    def _table(self, arrivals: Arrivals) -> Table:
        tables = [row_format.placed(draft, self.names) for draft in arrivals.drafts]
        if arrivals.records or not tables:
            tables.append(row_format.from_telemetry(arrivals.records, self.names))
        if arrivals.gaps:
            tables.append(row_format.from_gaps(arrivals.gaps, self.names))
        if len(tables) == 1:
            return tables[0]
        rest = {key: more for table in tables for key, more in table.rest.items()}
        return Table(np.concatenate([table.rows for table in tables]), rest)

    def _unknown(self, rows: Rows) -> tuple[NDArray[np.intp] | None, dict[int, NDArray[np.int64]], list[int]]:
        """Return which rows are not stored yet, their sequences by gateway, and all gateways.

        The rows are told by their places; None stands for all.
        """
        kept: list[NDArray[np.intp]] = []
        changed: dict[int, NDArray[np.int64]] = {}
        gateways = np.flatnonzero(np.bincount(rows["gateway"])).tolist()
        for gateway in gateways:
            ledger = self._ledgers.setdefault(gateway, Ledger())
            places = np.flatnonzero(rows["gateway"] == gateway)
            sequences = rows["sequence"][places]
            if not (sequences[1:] > sequences[:-1]).all():
                sequences, first = np.unique(sequences, return_index=True)
                places = places[first]
            missing = ledger.missing(sequences)
            if missing.any():
                kept.append(places[missing])
                changed[gateway] = sequences[missing]
        found = np.concatenate(kept) if kept else np.empty(0, dtype=np.intp)
        return (None if len(found) == len(rows) else np.sort(found)), changed, gateways

    def _keep_apart(
        self, connection: sqlite3.Connection, fresh: Rows, rest: dict[tuple[int, int], Rest]
    ) -> Rows:
        """Keep the rows of locked time apart, and return the others."""
        locked = np.zeros(len(fresh), dtype=np.bool_)
        for machine, (before_us, _) in self._locked.items():
            locked |= (fresh["machine"] == machine) & (fresh["time_us"] < before_us)
        if not locked.any():
            return fresh
        connection.executemany(
            "INSERT INTO after_lock (machine, hour, rows, rest, received_us) VALUES (?, ?, ?, ?, ?)",
            [(*chunk, self._locked[chunk.machine][1]) for chunk in _chunks(fresh[locked], rest)],
        )
        return fresh[~locked]

    def _count_again(self, machine: int, from_us: int) -> int:
        """Put what was kept apart of a machine from an instant on where it belongs; return how much."""
        moved = 0
        with self._transaction() as connection:
            for id_, received_us, rows, rest in connection.execute(
                "SELECT id, received_us, rows, rest FROM after_lock WHERE machine = ? AND hour >= ?",
                (machine, from_us // US_PER_HOUR),
            ).fetchall():
                table = joined([(rows, rest)])
                free = table.rows["time_us"] >= from_us
                if not free.any():
                    continue
                self._insert_chunks(connection, table.rows[free], table.rest)
                connection.execute("DELETE FROM after_lock WHERE id = ?", (id_,))
                connection.executemany(
                    "INSERT INTO after_lock (machine, hour, rows, rest, received_us) VALUES (?, ?, ?, ?, ?)",
                    [(*chunk, received_us) for chunk in _chunks(table.rows[~free], table.rest)],
                )
                moved += int(free.sum())
        return moved

    def _insert_chunks(
        self,
        connection: sqlite3.Connection,
        fresh: Rows,
        rest: dict[tuple[int, int], Rest],
        *,
        mark: bool = True,
    ) -> None:
        """Write rows, which stand by machine and time, as one chunk per machine and hour."""
        chunks = _chunks(fresh, rest)
        connection.executemany("INSERT INTO chunk (machine, hour, rows, rest) VALUES (?, ?, ?, ?)", chunks)
        if mark:
            late = [
                (chunk.machine, chunk.hour)
                for chunk in chunks
                if chunk.first_us < self.live_from_us.get(chunk.machine, _ALWAYS)
            ]
            _mark(connection, late, None)

    def _note_stored(
        self, connection: sqlite3.Connection, gateway: int, sequences: NDArray[np.int64]
    ) -> None:
        ledger = self._ledgers[gateway] = self._ledgers[gateway].copy()
        change = ledger.insert_all(sequences)
        connection.executemany(
            "DELETE FROM stored_range WHERE gateway = ? AND first = ?",
            [(gateway, first) for first, _ in change.removed],
        )
        connection.executemany(
            "INSERT INTO stored_range (gateway, first, last) VALUES (?, ?, ?)",
            [(gateway, first, last) for first, last in change.added],
        )

    def _read(self, machines: Iterable[int], from_us: int, to_us: int, *, rest: bool) -> Table:
        wanted = list(machines)
        chunks: list[tuple[bytes, bytes | None]] = []
        column = "rest" if rest else "NULL"
        with self._reading() as connection:
            for low in range(0, len(wanted), _MACHINES_PER_READ):
                some = wanted[low : low + _MACHINES_PER_READ]
                marks = ",".join("?" * len(some))
                chunks += connection.execute(
                    f"SELECT rows, {column} FROM chunk"  # noqa: S608  no text from outside
                    f" WHERE machine IN ({marks}) AND hour BETWEEN ? AND ?",
                    (*some, from_us // US_PER_HOUR, (to_us - 1) // US_PER_HOUR),
                ).fetchall()
        table = joined(chunks)
        inside = (table.rows["time_us"] >= from_us) & (table.rows["time_us"] < to_us)
        return Table(row_format.in_order(table.rows[inside]), table.rest)

    def _hour_before(self, machine: int, hour: int) -> int | None:
        with self._reading() as connection:
            (found,) = connection.execute(
                "SELECT max(hour) FROM chunk WHERE machine = ? AND hour < ?", (machine, hour)
            ).fetchone()
        return None if found is None else int(found)

    def _hour_after(self, machine: int, hour: int) -> int | None:
        with self._reading() as connection:
            (found,) = connection.execute(
                "SELECT min(hour) FROM chunk WHERE machine = ? AND hour > ?", (machine, hour)
            ).fetchone()
        return None if found is None else int(found)

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
            for statement in _SCHEMA.split(";\n"):
                self._writer.execute(statement)
            self._writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        for statement in _LATER_TABLES.split(";\n"):
            self._writer.execute(statement)

    def _look_for_others(self) -> bool:
        """Read names and ledgers again when another process, such as an import, has written since."""
        (version,) = self._writer.execute("PRAGMA data_version").fetchone()
        if version == self._seen_version:
            return False
        self._seen_version = version
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


class _Chunk(NamedTuple):
    """Rows of one machine and hour."""

    machine: int
    hour: int
    rows: bytes
    rest: bytes | None

    @property
    def first_us(self) -> int:
        return int(np.frombuffer(self.rows, dtype=ROW, count=1)["time_us"][0])


def _chunks(rows: Rows, rest: dict[tuple[int, int], Rest]) -> list[_Chunk]:
    """Return rows, which stand by machine and time, as one chunk per machine and hour."""
    if not len(rows):
        return []
    hours = rows["time_us"] // US_PER_HOUR
    breaks = np.flatnonzero((np.diff(rows["machine"]) != 0) | (np.diff(hours) != 0)) + 1
    starts = [0, *breaks.tolist()]
    ends = [*breaks.tolist(), len(rows)]
    return [
        _Chunk(
            int(rows["machine"][start]),
            int(hours[start]),
            rows[start:end].tobytes(),
            _rest_of(rows[start:end], rest) if rest else None,
        )
        for start, end in zip(starts, ends, strict=True)
    ]


def joined(chunks: Iterable[tuple[bytes, bytes | None]]) -> Table:
    """Return the rows of chunks one after the other."""
    chunks = list(chunks)
    rest: dict[tuple[int, int], Rest] = {}
    for _, body in chunks:
        if body is not None:
            for gateway, sequence, more in row_format.decode_rest(body):
                rest[gateway, sequence] = more
    return Table(np.frombuffer(b"".join(rows for rows, _ in chunks), dtype=ROW), rest)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -32000")
    return connection


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error


def _mark(connection: sqlite3.Connection, hours: Iterable[tuple[int, int]], why: str | None) -> None:
    """Mark hours of machines as changed; a mark is higher than every chunk and mark before it."""
    connection.executemany(
        "INSERT INTO dirty (machine, hour, mark, why) VALUES (?1, ?2,"
        " coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'chunk'), 0)"
        " + coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'correction'), 0), ?3)"
        " ON CONFLICT (machine, hour) DO UPDATE SET mark = excluded.mark, why = coalesce(excluded.why, why)",
        ((machine, hour, why) for machine, hour in hours),
    )


def _note(connection: sqlite3.Connection, name: str, body: bytes) -> None:
    connection.execute("INSERT OR REPLACE INTO note (name, body) VALUES (?, ?)", (name, body))


def _clean(connection: sqlite3.Connection, hours: Iterable[Dirty]) -> None:
    connection.executemany(
        "DELETE FROM dirty WHERE machine = ? AND hour = ? AND mark <= ?", (hour[:3] for hour in hours)
    )


def _queue(connection: sqlite3.Connection, channels: Iterable[str], event: bytes) -> None:
    connection.executemany(
        "INSERT INTO delivery (channel, payload) VALUES (?, ?)", ((name, event) for name in channels)
    )


def _revision(body: bytes) -> Revision:
    return msgspec.json.decode(body, type=Revision)


def _rest_of(rows: Rows, rest: dict[tuple[int, int], Rest]) -> bytes | None:
    keys = zip(rows["gateway"].tolist(), rows["sequence"].tolist(), strict=True)
    found = [(*key, rest[key]) for key in keys if key in rest]
    return row_format.encode_rest(found) if found else None
