"""Follows the revisions of closed shifts in the order in which they were made; the store notes how far."""

from collections.abc import Callable
from typing import TypeVar

from cloud.carrier import Carrier
from cloud.clock import clock_us
from cloud.store.port import LoggedShift, Store

Item = TypeVar("Item")


class Follower(Carrier[Item]):
    """Somebody who is sent revisions."""

    def __init__(
        self,
        name: str,
        store: Store,
        *,
        from_start: bool,
        retry_max_secs: float,
        now_us: Callable[[], int] = clock_us,
    ) -> None:
        """Go on where the note says; without one begin at the first revision, or after the last."""
        kind = name.partition(":")[0]
        super().__init__(name, store, kind=kind, retry_max_secs=retry_max_secs, now_us=now_us)
        self._from_start = from_start
        self._position: int | None = None

    def backlog(self) -> int:
        """Return how many revisions lie ahead."""
        note = self._store.note(self.name)
        end = self._store.closed_end()
        return end - (int(note) if note is not None else 0 if self._from_start else end)

    def next(self, limit: int) -> list[LoggedShift]:
        """Return the next revisions."""
        if self._position is None:
            self._position = self._begin()
        return self._store.closed_after(self._position, limit)

    def reach(self, position: int) -> None:
        """Note that all up to a position are done."""
        self._store.set_note(self.name, str(position).encode())
        self._position = position

    def _begin(self) -> int:
        note = self._store.note(self.name)
        if note is not None:
            return int(note)
        position = 0 if self._from_start else self._store.closed_end()
        self._store.set_note(self.name, str(position).encode())
        return position
