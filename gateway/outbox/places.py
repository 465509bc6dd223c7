"""What each uplink has acknowledged, and what all of them have. Pure."""

from collections.abc import Iterable, Iterator, Sequence

from gateway.outbox.ranges import Range, Ranges, intersection


class Places:
    """By uplink the ranges that it has acknowledged, as far as they still matter."""

    def __init__(self, uplinks: Iterable[str]) -> None:
        self._of = {name: Ranges() for name in uplinks}
        self._removed = Ranges()

    def use(self, uplinks: Iterable[str]) -> None:
        """Serve these from now on: new ones have nothing yet, others are forgotten."""
        self._of = {name: self._of.get(name, Ranges()) for name in uplinks}

    def restore(self, rows: Iterable[tuple[str, int, int]]) -> None:
        """Add what was acknowledged before this process, as `rows` told it."""
        for uplink, first, last in rows:
            if uplink in self._of:
                self._of[uplink].add(first, last)

    def rows(self) -> Iterator[tuple[str, int, int]]:
        """Yield uplink, first and last of every range."""
        return ((name, first, last) for name, place in self._of.items() for first, last in place)

    def acknowledged(self, uplink: str) -> Ranges:
        """Return what an uplink has."""
        return self._of[uplink].copy()

    def acknowledge(self, uplink: str, ranges: Iterable[Range]) -> None:
        """Take note that an uplink has these."""
        self._of[uplink].update(ranges)

    def count(self, uplink: str, first: int, last: int) -> int:
        """Return how many sequences between the two an uplink has."""
        return sum(end - start + 1 for start, end in self._of[uplink].present(first, last))

    def to_remove(self, first: int, last: int) -> Iterator[Range]:
        """Yield what every uplink has between the two and what is not known to be removed yet, ascending."""
        for settled in intersection(list(self._of.values())).present(first, last):
            yield from self._removed.absent(*settled)

    def forget(self, removed: Sequence[Range], below: int) -> None:
        """Take note of what was removed, and that nothing below a sequence matters any more."""
        self._removed.update(removed)
        for ranges in (self._removed, *self._of.values()):
            ranges.discard(0, below - 1)
