"""From records to a timeline: in which state each machine was, and what it made, piece by piece.

A Piece is the timeline of a stretch of records, and pieces form a monoid: `build` of any split of a machine's
records, put together by `join`, is the same as `build` of them all. What cannot be known without the records
before stays in the piece's head as raw records (normally one per machine); what later records need is its tail.

Rules that hold here:

- a record's state lasts until the machine's next record, but at most `max_gap`; then it is unknown until that
  record. With hold it lasts, and a record of unknown state carries the state before it on;
- what was made between two readings belongs to the later one's moment, and to the state, reason, product,
  order and rate of the earlier one; proportional spreads it evenly over the time between them instead;
- where part of that time is unknown, the state of what was made is unknown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, NamedTuple, TypeVar, cast, get_type_hints

import numpy as np
import numpy.typing as npt

from cloud.oee import counters
from cloud.oee.columns import Codes, Columns, Flags, Floats, Indexes, Ints, firsts, held, lasts
from cloud.oee.records import ABSENT, CHANGEOVER, RUNNING, UNKNOWN, Names, Records
from cloud.plant import Machine, Plant

NEVER: Final = -1
"""In a column of instants: no such moment."""

_NEW: Final = -1
_UNSETTLED: Final = -1
Table = TypeVar("Table", bound=Columns)
_Column = TypeVar("_Column", bound=npt.NDArray[Any])
_STATE, _TOTAL, _OFF, _GOOD, _TOTAL_AND_GOOD = range(5)


@dataclass(frozen=True, eq=False)
class Segments(Columns):
    """Stretches [start_us, end_us) of equal state, sorted by (machine, start_us), without overlaps."""

    machine: Indexes
    start_us: Ints
    end_us: Ints
    state: Codes
    reason: Indexes
    product: Indexes
    order: Indexes


@dataclass(frozen=True, eq=False)
class Counts(Columns):
    """What was made, one row per machine, interval between edges and circumstances; sorted by machine."""

    machine: Indexes
    at_us: Ints
    """The edge at which the interval begins."""
    state: Codes
    """What the machine did meanwhile; unknown when part of the time was."""
    reason: Indexes
    product: Indexes
    order: Indexes
    rate: Floats
    startup: Flags
    """Whether it was made within startup_us of a start-up, or in a changeover."""
    since_us: Ints
    """Where part of the time was unknown: the earlier reading; else NEVER."""
    until_us: Ints
    """Where part of the time was unknown: the later reading; else NEVER."""
    total: Ints
    off: Ints
    """[units] off quality among the total."""


@dataclass(frozen=True, eq=False)
class Tail(Columns):
    """What later records need to know of a machine: its last state and the last reading of each counter."""

    machine: Indexes
    time_us: Ints
    state: Codes
    total: Ints
    off: Ints
    good: Ints
    reason: Indexes
    product: Indexes
    order: Indexes
    rate: Floats
    role: Codes
    """Which of these things the row is."""
    unknown_since: Flags
    """Whether time between this row and the machine's last record is unknown."""
    stop_since_us: Ints
    """In the row of the state: when the known stop began that still goes on, or NEVER."""
    started_us: Ints
    """When the machine last started up at or before this row, or NEVER."""


@dataclass(frozen=True, eq=False)
class Rules:
    """How records are read, by machine index."""

    max_gap_us: Ints
    hold: Flags
    jitter: Ints
    modulus: Ints
    proportional: Flags
    startup_us: Ints
    startup_stop_us: Ints
    """How long a stop is at least that a start-up follows."""

    @classmethod
    def of(cls, plant: Plant, names: Names) -> "Rules":
        """Return the rules of every machine of the names; a machine that is not in the plant has the defaults."""
        machines = [plant.machines.get(key) for key in names.machines]

        def ints(default: int, of: Callable[[Machine], int]) -> Ints:
            return np.array([default if item is None else of(item) for item in machines], dtype=np.int64)

        return cls(
            max_gap_us=ints(30_000_000, lambda item: item.definitions.max_gap_us),
            hold=ints(0, lambda item: item.definitions.unknown_time == "hold").astype(np.bool_),
            jitter=ints(0, lambda item: item.counter_jitter),
            modulus=ints(2**32, lambda item: 2**item.counter_bits if item.counter_bits < 63 else 0),
            proportional=ints(
                0, lambda item: item.definitions.counts_between_samples == "proportional"
            ).astype(np.bool_),
            startup_us=ints(0, lambda item: item.definitions.startup_us),
            startup_stop_us=ints(0, lambda item: item.definitions.small_stop_us),
        )


