"""From records to a timeline: in which state each machine was, and what it made, piece by piece.

A Piece is the timeline of a stretch of records, and pieces form a monoid: `build` of any split of a
machine's records, put together by `join`, is the same as `build` of them all. What cannot be known without
the records before stays in the piece's head as records (normally one); what later records need is its tail.

Rules that hold here:

- a record's state lasts until the machine's next record, but at most `max_gap`; then it is unknown until that
  record. With hold it lasts, and a record of unknown state carries the state before it on;
- what was made between two readings belongs to the later one's moment, and to the state, reason, product,
  order and rate of the earlier one; a reading at an edge ends what lies before the edge. Proportional spreads
  it evenly over the time between the readings instead;
- where part of that time is unknown, the state of what was made is unknown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, NamedTuple, TypeVar, cast, get_type_hints

import numpy as np
import numpy.typing as npt

from cloud.oee import counters
from cloud.oee.columns import Codes, Columns, Flags, Floats, Indexes, Ints, firsts, held
from cloud.oee.records import ABSENT, CHANGEOVER, RUNNING, UNKNOWN, Names, Records
from cloud.oee.thinning import thinned
from cloud.plant import Machine, Plant

NEVER: Final = -1
"""In a column of instants: no such moment."""

_EVERY: Final = -1
_OPEN: Final = -1
"""Where a head ends: not within these rows."""
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
    """The earlier reading, where part of the time was unknown or the row is to be spread; else NEVER."""
    until_us: Ints
    """The later reading, where there is an earlier one; else NEVER."""
    spread: Flags
    """Whether it is still to be spread over the intervals between the two readings."""
    total: Ints
    off: Ints
    """[units] off quality among the total."""


@dataclass(frozen=True, eq=False)
class Anchors(Columns):
    """The ends of a piece: records in the roles in which they matter to its neighbours, sorted by machine.

    Roles are the machine's state and each of its counters; they have ends of their own, because a record need
    not tell all counters.
    """

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
    """The role of the row; `_EVERY` of a plain record."""
    known: Flags
    """Whether everything before it in its role is taken into account: so in a tail, not in a head."""
    raw: Flags
    """Whether its state is as told, and may yet be changed by what came before."""
    bridged: Flags
    """Whether records were left out between this row and the next that only repeat this one."""
    dark: Ints
    """How many stretches of unknown time lie between the piece's end in the role of the state and this row,
    negative where it is before; in the tail's row of the state: how many there are in the piece's body."""
    stop_since_us: Ints
    """In a tail's row of the state: when the known stop began that still goes on, or NEVER."""
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
        """Return the rules of every machine of the names; one that is not in the plant has the defaults."""
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

    head: Anchors
    """For each role, the first records until nothing before them can change what follows: normally one."""
    segments: Segments
    """From the last record of the state's head to the last record."""
    counts: Counts
    """What was made after the last reading of each counter's head."""
    tail: Anchors
    """The last record in each role; none where what came before the piece still matters at its end."""


def build(records: Records, rules: Rules, cuts: Cuts) -> Piece:
    """Return the piece of sorted records."""
    return _fold(_plain(*thinned(records, rules, cuts)), rules, cuts)


def join(earlier: Piece, later: Piece, rules: Rules, cuts: Cuts) -> Piece:
    """Return the piece of both stretches; each machine's records of one are before those of the other."""
    if not len(earlier.head):
        return later
    if not len(later.head):
        return earlier
    both = np.isin(later.head.machine, earlier.head.machine)
    return _joined(earlier, later.head.take(both), later, later.head.take(~both), rules, cuts)


def extend(piece: Piece, records: Records, rules: Rules, cuts: Cuts) -> Piece:
    """Return the same as joining the piece of these records, which all come after it: cheaper for few."""
    return _joined(piece, _plain(*thinned(records, rules, cuts)), NOTHING, NOTHING.head, rules, cuts)


