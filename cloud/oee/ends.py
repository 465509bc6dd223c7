"""The ends of a piece: what its neighbours need of it, and it of them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cloud.oee.columns import Indexes, Ints, ranges
from cloud.oee.made import Track
from cloud.oee.pieces import GOOD, OFF, STATE, TOTAL, TOTAL_AND_GOOD, Anchors, stacked
from cloud.oee.records import ABSENT
from cloud.oee.states import OPEN, States, is_early


def head_of(
    work: Anchors, effective: Anchors, darkness: Ints, states: States, tracks: Sequence[Track]
) -> Anchors:
    """Return the first rows of every role that does not begin with a known row."""
    every = np.arange(len(work))
    state_row = every if states.last_of is None else states.last_of
    fresh = ~states.known
    rows = [every[states.rows][ranges(states.starts[fresh], states.after_head[fresh])]]
    heads = [_as_head(work.take(rows[0]), STATE)]
    origin = states.before[np.where(states.live == OPEN, states.starts, states.live)] - states.known_dark
    for track in tracks:
        end = np.where(track.live == OPEN, track.stops, track.live + 1)
        row = every[track.rows][ranges(track.starts[track.fresh], end[track.fresh])]
        place = states.place(work.machine[row])
        # Within the state's head what came before may change a row; after it the row is as it holds.
        inside = work.raw[row] & ~states.known[place] & (state_row[row] < states.after_head[place])
        outside = row[~inside]
        rows += [row[inside], outside]
        heads.append(_as_head(work.take(row[inside]), track.role))
        heads.append(
            replace(
                _as_head(effective.take(outside), track.role),
                raw=is_early(work, states)[outside],
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


def tail_of(effective: Anchors, darkness: Ints, states: States, tracks: Sequence[Track]) -> Anchors:
    """Return the last row of every role whose head ends."""
    every = np.arange(len(effective))
    closed = states.live != OPEN
    last = states.stops - 1
    within = states.before[last] - states.before[states.live] + states.known_dark
    state = _as_tail(effective.take(every[states.rows][last[closed]]), STATE)
    tails = [replace(state, dark=within[closed])]
    for track in tracks:
        place = (track.stops - 1)[track.live != OPEN]
        row = every[track.rows][place]
        found = _as_tail(effective.take(row), track.role, track.baseline[place])
        tails.append(replace(found, dark=darkness[row] - states.before[last][states.place(found.machine)]))
    return _by_role(Anchors.concatenate(tails))


def _as_tail(rows: Anchors, role: int, value: Ints | None = None) -> Anchors:
    nothing = np.full(len(rows), ABSENT, dtype=np.int64)
    return replace(
        rows,
        total=value if value is not None and role in (TOTAL, TOTAL_AND_GOOD) else nothing,
        off=value if value is not None and role == OFF else nothing,
        good=value if value is not None and role == GOOD else nothing,
        role=np.full(len(rows), role, dtype=np.int8),
        known=np.ones(len(rows), dtype=np.bool_),
        raw=np.zeros(len(rows), dtype=np.bool_),
        stop_since_us=rows.stop_since_us if role == STATE else nothing,
    )


def overlaid(tail: Anchors, later: Anchors) -> Anchors:
    """Return a tail after what a later one says: its rows in place of these, the others carried across it."""
    kept = tail.take(~np.isin(identities(tail), identities(later)))
    kept = replace(kept, dark=kept.dark - dark_within(later, kept.machine))
    before = np.where(later.role == STATE, dark_within(tail, later.machine), 0)
    return _by_role(stacked([kept, replace(later, dark=later.dark + before)]))


def dark_within(tail: Anchors, machine: Indexes) -> Ints:
    """Return by machine how many stretches of unknown time the body before a tail has."""
    state = tail.take(tail.role == STATE)
    if not len(state):
        return np.zeros(len(machine), dtype=np.int64)
    place = np.minimum(np.searchsorted(state.machine, machine), len(state) - 1)
    return np.where(state.machine[place] == machine, state.dark[place], 0)


def beyond(head: Anchors, waiting: Anchors) -> Anchors:
    """Return what a fold's head has more than the rows that waited for it: a head only grows."""
    if not len(waiting):
        return head
    identity = identities(head)
    order = np.argsort(identity, kind="stable")
    rank = np.empty(len(head), dtype=np.int64)
    rank[order] = np.arange(len(head)) - np.searchsorted(identity[order], identity[order])
    had = np.sort(identities(waiting))
    count = np.searchsorted(had, identity, side="right") - np.searchsorted(had, identity)
    return head.take(rank >= count)


def _by_role(rows: Anchors) -> Anchors:
    return rows.take(np.lexsort((rows.role, rows.machine)))


def identities(rows: Anchors) -> Ints:
    """Return a number per row that only the rows of one machine and role share."""
    identity: Ints = rows.machine.astype(np.int64) * 8 + rows.role
    return identity