@dataclass(frozen=True, eq=False)
class Cuts:
    """Where counts are cut, by machine index: machines with the same edges share them."""

    edges: tuple[Ints, ...]
    of_machine: Indexes
    """Index into edges."""

    @classmethod
    def same(cls, edges: Ints, machines: int) -> "Cuts":
        """Return the same edges for a number of machines."""
        return cls((edges,), np.zeros(machines, dtype=np.int32))


@dataclass(frozen=True, eq=False)
class Piece:
    """The timeline of a stretch of records of any machines."""

    head: Records
    """The first records of each machine, until nothing before them can change what follows."""
    segments: Segments
    """From the last record of the head to the last record."""
    counts: Counts
    tail: Tail
    """No row for a machine whose records are all head because what came before still matters."""


class Body(NamedTuple):
    """What a stretch of records comes to after what is known of those before."""

    segments: Segments
    counts: Counts
    tail: Tail


def build(records: Records, rules: Rules, cuts: Cuts) -> Piece:
    """Return the piece of sorted records."""
    if not len(records):
        return Piece(records, *NOTHING)
    first = firsts(records.machine)
    settled = _settled_at(records, first, rules)
    if not settled.any():
        return Piece(records.take(first), *_extend(NOTHING.tail, records, rules, cuts))
    rank = np.cumsum(first) - 1
    position = np.arange(len(records)) - np.flatnonzero(first)[rank]
    opened = settled[rank] == _UNSETTLED
    head = opened | (position <= settled[rank])
    # What the head's own steps add is left to join: it may depend on what came before.
    before = _extend(NOTHING.tail, records.take(head & ~opened), rules, cuts)
    return Piece(records.take(head), *_extend(before.tail, records.take(~head), rules, cuts))


def join(earlier: Piece, later: Piece, rules: Rules, cuts: Cuts) -> Piece:
    """Return the piece of both stretches; for each machine all records of one are before those of the other."""
    if not len(earlier.head):
        return later
    if not len(later.head):
        return earlier
    goes_on = np.isin(later.head.machine, earlier.tail.machine)
    waits = ~goes_on & np.isin(later.head.machine, earlier.head.machine)
    waited = np.isin(earlier.head.machine, later.head.machine[waits])
    touched = np.isin(earlier.tail.machine, later.head.machine)
    seam = _extend(earlier.tail.take(touched), later.head.take(goes_on), rules, cuts)
    again = build(_stacked([earlier.head.take(waited), later.head.take(waits)]), rules, cuts)
    still_open = again.head.take(
        ~np.isin(again.head.machine, again.tail.machine) & np.isin(again.head.machine, later.tail.machine)
    )
    tails = [
        earlier.tail.take(~touched),
        seam.tail,
        again.tail,
        _extend(NOTHING.tail, still_open, rules, cuts).tail,
    ]
    return Piece(
        head=_stacked([earlier.head.take(~waited), again.head, later.head.take(~goes_on & ~waits)]),
        segments=merged_segments([earlier.segments, seam.segments, again.segments, later.segments]),
        counts=merged_counts([earlier.counts, seam.counts, again.counts, later.counts]),
        tail=_overlaid(_stacked(tails), later),
    )


def close(
    piece: Piece, machines: Indexes, from_us: int, until_us: int, rules: Rules, cuts: Cuts
) -> tuple[Segments, Counts]:
    """Return the whole timeline of the machines over [from_us, until_us), as if nothing came before or after.

    Every instant is in exactly one segment; the last state lasts until until_us, but at most max_gap.
    """
    begun = _extend(NOTHING.tail, piece.head, rules, cuts)
    tail = _overlaid(begun.tail, piece)
    first = piece.head.take(firsts(piece.head.machine))
    silent = np.setdiff1d(machines, first.machine).astype(np.int32)
    segments = merged_segments(
        [
            _unknown(first.machine, from_us, first.time_us),
            begun.segments,
            piece.segments,
            *_trailing(tail.take(tail.role == _STATE), until_us, rules),
            _unknown(silent, from_us, until_us),
        ]
    )
    counts = merged_counts([begun.counts, piece.counts])
    return (
        _clipped(segments.take(np.isin(segments.machine, machines)), from_us, until_us),
        counts.take(np.isin(counts.machine, machines)),
    )


