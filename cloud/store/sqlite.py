"""The store in one SQLite file: write-ahead log, synchronous FULL, one writing connection.

Records lie in chunks: the rows of one machine and one hour that came in one batch, as one blob. What is
stored already is known from the ledger of sequences, which is kept in the same transaction, so that a record
costs no key of its own. Small chunks of past hours are joined later.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from cloud.store import rows as row_format
from cloud.store.chunks import Chunk, chunks_of, joined
from cloud.store.database import mark_dirty
from cloud.store.ledger import Ledger
from cloud.store.port import (
    AfterLock,
    Appended,
    Arrivals,
    StoredGateway,
)
from cloud.store.rows import ROW, US_PER_HOUR, Rest, Rows, Table
from cloud.store.service_tables import ServiceTables
from cloud.store.shift_tables import ShiftTables
from contract.delivery import Receipt, Status

_MACHINES_PER_READ: Final = 500
_ALWAYS: Final = 2**63 - 1


class SqliteStore(ShiftTables, ServiceTables):
    """See cloud.store.port.Store."""

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
            countless = self._countless_before.get(machine, -_ALWAYS)
            version, told = self._seen_version, list[NDArray[np.intp]]()
            while not told and (hour_before := self._hour_before(machine, hour)) is not None:
                is_known = hour <= countless  # nothing was counted before it: the last rows say all
                hour = hour_before
                rows = self.read([machine], hour * US_PER_HOUR, min((hour + 1) * US_PER_HOUR, at_us))
                told = row_format.counted(rows)
                found.append(rows[min((places[-1] for places in told), default=0) :])
                if is_known and len(rows):
                    break
            else:
                if not told and machine not in self._counting and version == self._seen_version:
                    self._countless_before[machine] = max(countless, at_us // US_PER_HOUR)
        return row_format.in_order(np.concatenate(found)) if found else row_format.empty()

    def read_after(self, machines: Iterable[int], at_us: int) -> Rows:
        """Return each machine's rows from an instant on, up to the first one that has a counter."""
        found: list[Rows] = []
        for machine in machines:
            hour = at_us // US_PER_HOUR - 1
            countless = self._countless_before.get(machine, -_ALWAYS)
            while (hour_after := self._hour_after(machine, hour)) is not None:
                hour = hour_after
                rows = self.read([machine], max(hour * US_PER_HOUR, at_us), (hour + 1) * US_PER_HOUR)
                told = row_format.counted(rows)
                found.append(rows[: max((places[0] for places in told), default=len(rows)) + 1])
                if told:
                    break
                hour = max(hour, countless - 1)  # nothing was counted before it, and nothing is told by that
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
            [(*chunk, self._locked[chunk.machine][1]) for chunk in chunks_of(fresh[locked], rest)],
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
                    [(*chunk, received_us) for chunk in chunks_of(table.rows[~free], table.rest)],
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
        chunks = chunks_of(fresh, rest)
        self._note_counting(chunks, fresh)
        connection.executemany("INSERT INTO chunk (machine, hour, rows, rest) VALUES (?, ?, ?, ?)", chunks)
        if mark:
            late = [
                (chunk.machine, chunk.hour)
                for chunk in chunks
                if chunk.first_us < self.live_from_us.get(chunk.machine, _ALWAYS)
            ]
            mark_dirty(connection, late, None, {machine for machine, _ in late})

    def _note_counting(self, chunks: Sequence[Chunk], fresh: Rows) -> None:
        """Note which machines count, also before the hour before which they were said not to."""
        told = row_format.counted(fresh)
        counting = set(np.unique(fresh["machine"][np.concatenate(told)]).tolist()) if told else set()
        self._counting |= counting
        for chunk in chunks if self._countless_before else ():
            if chunk.machine in counting and chunk.hour < self._countless_before.get(chunk.machine, -_ALWAYS):
                del self._countless_before[chunk.machine]

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
