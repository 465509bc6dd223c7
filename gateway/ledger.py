"""What of an outbox one uplink has delivered, has under way, and has still to send; pure bookkeeping.

Sequences fall into: acknowledged (nothing more to do), in flight (no PUBACK yet), awaiting (the broker has
them, the store's receipt is missing) and free. Live goes up from the newest, backlog up from the oldest.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from contract.delivery import Receipt
from gateway.outbox.ranges import Range, Ranges

LIVE_START_RECORDS: Final = 200
"""How many of the newest records a new session sends before it turns to the backlog."""
LIVE_MAX_RECORDS: Final = 1_000
"""Live falls back to the newest LIVE_START_RECORDS when it is further behind than this."""
_BUCKET_SECS: Final = 0.5
MAX_SENDINGS: Final = 20


@dataclass(slots=True)
class Ledger:
    """One uplink's view of the sequences of an outbox.

    acknowledged: from the outbox, at the start
    last: newest sequence given so far
    receipt_timeout_secs: records that the store has not receipted by then are free again
    """

    acknowledged: Ranges
    last: int
    receipt_timeout_secs: float
    live_next: int = 0
    taken: Ranges = field(default_factory=Ranges)
    awaiting: Ranges = field(default_factory=Ranges)
    store_silent: bool = False
    patience_secs: float = 0.0
    sendings: dict[int, int] = field(default_factory=dict)
    _backlog_next: int = 0
    _buckets: deque[tuple[float, Ranges]] = field(default_factory=deque)
    _progress_at: float = float("-inf")

    def __post_init__(self) -> None:
        """Start with everything unacknowledged free."""
        self.taken = self.acknowledged.copy()
        self.patience_secs = self.receipt_timeout_secs
        self.live_next = self.last + 1

    def begin_session(self, first: int, last: int) -> None:
        """Let live start with the newest records; what a former session had in flight has been freed."""
        self.last = last
        self.live_next = max(first, last + 1 - LIVE_START_RECORDS)
        self._backlog_next = first

    def appended(self, last: int) -> None:
        """Take note that sequences up to last were given."""
        self.last = last
        if last - self.live_next >= LIVE_MAX_RECORDS:
            self._backlog_next = min(self._backlog_next, self.live_next)
            self.live_next = last + 1 - LIVE_START_RECORDS

    def next_live(self) -> Range | None:
        """Return the next free sequences of the live end, or None."""
        free = next(self.taken.absent(self.live_next, self.last), None)
        self.live_next = free[0] if free else self.last + 1
        return free

    def next_backlog(self) -> Range | None:
        """Return the oldest free sequences below the live end, or None."""
        free = next(self.taken.absent(self._backlog_next, self.live_next - 1), None)
        self._backlog_next = free[0] if free else max(self._backlog_next, self.live_next)
        return free

    def take(self, first: int, last: int) -> None:
        """Take note that these are under way."""
        self.taken.add(first, last)

    def vacant(self, first: int, last: int) -> None:
        """Take note that the outbox has no records with these sequences."""
        self.taken.add(first, last)
        self.acknowledged.add(first, last)

    def release(self, first: int, last: int) -> None:
        """Let these be sent again, except what has been acknowledged meanwhile."""
        for start, end in list(self.acknowledged.absent(first, last)):
            self.taken.discard(start, end)
            self.awaiting.discard(start, end)
            self._backlog_next = min(self._backlog_next, start)

    def acknowledge(self, first: int, last: int) -> None:
        """Take note that these are delivered."""
        self.acknowledged.add(first, last)
        self.taken.add(first, last)
        self.awaiting.discard(first, last)
        if self.sendings:
            self.sendings = {at: times for at, times in self.sendings.items() if not first <= at <= last}

    def accepted_by_broker(self, first: int, last: int, now: float) -> None:
        """Take note that the broker has these and that the store's receipt is awaited."""
        for start, end in list(self.acknowledged.absent(first, last)):
            self.awaiting.add(start, end)
            if not self._buckets or now - self._buckets[-1][0] > _BUCKET_SECS:
                self._buckets.append((now, Ranges()))
            self._buckets[-1][1].add(start, end)

    def receive(self, receipt: Receipt, first: int, now: float) -> list[Range]:
        """Take a receipt; return the ranges that it newly acknowledges.

        first: oldest sequence that still matters
        """
        told = [(first, receipt.stored_through), *receipt.stored_beyond]
        fresh = [
            part
            for start, end in told
            for part in self.acknowledged.absent(max(start, first), min(end, self.last))
        ]
        for start, end in fresh:
            self.acknowledge(start, end)
        if fresh:
            self._progress_at = now
            self.patience_secs = self.receipt_timeout_secs
            self.store_silent = False
        return fresh

    def expire(self, now: float) -> list[int]:
        """Free what waited too long for a receipt; return what was sent too often to believe in it.

        A store that says nothing at all is given ever more time, up to ten minutes; one that answers for
        other records but never for this one will not do so at the twentieth sending either.
        """
        hopeless: list[int] = []
        silent = now - self._progress_at > self.patience_secs
        while self._buckets and now - self._buckets[0][0] >= self.patience_secs:
            _, bucket = self._buckets.popleft()
            waiting = [part for first, last in bucket for part in self.awaiting.present(first, last)]
            for first, last in waiting:
                self.release(first, last)
                if not silent:
                    hopeless += self._count_sending(first, last)
            self.store_silent = self.store_silent or (bool(waiting) and silent)
        return hopeless

    def probe(self) -> None:
        """Take note that one message went to a silent store: wait twice as long before the next."""
        self.patience_secs = min(self.patience_secs * 2, max(600.0, self.receipt_timeout_secs))

    def next_expiry(self) -> float | None:
        """Return when `expire` has something to do, in the clock of `now`."""
        return self._buckets[0][0] + self.patience_secs if self._buckets else None

    def _count_sending(self, first: int, last: int) -> list[int]:
        hopeless: list[int] = []
        if len(self.sendings) > LIVE_MAX_RECORDS:
            return hopeless
        for sequence in range(first, min(last, first + LIVE_MAX_RECORDS) + 1):
            times = self.sendings[sequence] = self.sendings.get(sequence, 0) + 1
            if times >= MAX_SENDINGS:
                hopeless.append(sequence)
        return hopeless
