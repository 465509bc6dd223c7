"""What was made: increments of counters, in the circumstances and intervals to which they belong."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cloud.oee import counters
from cloud.oee.columns import Flags, Indexes, Ints, firsts, ranges
from cloud.oee.pieces import (
    EVERY,
    GOOD,
    NEVER,
    OFF,
    TOTAL,
    TOTAL_AND_GOOD,
    Anchors,
    Counts,
    Cuts,
    Rules,
    merged_counts,
)
from cloud.oee.records import ABSENT, CHANGEOVER, RUNNING, UNKNOWN
from cloud.oee.states import OPEN, States, is_early


class Track(NamedTuple):
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
    """By machine: the last reading of its head, or OPEN."""
    fresh: Flags
    """By machine: whether it has a head at all."""


def tracks_of(work: Anchors, states: States, rules: Rules, *, from_nothing: bool) -> list[Track]:
    """Return the readings of every counter that the rows tell, with what was made at each."""
    plain = work.role == EVERY
    has_total, has_off, has_good = (plain & (column >= 0) for column in (work.total, work.off, work.good))
    tracks = []
    for role, value, told in (
        (TOTAL, work.total, has_total),
        (OFF, work.off, has_off),
        (GOOD, work.good, has_good),
        (TOTAL_AND_GOOD, work.total, has_total & has_good),
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
    states: States,
    rules: Rules,
    *,
    from_nothing: bool,
) -> Track:
    machine = work.machine[rows]
    made, baseline = counters.increments(machine, value, rules.jitter, rules.modulus)
    starts = np.flatnonzero(firsts(machine))
    stops = np.append(starts[1:], len(machine))
    fresh = ~work.known[rows][starts]
    live = starts
    # What lies in the state's head may yet be counted otherwise, and so may what noise leaves open.
    place = states.place(machine[starts])
    early = is_early(work, states)[rows]
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
            if settled is None or states.live[place[index]] == OPEN or not after.any():
                live[index] = OPEN
                made[mine] = 0
            else:
                live[index] = mine.start + max(settled, int(np.argmax(after)))
                made[mine.start : live[index] + 1] = 0
    return Track(role, rows, made, baseline, starts, stops, live, fresh)


def made_at(work: Anchors, tracks: Sequence[Track]) -> list[tuple[slice | Ints, Ints, Ints]]:
    """Return (rows, total, off quality) made at them, by what each row tells.

    With a total, off quality is its own counter's or else the total's less the good; without one, the total
    is good and off quality together.
    """
    found: list[tuple[slice | Ints, Ints, Ints]] = []
    for track in tracks:
        with_total = work.total[track.rows] >= 0
        with_off = work.off[track.rows] >= 0
        match track.role:
            case _ if track.role == TOTAL:
                total, off = track.made, np.zeros_like(track.made)
            case _ if track.role == OFF:
                total, off = np.where(with_total, 0, track.made), track.made
            case _ if track.role == GOOD:
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


def counts_of(
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


def spread_out(counts: Counts, cuts: Cuts) -> Counts:
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
        part = ranges(np.zeros_like(parts), parts)
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