def merged_segments(parts: Sequence[Segments]) -> Segments:
    """Return the segments of parts that do not overlap, sorted, neighbours of equal state made one."""
    whole = _stacked(parts)
    whole = whole.take(whole.end_us > whole.start_us)
    if not len(whole):
        return whole
    whole = whole.take(np.lexsort((whole.start_us, whole.machine)))
    new = firsts(whole.machine)
    for column in (whole.state, whole.reason, whole.product, whole.order):
        new[1:] |= column[1:] != column[:-1]
    new[1:] |= whole.start_us[1:] != whole.end_us[:-1]
    begin = np.flatnonzero(new)
    return replace(whole.take(begin), end_us=whole.end_us[np.append(begin[1:], len(whole)) - 1])


def merged_counts(parts: Sequence[Counts]) -> Counts:
    """Return the sums of rows of equal circumstances, sorted."""
    whole = _stacked(parts)
    if not len(whole):
        return whole
    keys = [column for name, column in whole.columns() if name not in ("total", "off")]
    order = np.lexsort(keys[::-1])
    new = np.zeros(len(whole), dtype=np.bool_)
    new[0] = True
    for key in keys:
        column = key[order]
        new[1:] |= column[1:] != column[:-1]
    begin = np.flatnonzero(new)
    return replace(
        whole.take(order[begin]),
        total=np.add.reduceat(whole.total[order], begin),
        off=np.add.reduceat(whole.off[order], begin),
    )


# One stretch of records after what is known of those before


class _States(NamedTuple):
    """The states of a stretch: of the rows of work, those that tell a state."""

    rows: slice | Ints
    machine: Indexes
    time_us: Ints
    state: Codes
    reason: Indexes
    product: Indexes
    order: Indexes
    first: Flags
    silent: Flags
    """Whether the row is followed by a silence of more than max_gap."""
    dark: Flags
    """Whether time between this row and the machine's next is unknown."""
    stop_since_us: Ints
    started_us: Ints


def _extend(known: Tail, records: Records, rules: Rules, cuts: Cuts) -> Body:
    """Return what the records add to the timeline, and what is known after them."""
    if not len(records):
        return Body(NOTHING.segments, NOTHING.counts, known)
    work = _work(known, records)
    states = _states(work, rules)
    work, darkness = _in_force(work, states)
    tracks = _tracks(work, rules)
    parts = [
        _counts(work, darkness, rows, total, off, rules, cuts) for rows, total, off in _made(work, tracks)
    ]
    tails = [_last_states(work, states)]
    tails += [_last_readings(work, darkness, states, track) for track in tracks]
    tail = _stacked(tails)
    return Body(
        segments=_segments(states, rules),
        counts=merged_counts(parts),
        tail=tail.take(np.lexsort((tail.role, tail.machine))),
    )


def _work(known: Tail, records: Records) -> Tail:
    """Return the rows to work on, what is known before what is new, machine by machine."""
    rows = len(records)
    new = Tail(
        **{name: getattr(records, name) for name in _SHARED},
        role=np.broadcast_to(np.int8(_NEW), rows),
        unknown_since=np.broadcast_to(np.False_, rows),
        stop_since_us=np.broadcast_to(np.int64(NEVER), rows),
        started_us=np.broadcast_to(np.int64(NEVER), rows),
    )
    if not len(known):
        return new
    both = Tail.concatenate([known, new])
    return both.take(np.argsort(both.machine, kind="stable"))


