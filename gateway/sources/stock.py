"""Publish responses decoded the library's way, into the same shape as the fast way."""

from typing import Any, Final

from asyncua import ua
from asyncua.client.ua_client import UASocketProtocol
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import nodeid_to_binary, struct_from_binary, struct_to_binary
from asyncua.ua.uaerrors import UaStatusCodeError

from gateway.sources.columns import Columns
from gateway.sources.decoder import Decoder, Published
from gateway.sources.errors import LIBRARY_ERRORS
from gateway.sources.publish_bytes import publish_request
from gateway.sources.values import columns, epoch_us, moment
from gateway.sources.wire import DecodeError, UnknownLayoutError


class BoundedBuffer(Buffer):
    """The library's buffer, refusing to walk backwards when a message gives a negative length."""

    def read(self, size: int) -> bytes:
        """Take bytes off the front."""
        if size < 0:
            raise DecodeError("a negative length")
        return super().read(size)

    def skip(self, size: int) -> None:
        """Leave bytes out."""
        if size < 0:
            raise DecodeError("a negative length")
        super().skip(size)

    def copy(self, size: int = -1) -> "BoundedBuffer":
        """Return a view of the front."""
        known = super().copy(size)
        return BoundedBuffer(known._data, known._cur_pos, known._size)  # noqa: SLF001


def decode(body: bytes, start: int = 0, end: int | None = None) -> Published:
    """Decode the publish response in body[start:end] with asyncua.

    Raises DecodeError for a damaged message, and the library's error for a bad answer of the server.
    """
    end = len(body) if end is None else end
    try:
        response = struct_from_binary(ua.PublishResponse, BoundedBuffer(body, start, end - start))
        response.ResponseHeader.ServiceResult.check()
        result = response.Parameters
        message = result.NotificationMessage
        found, changes = taken(message)
        return Published(
            subscription=int(result.SubscriptionId),
            available=tuple(map(int, result.AvailableSequenceNumbers or ())),
            more=bool(result.MoreNotifications),
            sequence=int(message.SequenceNumber),
            published_us=epoch_us(message.PublishTime) if message.PublishTime is not None else 0,
            columns=found,
            status_changes=changes,
            has_notifications=bool(message.NotificationData),
            unhurried=len(found),
        )
    except UaStatusCodeError:
        raise
    except LIBRARY_ERRORS as error:
        raise DecodeError(str(error)) from error


def taken(message: Any) -> tuple[Columns, tuple[int, ...]]:
    """Return values and status changes of a notification message that the library has decoded."""
    found = Columns()
    changes: list[int] = []
    for note in message.NotificationData or ():
        if isinstance(note, ua.DataChangeNotification):
            found.extend(columns(note.MonitoredItems or ()))
        elif isinstance(note, ua.StatusChangeNotification):
            changes.append(int(note.Status.value))
    return found, tuple(changes)


_SAMPLE_US: Final = 1_700_000_000_123_456


def assumptions_hold() -> bool:
    """Tell whether the fast way finds and reads what this version of the library writes."""
    try:
        message = sample()
        buffer = Buffer(message)
        if buffer._data is not message or buffer._cur_pos != 0 or len(buffer) != len(message):  # noqa: SLF001
            return False
        decoder = Decoder()
        wanted = decode(message).columns
        return _asks_alike() and all(decoder.decode(message).columns == wanted for _ in range(3))
    except (*LIBRARY_ERRORS, UnknownLayoutError):
        return False


def _asks_alike() -> bool:
    """Tell whether requests can be sent and are written as the library would."""
    protocol = UASocketProtocol()
    parts = (protocol._request_id, protocol._request_handle, protocol._callbackmap)  # noqa: SLF001
    if parts != (0, 0, {}) or protocol.transport is not None:
        return False
    for token in (ua.NodeId(ua.Int32(7), ua.Int16(0)), ua.NodeId(ua.ByteString(b"\x01\x02"), ua.Int16(1))):
        for acks in ((), (1, 2**32 - 1)):
            request = ua.PublishRequest()
            header = request.RequestHeader
            header.AuthenticationToken, header.RequestHandle, header.TimeoutHint = (
                token,
                ua.UInt32(3),
                ua.UInt32(0),
            )
            header.Timestamp = moment(_SAMPLE_US)
            request.Parameters.SubscriptionAcknowledgements = [
                ua.SubscriptionAcknowledgement(ua.UInt32(9), ua.UInt32(sequence)) for sequence in acks
            ]
            ours = publish_request(nodeid_to_binary(token), 3, _SAMPLE_US, 9, acks)
            theirs = struct_to_binary(request)
            wire = protocol._connection.message_to_binary(ours, request_id=5)  # noqa: SLF001
            if ours != theirs or not wire.endswith(ours):
                return False
    return True


def sample() -> bytes:
    """Return a publish response as the library writes it, with a value of each common type."""
    kinds: list[tuple[Any, ua.VariantType]] = [
        (True, ua.VariantType.Boolean),
        (-5, ua.VariantType.SByte),
        (200, ua.VariantType.Byte),
        (-30_000, ua.VariantType.Int16),
        (60_000, ua.VariantType.UInt16),
        (-2_000_000_000, ua.VariantType.Int32),
        (4_000_000_000, ua.VariantType.UInt32),
        (-(2**60), ua.VariantType.Int64),
        (2**63, ua.VariantType.UInt64),
        (1.5, ua.VariantType.Float),
        (-2.25e100, ua.VariantType.Double),
        ("Grüße", ua.VariantType.String),
    ]
    stamp: Any = moment(_SAMPLE_US)
    good = ua.StatusCode(ua.UInt32(0))
    notification = ua.DataChangeNotification()
    notification.MonitoredItems = [
        ua.MonitoredItemNotification(
            ua.UInt32(handle),
            ua.DataValue(ua.Variant(value, kind), good, stamp, stamp),
        )
        for handle, (value, kind) in enumerate(kinds, 1)
    ]
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = ua.UInt32(7)
    response.Parameters.NotificationMessage.SequenceNumber = ua.UInt32(3)
    response.Parameters.NotificationMessage.PublishTime = stamp
    response.Parameters.NotificationMessage.NotificationData = [notification]
    return bytes(struct_to_binary(response))
