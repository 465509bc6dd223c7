"""The store with the history behind it: closed days move to Parquet, and are read as if they had not."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from cloud.store import rows as row_format
from cloud.store.chunks import joined
from cloud.store.parquet import History, Partition, Span, day_of, day_start_us
from cloud.store.parquet_columns import rows_of, table_of
from cloud.store.rows import US_PER_HOUR, Names, Rows, Table
from cloud.store.sqlite import SqliteStore
from contract.machine_key import MachineKey

_HOURS_PER_DAY: Final = 24
_TIMES: Final = ("time",)


class Archived(NamedTuple):
    """A day that has moved to the history."""

    site: str
    day: date
    chunks: int
    """Of the store, which it no longer has."""


class TieredStore(SqliteStore):
    """See cloud.store.port.Store: its records are those of the SQLite file and of the history together."""

    def __init__(self, path: Path, history: History) -> None:
        super().__init__(path)
        self.history = history

    def archive(self, before: date, *, limit: int) -> list[Archived]:
        """Move the oldest UTC days before a date to the history, at most `limit` of them; return which.

        Also late records of days that have moved already. It may be interrupted at any instant: what is on
        both sides is one record to every reader, and moves again.
        """
        return [self._move(site, day) for site, day in self._days(before)[:limit]]

    def extent(self, machine: int) -> tuple[int, int] | None:
        """Return the time of the first and the last record, None when there is none."""
        spans = [(span.first_us, span.last_us) for _, span in self._spans(machine)]
        if (hot := super().extent(machine)) is not None:
            spans.append(hot)
        return (min(span[0] for span in spans), max(span[1] for span in spans)) if spans else None

    def _read(self, machines: Iterable[int], from_us: int, to_us: int, *, rest: bool) -> Table:
        wanted = list(machines)
        hot = super()._read(wanted, from_us, to_us, rest=rest)
        parts = list(self._archived(wanted, from_us, to_us))
        if not parts:
            return hot
        both = np.concatenate([*(part.rows for part in parts), hot.rows])
        both = both[(both["time_us"] >= from_us) & (both["time_us"] < to_us)]
        rest_of = {identity: more for part in parts for identity, more in part.rest.items()} if rest else {}
        return Table(_once(both), rest_of | hot.rest)

    def _hour_before(self, machine: int, hour: int) -> int | None:
        found = [hot] if (hot := super()._hour_before(machine, hour)) is not None else []
        for partition, span in reversed(self._spans(machine)):
            if span.first_us < hour * US_PER_HOUR:
                before_us = span.last_us
                if before_us >= hour * US_PER_HOUR:
                    times = self._times(partition, machine)
                    before_us = int(times[times < hour * US_PER_HOUR][-1])
                found.append(before_us // US_PER_HOUR)
                break
        return max(found, default=None)

    def _hour_after(self, machine: int, hour: int) -> int | None:
        found = [hot] if (hot := super()._hour_after(machine, hour)) is not None else []
        begin_us = (hour + 1) * US_PER_HOUR
        for partition, span in self._spans(machine):
            if span.last_us >= begin_us:
                after_us = span.first_us
                if after_us < begin_us:
                    times = self._times(partition, machine)
                    after_us = int(times[times >= begin_us][0])
                found.append(after_us // US_PER_HOUR)
                break
        return min(found, default=None)

    def _keys(self, machines: Iterable[int]) -> list[MachineKey]:
        """Return the machines that the store has names of."""
        known = self.names.all("machine")
        return [MachineKey(*known[machine]) for machine in machines if machine < len(known)]

    def _spans(self, machine: int) -> list[tuple[Partition, Span]]:
        """Return the partitions that hold a machine, in order, and when its records lie in each."""
        return [
            (partition, span)
            for key in self._keys([machine])
            for partition in self.history.partitions(key.site)
            if (span := self.history.spans(partition).get(key[1:])) is not None
        ]

    def _times(self, partition: Partition, machine: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        tables = self.history.tables(partition, machines=self._keys([machine]), columns=_TIMES)
        return np.concatenate(
            [table["time"].to_numpy().astype("datetime64[us]").astype(np.int64) for table in tables]
        )

    def _archived(self, machines: Sequence[int], from_us: int, to_us: int) -> Iterator[Table]:
        keys = self._keys(machines)
        for partition in self.history.between(from_us, to_us, {key.site for key in keys}):
            for table in self.history.tables(partition, machines=keys):
                yield self._rows_of(table, partition.site)

    def _rows_of(self, table: Any, site: str) -> Table:
        try:
            return rows_of(table, site, _KnownNames(self.names))
        except KeyError:  # a history that was copied from elsewhere
            with self._transaction():
                return rows_of(table, site, self.names)

    def _days(self, before: date) -> list[tuple[str, date]]:
        """Return the sites and days that have chunks before a date, oldest first."""
        with self._transaction() as connection:  # so that every name is known
            found = connection.execute(
                f"SELECT DISTINCT machine, hour / {_HOURS_PER_DAY} FROM chunk WHERE hour < ?",  # noqa: S608  no text from outside
                (day_start_us(before) // US_PER_HOUR,),
            ).fetchall()
        machines = self.names.all("machine")
        days = {(day, machines[machine][0]) for machine, day in found}
        return [(site, day_of(day * _HOURS_PER_DAY * US_PER_HOUR)) for day, site in sorted(days)]

    def _move(self, site: str, day: date) -> Archived:
        taken: list[int] = []
        self.history.add(site, day, self._tables(site, day, taken))
        with self._transaction() as connection:
            # The newest chunk stays until there is a newer one: marks count on ids that only grow.
            connection.executemany(
                "DELETE FROM chunk WHERE id = ? AND id < (SELECT max(id) FROM chunk)",
                [(id_,) for id_ in taken],
            )
        return Archived(site, day, len(taken))

    def _tables(self, site: str, day: date, taken: list[int]) -> Iterator[Any]:
        """Return a day's rows machine by machine, and note which chunks they were taken from."""
        first_hour = day_start_us(day) // US_PER_HOUR
        of_site = sorted(
            (key[1:], number) for number, key in enumerate(self.names.all("machine")) if key[0] == site
        )
        for _, machine in of_site:
            with self._transaction() as connection:  # so that every name is known
                chunks = connection.execute(
                    "SELECT id, rows, rest FROM chunk WHERE machine = ? AND hour >= ? AND hour < ?",
                    (machine, first_hour, first_hour + _HOURS_PER_DAY),
                ).fetchall()
                table = table_of(joined((rows, rest) for _, rows, rest in chunks), self.names)
            if len(table):
                taken += [id_ for id_, _, _ in chunks]
                yield table


class _KnownNames(Names):
    """Names of which none can be added."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names_known = names

    def id(self, kind: str, name: Any) -> int:
        """Return the integer of a name; raise KeyError when it has none."""
        found = self._names_known.find(kind, name)
        if found == row_format.ABSENT:
            raise KeyError(name)
        return found


def _once(rows: Rows) -> Rows:
    """Return rows in order, each gateway's sequence once."""
    ordered = row_format.in_order(rows)
    identity = ordered[["gateway", "sequence"]]
    _, first = np.unique(identity, return_index=True)
    return ordered if len(first) == len(ordered) else ordered[np.sort(first)]