def _states(work: Tail, rules: Rules) -> _States:
    tells = (work.role == _NEW) | (work.role == _STATE)
    rows = slice(None) if tells.all() else np.flatnonzero(tells)
    machine, time_us, state = work.machine[rows], work.time_us[rows], work.state[rows]
    reason, product, order = work.reason[rows], work.product[rows], work.order[rows]
    first = firsts(machine)
    hold = _each(rules.hold, machine)
    if np.any(hold):
        source = held(first | (state != UNKNOWN) | ~hold)  # an unknown state carries the one before it on
        state, reason, product, order = state[source], reason[source], product[source], order[source]
    follows = np.append(~first[1:], False)
    length = np.append(time_us[1:], time_us[-1]) - time_us
    silent = follows & (length > _each(rules.max_gap_us, machine)) & ~hold
    dark = silent | (follows & (length > 0) & (state == UNKNOWN))
    stop_since, started = _start_ups(work, rows, machine, time_us, state, first, dark, rules)
    return _States(
        rows, machine, time_us, state, reason, product, order, first, silent, dark, stop_since, started
    )


def _start_ups(
    work: Tail,
    rows: slice | Ints,
    machine: Indexes,
    time_us: Ints,
    state: Codes,
    first: Flags,
    dark: Flags,
    rules: Rules,
) -> tuple[Ints, Ints]:
    """Return for each row since when the machine has known to stand, and when it last started up before."""
    stop_since, started = work.stop_since_us[rows], work.started_us[rows]
    if not rules.startup_us[machine[first]].any():
        return stop_since, started
    stands = (state != RUNNING) & (state != UNKNOWN)
    goes_on = np.zeros(len(machine), dtype=np.bool_)
    goes_on[1:] = stands[:-1] & ~dark[:-1] & ~first[1:]
    begins = stands & ~goes_on
    since = np.where(begins & (stop_since == NEVER), time_us, stop_since)
    since = np.where(stands, since[held(first | begins)], NEVER)
    before = np.append(np.int64(NEVER), since[:-1])
    starts = (state == RUNNING) & goes_on & (time_us - before >= rules.startup_stop_us[machine])
    started = np.where(starts, time_us, started)
    return since, started[held(first | starts)]


def _segments(states: _States, rules: Rules) -> Segments:
    """Return the segments between a machine's first and last row."""
    new = states.first.copy()
    for column in (states.state, states.reason, states.product, states.order):
        new[1:] |= column[1:] != column[:-1]
    new[1:] |= states.silent[:-1]
    begin = np.flatnonzero(new)
    last = np.append(begin[1:], len(new)) - 1
    end_us = states.time_us[last]
    quiet = states.silent[last]
    gap_us = rules.max_gap_us[states.machine[last]]
    onward = ~lasts(states.machine)[last]
    following = np.minimum(last + 1, len(new) - 1)
    end_us = np.where(quiet, end_us + gap_us, np.where(onward, states.time_us[following], end_us))
    found = Segments(
        states.machine[begin],
        states.time_us[begin],
        end_us,
        states.state[begin],
        states.reason[begin],
        states.product[begin],
        states.order[begin],
    )
    if not quiet.any():
        return merged_segments([found])
    silence = found.take(quiet)
    silence = replace(
        silence,
        start_us=end_us[quiet],
        end_us=states.time_us[following[quiet]],
        state=np.full(len(silence), UNKNOWN, dtype=np.int8),
        reason=np.full(len(silence), ABSENT, dtype=np.int32),
    )
    return merged_segments([found, silence])


def _in_force(work: Tail, states: _States) -> tuple[Tail, Ints]:
    """Return work with the states that hold, and how many stretches of unknown time precede each row."""
    changes: dict[str, npt.NDArray[Any]] = {
        name: getattr(states, name)
        for name in ("state", "reason", "product", "order", "stop_since_us", "started_us")
    }
    before: Ints = np.cumsum(states.dark) - states.dark
    if isinstance(states.rows, slice):
        return replace(work, **changes), before
    for name, column in changes.items():
        whole = getattr(work, name).copy()
        whole[states.rows] = column
        changes[name] = whole
    darkness = np.zeros(len(work), dtype=np.int64)
    darkness[states.rows] = before
    known = (work.role != _NEW) & (work.role != _STATE)
    darkness[known] = before[np.searchsorted(states.machine, work.machine[known])]
    return replace(work, **changes), darkness


