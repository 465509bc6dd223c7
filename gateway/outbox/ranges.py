"""Sets of sequences as closed ranges."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

Range = tuple[int, int]


class Ranges:
    """A set of integers kept as ascending, disjoint, non-touching closed ranges.

    Records are acknowledged from two ends (live and backlog), so that a set of millions is a few ranges.
    """

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[Sequence[int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Add every integer from first to last."""
        if first > last:
            return
        low = bisect_left(self._lasts, first - 1)
        high = bisect_right(self._firsts, last + 1)
        if low < high:
            first = min(first, self._firsts[low])
            last = max(last, self._lasts[high - 1])
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]

    def update(self, others: Iterable[Sequence[int]]) -> None:
        """Add every integer of the other ranges."""
        for first, last in others:
            self.add(first, last)

    def discard(self, first: int, last: int) -> None:
        """Remove every integer from first to last."""
        if first > last:
            return
        low = bisect_left(self._lasts, first)
        high = bisect_right(self._firsts, last)
        if low >= high:
            return
        kept = [
            (start, end)
            for start, end in ((self._firsts[low], first - 1), (last + 1, self._lasts[high - 1]))
            if start <= end
        ]
        self._firsts[low:high] = [start for start, _ in kept]
        self._lasts[low:high] = [end for _, end in kept]

    def absent(self, first: int, last: int) -> Iterator[Range]:
        """Yield, ascending, the ranges between first and last that are not in the set."""
        at = bisect_left(self._lasts, first)
        while first <= last and at < len(self._firsts):
            if self._firsts[at] > last:
                break
            if first < self._firsts[at]:
                yield first, self._firsts[at] - 1
            first = self._lasts[at] + 1
            at += 1
        if first <= last:
            yield first, last

    def present(self, first: int, last: int) -> Iterator[Range]:
        """Yield, ascending, the ranges between first and last that are in the set."""
        at = bisect_left(self._lasts, first)
        while at < len(self._firsts) and self._firsts[at] <= last:
            yield max(first, self._firsts[at]), min(last, self._lasts[at])
            at += 1

    def count(self) -> int:
        """Return how many integers are in the set."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    def copy(self) -> "Ranges":
        """Return an independent copy."""
        twin = Ranges()
        twin._firsts, twin._lasts = self._firsts.copy(), self._lasts.copy()
        return twin

    def __contains__(self, sequence: int) -> bool:
        """Tell whether one integer is in the set."""
        at = bisect_left(self._lasts, sequence)
        return at < len(self._firsts) and self._firsts[at] <= sequence

    def __iter__(self) -> Iterator[Range]:
        """Yield the ranges, ascending."""
        return iter(zip(self._firsts, self._lasts, strict=True))

    def __len__(self) -> int:
        """Return the number of ranges."""
        return len(self._firsts)

    def __eq__(self, other: object) -> bool:
        """Tell whether both hold the same integers."""
        return isinstance(other, Ranges) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show the ranges."""
        return f"Ranges({list(self)})"


def intersection(sets: Sequence[Ranges]) -> Ranges:
    """Return what all the sets have in common."""
    if not sets:
        return Ranges()
    common = sets[0].copy()
    for other in sets[1:]:
        common = Ranges(part for first, last in common for part in other.present(first, last))
    return common
