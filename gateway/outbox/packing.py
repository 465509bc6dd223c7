"""Waiting records as one piece of bytes, and back. Pure.

A pack is a head (mark, CRC-32 of the rest, records, length of the columns), then what is known of each
record in deflated columns, then the deflated payloads. Columns can be read without the payloads. Both stand
by topic, and by sequence within one, because records of one machine are alike.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import sub
from typing import Final, NamedTuple

MAX_RECORDS: Final = 10_000
MAX_PAYLOAD_BYTES: Final = 1 << 28
"""Of all records of a pack; nothing that claims more is believed."""

_HEAD: Final = struct.Struct("<4sIII")
_MARK: Final = b"oeP1"
_SEALED: Final = 8
"""Where that begins which the checksum is of."""
_COLUMN_BYTES: Final = 8 + 8 + 4 + 4 + 1
_HALF: Final = 1 << 63
_LEVEL: Final = 6


class Record(NamedTuple):
    """One waiting record; kind and topic are the numbers that the file gives them."""

    sequence: int
    epoch_us: int
    kind: int
    topic: int
    payload: bytes


class Columns(NamedTuple):
    """What is known of packed records without their payloads; each has the same place in all columns."""

    topics: Sequence[int]
    sequences: Sequence[int]
    epochs_us: Sequence[int]
    kinds: Sequence[int]
    payload_bytes: Sequence[int]


class PackDamagedError(ValueError):
    """Bytes that are no pack, or no longer the one that was written."""


def pack(records: Sequence[Record]) -> bytes:
    """Return 1 to MAX_RECORDS records as bytes."""
    ordered = sorted(records, key=lambda record: (record.topic, record.sequence))
    sequences, epochs_us, kinds, topics, payloads = zip(*ordered, strict=True)
    count = len(ordered)
    columns = _deflated(
        struct.pack(f"<{count}q{count}q", *_steps(sequences), *_steps(epochs_us))
        + struct.pack(f"<{count}I{count}I", *topics, *map(len, payloads))
        + bytes(kinds)
    )
    sealed = _HEAD.pack(_MARK, 0, count, len(columns))[_SEALED:] + columns + _deflated(b"".join(payloads))
    return _MARK + zlib.crc32(sealed).to_bytes(4, "little") + sealed


def unpack(blob: bytes) -> list[Record]:
    """Return a pack's records by sequence; raise PackDamagedError unless it is whole."""
    columns, rest = _opened(blob)
    payloads = _inflated(rest, sum(columns.payload_bytes))
    ends = list(accumulate(columns.payload_bytes))
    each = map(payloads.__getitem__, map(slice, (0, *ends), ends))
    return sorted(map(Record, columns.sequences, columns.epochs_us, columns.kinds, columns.topics, each))


def columns_of(blob: bytes) -> Columns:
    """Return what is known of a pack's records, by topic; raise PackDamagedError unless it is whole."""
    return _opened(blob)[0]


def _opened(blob: bytes) -> tuple[Columns, bytes]:
    """Return the columns and the deflated payloads."""
    if len(blob) < _HEAD.size:
        raise PackDamagedError("a pack is cut short")
    mark, checksum, count, columns_bytes = _HEAD.unpack_from(blob)
    if mark != _MARK:
        raise PackDamagedError("this is no pack")
    if zlib.crc32(memoryview(blob)[_SEALED:]) != checksum:
        raise PackDamagedError("a pack's checksum is wrong")
    if not 0 < count <= MAX_RECORDS:
        raise PackDamagedError(f"a pack claims {count} records")
    end = _HEAD.size + columns_bytes
    content = _inflated(blob[_HEAD.size : end], count * _COLUMN_BYTES)
    steps = struct.unpack_from(f"<{2 * count}q", content)
    halves = struct.unpack_from(f"<{2 * count}I", content, 16 * count)
    if sum(halves[count:]) > MAX_PAYLOAD_BYTES:
        raise PackDamagedError("a pack claims too many bytes")
    columns = Columns(
        halves[:count], _sums(steps[:count]), _sums(steps[count:]), content[24 * count :], halves[count:]
    )
    return columns, blob[end:]


def _steps(values: Sequence[int]) -> Iterable[int]:
    """Return from each value to the next, round the corner of a word: they are small, and deflate well."""
    return map(_wrapped, map(sub, values, (0, *values)))


def _sums(steps: Iterable[int]) -> list[int]:
    """Return what `_steps` was made of."""
    return list(map(_wrapped, accumulate(steps)))


def _wrapped(value: int) -> int:
    """Return a number as a signed word has it."""
    return value if -_HALF <= value < _HALF else (value + _HALF) % (2 * _HALF) - _HALF


def _deflated(content: bytes) -> bytes:
    return zlib.compress(content, _LEVEL)


def _inflated(content: bytes, size: int) -> bytes:
    """Return exactly so many bytes, whatever the content would grow to."""
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(content, size + 1)
    except zlib.error as error:
        raise PackDamagedError(f"a pack cannot be inflated: {error}") from error
    if len(found) != size or not inflater.eof or inflater.unused_data:
        raise PackDamagedError("a pack holds another amount than it claims")
    return found