def close(
    piece: Piece, machines: Indexes, from_us: int, until_us: int, rules: Rules, cuts: Cuts
) -> tuple[Segments, Counts]:
    """Return the whole timeline of the machines over [from_us, until_us), as if nothing came before or after.

    Every instant is in exactly one segment; the last state lasts until until_us, but at most max_gap.
    """
    begun = _fold(piece.head, rules, cuts, from_nothing=True)
    tail = _overlaid(begun.tail, piece.tail)
    last = tail.take(tail.role == _STATE)
    start = piece.head.take(firsts(piece.head.machine))
    silent = np.setdiff1d(machines, start.machine).astype(np.int32)
    segments = merged_segments(
        [
            _unknown(start.machine, np.minimum(from_us, start.time_us), start.time_us),
            begun.segments,
            piece.segments,
            *_trailing(last, until_us, rules),
            _unknown(silent, from_us, until_us),
        ]
    )
    counts = _spread_out(merged_counts([begun.counts, piece.counts]), cuts)
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
    new = firsts(whole.machine)
    if not (new[1:] | (whole.start_us[1:] > whole.start_us[:-1])).all():
        whole = whole.take(np.lexsort((whole.start_us, whole.machine)))
        new = firsts(whole.machine)
    for column in (whole.state, whole.reason, whole.product, whole.order):
        new[1:] |= column[1:] != column[:-1]
    new[1:] |= whole.start_us[1:] != whole.end_us[:-1]
    begin = np.flatnonzero(new)
    return replace(whole.take(begin), end_us=whole.end_us[np.append(begin[1:], len(whole)) - 1])


def merged_counts(parts: Sequence[Counts]) -> Counts:
    """Return the sums of rows of equal circumstances, sorted by machine."""
    whole = _stacked(parts)
    if not len(whole):
        return whole
    keys = [column for name, column in whole.columns() if name not in ("total", "off")]
    order = np.lexsort((_fingerprint(keys), whole.machine))
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


def _fingerprint(columns: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.uint64]:
    """Return a number per row that is equal for equal rows; should others share it, they are kept apart."""
    mixed = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        bits = column.view(np.uint64) if column.dtype == np.float64 else column.astype(np.uint64)
        mixed ^= bits
        mixed *= _ODD
        mixed ^= mixed >> np.uint64(29)
    return mixed


# Rows after what is known of those before


class _States(NamedTuple):
    """The rows of a fold that tell a state, with what holds."""

    rows: slice | Ints
    """Where they stand among all rows."""
    machine: Indexes
    time_us: Ints
    state: Codes
    reason: Indexes
    product: Indexes
    order: Indexes
    silent: Flags
    """Whether the row is followed by a silence of more than max_gap."""
    dark: Flags
    """Whether time between this row and the machine's next is unknown."""
    before: Ints
    """How many rows before are dark."""
    stop_since_us: Ints
    started_us: Ints
    last_of: Ints | None
    """For each row of the fold, the last of these rows at or before it; None where all rows are these."""
    starts: Ints
    """By machine: its first row, and the first of the next machine."""
    stops: Ints
    live: Ints
    """By machine: the last row of its head, or _OPEN; its first row where it has no head."""
    known: Flags
    """By machine: whether its first row is known."""
    known_dark: Ints
    """By machine: stretches of unknown time before the first row, where it is known."""

    @property
    def after_head(self) -> Ints:
        """Return by machine the first row after its head."""
        return np.where(self.live == _OPEN, self.stops, self.live + 1)

    def place(self, machine: Indexes) -> Ints:
        """Return where the machines stand in what is by machine."""
        return np.searchsorted(self.machine[self.starts], machine)


class _Track(NamedTuple):
    """The readings of one counter among the rows of a fold."""

    role: int
    rows: slice | Ints
    """Where they stand among all rows."""
    made: Ints
    """[units] since the reading before; 0 up to the end of the head."""
    baseline: Ints
    starts: Ints
    """By machine: its first reading, and the first of the next machine."""
    stops: Ints
    live: Ints
    """By machine: the last reading of its head, or _OPEN."""
    fresh: Flags
    """By machine: whether it has a head at all."""


def _joined(earlier: Piece, rows: Anchors, later: Piece, new: Anchors, rules: Rules, cuts: Cuts) -> Piece:
    """Return the earlier piece with rows after it, and after these the body and tail of a later piece.

    rows: of machines that the earlier piece has, or plain records
    new: the later piece's head of machines that the earlier one lacks
    """
    touched = np.isin(earlier.tail.machine, rows.machine)
    opened = np.isin(earlier.head.machine, rows.machine)
    opened &= ~np.isin(_identity(earlier.head), _identity(earlier.tail))
    ends, waiting = earlier.tail.take(touched), earlier.head.take(opened)
    waiting = replace(waiting, dark=waiting.dark - _dark_within(ends, waiting.machine))
    seam = _fold(_stacked([ends, waiting, rows]), rules, cuts)
    return Piece(
        head=_stacked([earlier.head, _beyond(seam.head, waiting), new]),
        segments=merged_segments([earlier.segments, seam.segments, later.segments]),
        counts=merged_counts([earlier.counts, seam.counts, later.counts]),
        tail=_stacked([earlier.tail.take(~touched), _overlaid(seam.tail, later.tail)]),
    )


