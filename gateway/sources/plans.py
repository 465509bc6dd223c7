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
from gateway.sources.items import (
    LATEST_US,
    MASKS,
    TICKS_PER_US,
    US_TO_1970,
    one_by_one,
    with_texts,
)
from gateway.sources.wire import SCALARS, i32, u32

_LEAST: Final = 4
_MOST: Final = 96
"""Items of a plan: fewer cost more calls, more cost more when one of them does not fit."""
_MAX_PLANS: Final = 4_096
_MAX_MADE: Final = 8
_EARLIEST_TICKS: Final = (US_TO_1970 + 1) * TICKS_PER_US
_ONE: Final = b"\x01" + b"\x00" * 7
_LATEST_TICKS: Final = (US_TO_1970 + LATEST_US) * TICKS_PER_US


class _Plan(NamedTuple):
    """What items have in common with those that it was made from, and where the rest lies.

    size: [bytes]
    items: how many
    mask, constant: the bits that may not differ, and what they are: handles, types, lengths, status codes
    tick_mask: all bits of the ticks
    tick_ones: the lowest bit of the ticks of each item; 0 without ticks
    first_tick, last_tick: where the ticks of the first and of the last item begin [bytes]
    values, ticks: return those of each item
    texts: items whose value is a text
    """

    size: int
    items: int
    mask: int
    constant: int
    tick_mask: int
    tick_ones: int
    first_tick: int
    last_tick: int
    values: Callable[[bytes, int], tuple[Any, ...]]
    ticks: Callable[[bytes, int], tuple[int, ...]]
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
        made = self._made
        left = count
        while left > 0:
            (first,) = u32(b, p)
            plan = plans.get(first)
            if plan is not None and plan.items <= left:
                after = _by_plan(plan, b, p, end, columns)
                if after >= 0:
                    p = after
                    left -= plan.items
                    if first in made:
                        self._fitted(first)
                    continue
            start, before = p, len(columns)
            p, walked = one_by_one(b, p, end, min(left, _MOST), columns, plans)
            taken = len(columns) - before
            left -= taken
            unhurried += walked
            if not walked and taken >= _LEAST:
                self._learn(b, start, p, columns.handles[before:])
        return p, unhurried

    def _fitted(self, first: int) -> None:
        self._made[first] -= 1
        if self._made[first] <= 0:
            del self._made[first]

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
    status_size = 4 if layouts.status else 0
    tick_size = 8 if layouts.ticks else 0
    tick_at = layouts.tick_at
    rest = layouts.tail_size - tick_at - tick_size
    value_signs: list[str] = []
    tick_signs: list[str] = []
    known: list[bytes] = []
    ones: list[bytes] = []
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
        known.append(b"\xff" * known_size + b"\x00" * size + b"\xff" * status_size)
        known.append(b"\x00" * (layouts.tail_size - status_size))
        ones.append(b"\x00" * (known_size + size + tick_at) + _ONE[:tick_size] + b"\x00" * rest)
        value_signs.append(f"{known_size}x{sign}{layouts.tail_size}x")
        tick_signs.append(f"{known_size + size + tick_at}x{'q' if tick_size else ''}{rest}x")
        code = u32(b, p)[0] if status_size else 0
        if code & OVERFLOW == OVERFLOW:
            return None
        statuses.append(code & CODE_BITS)
        p += layouts.tail_size
    tick_ones = b"".join(ones)
    mask_of_known = int.from_bytes(b"".join(known), "little")
    return _Plan(
        size=p - start,
        items=count,
        mask=mask_of_known,
        constant=int.from_bytes(b[start:p], "little") & mask_of_known,
        tick_mask=int.from_bytes(tick_ones, "little") * (2**64 - 1),
        tick_ones=int.from_bytes(tick_ones, "little"),
        first_tick=tick_ones.find(1),
        last_tick=tick_ones.rfind(1),
        values=struct.Struct("<" + "".join(value_signs)).unpack_from,
        ticks=struct.Struct("<" + "".join(tick_signs)).unpack_from,
        texts=tuple(texts),
        handles=tuple(handles),
        statuses=tuple(statuses),
    )


def _by_plan(plan: _Plan, b: bytes, p: int, end: int, columns: Columns) -> int:
    """Append all items at once; return where they end, or -1 where the plan does not fit."""
    after = p + plan.size
    if after > end:
        return -1
    found = int.from_bytes(b[p:after], "little")
    if found & plan.mask != plan.constant:
        return -1
    stamps = _stamps(plan, b, p, found) if plan.tick_ones else [0] * plan.items
    if not stamps:
        return -1
    columns.handles += plan.handles
    columns.values += with_texts(plan.values(b, p), plan.texts) if plan.texts else plan.values(b, p)
    columns.statuses += plan.statuses
    columns.source_us += stamps
    return after


def _stamps(plan: _Plan, b: bytes, p: int, found: int) -> list[int]:
    """Return the time of each item [us since 1970]; nothing where one is not to be taken as it is.

    found: all bytes of the items as a number

    What was scanned together has one time. Where first and last agree, the rest is tried by a multiplication
    that copies this time to where each item has its own: it fits its 64 bits, so nothing is carried over.
    """
    first = b[p + plan.first_tick : p + plan.first_tick + 8]
    if first == b[p + plan.last_tick : p + plan.last_tick + 8]:
        ticks = int.from_bytes(first, "little")
        if found & plan.tick_mask == ticks * plan.tick_ones:
            is_usual = _EARLIEST_TICKS <= ticks < _LATEST_TICKS
            return [ticks // TICKS_PER_US - US_TO_1970] * plan.items if is_usual else []
    all_ticks = plan.ticks(b, p)
    if min(all_ticks) < _EARLIEST_TICKS or max(all_ticks) >= _LATEST_TICKS:
        return []
    return [ticks // TICKS_PER_US - US_TO_1970 for ticks in all_ticks]
