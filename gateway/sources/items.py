"""Items of a data change notification, taken apart one by one, by a table of layouts. Pure.

Neighbours of equal layout are taken apart together; what is in no table (arrays, times, structures) is walked
over.
"""

import struct
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Final, NamedTuple

from gateway.sources.columns import CODE_BITS, NO_DATA, OVERFLOW, Columns
from gateway.sources.wire import (
    SCALARS,
    STRING,
    DecodeError,
    UnknownLayoutError,
    i32,
    i64,
    read_text,
    read_variant,
    u32,
)

TICKS_PER_US: Final = 10
TICKS_TO_1970: Final = 116_444_736_000_000_000
US_TO_1970: Final = TICKS_TO_1970 // TICKS_PER_US
LATEST_US: Final = 253_402_300_799_000_000
"""The last second of the year 9999, where the stock way ends time."""
_RUN_WORTH: Final = 3
_MAX_TEXT: Final = 255
"""Bytes of the longest text that has a layout; a longer one is walked over."""
_HAS_VALUE, _HAS_STATUS, _HAS_SOURCE, _HAS_SERVER, _HAS_SOURCE_PICO, _HAS_SERVER_PICO = 1, 2, 4, 8, 16, 32

_handle_and_layout: Final = struct.Struct("<IBB").unpack_from


class _Layout(NamedTuple):
    """How the bytes of an item lie whose mask and type are known.

    unpack: returns handle, value, and of what the mask adds the status and the ticks that come first
    """

    unpack: Callable[[bytes, int], tuple[Any, ...]]
    iterate: Callable[[Any], Any]
    size: int


class _Mask:
    """How items of one mask lie.

    tail: what follows the value, as `struct` has it; tail_size: [bytes]
    status, ticks: positions in what a layout's `unpack` returns; 0 where the mask has none
    tick_at: where ticks begin after the value [bytes]
    scalars: the layout of each type with a fixed size, by its number
    texts: the layouts of texts that have been met, by their length
    """

    def __init__(self, mask: int, types: Mapping[int, str]) -> None:
        self.tail = ""
        self.status = self.ticks = self.tick_at = 0
        for bit, size in _TAIL:
            if not mask & bit:
                continue
            if bit == _HAS_STATUS:
                self.status = 2
                self.tail = "I"
            elif size == _TICKS and not self.ticks:
                self.ticks = 3 if self.status else 2
                self.tick_at = struct.calcsize("<" + self.tail)
                self.tail += "q"
            else:
                self.tail += f"{size}x"
        self.tail_size = struct.calcsize("<" + self.tail)
        self.scalars = {kind: self._layout(sign) for kind, sign in types.items()}
        self.texts: dict[int, _Layout] = {}

    def text(self, length: int) -> _Layout | None:
        """Add the layout of a text of so many bytes, left as bytes by `unpack`; None for a long one."""
        if not 0 <= length <= _MAX_TEXT:
            return None
        self.texts[length] = made = self._layout(f"4x{length}s")
        return made

    def _layout(self, sign: str) -> _Layout:
        packed = struct.Struct(f"<I2x{sign}{self.tail}")
        return _Layout(packed.unpack_from, packed.iter_unpack, packed.size)


_TICKS: Final = 8
_TAIL: Final = (
    (_HAS_STATUS, 4),
    (_HAS_SOURCE, _TICKS),
    (_HAS_SOURCE_PICO, 2),
    (_HAS_SERVER, _TICKS),
    (_HAS_SERVER_PICO, 2),
)
"""What may follow a value, in this order, and its size [bytes]."""
MASKS: Final = {mask: _Mask(mask, SCALARS) for mask in range(1, 64, 2)}
_NO_LAYOUTS: Final = _Mask(0, {})