def _fold(work: Anchors, rules: Rules, cuts: Cuts, *, from_nothing: bool = False) -> Piece:
    """Return the piece of rows, each machine's in their order.

    Where a role begins with a known row, all that follows is body; else its first rows are the head.

    from_nothing: whether nothing came before, so that there is no head
    """
    if not len(work):
        return NOTHING
    states = _states(work, rules, from_nothing=from_nothing)
    effective, darkness = _in_force(work, states)
    tracks = _tracks(effective, states, rules, from_nothing=from_nothing)
    parts = [
        _counts(effective, darkness, rows, total, off, rules, cuts)
        for rows, total, off in _made(effective, tracks)
    ]
    return Piece(
        head=NOTHING.head if from_nothing else _head(work, effective, darkness, states, tracks),
        segments=_segments(states, rules),
        counts=merged_counts([NOTHING.counts, *parts]),
        tail=_tail(effective, darkness, states, tracks),
    )


def _plain(records: Records, bridged: Flags) -> Anchors:
    rows = len(records)
    return Anchors(
        **{name: getattr(records, name) for name in _SHARED},
        role=np.broadcast_to(np.int8(_EVERY), rows),
        known=np.broadcast_to(np.False_, rows),
        raw=np.broadcast_to(np.True_, rows),
        bridged=bridged,
        dark=np.broadcast_to(np.int64(0), rows),
        stop_since_us=np.broadcast_to(np.int64(NEVER), rows),
        started_us=np.broadcast_to(np.int64(NEVER), rows),
    )


def _states(work: Anchors, rules: Rules, *, from_nothing: bool) -> _States:
    tells = (work.role == _EVERY) | (work.role == _STATE)
    rows = slice(None) if tells.all() else np.flatnonzero(tells)
    told = work.take(rows)
    machine, time_us, state = told.machine, told.time_us, told.state
    reason, product, order = told.reason, told.product, told.order
    first = firsts(machine)
    hold = _each(rules.hold, machine)
    if np.any(hold):
        source = held(first | (state != UNKNOWN) | ~hold)  # an unknown state carries the one before it on
        state, reason, product, order = state[source], reason[source], product[source], order[source]
    follows = np.append(~first[1:], False)
    length = np.append(time_us[1:], time_us[-1]) - time_us
    silent = follows & (length > _each(rules.max_gap_us, machine)) & ~hold & ~told.bridged
    dark = silent | (follows & (length > 0) & (state == UNKNOWN))
    stop_since, started = _start_ups(told, state, first, dark, rules)
    starts = np.flatnonzero(first)
    states = _States(
        rows=rows,
        machine=machine,
        time_us=time_us,
        state=state,
        reason=reason,
        product=product,
        order=order,
        silent=silent,
        dark=dark,
        before=np.cumsum(dark) - dark,
        stop_since_us=stop_since,
        started_us=started,
        last_of=None if isinstance(rows, slice) else np.cumsum(tells) - 1,
        starts=starts,
        stops=np.append(starts[1:], len(machine)),
        live=starts,
        known=told.known[starts],
        known_dark=np.where(told.known[starts], told.dark[starts], 0),
    )
    return states if from_nothing else states._replace(live=_end_of_state_head(states, rules))


def _start_ups(told: Anchors, state: Codes, first: Flags, dark: Flags, rules: Rules) -> tuple[Ints, Ints]:
    """Return for each row since when the machine has known to stand, and when it last started up before."""
    if not rules.startup_us[told.machine[first]].any():
        return told.stop_since_us, told.started_us
    stands = (state != RUNNING) & (state != UNKNOWN)
    goes_on = np.zeros(len(told), dtype=np.bool_)
    goes_on[1:] = stands[:-1] & ~dark[:-1] & ~first[1:]
    begins = stands & ~goes_on
    since = np.where(begins & (told.stop_since_us == NEVER), told.time_us, told.stop_since_us)
    since = np.where(stands, since[held(first | begins)], NEVER)
    before = np.append(np.int64(NEVER), since[:-1])
    starts = (state == RUNNING) & goes_on
    starts &= told.time_us - before >= rules.startup_stop_us[told.machine]
    started = np.where(starts, told.time_us, told.started_us)
    return since, started[held(first | starts)]


