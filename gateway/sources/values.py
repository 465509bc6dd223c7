"""Decoded OPC UA values as plain columns: the stock way, one value at a time."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from asyncua import ua

from gateway.sources.port import BAD

TYPE_MISMATCH: Final = 0x80740000
NO_DATA: Final = 0x809B0000
CODE_BITS: Final = 0xFFFF0000
OVERFLOW: Final = 0x480
"""Info type `DataValue` with the overflow bit: values before this one were thrown away by the server."""
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_EARLIEST_US: Final = 0
_MICROSECOND: Final = dt.timedelta(microseconds=1)
_PLAIN: Final = frozenset({bool, int, float, str})


@dataclass(slots=True)
class Columns:
    """Values as they come off the wire, before they are a TagBatch.

    source_us: [us since 1970] the source's timestamp or else the server's; 0 where there is neither
    overflowed: handles of which the server threw values away
    """

    handles: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    source_us: list[int] = field(default_factory=list)
    overflowed: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.handles)

    def add(self, handle: int, value: ua.DataValue) -> None:
        """Append one decoded value."""
        plain, status = plain_value(value)
        self.handles.append(handle)
        self.values.append(plain)
        self.statuses.append(status & CODE_BITS)
        self.source_us.append(stamp_us(value))
        if status & OVERFLOW == OVERFLOW:
            self.overflowed.append(handle)

    def extend(self, other: "Columns") -> None:
        """Append another's values."""
        self.handles += other.handles
        self.values += other.values
        self.statuses += other.statuses
        self.source_us += other.source_us
        self.overflowed += other.overflowed


def columns(items: Iterable[ua.MonitoredItemNotification]) -> Columns:
    """Return the columns of a data change notification that asyncua has decoded."""
    made = Columns()
    for item in items:
        made.add(int(item.ClientHandle), item.Value)
    return made


def plain_value(value: ua.DataValue) -> tuple[Any, int]:
    """Return a value as bool, int, float, str or None, and its whole status code.

    Null is no value, and what is none of these types cannot be mapped: both get a bad status.
    """
    status = int(value.StatusCode.value) if value.StatusCode is not None else 0
    content = value.Value.Value if value.Value is not None else None
    if content is None:
        return None, _worsened(status, NO_DATA)
    if type(content) in _PLAIN:
        return content, status
    if isinstance(content, ua.LocalizedText):
        return content.Text or "", status
    if isinstance(content, bool | int | float | str):
        base = next(kind for kind in (bool, int, float, str) if isinstance(content, kind))
        return base(content), status
    return None, _worsened(status, TYPE_MISMATCH)


def _worsened(status: int, code: int) -> int:
    """Return a status that is bad, with its flag bits as they were."""
    return status if status >> 30 >= BAD else code | (status & ~CODE_BITS)


def stamp_us(value: ua.DataValue) -> int:
    """Return the source's timestamp or else the server's [us since 1970]; 0 for neither."""
    for stamp in (value.SourceTimestamp, value.ServerTimestamp):
        if stamp is not None and (stamped := epoch_us(stamp)) > _EARLIEST_US:
            return stamped
    return 0


def epoch_us(moment: dt.datetime) -> int:
    """Return a moment as asyncua gives it, in microseconds since 1970; negative before."""
    aware = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment
    return (aware - _EPOCH) // _MICROSECOND


def moment(us: int) -> dt.datetime:
    """Return microseconds since 1970 as asyncua wants a moment."""
    return _EPOCH + us * _MICROSECOND
