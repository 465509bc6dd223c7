"""Which sequences of one gateway are on disk, as intervals: the ground of idempotence and of receipts."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.delivery import Receipt

Interval = tuple[int, int]
MAX_RECEIPT_RANGES = 1_000
"""About 35 kB of JSON; a gateway with more holes than that learns of the rest once these are filled."""


class Change(NamedTuple):
    """Intervals that an insertion took out and put in, for a table that mirrors the ledger."""

    removed: list[Interval]
    added: list[Interval]


class Ledger:
    """Closed, disjoint, never adjacent intervals of sequences, ascending."""

    def __init__(self, intervals: Iterable[Interval] = (), base: int | None = None) -> None:
        """Begin with known intervals.

        base: no record below this sequence will ever come; None while the gateway has not said so
        """
        self.base = base
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in intervals:
            self.insert(first, last)

    @property
    def intervals(self) -> list[Interval]:
        """Return all intervals, ascending."""
        return list(zip(self._firsts, self._lasts, strict=True))

    @property
    def last(self) -> int:
        """Return the highest sequence stored, -1 when there is none."""
        return self._lasts[-1] if self._lasts else -1

    def __contains__(self, sequence: int) -> bool:
        index = bisect_right(self._firsts, sequence) - 1
        return index >= 0 and sequence <= self._lasts[index]

    def missing(self, sequences: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell for each sequence whether it is not stored yet."""
        if not self._firsts:
            return np.ones(len(sequences), dtype=np.bool_)
        if len(sequences) and sequences.min() > self._lasts[-1]:
            return np.ones(len(sequences), dtype=np.bool_)
        lowest = max(bisect_right(self._firsts, int(sequences.min())) - 1, 0) if len(sequences) else 0
        firsts = np.array(self._firsts[lowest:], dtype=np.int64)
        lasts = np.array(self._lasts[lowest:], dtype=np.int64)
        index = np.searchsorted(firsts, sequences, side="right") - 1
        return (index < 0) | (sequences > lasts[index])

    def insert(self, first: int, last: int) -> Change:
        """Add one closed interval, joined with whatever it touches."""
        low = bisect_left(self._lasts, first - 1)
        high = bisect_right(self._firsts, last + 1)
        removed = list(zip(self._firsts[low:high], self._lasts[low:high], strict=True))
        if removed:
            first, last = min(first, removed[0][0]), max(last, removed[-1][1])
        if removed == [(first, last)]:
            return Change([], [])
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]
        return Change(removed, [(first, last)])

    def insert_all(self, sequences: NDArray[np.int64]) -> Change:
        """Add sequences in any order."""
        removed: set[Interval] = set()
        added: set[Interval] = set()
        for first, last in runs(sequences):
            change = self.insert(first, last)
            for interval in change.removed:
                if interval in added:
                    added.discard(interval)
                else:
                    removed.add(interval)
            added.update(change.added)
        return Change(sorted(removed), sorted(added))

    def copy(self) -> "Ledger":
        """Return a ledger that may be changed without touching this one."""
        twin = Ledger(base=self.base)
        twin._firsts, twin._lasts = self._firsts.copy(), self._lasts.copy()
        return twin

    def receipt(self, max_ranges: int = MAX_RECEIPT_RANGES) -> Receipt:
        """Say what is stored.

        While the base is unknown everything is told as ranges, since any lower record might still come. Of
        too many ranges the lowest and the highest are told: the oldest and the newest that the edge keeps.
        """
        base = self.base
        through = 0
        start = 0
        if base is not None:
            through = max(base - 1, 0)
            start = bisect_left(self._lasts, base)
            if start < len(self._firsts) and self._firsts[start] <= base:
                through = self._lasts[start]
                start += 1
        beyond = list(zip(self._firsts[start:], self._lasts[start:], strict=True))
        if len(beyond) > max_ranges:
            half = max_ranges // 2
            beyond = beyond[: max_ranges - half] + beyond[len(beyond) - half :]
        return Receipt(stored_through=through, stored_beyond=beyond)


def runs(sequences: NDArray[np.int64]) -> list[Interval]:
    """Return sequences, in any order and repeated or not, as closed intervals, ascending."""
    if not len(sequences):
        return []
    ascending = np.unique(sequences)
    breaks = np.flatnonzero(np.diff(ascending) != 1)
    firsts = ascending[np.concatenate(([0], breaks + 1))]
    lasts = ascending[np.concatenate((breaks, [len(ascending) - 1]))]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