def _end_of_state_head(states: _States, rules: Rules) -> Ints:
    """Return by machine the state's row after which it no longer matters what came before, or _OPEN."""
    live = states.starts.copy()
    machine = states.machine[states.starts]
    looks_back = ~states.known & (rules.hold[machine] | (rules.startup_us[machine] > 0))
    for place in np.flatnonzero(looks_back):
        rows = slice(int(states.starts[place]), int(states.stops[place]))
        settled = _settled_state(
            states.time_us[rows],
            states.state[rows],
            states.silent[rows],
            hold=bool(rules.hold[machine[place]]),
            startup_us=int(rules.startup_us[machine[place]]),
        )
        live[place] = _OPEN if settled is None else rows.start + settled
    return live


def _settled_state(time_us: Ints, state: Codes, silent: Flags, *, hold: bool, startup_us: int) -> int | None:
    """Return the row of one machine after which neither a held state nor a start-up of before matters."""
    first_known = 0
    if hold:
        if not (state != UNKNOWN).any():
            return None
        first_known = int(np.argmax(state != UNKNOWN))
    if not startup_us:
        return first_known
    fresh = state == RUNNING
    if not hold:
        fresh |= state == UNKNOWN
        fresh[1:] |= silent[:-1]
    fresh[:first_known] = False
    if not fresh.any():
        return None
    over = time_us > time_us[np.argmax(fresh)] + startup_us
    return int(np.argmax(over)) if over.any() else None


def _segments(states: _States, rules: Rules) -> Segments:
    """Return the segments from the end of each head to the machine's last row."""
    has_heads = bool((states.live != states.starts).any())
    new = np.zeros(len(states.machine), dtype=np.bool_)
    for column in (states.state, states.reason, states.product, states.order):
        new[1:] |= column[1:] != column[:-1]
    new[1:] |= states.silent[:-1]
    new[states.starts] = True
    if has_heads:
        new[states.live[states.live != _OPEN]] = True
    begin = np.flatnonzero(new)
    last = np.append(begin[1:], len(new)) - 1
    following = np.minimum(last + 1, len(new) - 1)
    ends = states.machine[following] != states.machine[last]
    quiet = states.silent[last]
    end_us = np.where(ends, states.time_us[last], states.time_us[following])
    end_us = np.where(quiet, states.time_us[last] + rules.max_gap_us[states.machine[last]], end_us)
    found = Segments(
        machine=states.machine[begin],
        start_us=states.time_us[begin],
        end_us=end_us,
        state=states.state[begin],
        reason=states.reason[begin],
        product=states.product[begin],
        order=states.order[begin],
    )
    silence = found.take(quiet)
    silence = replace(
        silence,
        start_us=end_us[quiet],
        end_us=states.time_us[following[quiet]],
        state=np.full(len(silence), UNKNOWN, dtype=np.int8),
        reason=np.full(len(silence), ABSENT, dtype=np.int32),
    )
    if has_heads:
        live = np.where(states.live == _OPEN, states.stops, states.live)
        in_body = begin >= live[states.place(found.machine)]
        found, silence = found.take(in_body), silence.take(in_body[quiet])
    return merged_segments([found, silence])


def _in_force(work: Anchors, states: _States) -> tuple[Anchors, Ints]:
    """Return the rows with the states that hold, and how many stretches of unknown time precede each."""
    columns: dict[str, npt.NDArray[Any]] = {name: getattr(states, name) for name in _IN_FORCE}
    if states.last_of is None:
        return replace(work, **columns), states.before
    tells = (work.role == _EVERY) | (work.role == _STATE)
    same = tells | (work.raw & ~work.known[states.rows][states.last_of])
    for name, column in columns.items():
        columns[name] = np.where(same, column[states.last_of], getattr(work, name))
    return replace(work, **columns), states.before[states.last_of] + np.where(same, 0, work.dark)


