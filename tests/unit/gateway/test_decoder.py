"""The fast way to decode publish responses says what the library says, or nothing."""

import os
import random
import struct
from typing import Any

import pytest
from asyncua import ua

from gateway.sources import plans, stock
from gateway.sources.decoder import Decoder
from gateway.sources.items import one_by_one
from gateway.sources.wire import DecodeError, UnknownLayoutError
from tests.fuzz.opcua_messages import OpcuaFuzz, same
from tests.support.publish_messages import NOON, PLAIN, any_message, data_change, response, value

NOON_TICKS = 116_444_736_000_000_000 + 1_700_000_000 * 10_000_000
ROUNDS = int(os.environ.get("OEE_FUZZ_MESSAGES", "20000"))


def test_the_assumptions_about_the_library_hold() -> None:
    assert stock.assumptions_hold()


def test_every_sound_message_is_decoded_as_the_library_does() -> None:
    dice = random.Random(1)
    decoder = Decoder()
    unknown = 0
    for _ in range(2000):
        message = any_message(dice)
        try:
            assert same(decoder.decode(message), stock.decode(message))
        except UnknownLayoutError:
            unknown += 1
    assert unknown < 250  # arrays of several dimensions and values in values are left to the library


@pytest.mark.parametrize("kind", range(len(PLAIN)), ids=[vtype.name for vtype, _ in PLAIN])
@pytest.mark.parametrize("mask", [1, 5, 7, 9, 13, 15])
def test_runs_and_plans_say_the_same_as_one_by_one(kind: int, mask: int) -> None:
    """The same layout again and again: the second message makes the plan, the third uses it."""
    dice = random.Random(kind * 100 + mask)
    decoder = Decoder()
    for _ in range(6):
        message = response([data_change([value(dice, odd=False, mask=mask, kind=kind) for _ in range(30)])])
        assert same(decoder.decode(message), stock.decode(message))


def test_a_plan_that_does_not_fit_is_not_believed() -> None:
    """Same size and count, other types: the plan of one must not read the other."""
    dice = random.Random(3)
    decoder = Decoder()
    first = [
        response([data_change([value(dice, odd=False, mask=13, kind=8 - n % 2) for n in range(10)])])
        for _ in range(4)
    ]
    second = [
        response([data_change([value(dice, odd=False, mask=13, kind=7 + n % 2) for n in range(10)])])
        for _ in range(4)
    ]
    for message in [*first, *second, *first, *second] * 4:
        assert same(decoder.decode(message), stock.decode(message))


def test_tags_that_come_in_between_or_are_missing_are_read_right() -> None:
    """A plant in its usual order, of which now and then a tag has nothing new, or one more has."""
    dice = random.Random(11)
    kinds = {handle: dice.randrange(len(PLAIN)) for handle in range(300)}
    usual = [handle for handle in kinds if handle % 7]
    decoder = Decoder()
    for number in range(60):
        missing = set(dice.sample(usual, number % 4))
        added = dice.sample(range(0, 300, 7), number % 3)
        told = sorted({*usual, *added} - missing)
        items = [value(dice, odd=number % 10 == 9, mask=13, kind=kinds[handle]) for handle in told]
        change = data_change(items)
        for handle, item in zip(told, change.MonitoredItems, strict=True):
            item.ClientHandle = ua.UInt32(handle)
        message = response([change])
        try:
            assert same(decoder.decode(message), stock.decode(message))
        except UnknownLayoutError:
            assert number % 10 == 9  # values in values are left to the library


