"""OPC UA's binary encoding (part 6): built-in types read or walked over, never beyond the message. Pure.

Nothing that a message says is believed: every length is held against what is left. What is not known here is
not guessed: it is said (`UnknownLayoutError`), and the caller decodes the stock way.
"""

import struct
from typing import Any, Final

from gateway.sources.columns import TYPE_MISMATCH

MAX_DEPTH: Final = 20
SCALARS: Final = {1: "?", 2: "b", 3: "B", 4: "h", 5: "H", 6: "i", 7: "I", 8: "q", 9: "Q", 10: "f", 11: "d"}
"""Types of a fixed size as `struct` has them, by their number."""
STRING: Final = 12

i32: Final = struct.Struct("<i").unpack_from
u32: Final = struct.Struct("<I").unpack_from
i64: Final = struct.Struct("<q").unpack_from


class DecodeError(ValueError):
    """The message is damaged: a length leads out of it, or it does not end where its parts do."""


class UnknownLayoutError(ValueError):
    """The message may be right, but has a shape that this module does not know."""


def read_text(b: bytes, p: int, end: int) -> tuple[str | None, int]:
    """Return a text and where it ends."""
    (length,) = i32(b, p)
    p += 4
    if length == -1:
        return None, p
    if not 0 <= length <= end - p:
        raise DecodeError("a text that is longer than its message")
    return b[p : p + length].decode("utf-8", "surrogateescape"), p + length


def read_variant(b: bytes, p: int, end: int, depth: int) -> tuple[Any, int, int]:
    """Return a variant's plain value, why it has none, and where it ends."""
    encoding = b[p]
    kind = encoding & 63
    p += 1
    if encoding & 0x40 and not encoding & 0x80:
        raise UnknownLayoutError("dimensions without an array")
    if encoding & 0x80:
        (length,) = i32(b, p)
        p = _skip_array(b, p, end, kind, depth)
        if encoding & 0x40:
            raise UnknownLayoutError("an array of several dimensions")
        return None, 0 if length == -1 else TYPE_MISMATCH, p
    sign = SCALARS.get(kind)
    if sign is not None:
        (value,) = struct.unpack_from("<" + sign, b, p)
        return value, 0, p + struct.calcsize("<" + sign)
    if kind == 0:
        return None, 0, p
    if kind == STRING:
        text, p = read_text(b, p, end)
        return text, 0, p
    if kind == 21:  # a localised text: its text without the language
        mask = b[p]
        p += 1
        words: str | None = None
        if mask & 1:
            _, p = read_text(b, p, end)
        if mask & 2:
            words, p = read_text(b, p, end)
        return words or "", 0, p
    after = _skip(b, p, end, kind, depth)
    empty = kind == 15 and i32(b, p)[0] == -1
    return None, 0 if empty else TYPE_MISMATCH, after


def _skip_array(b: bytes, p: int, end: int, kind: int, depth: int) -> int:
    """Return where an array of a built-in type ends."""
    (length,) = i32(b, p)
    p += 4
    if length == -1:
        return p
    if (
        not 0 <= length <= end - p
    ):  # each element takes at least a byte; one of nothing is refused by this too
        raise DecodeError("an array that is longer than its message")
    fixed = _FIXED.get(kind)
    if fixed is not None:
        p += length * fixed
        if p > end:
            raise DecodeError("an array that is longer than its message")
        return p
    for _ in range(length):
        p = _skip(b, p, end, kind, depth)
    return p


_FIXED: Final[dict[int, int]] = {
    1: 1,
    2: 1,
    3: 1,
    4: 2,
    5: 2,
    6: 4,
    7: 4,
    8: 8,
    9: 8,
    10: 4,
    11: 8,
    13: 8,
    14: 16,
    19: 4,
}
"""Bytes of built-in types that always take the same."""


def _skip(b: bytes, p: int, end: int, kind: int, depth: int) -> int:
    """Return where a value of a built-in type ends."""
    if depth > MAX_DEPTH:
        raise DecodeError("nested too deep")
    fixed = _FIXED.get(kind)
    if fixed is not None:
        p += fixed
    elif kind in (12, 15):
        p = _skip_bytes(b, p, end)
    elif kind == 17:
        p = _skip_node(b, p, end)
    elif kind == 20:
        p = _skip_bytes(b, p + 2, end)
    elif kind == 21:
        mask = b[p]
        p += 1
        for bit in (1, 2):
            if mask & bit:
                p = _skip_bytes(b, p, end)
    elif kind == 24:
        _, _, p = read_variant(b, p, end, depth + 1)
    elif kind == 22:
        p = _skip_structure(b, p, end)
    else:  # expanded nodes, values in values, XML: rare, and better left to the library
        raise UnknownLayoutError(f"a value of type {kind}")
    if p > end:
        raise DecodeError("a value that is longer than its message")
    return p


def _skip_bytes(b: bytes, p: int, end: int) -> int:
    (length,) = i32(b, p)
    p += 4
    if length == -1:
        return p
    if not 0 <= length <= end - p:
        raise DecodeError("bytes that are longer than their message")
    return p + int(length)


def _skip_structure(b: bytes, p: int, end: int) -> int:
    """Return where a structure ends, whatever is in it."""
    p = _skip_node(b, p, end)
    encoding = b[p]
    p += 1
    if encoding == 0:
        return p
    if encoding not in (1, 2) or i32(b, p)[0] < 0:
        raise UnknownLayoutError("a structure of another form")
    return _skip_bytes(b, p, end)


def _skip_node(b: bytes, p: int, end: int) -> int:
    form = b[p]
    if form == 0:
        return p + 2
    if form == 1:
        return p + 4
    if form == 2:
        return p + 7
    if form == 4:
        return p + 19
    if form in (3, 5):
        return _skip_bytes(b, p + 3, end)
    raise UnknownLayoutError("a node of another form")


def skip_diagnostics(b: bytes, p: int, end: int) -> int:
    """Return where a DiagnosticInfo ends; only the empty one is known."""
    if p < end and b[p] == 0:
        return p + 1
    raise UnknownLayoutError("diagnostics")


def skip_diagnostics_list(b: bytes, p: int, end: int) -> int:
    """Return where an array of DiagnosticInfo ends; only the empty one is known."""
    (count,) = i32(b, p)
    if count > 0:
        raise UnknownLayoutError("diagnostics")
    return p + 4 if count in (0, -1) else end + 1


def skip_statuses(b: bytes, p: int, end: int) -> int:
    """Return where the results of acknowledgements and their diagnostics end."""
    (count,) = i32(b, p)
    p += 4
    if count > (end - p) // 4:
        raise DecodeError("more results than bytes")
    return skip_diagnostics_list(b, p + 4 * max(count, 0), end)
