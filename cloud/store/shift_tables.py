"""Closed shifts with their revisions, what late records touch, and what is locked."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from cloud.store.database import Database
from cloud.store.port import (
    ClosedShift,
    Dirty,
    LoggedShift,
)
from cloud.views import Revision

_ALWAYS: Final = 2**63 - 1


class ShiftTables(Database):
    """See cloud.store.port.Store."""

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

    def changes(self) -> dict[int, int]:
        """Return by machine how often its past was changed; what is being written now is waited for."""
        with self._write_lock, self._reading() as connection:
            return dict(connection.execute("SELECT machine, times FROM changed").fetchall())

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


def _clean(connection: sqlite3.Connection, hours: Iterable[Dirty]) -> None:
    connection.executemany(
        "DELETE FROM dirty WHERE machine = ? AND hour = ? AND mark <= ?", (hour[:3] for hour in hours)
    )


def _revision(body: bytes) -> Revision:
    return msgspec.json.decode(body, type=Revision)
