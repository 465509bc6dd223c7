"""Publish responses of every shape, and damaged ones."""

import datetime as dt
import random
import struct
from typing import Any

from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
NOON = EPOCH + dt.timedelta(seconds=1_700_000_000)
PLAIN = [
    (ua.VariantType.Boolean, lambda dice: dice.random() < 0.5),
    (ua.VariantType.SByte, lambda dice: dice.randint(-128, 127)),
    (ua.VariantType.Byte, lambda dice: dice.randint(0, 255)),
    (ua.VariantType.Int16, lambda dice: dice.randint(-(2**15), 2**15 - 1)),
    (ua.VariantType.UInt16, lambda dice: dice.randint(0, 2**16 - 1)),
    (ua.VariantType.Int32, lambda dice: dice.randint(-(2**31), 2**31 - 1)),
    (ua.VariantType.UInt32, lambda dice: dice.randint(0, 2**32 - 1)),
    (ua.VariantType.Int64, lambda dice: dice.randint(-(2**63), 2**63 - 1)),
    (ua.VariantType.UInt64, lambda dice: dice.randint(0, 2**64 - 1)),
    (ua.VariantType.Float, lambda dice: float(dice.randint(-1000, 1000)) / 8),
    (ua.VariantType.Double, lambda dice: dice.choice([dice.random(), float("nan"), float("inf"), -0.0])),
    (ua.VariantType.String, lambda dice: dice.choice(["", "cola", "Grüße €", None, "P-000123"])),
]
ODD: list[Any] = [
    ua.Variant(None, ua.VariantType.Null),
    ua.Variant(NOON, ua.VariantType.DateTime),
    ua.Variant(b"abc", ua.VariantType.ByteString),
    ua.Variant(None, ua.VariantType.ByteString),
    ua.Variant(ua.NodeId("x", 2), ua.VariantType.NodeId),
    ua.Variant(ua.NodeId(7, 3), ua.VariantType.NodeId),
    ua.Variant(ua.StatusCode(ua.UInt32(0x80010000)), ua.VariantType.StatusCode),
    ua.Variant(ua.QualifiedName("name", 2), ua.VariantType.QualifiedName),
    ua.Variant(ua.LocalizedText("words", "en"), ua.VariantType.LocalizedText),
    ua.Variant(ua.LocalizedText(None, None), ua.VariantType.LocalizedText),
    ua.Variant([1, 2, 3], ua.VariantType.Int32),
    ua.Variant(["a", "bc", None], ua.VariantType.String),
    ua.Variant([], ua.VariantType.Double, is_array=True),
    ua.Variant([[1, 2], [3, 4]], ua.VariantType.Int16),
    ua.Variant(ua.Range(0.0, 1.0), ua.VariantType.ExtensionObject),
    ua.Variant([ua.Variant(1, ua.VariantType.Int32)], ua.VariantType.Variant),
]
STATUSES = [0, 0, 0, 0x480, 0x80000000, 0x80350000, 0x40000000, 0x408F0480, 0x808B0000]


def value(
    dice: random.Random, *, odd: bool = True, mask: int | None = None, kind: int | None = None
) -> ua.DataValue:
    """A data value with any parts, or with the parts of a mask and a type of PLAIN."""
    if odd and dice.random() < 0.1:
        variant = dice.choice(ODD)
    else:
        vtype, make = PLAIN[dice.randrange(len(PLAIN)) if kind is None else kind]
        variant = ua.Variant(make(dice), vtype)
    mask = dice.choice([5, 13, 15, 13, 13, 1, 7, 9]) if mask is None else mask
    times = [NOON + dt.timedelta(microseconds=dice.randrange(10**9)) for _ in range(2)]
    if odd and dice.random() < 0.02:
        times[0] = dt.datetime(1601, 1, 1, tzinfo=dt.UTC)
    status = ua.StatusCode(ua.UInt32(dice.choice(STATUSES))) if mask & 2 else None
    return ua.DataValue(variant, status, times[0] if mask & 4 else None, times[1] if mask & 8 else None)


def response(notifications: list[Any], *, sequence: int = 5, acked: int = 0, available: int = 0) -> bytes:
    """A publish response with these notifications."""
    made = ua.PublishResponse()
    made.Parameters.SubscriptionId = ua.UInt32(7)
    made.Parameters.AvailableSequenceNumbers = [ua.UInt32(sequence + n) for n in range(available)]
    made.Parameters.MoreNotifications = False
    made.Parameters.Results = [ua.StatusCode(ua.UInt32(0)) for _ in range(acked)]
    made.Parameters.NotificationMessage.SequenceNumber = ua.UInt32(sequence)
    made.Parameters.NotificationMessage.PublishTime = NOON
    made.Parameters.NotificationMessage.NotificationData = notifications
    return struct_to_binary(made)


def data_change(values: list[ua.DataValue], first_handle: int = 1) -> ua.DataChangeNotification:
    made = ua.DataChangeNotification()
    made.MonitoredItems = [
        ua.MonitoredItemNotification(ua.UInt32(first_handle + n), one) for n, one in enumerate(values)
    ]
    return made


def any_message(dice: random.Random) -> bytes:
    """A message as servers send them: uniform, mixed, with odd types, several notifications, or none."""
    shape = dice.randrange(6)
    count = dice.choice([1, 2, 3, 5, 8, 20])
    if shape == 0:
        kind, mask = dice.randrange(len(PLAIN)), dice.choice([5, 13, 15, 1])
        notes = [data_change([value(dice, odd=False, mask=mask, kind=kind) for _ in range(count)])]
    elif shape == 1:
        notes = [data_change([value(dice, odd=False, mask=13) for _ in range(count)])]
    elif shape == 2:
        notes = [data_change([value(dice) for _ in range(count)]), data_change([value(dice)], 100)]
    elif shape == 3:
        notes = (
            [] if dice.random() < 0.5 else [ua.StatusChangeNotification(ua.StatusCode(ua.UInt32(0x80020000)))]
        )
    else:
        notes = [data_change([value(dice) for _ in range(count)])]
    return response(
        notes, sequence=dice.randrange(2**32), acked=dice.randrange(3), available=dice.randrange(3)
    )


_TEMPTING = [0, 1, 0x7F, 0x80, 0xFF]
_LENGTHS = [-1, -2, 0, 1, 255, 65_536, 2**31 - 1, -(2**31)]


def damaged(dice: random.Random, message: bytes) -> bytes:
    """The message with a few bytes changed, cut, doubled, or a length made absurd."""
    made = bytearray(message)
    for _ in range(dice.choice([1, 1, 1, 2, 4])):
        way = dice.randrange(6)
        place = dice.randrange(len(made)) if made else 0
        if way == 0 and made:
            made[place] ^= 1 << dice.randrange(8)
        elif way == 1 and made:
            made[place] = dice.choice(_TEMPTING)
        elif way == 2:
            del made[place:]
        elif way == 3 and len(made) > 4:
            place = min(place, len(made) - 4)
            made[place : place + 4] = struct.pack("<i", dice.choice(_LENGTHS))
        elif way == 4:
            made[place:place] = made[place : place + dice.randrange(1, 9)]
        else:
            del made[place : place + dice.randrange(1, 9)]
    return bytes(made)
