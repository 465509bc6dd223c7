"""Plans: items that look like earlier ones are taken out of a message together. Pure.

A server tells its tags in much the same order each time, with other values. So what was seen twice is kept as
a *plan*, a stretch of a few dozen tags: the next message is compared with it as one large number, and then
only what may differ is taken out of it by one `struct`. Where a tag has come in between, or is missing, that
one stretch is taken apart item by item, up to the tag with which the next plan begins.
"""

import struct
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from gateway.sources.columns import CODE_BITS, OVERFLOW, Columns
from gateway.sources.items import LATEST_US, MASKS, TICKS_PER_US, US_TO_1970, one_by_one
from gateway.sources.wire import SCALARS, i32, u32

_LEAST: Final = 4
_MOST: Final = 64
"""Items of a plan: fewer cost more calls, more cost more when one of them does not fit."""
_MAX_PLANS: Final = 4_096
_MAX_MADE: Final = 8
_EARLIEST_TICKS: Final = (US_TO_1970 + 1) * TICKS_PER_US
_LATEST_TICKS: Final = (US_TO_1970 + LATEST_US) * TICKS_PER_US


class _Plan(NamedTuple):
    """What items have in common with those that it was made from, and where the rest lies.

    size: [bytes]
    mask, constant: the bits that may not differ, and what they are: handles, types, lengths, status codes
    unpack: returns value and ticks of each item, the value alone where there are no ticks
    fields: how many that are
    texts: items whose value is a text
    """

    size: int
    mask: int
    constant: int
    unpack: Callable[[bytes, int], tuple[Any, ...]]
    fields: int
    texts: tuple[int, ...]
    handles: tuple[int, ...]
    statuses: tuple[int, ...]


class Plans:
    """What the messages of one subscription look like, by the tags with which stretches of them begin."""

    def __init__(self) -> None:
        self._plans: dict[int, _Plan] = {}
        self._seen: dict[int, int] = {}
        """By the first tag of a stretch that no plan fitted: its tags and size, as a hash."""
        self._made: Counter[int] = Counter()
        """How often a plan was made, less how often it fitted: what never stays alike is left alone."""

    def take(self, b: bytes, p: int, end: int, count: int, columns: Columns) -> tuple[int, int]:
        """Append so many items; return where they end, and how many were in no table.

        Raises struct.error or IndexError where the message ends before they do.
        """
        unhurried = 0
        plans = self._plans
        last = len(columns) + count
        while (left := last - len(columns)) > 0:
            (first,) = u32(b, p)
            plan = plans.get(first)
            if plan is not None and len(plan.handles) <= left:
                after = _by_plan(plan, b, p, end, columns)
                if after >= 0:
                    p = after
                    if self._made[first]:
                        self._made[first] -= 1
                    continue
            start, before = p, len(columns)
            p, walked = one_by_one(b, p, end, min(left, _MOST), columns, plans)
            unhurried += walked
            if not walked and len(columns) - before >= _LEAST:
                self._learn(b, start, p, columns.handles[before:])
        return p, unhurried

    def _learn(self, b: bytes, start: int, after: int, handles: list[int]) -> None:
        """Make a plan of a stretch whose tags and size were seen before; the first time only note them."""
        first = handles[0]
        looks = hash((after - start, *handles))
        if self._seen.get(first) != looks:
            if max(len(self._seen), len(self._plans)) >= _MAX_PLANS:
                self._forget()
            self._seen[first] = looks
        elif self._made[first] < _MAX_MADE:
            del self._seen[first]  # so that one odd message, a bad status say, does not undo the plan
            self._made[first] += 1
            plan = _plan(b, start, len(handles))
            if plan is not None:
                self._plans[first] = plan

    def _forget(self) -> None:
        self._plans.clear()
        self._seen.clear()
        self._made.clear()


def _plan(b: bytes, p: int, count: int) -> _Plan | None:
    """Return the plan of items that were just taken apart.

    None where their masks differ, or where the server says that it threw values away: that must not repeat.
    """
    mask = b[p + 4]
    layouts = MASKS[mask]
    start = p
    has_ticks = layouts.source or layouts.server
    status_size = 4 if layouts.status else 0
    rest = layouts.tail_size - status_size - (8 if has_ticks else 0)
    ignored = b"\x00" * (layouts.tail_size - status_size)
    text: list[str] = []
    bits: list[bytes] = []
    texts: list[int] = []
    handles: list[int] = []
    statuses: list[int] = []
    for item in range(count):
        if b[p + 4] != mask:
            return None
        handles.append(u32(b, p)[0])
        sign = SCALARS.get(b[p + 5])
        known_size = 6
        if sign is None:  # a text
            (length,) = i32(b, p + 6)
            if length < 0:  # none at all, which has a status of its own
                return None
            texts.append(item)
            sign, known_size, size = f"{length}s", 10, length
        else:
            size = struct.calcsize("<" + sign)
        p += known_size + size
        bits.append(b"\xff" * known_size + b"\x00" * size + b"\xff" * status_size + ignored)
        text.append(f"{known_size}x{sign}{status_size}x{'q' if has_ticks else ''}{rest}x")
        code = u32(b, p)[0] if status_size else 0
        if code & OVERFLOW == OVERFLOW:
            return None
        statuses.append(code & CODE_BITS)
        p += layouts.tail_size
    packed = struct.Struct("<" + "".join(text))
    wanted = int.from_bytes(b"".join(bits), "little")
    return _Plan(
        packed.size,
        wanted,
        int.from_bytes(b[start:p], "little") & wanted,
        packed.unpack_from,
        2 if has_ticks else 1,
        tuple(texts),
        tuple(handles),
        tuple(statuses),
    )


def _by_plan(plan: _Plan, b: bytes, p: int, end: int, columns: Columns) -> int:
    """Append all items at once; return where they end, or -1 where the plan does not fit."""
    after = p + plan.size
    if after > end or int.from_bytes(b[p:after], "little") & plan.mask != plan.constant:
        return -1
    told = plan.unpack(b, p)
    count = len(plan.handles)
    if plan.fields == 1:
        values: Any = told
        stamps = [0] * count
    else:
        values, ticks = told[0::2], told[1::2]
        first = ticks[0]
        earliest, latest = (first, first) if ticks.count(first) == count else (min(ticks), max(ticks))
        if earliest < _EARLIEST_TICKS or latest >= _LATEST_TICKS:
            return -1
        if earliest == latest:
            stamps = [first // TICKS_PER_US - US_TO_1970] * count
        else:
            stamps = [one // TICKS_PER_US - US_TO_1970 for one in ticks]
    if plan.texts:
        values = list(values)
        for item in plan.texts:
            values[item] = values[item].decode("utf-8", "surrogateescape")
    columns.handles += plan.handles
    columns.values += values
    columns.statuses += plan.statuses
    columns.source_us += stamps
    return after
