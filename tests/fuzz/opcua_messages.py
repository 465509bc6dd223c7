"""Damaged publish responses: whatever the fast decoder still reads, asyncua reads the same."""

import math
import random

from asyncua import ua
from asyncua.ua.uaerrors import UaStatusCodeError

from gateway.sources import stock
from gateway.sources.decoder import Decoder, Published
from gateway.sources.wire import DecodeError, UnknownLayoutError
from tests.fuzz.errors import DisagreementError
from tests.support.publish_messages import any_message, damaged


def same(one: Published, other: Published, *, times: bool = True) -> bool:
    """Tell whether two ways of decoding agree; NaN is NaN here."""
    ours, theirs = one.columns, other.columns
    if len(ours) != len(theirs) or ours.handles != theirs.handles or ours.statuses != theirs.statuses:
        return False
    if ours.overflowed != theirs.overflowed or (times and ours.source_us != theirs.source_us):
        return False
    for a, b in zip(ours.values, theirs.values, strict=True):
        if type(a) is not type(b) or (
            a != b and not (isinstance(a, float) and math.isnan(a) and math.isnan(b))
        ):
            return False
    return (one.subscription, one.available, one.more, one.sequence, one.status_changes) == (
        other.subscription,
        other.available,
        other.more,
        other.sequence,
        other.status_changes,
    )


def has_picoseconds(message: bytes) -> bool:
    """The library reads picoseconds in the wrong place, so that its times are then wrong."""
    from asyncua.ua.ua_binary import struct_from_binary

    parsed = struct_from_binary(ua.PublishResponse, stock.BoundedBuffer(message))
    return any(
        item.Value.SourcePicoseconds is not None or item.Value.ServerPicoseconds is not None
        for note in parsed.Parameters.NotificationMessage.NotificationData
        if isinstance(note, ua.DataChangeNotification)
        for item in note.MonitoredItems
    )


class OpcuaFuzz:
    """Damages messages and compares the fast decoder with the library's."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._decoder = Decoder()
        self._messages = [any_message(self._dice) for _ in range(300)]
        self.tried = self.accepted = self.refused = 0
        self.unknown = 0
        """Messages of a layout that is left to the library."""

    def round(self) -> None:
        """Try one message; raise DisagreementError."""
        message = damaged(self._dice, self._dice.choice(self._messages))
        self.tried += 1
        try:
            ours = self._decoder.decode(message)
        except DecodeError:
            self.refused += 1
        except UnknownLayoutError:
            self.unknown += 1
        except Exception as error:
            raise DisagreementError("opcua", message, f"{type(error).__name__}: {error}") from error
        else:
            self.accepted += 1
            self._compare(message, ours)

    @staticmethod
    def _compare(message: bytes, ours: Published) -> None:
        try:
            theirs = stock.decode(message)
        except (DecodeError, UaStatusCodeError):
            return  # the library is stricter about what is inside values that are not mapped anyway
        if not same(ours, theirs, times=False):
            raise DisagreementError("opcua", message, f"read {ours}, the library {theirs}")
        if ours.columns.source_us != theirs.columns.source_us and not has_picoseconds(message):
            raise DisagreementError("opcua", message, "other source times than the library's")
