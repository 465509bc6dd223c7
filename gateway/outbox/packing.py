"""Waiting records as one piece of bytes, and back. Pure.

A pack is a head (mark, CRC-32 of the rest, records, length of the columns), then what is known of each
record in deflated columns, then the deflated payloads. Columns can be read without the payloads. Both stand
by topic, and by sequence within one, because records of one machine are alike.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

MAX_RECORDS: Final = 10_000
MAX_PAYLOAD_BYTES: Final = 1 << 28
"""Of all records of a pack; nothing that claims more is believed."""

_HEAD: Final = struct.Struct("<4sIII")
_MARK: Final = b"oeP1"
_SEALED: Final = 8
"""Where that begins which the checksum is of."""
_COLUMN_BYTES: Final = 8 + 8 + 4 + 4 + 1
_WORD: Final = 1 << 64
_LEVEL: Final = 6


class Record(NamedTuple):
    """One waiting record; kind and topic are the numbers that the file gives them."""

    sequence: int
    epoch_us: int
    kind: int
    topic: int
    payload: bytes


class Facts(NamedTuple):
    """What is known of a packed record without its payload."""

    topic: int
    sequence: int
    epoch_us: int
    kind: int
    payload_bytes: int


class PackDamagedError(ValueError):
    """Bytes that are no pack, or no longer the one that was written."""


def pack(records: Sequence[Record]) -> bytes:
    """Return 1 to MAX_RECORDS records as bytes."""
    ordered = sorted(records, key=lambda record: (record.topic, record.sequence))
    sequences, epochs_us, kinds, topics, payloads = zip(*ordered, strict=True)
    count = len(ordered)
    columns = _deflated(
        struct.pack(f"<{count}Q{count}Q", *_steps(sequences), *_steps(epochs_us))
        + struct.pack(f"<{count}I{count}I", *topics, *map(len, payloads))
        + bytes(kinds)
    )
    sealed = _HEAD.pack(_MARK, 0, count, len(columns))[_SEALED:] + columns + _deflated(b"".join(payloads))
    return _MARK + zlib.crc32(sealed).to_bytes(4, "little") + sealed


def unpack(blob: bytes) -> list[Record]:
    """Return a pack's records by sequence; raise PackDamagedError unless it is whole."""
    facts, rest = _opened(blob)
    payloads = memoryview(_inflated(rest, sum(one.payload_bytes for one in facts)))
    ends = accumulate(one.payload_bytes for one in facts)
    found = [
        Record(
            one.sequence, one.epoch_us, one.kind, one.topic, bytes(payloads[end - one.payload_bytes : end])
        )
        for one, end in zip(facts, ends, strict=True)
    ]
    found.sort()
    return found


def facts_of(blob: bytes) -> list[Facts]:
    """Return what is known of a pack's records, by topic; raise PackDamagedError unless it is whole."""
    return _opened(blob)[0]


def _opened(blob: bytes) -> tuple[list[Facts], bytes]:
    """Return the columns, as rows, and the deflated payloads."""
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
    columns = _inflated(blob[_HEAD.size : end], count * _COLUMN_BYTES)
    words = struct.unpack_from(f"<{2 * count}Q", columns)
    halves = struct.unpack_from(f"<{2 * count}I", columns, 16 * count)
    facts = list(
        map(
            Facts,
            halves[:count],
            _sums(words[:count]),
            _sums(words[count:]),
            columns[24 * count :],
            halves[count:],
        )
    )
    if sum(halves[count:]) > MAX_PAYLOAD_BYTES:
        raise PackDamagedError("a pack claims too many bytes")
    return facts, blob[end:]


def _steps(values: Sequence[int]) -> Iterable[int]:
    """Return from each value to the next, as unsigned words: they are small, and deflate well."""
    return ((value - before) % _WORD for before, value in zip((0, *values), values, strict=False))


def _sums(steps: Iterable[int]) -> Iterable[int]:
    """Return what `_steps` was made of, as signed words."""
    half = _WORD // 2
    return ((total + half) % _WORD - half for total in accumulate(steps))


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
