"""What the service remembers beside records: alerts, what waits to be sent, jobs, corrections, refusals."""

import json
import sqlite3
from collections.abc import Iterable

import msgspec

from cloud.store.database import Database, mark_dirty
from cloud.store.port import (
    DeadLetter,
    Delivery,
    Errand,
    Event,
    JobRun,
)
from cloud.views import AlertView, ChannelView, MuteView
from contract.machine_key import MachineKey


class ServiceTables(Database):
    """See cloud.store.port.Store."""

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

    def add_correction(
        self, text: bytes, machine: MachineKey, hours: Iterable[int], why: str, *, after: int
    ) -> int | None:
        """Keep a correction for good, with marks on the hours whose figures it changes; return its number.

        after: the number of the last one that it was judged beside; None is returned, and nothing kept, when
            there is another one by now
        """
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM correction WHERE id > ?", (after,)).fetchone():
                return None
            number = connection.execute("INSERT INTO correction (body) VALUES (?)", (text,)).lastrowid
            index = self.names.id("machine", tuple(machine))
            mark_dirty(connection, ((index, hour) for hour in hours), why, [index])
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


def _note(connection: sqlite3.Connection, name: str, body: bytes) -> None:
    connection.execute("INSERT OR REPLACE INTO note (name, body) VALUES (?, ?)", (name, body))


def _queue(connection: sqlite3.Connection, channels: Iterable[str], event: bytes) -> None:
    connection.executemany(
        "INSERT INTO delivery (channel, payload) VALUES (?, ?)", ((name, event) for name in channels)
    )
