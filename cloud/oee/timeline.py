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

from dataclasses import replace
from typing import Final

import numpy as np

from cloud.oee.columns import Flags, Indexes, Ints, firsts
from cloud.oee.ends import beyond, dark_within, head_of, identities, overlaid, tail_of
from cloud.oee.made import counts_of, made_at, spread_out, tracks_of
from cloud.oee.pieces import (
    EVERY,
    NEVER,
    NOTHING,
    STATE,
    Anchors,
    Counts,
    Cuts,
    Piece,
    Rules,
    Segments,
    merged_counts,
    merged_segments,
    stacked,
)
from cloud.oee.records import ABSENT, UNKNOWN, Records
from cloud.oee.states import in_force, segments_of, states_of
from cloud.oee.thinning import thinned

_SHARED: Final = ("machine", "time_us", "state", "total", "off", "good", "reason", "product", "order", "rate")


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
    tail = overlaid(begun.tail, piece.tail)
    last = tail.take(tail.role == STATE)
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
    counts = spread_out(merged_counts([begun.counts, piece.counts]), cuts)
    return (
        _clipped(segments.take(np.isin(segments.machine, machines)), from_us, until_us),
        counts.take(np.isin(counts.machine, machines)),
    )


def _joined(earlier: Piece, rows: Anchors, later: Piece, new: Anchors, rules: Rules, cuts: Cuts) -> Piece:
    """Return the earlier piece with rows after it, and after these the body and tail of a later piece.

    rows: of machines that the earlier piece has, or plain records
    new: the later piece's head of machines that the earlier one lacks
    """
    touched = np.isin(earlier.tail.machine, rows.machine)
    opened = np.isin(earlier.head.machine, rows.machine)
    opened &= ~np.isin(identities(earlier.head), identities(earlier.tail))
    ends, waiting = earlier.tail.take(touched), earlier.head.take(opened)
    waiting = replace(waiting, dark=waiting.dark - dark_within(ends, waiting.machine))
    seam = _fold(stacked([ends, waiting, rows]), rules, cuts)
    return Piece(
        head=stacked([earlier.head, beyond(seam.head, waiting), new]),
        segments=merged_segments([earlier.segments, seam.segments, later.segments]),
        counts=merged_counts([earlier.counts, seam.counts, later.counts]),
        tail=stacked([earlier.tail.take(~touched), overlaid(seam.tail, later.tail)]),
    )


def _fold(work: Anchors, rules: Rules, cuts: Cuts, *, from_nothing: bool = False) -> Piece:
    """Return the piece of rows, each machine's in their order.

    Where a role begins with a known row, all that follows is body; else its first rows are the head.

    from_nothing: whether nothing came before, so that there is no head
    """
    if not len(work):
        return NOTHING
    states = states_of(work, rules, from_nothing=from_nothing)
    effective, darkness = in_force(work, states)
    tracks = tracks_of(effective, states, rules, from_nothing=from_nothing)
    parts = [
        counts_of(effective, darkness, rows, total, off, rules, cuts)
        for rows, total, off in made_at(effective, tracks)
    ]
    return Piece(
        head=NOTHING.head if from_nothing else head_of(work, effective, darkness, states, tracks),
        segments=segments_of(states, rules),
        counts=merged_counts([NOTHING.counts, *parts]),
        tail=tail_of(effective, darkness, states, tracks),
    )


def _plain(records: Records, bridged: Flags) -> Anchors:
    rows = len(records)
    return Anchors(
        **{name: getattr(records, name) for name in _SHARED},
        role=np.broadcast_to(np.int8(EVERY), rows),
        known=np.broadcast_to(np.False_, rows),
        raw=np.broadcast_to(np.True_, rows),
        bridged=bridged,
        dark=np.broadcast_to(np.int64(0), rows),
        stop_since_us=np.broadcast_to(np.int64(NEVER), rows),
        started_us=np.broadcast_to(np.int64(NEVER), rows),
    )


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