class _Track(NamedTuple):
    """The readings of one counter among the rows of work."""

    role: int
    rows: slice | Ints
    made: Ints
    baseline: Ints


def _tracks(work: Tail, rules: Rules) -> list[_Track]:
    new = work.role == _NEW
    has_total, has_off, has_good = (new & (column >= 0) for column in (work.total, work.off, work.good))
    tracks = []
    for role, value, told in (
        (_TOTAL, work.total, has_total),
        (_OFF, work.off, has_off),
        (_GOOD, work.good, has_good),
        (_TOTAL_AND_GOOD, work.total, has_total & has_good),
    ):
        present = told | (work.role == role)
        if present.any():
            rows = slice(None) if present.all() else np.flatnonzero(present)
            made, baseline = counters.increments(work.machine[rows], value[rows], rules.jitter, rules.modulus)
            tracks.append(_Track(role, rows, made, baseline))
    return tracks


def _made(work: Tail, tracks: Sequence[_Track]) -> list[tuple[slice | Ints, Ints, Ints]]:
    """Return (rows, total, off quality) made at them, by what each row tells.

    With a total, off quality is its own counter's or else the total's less the good; without one, the total
    is good and off quality together.
    """
    found: list[tuple[slice | Ints, Ints, Ints]] = []
    for track in tracks:
        with_total = work.total[track.rows] >= 0
        with_off = work.off[track.rows] >= 0
        match track.role:
            case _ if track.role == _TOTAL:
                total, off = track.made, np.zeros_like(track.made)
            case _ if track.role == _OFF:
                total, off = np.where(with_total, 0, track.made), track.made
            case _ if track.role == _GOOD:
                total = np.where(with_total, 0, track.made)
                off = np.where(with_total & ~with_off, -track.made, 0)
            case _:
                total, off = np.zeros_like(track.made), np.where(with_off, 0, track.made)
        same = next((place for place, (rows, _, _) in enumerate(found) if _same_rows(rows, track.rows)), None)
        if same is None:
            found.append((track.rows, total, off))
        else:
            found[same] = (track.rows, found[same][1] + total, found[same][2] + off)
    return found


def _same_rows(one: slice | Ints, other: slice | Ints) -> bool:
    if isinstance(one, slice) or isinstance(other, slice):
        return isinstance(one, slice) and isinstance(other, slice)
    return np.array_equal(one, other)


def _counts(
    work: Tail, darkness: Ints, rows: slice | Ints, total: Ints, off: Ints, rules: Rules, cuts: Cuts
) -> Counts:
    """Return what was made at the readings, summed over neighbours in equal circumstances."""
    table, darkness = work.take(rows), darkness[rows]
    first = firsts(table.machine)
    earlier = np.maximum(np.arange(len(table)) - 1, 0)
    dark = np.zeros(len(table), dtype=np.bool_)
    dark[1:] = ~first[1:] & ((darkness[1:] != darkness[:-1]) | table.unknown_since[:-1])
    startup = _is_startup(table, earlier, rules) & ~dark
    interval = _intervals(table.machine, table.time_us, cuts)
    new = first | dark
    new[1:] |= first[:-1] | dark[:-1]
    new[1:] |= (interval[1:] != interval[:-1]) | (startup[1:] != startup[:-1])
    for column in (table.state, table.reason, table.product, table.order, table.rate):
        new[2:] |= column[1:-1] != column[:-2]
    spread = np.zeros(len(table), dtype=np.bool_)
    if rules.proportional[table.machine[first]].any():
        spread = (
            rules.proportional[table.machine]
            & ~first
            & (interval != _intervals(table.machine, table.time_us[earlier], cuts))
        )
        new |= spread
        new[1:] |= spread[:-1]
    begin = np.flatnonzero(new)
    begin_total, begin_off = np.add.reduceat(total, begin), np.add.reduceat(off, begin)
    some = (begin_total != 0) | (begin_off != 0)
    begin, begin_total, begin_off = begin[some], begin_total[some], begin_off[some]
    counts = _count_rows(table, begin, begin_total, begin_off, dark, startup)
    place = interval[begin]
    if spread.any():
        split = spread[begin]
        parts, places = _spread(
            counts.take(split), table.time_us[begin[split] - 1], table.time_us[begin[split]], cuts
        )
        counts = Counts.concatenate([counts.take(~split), parts])
        place = np.concatenate([place[~split], places])
    return _placed(counts, place, cuts)