def test_a_tag_in_between_costs_the_plans_of_its_neighbours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the message is still taken out of it by plans."""
    slow: list[int] = []

    def counting(*args: Any) -> tuple[int, int]:
        columns = args[4]
        before = len(columns)
        found = one_by_one(*args)
        slow.append(len(columns) - before)
        return found

    monkeypatch.setattr(plans, "one_by_one", counting)
    decoder = Decoder()
    dice = random.Random(12)
    for extra in (None, None, 500, None, 5, 900):
        items = [value(dice, odd=False, mask=13, kind=8) for _ in range(1000 if extra is None else 1001)]
        change = data_change(items)
        handles = list(range(1000))
        if extra is not None:
            handles.insert(extra, 5000)
        for handle, item in zip(handles, change.MonitoredItems, strict=True):
            item.ClientHandle = ua.UInt32(handle)
        message = response([change])
        slow.clear()
        assert decoder.decode(message).columns.handles == handles
        if extra is not None:
            assert 0 < sum(slow) <= 130
    assert sum(slow) < 130


def test_texts_of_other_lengths_with_the_same_sum_are_read_right() -> None:
    decoder = Decoder()
    for words in (["ab", "c"], ["ab", "d"], ["ef", "g"], ["h", "ij"], ["", "abc"], ["k", "lm"]) * 3:
        items = [
            ua.DataValue(ua.Variant(word, ua.VariantType.String), None, NOON, NOON)
            for word in [*words, "x", "y"]
        ]
        decoded = decoder.decode(response([data_change(items)]))
        assert decoded.columns.values == [*words, "x", "y"]


TIMES = {
    "together": [NOON_TICKS] * 9,
    "each its own": [NOON_TICKS + place * 10_000_001 for place in range(9)],
    "first and last alike": [NOON_TICKS, *range(NOON_TICKS, NOON_TICKS + 7), NOON_TICKS],
    "one without": [NOON_TICKS] * 4 + [0] + [NOON_TICKS] * 4,
    "none": [0] * 9,
    "before all time": [-(2**63)] * 9,
    "after all time": [2**63 - 1] * 9,
}


def item_bytes(handle: int, mask: int, content: bytes, status: int, ticks: int) -> bytes:
    """An item whose server's time is a second after its source's."""
    parts = [struct.pack("<IB", handle, mask), content]
    later = min(ticks + 10_000_000, 2**63 - 1)
    for bit, part in (
        (2, struct.pack("<I", status)),
        (4, struct.pack("<q", ticks)),
        (16, b"\xa1\xa2"),
        (8, struct.pack("<q", later)),
        (32, b"\xb1\xb2"),
    ):
        parts += [part] if mask & bit else []
    return b"".join(parts)


def time_of(mask: int, ticks: int) -> int:
    """The source's time [us since 1970] or else the server's; 0 for neither; never after the year 9999."""
    later = min(ticks + 10_000_000, 2**63 - 1)
    for bit, one in ((4, ticks), (8, later)):
        if mask & bit and one // 10 > 11_644_473_600_000_000:
            return min(one // 10 - 11_644_473_600_000_000, 253_402_300_799_000_000)
    return 0


CONTENTS = [
    (b"\x01\x01", True),
    (b"\x04" + struct.pack("<h", -5), -5),
    (b"\x07" + struct.pack("<I", 7), 7),
    (b"\x0b" + struct.pack("<d", 1.5), 1.5),
    (b"\x0c" + struct.pack("<i", 3) + b"abc", "abc"),
    (b"\x0c" + struct.pack("<i", 4) + "\u20ac!".encode(), "\u20ac!"),
    (b"\x0c" + struct.pack("<i", 2) + b"\xc0\x01", "\udcc0\x01"),
    (b"\x0c" + struct.pack("<i", 0), ""),
    (b"\x08" + struct.pack("<q", -(2**40)), -(2**40)),
]


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES.keys())
@pytest.mark.parametrize("status", [0, 0x40000000, 0x80350000], ids=["good", "uncertain", "bad"])
def test_every_mask_says_what_stands_in_it(times: list[int], status: int) -> None:
    """The first two messages are taken apart item by item, the others by a plan; the last fits it no more."""
    empty = response([data_change([])])
    at = empty.index(b"\x01\x00\x2b\x03\x01") + 5
    for mask in range(1, 64, 2):
        decoder = Decoder()
        for number in range(5):
            bad_now = status or (0x80000000 if number == 4 else 0)
            rows = list(zip(range(9), CONTENTS, times, strict=True))
            items = b"".join(
                item_bytes(handle, mask, content, bad_now, ticks) for handle, (content, _), ticks in rows
            )
            body = struct.pack("<i", len(rows)) + items + struct.pack("<i", -1)
            told = decoder.decode(empty[:at] + struct.pack("<i", len(body)) + body + empty[at + 12 :]).columns
            assert told.handles == list(range(9))
            assert told.values == [value for _, value in CONTENTS]
            assert told.statuses == [bad_now if mask & 2 else 0] * 9
            assert told.source_us == [time_of(mask, ticks) for ticks in times]
            assert not told.overflowed


def with_picoseconds(value_bytes: bytes) -> bytes:
    """A message whose only item has source and server picoseconds, in the standard's order."""
    plain = response([data_change([ua.DataValue(ua.Variant(1, ua.VariantType.Int32), None, NOON, NOON)])])
    at = plain.index(value_bytes)
    source = plain[at + 6 : at + 14]
    item = plain[at - 4 : at] + b"\x3d" + value_bytes[1:6] + source + b"\x11\x11" + source + b"\x22\x22"
    size_at = at - 4 - 4 - 4
    (size,) = struct.unpack_from("<i", plain, size_at)
    return (
        plain[:size_at] + struct.pack("<i", size + 4) + plain[size_at + 4 : at - 4] + item + plain[at + 22 :]
    )