def _usual_stamps(ticks: Sequence[int]) -> list[int]:
    """Return times [us since 1970]; nothing where one is not to be taken as it is."""
    first = ticks[0]
    if first == ticks[-1] and ticks.count(first) == len(ticks):  # what was scanned together
        stamps = [first // TICKS_PER_US - US_TO_1970] * len(ticks)
        least = most = stamps[0]
    else:
        stamps = [one // TICKS_PER_US - US_TO_1970 for one in ticks]
        least, most = min(stamps), max(stamps)
    return stamps if least > 0 and most < LATEST_US else []


def _stamp(source: int, server: int) -> int:
    """Return the source's time or else the server's [us since 1970], as the stock way does; 0 for neither."""
    for ticks in (source, server):
        if ticks > TICKS_TO_1970:
            stamp = min(ticks // TICKS_PER_US - US_TO_1970, LATEST_US)
            if stamp > 0:
                return stamp
    return 0


def one_by_one(
    b: bytes, p: int, end: int, count: int, columns: Columns, stops: Container[int] = ()
) -> tuple[int, int]:
    """Append at most so many items of any layout; return where they end, and how many were in no table.

    stops: handles: an item of one of them, unless it is the first, is not taken any more
    """
    unhurried = 0
    left = count
    mask = kind_before = -1
    layouts = _NO_LAYOUTS
    scalars = layouts.scalars.get
    rows: list[tuple[Any, ...]] = []
    append = rows.append
    texts: list[int] = []
    since = p
    while left:
        if stops and left < count and u32(b, p)[0] in stops:
            break
        kind = b[p + 5]
        if b[p + 4] != mask:
            _append_rows(b, since, end, columns, layouts, rows, texts)
            since = p
            mask, kind_before = b[p + 4], -1
            layouts = MASKS.get(mask, _NO_LAYOUTS)
            scalars = layouts.scalars.get
        layout = scalars(kind)
        if layout is None:
            # Under a mask without a value (or of no sense), what stands there is no type but something else.
            if kind == STRING and layouts is not _NO_LAYOUTS:
                length = i32(b, p + 6)[0]
                layout = layouts.texts.get(length) or layouts.text(length)
            if layout is None:
                _append_rows(b, since, end, columns, layouts, rows, texts)
                p, walked = _walk_item(b, p, end, columns)
                since = p
                unhurried += walked
                left -= 1
                kind_before = -1
                continue
            texts.append(len(rows))
        unpack, iterate, size = layout
        if kind == kind_before and kind != STRING:
            run = _run(b, p, size, min(left, (end - p) // size))
            if run >= _RUN_WORTH:
                rows += iterate(memoryview(b)[p : p + run * size])
                p += run * size
                left -= run
                continue
        append(unpack(b, p))
        p += size
        left -= 1
        kind_before = kind
    _append_rows(b, since, end, columns, layouts, rows, texts)
    return p, unhurried


def _run(b: bytes, p: int, size: int, most: int) -> int:
    """Return how many items from here on are of the layout of the first."""
    if b[p + 4 + size : p + 6 + size] != b[p + 4 : p + 6]:
        return 1
    reach = p + most * size
    masks, kinds = b[p + 4 : reach : size], b[p + 5 : reach : size]
    return min(len(masks) - len(masks.lstrip(masks[:1])), len(kinds) - len(kinds.lstrip(kinds[:1])))


def _append_rows(
    b: bytes,
    p: int,
    end: int,
    columns: Columns,
    layouts: _Mask,
    rows: list[tuple[Any, ...]],
    texts: list[int],
) -> None:
    """Append what layouts of one mask have unpacked, and forget it.

    p: where the first of them began
    texts: which of them have a text, still as bytes
    """
    if not rows:
        return
    found = list(zip(*rows, strict=True))
    stamps = _usual_stamps(found[layouts.ticks]) if layouts.ticks else [0] * len(rows)
    if stamps:
        before = len(columns)
        columns.handles += found[0]
        columns.values += with_texts(found[1], texts) if texts else found[1]
        columns.source_us += stamps
        statuses = found[layouts.status] if layouts.status else ()
        if any(statuses):
            columns.statuses += [status & CODE_BITS for status in statuses]
            columns.overflowed += [
                position for position, status in enumerate(statuses, before) if status & OVERFLOW == OVERFLOW
            ]
        else:
            columns.statuses += [0] * len(rows)
    else:  # a time is none, so that the server's counts, which was not taken out
        for _ in rows:
            p, _ = _walk_item(b, p, end, columns)
    rows.clear()
    texts.clear()


def with_texts(values: Sequence[Any], texts: Sequence[int]) -> list[Any]:
    """Return values, of which those at some positions are texts, still as bytes."""
    told = list(values)
    try:
        for item in texts:
            told[item] = told[item].decode()
    except UnicodeDecodeError:  # rare; to ask for the handling of it each time would cost a third more
        told = list(values)
        for item in texts:
            told[item] = told[item].decode("utf-8", "surrogateescape")
    return told


def _walk_item(b: bytes, p: int, end: int, columns: Columns) -> tuple[int, int]:
    """Append one item of any type; return where it ends, and whether it was more than a plain text."""
    handle, mask, kind = _handle_and_layout(b, p)
    walked = 0
    p += 5
    if mask & ~63:
        raise UnknownLayoutError("a value with parts that are not known")
    value: Any = None
    fault = 0
    if mask & _HAS_VALUE:
        if kind == STRING:
            value, p = read_text(b, p + 1, end)
        else:
            walked = 1
            value, fault, p = read_variant(b, p, end, 0)
    else:
        walked = 1
    code = source = server = 0
    if mask & _HAS_STATUS:
        (code,) = u32(b, p)
        p += 4
    if mask & _HAS_SOURCE:
        (source,) = i64(b, p)
        p += 8
    if mask & _HAS_SOURCE_PICO:
        p += 2
    if mask & _HAS_SERVER:
        (server,) = i64(b, p)
        p += 8
    if mask & _HAS_SERVER_PICO:
        p += 2
    if p > end:
        raise DecodeError("an item that is longer than its notification")
    status = code & CODE_BITS
    if value is None and status >> 30 < 2:
        status = fault or NO_DATA
    columns.handles.append(handle)
    columns.values.append(value)
    columns.statuses.append(status)
    columns.source_us.append(_stamp(source, server))
    if code & OVERFLOW == OVERFLOW:
        columns.overflowed.append(len(columns.handles) - 1)
    return p, walked