def _is_early(work: Anchors, states: _States) -> Flags:
    """Return which rows are of a state's head that is not among the rows, and so may not be used yet."""
    if states.last_of is None:
        return np.broadcast_to(np.False_, len(work))
    early: Flags = work.raw & (work.role != _EVERY) & (work.role != _STATE)
    return early & work.known[states.rows][states.last_of]


def _tracks(work: Anchors, states: _States, rules: Rules, *, from_nothing: bool) -> list[_Track]:
    plain = work.role == _EVERY
    has_total, has_off, has_good = (plain & (column >= 0) for column in (work.total, work.off, work.good))
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
            tracks.append(_track(role, rows, value[rows], work, states, rules, from_nothing=from_nothing))
    return tracks


def _track(
    role: int,
    rows: slice | Ints,
    value: Ints,
    work: Anchors,
    states: _States,
    rules: Rules,
    *,
    from_nothing: bool,
) -> _Track:
    machine = work.machine[rows]
    made, baseline = counters.increments(machine, value, rules.jitter, rules.modulus)
    starts = np.flatnonzero(firsts(machine))
    stops = np.append(starts[1:], len(machine))
    fresh = ~work.known[rows][starts]
    live = starts
    # What lies in the state's head may yet be counted otherwise, and so may what noise leaves open.
    place = states.place(machine[starts])
    early = _is_early(work, states)[rows]
    looks_back = (states.live[place] != states.starts[place]) | (rules.jitter[machine[starts]] > 0)
    looks_back |= early[starts]
    looks_back &= fresh & (not from_nothing)
    if looks_back.any():
        live, made = starts.copy(), made.copy()
        state_row = (np.arange(len(work)) if states.last_of is None else states.last_of)[rows]
        for index in np.flatnonzero(looks_back):
            mine = slice(int(starts[index]), int(stops[index]))
            settled = counters.forgets(value[mine], int(rules.jitter[machine[mine.start]]))
            after = (state_row[mine] >= states.live[place[index]]) & ~early[mine]
            if settled is None or states.live[place[index]] == _OPEN or not after.any():
                live[index] = _OPEN
                made[mine] = 0
            else:
                live[index] = mine.start + max(settled, int(np.argmax(after)))
                made[mine.start : live[index] + 1] = 0
    return _Track(role, rows, made, baseline, starts, stops, live, fresh)


def _made(work: Anchors, tracks: Sequence[_Track]) -> list[tuple[slice | Ints, Ints, Ints]]:
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
    work: Anchors, darkness: Ints, rows: slice | Ints, total: Ints, off: Ints, rules: Rules, cuts: Cuts
) -> Counts:
    """Return what was made at the readings, summed over neighbours in equal circumstances."""
    table, darkness = work.take(rows), darkness[rows]
    first = firsts(table.machine)
    earlier = np.maximum(np.arange(len(table)) - 1, 0)
    dark = np.zeros(len(table), dtype=np.bool_)
    dark[1:] = ~first[1:] & (darkness[1:] != darkness[:-1])
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
    before, unsure = table.take(earlier[begin]), dark[begin]
    apart = unsure | spread[begin]
    counts = Counts(
        machine=table.machine[begin],
        at_us=np.full(len(begin), NEVER, dtype=np.int64),
        state=np.where(unsure, np.int8(UNKNOWN), before.state),
        reason=np.where(unsure, np.int32(ABSENT), before.reason),
        product=before.product,
        order=before.order,
        rate=before.rate,
        startup=startup[begin],
        since_us=np.where(apart, before.time_us, NEVER),
        until_us=np.where(apart, table.time_us[begin], NEVER),
        spread=spread[begin],
        total=begin_total,
        off=begin_off,
    )
    return _placed(counts, interval[begin], cuts)


def _is_startup(table: Anchors, earlier: Ints, rules: Rules) -> Flags:
    if not rules.startup_us[table.machine[firsts(table.machine)]].any():
        return np.zeros(len(table), dtype=np.bool_)
    allowed = rules.startup_us[table.machine]
    state, started = table.state[earlier], table.started_us[earlier]
    recent = (state == RUNNING) & (started != NEVER) & (table.time_us - started <= allowed)
    startup: Flags = (allowed > 0) & ~firsts(table.machine) & (recent | (state == CHANGEOVER))
    return startup