def test_picoseconds_stand_where_the_standard_puts_them() -> None:
    message = with_picoseconds(b"\x0d\x06\x01\x00\x00\x00")
    decoded = Decoder().decode(message)
    assert decoded.columns.values == [1]
    assert decoded.columns.source_us == [1_700_000_000_000_000]


@pytest.mark.parametrize(
    "message",
    [b"", b"\x01\x00\x3d\x03", b"\x00" * 100, response([])[:-1], response([]) + b"\x00"],
    ids=["empty", "type only", "zeros", "cut", "longer"],
)
def test_a_damaged_message_is_said_to_be(message: bytes) -> None:
    with pytest.raises((DecodeError, UnknownLayoutError)):
        Decoder().decode(message)


def test_a_message_within_a_buffer_is_read_within_its_bounds() -> None:
    dice = random.Random(5)
    message = any_message(dice)
    around = b"\xff" * 17 + message + b"\xff" * 9
    assert same(Decoder().decode(around, 17, 17 + len(message)), stock.decode(message))
    with pytest.raises((DecodeError, UnknownLayoutError)):
        Decoder().decode(around, 17, 16 + len(message))


def test_a_text_under_a_mask_of_no_sense_is_left_to_the_library() -> None:
    """Byte 12 is a text's type only where the mask says that a value follows."""
    words = [
        ua.DataValue(ua.Variant(word, ua.VariantType.String)) for word in ("Gr\u00fc\u00dfe", "", "cola")
    ]
    message = response([data_change(words)])
    at = message.index("Gr\u00fc\u00dfe".encode()) - 6
    assert message[at : at + 2] == b"\x03\x0c"
    decoder = Decoder()
    for _ in range(3):
        with pytest.raises(UnknownLayoutError):
            decoder.decode(message[:at] + b"\x83" + message[at + 1 :])


def test_huge_counts_cost_nothing() -> None:
    """A count of two thousand million in a message of a hundred bytes is refused at once."""
    message = response([data_change([value(random.Random(1), odd=False, mask=13, kind=10)])])
    at = message.index(b"\x01\x00\x2b\x03\x01") + 9
    for count in (2**31 - 1, 10_000, 2):
        broken = message[:at] + struct.pack("<i", count) + message[at + 4 :]
        with pytest.raises((DecodeError, UnknownLayoutError)):
            Decoder().decode(broken)


def test_damaged_messages_are_read_as_the_library_does_or_refused() -> None:
    fuzz = OpcuaFuzz(int(os.environ.get("OEE_FUZZ_SEED", "7")))
    while fuzz.tried < ROUNDS:
        fuzz.round()
    assert fuzz.accepted > ROUNDS // 10
    assert fuzz.refused > ROUNDS // 10
