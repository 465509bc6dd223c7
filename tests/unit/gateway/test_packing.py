"""Records to packs and back."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.outbox.packing import PackDamagedError, Record, columns_of, pack, unpack

WORD = st.integers(-(2**63), 2**63 - 1)
RECORDS = st.lists(
    st.builds(
        Record,
        sequence=st.integers(0, 2**53),
        epoch_us=WORD,
        kind=st.integers(0, 3),
        topic=st.integers(1, 2**32 - 1),
        payload=st.binary(max_size=300),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda record: record.sequence,
)
SOME = [Record(1_000 + n, 5 * n, n % 4, 1 + n % 3, b'{"sequence":%d}' % n) for n in range(100)]


@given(RECORDS)
def test_what_is_packed_is_unpacked_by_sequence(records):
    assert unpack(pack(records)) == sorted(records)


@given(RECORDS)
def test_columns_are_those_of_the_records(records):
    assert sorted(zip(*columns_of(pack(records)), strict=True)) == sorted(
        (one.topic, one.sequence, one.epoch_us, one.kind, len(one.payload)) for one in records
    )


def test_records_that_are_alike_take_a_fraction():
    assert len(pack(SOME)) < sum(len(one.payload) + 25 for one in SOME) / 4


@given(st.integers(0, len(pack(SOME)) - 1), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(place, change):
    content = bytearray(pack(SOME))
    content[place] ^= change
    for read in (unpack, columns_of):
        with pytest.raises(PackDamagedError):
            read(bytes(content))


@given(st.integers(0, len(pack(SOME)) - 1))
def test_a_pack_cut_short_is_noticed(size):
    with pytest.raises(PackDamagedError):
        unpack(pack(SOME)[:size])


@given(st.binary(max_size=200))
def test_other_bytes_are_no_pack(content):
    with pytest.raises(PackDamagedError):
        unpack(content)


def sealed(count: int, columns: bytes, payloads: bytes) -> bytes:
    """Return a pack whose checksum is right, whatever is in it."""
    rest = struct.pack("<II", count, len(columns)) + columns + payloads
    return b"oeP1" + zlib.crc32(rest).to_bytes(4, "little") + rest


def columns(count: int, payload_bytes: int) -> bytes:
    """Return deflated columns of records that claim payloads of a size."""
    lengths = struct.pack(f"<{count}I", *([payload_bytes] * count))
    return zlib.compress(bytes(20 * count) + lengths + bytes(count))


@pytest.mark.parametrize(
    "content",
    [
        sealed(0, zlib.compress(b""), zlib.compress(b"")),
        sealed(2**32 - 1, zlib.compress(bytes(1000)), zlib.compress(b"")),
        sealed(1, b"not deflated", zlib.compress(b"")),
        sealed(1, zlib.compress(bytes(50_000_000)), zlib.compress(b"")),
        sealed(1, columns(1, 5), zlib.compress(bytes(50_000_000))),
        sealed(1, columns(1, 5), zlib.compress(b"four")),
        sealed(1, columns(1, 5), zlib.compress(b"fives")[:-2]),
        sealed(1, columns(1, 5), zlib.compress(b"fives") + b"more"),
        sealed(1, columns(1, 2**32 - 1), zlib.compress(b"")),
        sealed(1, columns(1, 5), b""),
    ],
)
def test_what_claims_to_be_a_pack_is_not_believed(content):
    with pytest.raises(PackDamagedError):
        unpack(content)