def _intervals(machine: Indexes, time_us: Ints, cuts: Cuts) -> Ints:
    """Return for each instant the interval that ends with it or after it; -1 up to the first edge."""
    group = cuts.of_machine[machine[firsts(machine)]]
    if (group == group[0]).all():
        return np.searchsorted(cuts.edges[group[0]], time_us, side="left") - 1
    of_row = cuts.of_machine[machine]
    found = np.empty(len(machine), dtype=np.int64)
    for index in np.unique(group):
        rows = of_row == index
        found[rows] = np.searchsorted(cuts.edges[index], time_us[rows], side="left") - 1
    return found


def _placed(counts: Counts, interval: Ints, cuts: Cuts) -> Counts:
    """Return the counts with the edge of their interval; of those outside all edges only ones to spread."""
    at_us = counts.at_us.copy()
    group = cuts.of_machine[counts.machine]
    for index in np.unique(group):
        edges = cuts.edges[index]
        rows = np.flatnonzero((group == index) & (interval >= 0) & (interval < len(edges) - 1))
        at_us[rows] = edges[interval[rows]]
    return replace(counts, at_us=at_us).take((at_us != NEVER) | counts.spread)


def _spread_out(counts: Counts, cuts: Cuts) -> Counts:
    """Return the counts with each row that is to be spread cut at the edges between its two readings.

    The parts are differences of whole cumulative numbers, so they sum to the row whatever the edges are.
    """
    if not counts.spread.any():
        return counts
    tables = [counts.take(~counts.spread)]
    apart = counts.take(counts.spread)
    group = cuts.of_machine[apart.machine]
    for index in np.unique(group):
        rows, edges = apart.take(group == index), cuts.edges[index]
        low = np.searchsorted(edges, rows.since_us, side="right")
        parts = np.searchsorted(edges, rows.until_us, side="left") - low + 1
        row = np.repeat(np.arange(len(rows)), parts)
        part = _ranges(np.zeros_like(parts), parts)
        place = low[row] - 1 + part
        begin_us = np.where(part == 0, rows.since_us[row], edges[np.maximum(place, 0)])
        end_us = np.where(
            part == parts[row] - 1, rows.until_us[row], edges[np.minimum(place + 1, len(edges) - 1)]
        )
        off = _share(rows.off[row], rows.take(row), begin_us, end_us)
        good = _share(rows.total[row] - rows.off[row], rows.take(row), begin_us, end_us)
        spread = replace(rows.take(row), total=off + good, off=off, spread=np.zeros(len(row), dtype=np.bool_))
        tables.append(_placed(replace(spread, at_us=np.full(len(row), NEVER, dtype=np.int64)), place, cuts))
    return merged_counts(tables)


