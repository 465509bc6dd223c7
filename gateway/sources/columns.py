"""Values as columns, as they come off the wire. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

TYPE_MISMATCH: Final = 0x80740000
NO_DATA: Final = 0x809B0000
CODE_BITS: Final = 0xFFFF0000
OVERFLOW: Final = 0x480
"""Info type `DataValue` with the overflow bit: values before this one were thrown away by the server."""

_MAX_LAST: Final = 64


@dataclass(slots=True)
class Columns:
    """Values before they are a TagBatch.

    values: bool, int, float, str, or None with a bad status
    statuses: without their flag bits
    source_us: [us since 1970] the source's timestamp or else the server's; 0 where there is neither
    overflowed: positions before which the server threw away values of the same tag
    """

    handles: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    source_us: list[int] = field(default_factory=list)
    overflowed: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.handles)

    def extend(self, other: "Columns") -> None:
        """Append another's values."""
        before = len(self.handles)
        self.handles += other.handles
        self.values += other.values
        self.statuses += other.statuses
        self.source_us += other.source_us
        self.overflowed += [before + position for position in other.overflowed]

    def keep(self, places: Sequence[int]) -> None:
        """Have only the values at these positions left."""
        if len(places) == len(self.handles):
            return
        lost = set(self.overflowed)
        self.overflowed = [now for now, before in enumerate(places) if before in lost]
        for name in ("handles", "values", "statuses", "source_us"):
            column = getattr(self, name)
            setattr(self, name, [column[place] for place in places])


class Gathered:
    """Messages that belong together, as one.

    columns: their values, in the order in which they came
    sequences: their numbers
    least_us, most_us: [us since 1970] the span of source times; 0 among them where a value has none
    """

    def __init__(self) -> None:
        self.columns = Columns()
        self.sequences: list[int] = []
        self.least_us = self.most_us = 0
        self._newest_us: dict[int, int] = {}
        self._last: list[tuple[list[int], list[int]]] = []

    @classmethod
    def of(cls, found: Columns) -> Self:
        """Return values that are of no message."""
        made = cls()
        made._add(found)
        return made

    def add(self, sequence: int, found: Columns) -> None:
        """Append a message's values."""
        self.sequences.append(sequence)
        self._add(found)

    def _add(self, found: Columns) -> None:
        if len(found):
            least_us, most_us = _span(found.source_us)
            self.least_us = min(self.least_us, least_us) if len(self.columns) else least_us
            self.most_us = max(self.most_us, most_us)
            # A busy server tells the same tags each time: then only the last message counts.
            if self._last and self._last[-1][0] == found.handles:
                self._last.pop()
            elif len(self._last) >= _MAX_LAST:
                self.newest_us()
            self._last.append((found.handles, found.source_us))
            self.columns.extend(found)

    def newest_us(self) -> dict[int, int]:
        """Return the source time of each tag's last value, by its handle."""
        for handles, source_us in self._last:
            self._newest_us.update(zip(handles, source_us, strict=True))
        self._last.clear()
        return self._newest_us


def _span(times: list[int]) -> tuple[int, int]:
    """Return the least and the greatest; quickly where all are the same, as of what was scanned together."""
    first = times[0]
    return (first, first) if times.count(first) == len(times) else (min(times), max(times))
