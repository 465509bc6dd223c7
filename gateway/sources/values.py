"""Decoded OPC UA values as plain columns: the stock way, one value at a time."""

import datetime as dt
from collections.abc import Iterable
from typing import Any, Final

from asyncua import ua

from gateway.sources.columns import CODE_BITS, NO_DATA, OVERFLOW, TYPE_MISMATCH, Columns
from gateway.sources.port import BAD

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_EARLIEST_US: Final = 0
_MICROSECOND: Final = dt.timedelta(microseconds=1)
_PLAIN: Final = frozenset({bool, int, float, str})


def add_value(found: Columns, handle: int, value: ua.DataValue) -> None:
    """Append one decoded value."""
    plain, status = plain_value(value)
    found.handles.append(handle)
    found.values.append(plain)
    found.statuses.append(status & CODE_BITS)
    found.source_us.append(stamp_us(value))
    if status & OVERFLOW == OVERFLOW:
        found.overflowed.append(len(found.handles) - 1)


def columns(items: Iterable[ua.MonitoredItemNotification]) -> Columns:
    """Return the columns of a data change notification that asyncua has decoded."""
    made = Columns()
    for item in items:
        add_value(made, int(item.ClientHandle), item.Value)
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


def moment_us(value: ua.DataValue) -> int:
    """Return a value that is a moment [us since 1970]; 0 where it is none."""
    content = value.Value.Value if value.Value is not None else None
    return epoch_us(content) if isinstance(content, dt.datetime) else 0


def moment(us: int) -> dt.datetime:
    """Return microseconds since 1970 as asyncua wants a moment."""
    return _EPOCH + us * _MICROSECOND