def _share(units: Ints, rows: Counts, begin_us: Ints, end_us: Ints) -> Ints:
    """Return of units, spread evenly over (since_us, until_us], what falls to (begin_us, end_us]."""
    whole, length = units.astype(object), (rows.until_us - rows.since_us).astype(object)  # beyond int64
    upto, before = (end_us - rows.since_us).astype(object), (begin_us - rows.since_us).astype(object)
    share: Ints = (whole * upto // length - whole * before // length).astype(np.int64)
    return share


# The ends of a piece


def _head(
    work: Anchors, effective: Anchors, darkness: Ints, states: _States, tracks: Sequence[_Track]
) -> Anchors:
    """Return the first rows of every role that does not begin with a known row."""
    every = np.arange(len(work))
    state_row = every if states.last_of is None else states.last_of
    fresh = ~states.known
    rows = [every[states.rows][_ranges(states.starts[fresh], states.after_head[fresh])]]
    heads = [_as_head(work.take(rows[0]), _STATE)]
    origin = states.before[np.where(states.live == _OPEN, states.starts, states.live)] - states.known_dark
    for track in tracks:
        end = np.where(track.live == _OPEN, track.stops, track.live + 1)
        row = every[track.rows][_ranges(track.starts[track.fresh], end[track.fresh])]
        place = states.place(work.machine[row])
        # Within the state's head what came before may change a row; after it the row is as it holds.
        inside = work.raw[row] & ~states.known[place] & (state_row[row] < states.after_head[place])
        outside = row[~inside]
        rows += [row[inside], outside]
        heads.append(_as_head(work.take(row[inside]), track.role))
        heads.append(
            replace(
                _as_head(effective.take(outside), track.role),
                raw=_is_early(work, states)[outside],
                dark=darkness[outside] - origin[place[~inside]],
            )
        )
    head = Anchors.concatenate(heads)
    return head.take(np.lexsort((head.role, np.concatenate(rows), head.machine)))


def _as_head(rows: Anchors, role: int) -> Anchors:
    return replace(
        rows,
        role=np.full(len(rows), role, dtype=np.int8),
        known=np.zeros(len(rows), dtype=np.bool_),
        raw=np.ones(len(rows), dtype=np.bool_),
        dark=np.zeros(len(rows), dtype=np.int64),
    )


def _tail(effective: Anchors, darkness: Ints, states: _States, tracks: Sequence[_Track]) -> Anchors:
    """Return the last row of every role whose head ends."""
    every = np.arange(len(effective))
    closed = states.live != _OPEN
    last = states.stops - 1
    within = states.before[last] - states.before[states.live] + states.known_dark
    state = _as_tail(effective.take(every[states.rows][last[closed]]), _STATE)
    tails = [replace(state, dark=within[closed])]
    for track in tracks:
        place = (track.stops - 1)[track.live != _OPEN]
        row = every[track.rows][place]
        found = _as_tail(effective.take(row), track.role, track.baseline[place])
        tails.append(replace(found, dark=darkness[row] - states.before[last][states.place(found.machine)]))
    return _by_role(Anchors.concatenate(tails))


def _as_tail(rows: Anchors, role: int, value: Ints | None = None) -> Anchors:
    nothing = np.full(len(rows), ABSENT, dtype=np.int64)
    return replace(
        rows,
        total=value if value is not None and role in (_TOTAL, _TOTAL_AND_GOOD) else nothing,
        off=value if value is not None and role == _OFF else nothing,
        good=value if value is not None and role == _GOOD else nothing,
        role=np.full(len(rows), role, dtype=np.int8),
        known=np.ones(len(rows), dtype=np.bool_),
        raw=np.zeros(len(rows), dtype=np.bool_),
        stop_since_us=rows.stop_since_us if role == _STATE else nothing,
    )


def _overlaid(tail: Anchors, later: Anchors) -> Anchors:
    """Return a tail after what a later one says: its rows in place of these, the others carried across it."""
    kept = tail.take(~np.isin(_identity(tail), _identity(later)))
    kept = replace(kept, dark=kept.dark - _dark_within(later, kept.machine))
    before = np.where(later.role == _STATE, _dark_within(tail, later.machine), 0)
    return _by_role(_stacked([kept, replace(later, dark=later.dark + before)]))


def _dark_within(tail: Anchors, machine: Indexes) -> Ints:
    """Return by machine how many stretches of unknown time the body before a tail has."""
    state = tail.take(tail.role == _STATE)
    if not len(state):
        return np.zeros(len(machine), dtype=np.int64)
    place = np.minimum(np.searchsorted(state.machine, machine), len(state) - 1)
    return np.where(state.machine[place] == machine, state.dark[place], 0)


def _beyond(head: Anchors, waiting: Anchors) -> Anchors:
    """Return what a fold's head has more than the rows that waited for it: a head only grows."""
    if not len(waiting):
        return head
    identity = _identity(head)
    order = np.argsort(identity, kind="stable")
    rank = np.empty(len(head), dtype=np.int64)
    rank[order] = np.arange(len(head)) - np.searchsorted(identity[order], identity[order])
    had = np.sort(_identity(waiting))
    count = np.searchsorted(had, identity, side="right") - np.searchsorted(had, identity)
    return head.take(rank >= count)


def _by_role(rows: Anchors) -> Anchors:
    return rows.take(np.lexsort((rows.role, rows.machine)))


def _identity(rows: Anchors) -> Ints:
    identity: Ints = rows.machine.astype(np.int64) * 8 + rows.role
    return identity


def _ranges(starts: Ints, stops: Ints) -> Ints:
    """Return all positions of ranges, one range after the other."""
    length = stops - starts
    return np.repeat(stops - np.cumsum(length), length) + np.arange(int(length.sum()))


def _trailing(last: Anchors, until_us: int, rules: Rules) -> tuple[Segments, Segments]:
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
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
"""Spreads bits: 2^64 divided by the golden ratio."""
_IN_FORCE: Final = ("state", "reason", "product", "order", "stop_since_us", "started_us")
NOTHING: Final = Piece(_no_rows(Anchors), _no_rows(Segments), _no_rows(Counts), _no_rows(Anchors))
"""The piece of no records."""
