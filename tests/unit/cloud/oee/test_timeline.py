from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.oee import records
from cloud.oee.pieces import NOTHING
from cloud.oee.records import Names
from cloud.oee.timeline import build, extend
from tests.support.telemetry import SEC, any_rules, as_records, cuts, histories, joined, rows, rules, whole

EDGES = cuts(*range(0, 1000, 20))


@settings(max_examples=150, deadline=None)
@given(
    histories(),
    any_rules(),
    st.lists(st.integers(0, 40), max_size=6),
    st.lists(st.integers(0, 5), max_size=6),
)
def test_any_split_joined_in_any_order_is_the_whole(items, how, splits, order):
    names = Names()
    every = as_records(items, names)
    how = rules(names, **how)
    # Split all machines' records at the same places in time, so that a part holds several machines.
    bounds = [0.0, *sorted(split * 7.5 for split in splits), 10_000.0]
    parts = [
        every.take((every.time_us >= low * SEC) & (every.time_us < high * SEC))
        for low, high in pairwise(bounds)
    ]
    expected = whole(build(every, how, EDGES), 0, 900, how, EDGES)
    assert whole(joined(parts, how, EDGES, order), 0, 900, how, EDGES) == expected


@settings(max_examples=100, deadline=None)
@given(histories(), any_rules(), st.lists(st.integers(0, 5), max_size=9))
def test_record_by_record_is_the_whole(items, how, order):
    names = Names()
    every = as_records(items, names)
    how = rules(names, **how)
    parts = [every.take(slice(row, row + 1)) for row in range(len(every))]
    expected = whole(build(every, how, EDGES), 0, 900, how, EDGES)
    assert whole(joined(parts, how, EDGES, order), 0, 900, how, EDGES) == expected


@settings(max_examples=100, deadline=None)
@given(histories(), any_rules(), st.integers(1, 5))
def test_a_piece_that_is_extended_is_the_whole(items, how, size):
    names = Names()
    every = as_records(items, names)
    how = rules(names, **how)
    expected = whole(build(every, how, EDGES), 0, 900, how, EDGES)
    piece = NOTHING
    for row in range(0, len(every), size):
        piece = extend(piece, every.take(slice(row, row + size)), how, EDGES)
    assert whole(piece, 0, 900, how, EDGES) == expected


@settings(max_examples=100, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_shuffled_and_repeated_records_are_the_same_records(items, random):
    names = Names()
    expected = as_records(items, names)
    again = items + random.choices(items, k=5)
    random.shuffle(again)
    assert rows(as_records(again, names)) == rows(expected)
    halves = [records.unordered(again[::2], names), records.unordered(again[1::2], names)]
    assert rows(records.merged(halves, names)) == rows(expected)


@settings(max_examples=100, deadline=None)
@given(histories(), any_rules())
def test_every_instant_is_in_exactly_one_segment(items, how):
    names = Names()
    every = as_records(items, names)
    how = rules(names, **how)
    segments, _ = whole(build(every, how, EDGES), 0, 900, how, EDGES)
    for machine in range(3):
        mine = [row for row in segments if row[0] == machine]
        assert mine[0][1] == 0
        assert mine[-1][2] == 900_000_000
        assert all(one[2] == other[1] for one, other in pairwise(mine))


def test_no_records_have_no_segments():
    names = Names()
    nothing = as_records([], names)
    how = rules(names)
    segments, counts = whole(build(nothing, how, EDGES), 0, 900, how, EDGES)
    assert [row[:4] for row in segments] == [(machine, 0, 900_000_000, 6) for machine in range(3)]
    assert counts == []
    assert np.array_equal(nothing.machine, [])