def _count_rows(table: Tail, row: Ints, total: Ints, off: Ints, dark: Flags, startup: Flags) -> Counts:
    """Return what was made at rows of the table, in the circumstances of the rows before them."""
    before, unsure = table.take(np.maximum(row - 1, 0)), dark[row]
    return Counts(
        machine=table.machine[row],
        at_us=np.zeros(len(row), dtype=np.int64),
        state=np.where(unsure, np.int8(UNKNOWN), before.state),
        reason=np.where(unsure, np.int32(ABSENT), before.reason),
        product=before.product,
        order=before.order,
        rate=before.rate,
        startup=startup[row],
        since_us=np.where(unsure, before.time_us, NEVER),
        until_us=np.where(unsure, table.time_us[row], NEVER),
        total=total,
        off=off,
    )


def _is_startup(table: Tail, earlier: Ints, rules: Rules) -> Flags:
    if not rules.startup_us[table.machine[firsts(table.machine)]].any():
        return np.zeros(len(table), dtype=np.bool_)
    allowed = rules.startup_us[table.machine]
    state, started = table.state[earlier], table.started_us[earlier]
    recent = (state == RUNNING) & (started != NEVER) & (table.time_us - started <= allowed)
    startup: Flags = (allowed > 0) & ~firsts(table.machine) & (recent | (state == CHANGEOVER))
    return startup


def _intervals(machine: Indexes, time_us: Ints, cuts: Cuts) -> Ints:
    """Return for each instant the index of its interval among its machine's edges; -1 before the first."""
    group = cuts.of_machine[machine[firsts(machine)]]
    if (group == group[0]).all():
        return np.searchsorted(cuts.edges[group[0]], time_us, side="right") - 1
    of_row = cuts.of_machine[machine]
    found = np.empty(len(machine), dtype=np.int64)
    for index in np.unique(group):
        rows = of_row == index
        found[rows] = np.searchsorted(cuts.edges[index], time_us[rows], side="right") - 1
    return found


def _placed(counts: Counts, interval: Ints, cuts: Cuts) -> Counts:
    """Return the counts with the edge of their interval; without those outside all edges."""
    at_us = np.full(len(counts), NEVER, dtype=np.int64)
    group = cuts.of_machine[counts.machine]
    for index in np.unique(group):
        edges = cuts.edges[index]
        rows = np.flatnonzero((group == index) & (interval >= 0) & (interval < len(edges) - 1))
        at_us[rows] = edges[interval[rows]]
    return replace(counts, at_us=at_us).take(at_us != NEVER)


def _spread(counts: Counts, from_us: Ints, to_us: Ints, cuts: Cuts) -> tuple[Counts, Ints]:
    """Return each row spread evenly over (from_us, to_us], with the intervals of the parts.

    The parts are differences of whole cumulative numbers, so they sum to the row whatever the edges are.
    """
    tables, places = [], []
    group = cuts.of_machine[counts.machine]
    for index in np.unique(group):
        rows, edges = np.flatnonzero(group == index), cuts.edges[index]
        low = np.searchsorted(edges, from_us[rows], side="right")
        crossed = np.searchsorted(edges, to_us[rows], side="right") - low
        row = np.repeat(rows, crossed + 1)
        part = np.arange(len(row)) - np.repeat(np.cumsum(crossed + 1) - crossed - 1, crossed + 1)
        place = np.repeat(low, crossed + 1) - 1 + part
        ends = part == np.repeat(crossed, crossed + 1)
        begin_us = np.where(part == 0, from_us[row], edges[np.maximum(place, 0)])
        end_us = np.where(ends, to_us[row], edges[np.minimum(place + 1, len(edges) - 1)])
        off = _share(counts.off, row, begin_us, end_us, from_us, to_us)
        good = _share(counts.total - counts.off, row, begin_us, end_us, from_us, to_us)
        tables.append(replace(counts.take(row), total=off + good, off=off))
        places.append(place)
    return Counts.concatenate(tables), np.concatenate(places)


