"""Values as columns, as they come off the wire. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

TYPE_MISMATCH: Final = 0x80740000
NO_DATA: Final = 0x809B0000
CODE_BITS: Final = 0xFFFF0000
OVERFLOW: Final = 0x480
"""Info type `DataValue` with the overflow bit: values before this one were thrown away by the server."""


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