def _share(units: Ints, row: Ints, begin_us: Ints, end_us: Ints, from_us: Ints, to_us: Ints) -> Ints:
    """Return of units[row], spread over (from_us, to_us], what falls to (begin_us, end_us]; beyond int64 inside."""
    whole, start = units[row].astype(object), from_us[row]
    length = (to_us[row] - start).astype(object)
    upto, before = (end_us - start).astype(object), (begin_us - start).astype(object)
    share: Ints = (whole * upto // length - whole * before // length).astype(np.int64)
    return share


def _last_states(work: Tail, states: _States) -> Tail:
    last = lasts(states.machine)
    rows = np.arange(len(work))[states.rows][last]
    nothing = np.full(len(rows), ABSENT, dtype=np.int64)
    return replace(
        work.take(rows),
        total=nothing,
        off=nothing,
        good=nothing,
        role=np.full(len(rows), _STATE, dtype=np.int8),
        unknown_since=np.zeros(len(rows), dtype=np.bool_),
    )


def _last_readings(work: Tail, darkness: Ints, states: _States, track: _Track) -> Tail:
    """Return the last reading of a counter of each machine, as the next one has to be compared with it."""
    last = lasts(work.machine[track.rows])
    rows = np.arange(len(work))[track.rows][last]
    found = work.take(rows)
    now = lasts(states.machine)
    before: Ints = np.cumsum(states.dark) - states.dark
    final = before[now][np.searchsorted(states.machine[now], found.machine)]
    value, nothing = track.baseline[last], np.full(len(rows), ABSENT, dtype=np.int64)
    return replace(
        found,
        total=value if track.role in (_TOTAL, _TOTAL_AND_GOOD) else nothing,
        off=value if track.role == _OFF else nothing,
        good=value if track.role == _GOOD else nothing,
        role=np.full(len(rows), track.role, dtype=np.int8),
        unknown_since=found.unknown_since | (darkness[rows] != final),
        stop_since_us=nothing,
    )


# Where a piece begins to be independent of what came before


def _settled_at(records: Records, first: Flags, rules: Rules) -> Ints:
    """Return for each machine the position of the record after which nothing before the first matters any more."""
    starts = np.flatnonzero(first)
    settled = np.zeros(len(starts), dtype=np.int64)
    told = [column >= 0 for column in (records.total, records.off, records.good)]
    told.append(told[0] & told[2])
    for present in told:
        if present.any() and not present.all():
            np.maximum(settled, _first_position(present, starts, missing=0), out=settled)
    machine = records.machine[starts]
    special = rules.hold[machine] | (rules.jitter[machine] > 0) | (rules.startup_us[machine] > 0)
    ends = np.append(starts[1:], len(records))
    for place in np.flatnonzero(special):
        rows = slice(int(starts[place]), int(ends[place]))
        settled[place] = _settled_by_rules(
            records.take(rows), [present[rows] for present in told], int(settled[place]), rules
        )
    return settled


def _first_position(marks: Flags, starts: Ints, missing: int) -> Ints:
    """Return the position of each machine's first mark, counted from its start."""
    marked = np.append(np.flatnonzero(marks), len(marks))
    found = marked[np.searchsorted(marked, starts)]
    ends = np.append(starts[1:], len(marks))
    return np.where(found < ends, found - starts, missing)


def _settled_by_rules(records: Records, told: Sequence[Flags], settled: int, rules: Rules) -> int:
    """Return the position for one machine whose rules look further back than one record."""
    machine = int(records.machine[0])
    jitter, startup_us = int(rules.jitter[machine]), int(rules.startup_us[machine])
    if jitter:
        if not any(present.any() for present in told):
            return _UNSETTLED
        for value, present in zip(
            (records.total, records.off, records.good, records.total), told, strict=True
        ):
            if present.any():
                known = counters.forgets(value[present], jitter)
                if known is None:
                    return _UNSETTLED
                settled = max(settled, int(np.flatnonzero(present)[known]))
    if rules.hold[machine]:
        known_states = records.state != UNKNOWN
        if not known_states.any():
            return _UNSETTLED
        settled = max(settled, int(np.argmax(known_states)))
    if startup_us:
        quiet = np.zeros(len(records), dtype=np.bool_)
        if not rules.hold[machine]:
            quiet[1:] = np.diff(records.time_us) > rules.max_gap_us[machine]
            quiet |= records.state == UNKNOWN
        fresh = quiet | (records.state == RUNNING)
        if not fresh.any():
            return _UNSETTLED
        since_us = records.time_us[np.argmax(fresh)]
        over = records.time_us > since_us + startup_us
        if not over.any():
            return _UNSETTLED
        settled = max(settled, int(np.argmax(over)))
    return settled


# The ends of a timeline


def _trailing(last: Tail, until_us: int, rules: Rules) -> tuple[Segments, Segments]:
    """Return how the last states go on until until_us: for max_gap as they are, then unknown."""
    believed = np.where(
        rules.hold[last.machine],
        until_us,
        np.minimum(last.time_us + rules.max_gap_us[last.machine], until_us),
    )
    going_on = Segments(
        last.machine, last.time_us, believed, last.state, last.reason, last.product, last.order
    )
    silence = replace(
        going_on,
        start_us=believed,
        end_us=np.full(len(last), until_us, dtype=np.int64),
        state=np.full(len(last), UNKNOWN, dtype=np.int8),
        reason=np.full(len(last), ABSENT, dtype=np.int32),
    )
    return going_on, silence


def _unknown(machine: Indexes, start_us: int | Ints, end_us: int | Ints) -> Segments:
    absent = np.full(len(machine), ABSENT, dtype=np.int32)
    return Segments(
        machine=machine,
        start_us=np.broadcast_to(np.asarray(start_us, dtype=np.int64), len(machine)),
        end_us=np.broadcast_to(np.asarray(end_us, dtype=np.int64), len(machine)),
        state=np.full(len(machine), UNKNOWN, dtype=np.int8),
        reason=absent,
        product=absent,
        order=absent,
    )


def _clipped(segments: Segments, from_us: int, until_us: int) -> Segments:
    inside = segments.take((segments.end_us > from_us) & (segments.start_us < until_us))
    return replace(
        inside,
        start_us=np.maximum(inside.start_us, from_us),
        end_us=np.minimum(inside.end_us, until_us),
    )


# Tables put together


def _stacked(tables: Sequence[Table]) -> Table:
    """Return the rows of all tables, sorted by machine; a machine's rows stay in the order of the tables."""
    filled = [table for table in tables if len(table)] or tables[:1]
    whole = type(filled[0]).concatenate(filled)
    machine: Indexes = dict(whole.columns())["machine"]
    if len(filled) == 1 or (machine[1:] >= machine[:-1]).all():
        return whole
    return whole.take(np.argsort(machine, kind="stable"))


def _overlaid(tail: Tail, later: Piece) -> Tail:
    """Return the tail after a later piece: its own rows in place of these, the others carried across it."""
    unknown = np.unique(later.segments.machine[later.segments.state == UNKNOWN])
    kept = tail.take(~np.isin(_identity(tail), _identity(later.tail)))
    kept = replace(kept, unknown_since=kept.unknown_since | np.isin(kept.machine, unknown))
    whole = _stacked([kept, later.tail])
    return whole.take(np.lexsort((whole.role, whole.machine)))


def _identity(tail: Tail) -> Ints:
    return tail.machine.astype(np.int64) * 8 + tail.role


def _each(values: _Column, machine: Indexes) -> _Column:
    """Return the values of the rows' machines: one value for all rows where all are equal."""
    used = values[machine[firsts(machine)]]
    found = used[:1] if (used == used[0]).all() else values[machine]
    return cast("_Column", found)


def _no_rows(table: type[Table]) -> Table:
    types = get_type_hints(table)
    kinds = {Indexes: np.int32, Ints: np.int64, Codes: np.int8, Flags: np.bool_, Floats: np.float64}
    return table(**{field.name: np.empty(0, dtype=kinds[types[field.name]]) for field in fields(table)})


_SHARED: Final = ("machine", "time_us", "state", "total", "off", "good", "reason", "product", "order", "rate")
NOTHING: Final = Body(_no_rows(Segments), _no_rows(Counts), _no_rows(Tail))
