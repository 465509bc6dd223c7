"""Sets of sequences behave like sets."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.outbox.ranges import Ranges, intersection

NUMBER = st.integers(0, 40)
STEPS = st.lists(st.tuples(st.sampled_from(["add", "discard"]), NUMBER, NUMBER), max_size=30)


def _both(steps: list[tuple[str, int, int]]) -> tuple[Ranges, set[int]]:
    ranges, plain = Ranges(), set()
    for how, first, last in steps:
        if how == "add":
            ranges.add(first, last)
            plain |= set(range(first, last + 1))
        else:
            ranges.discard(first, last)
            plain -= set(range(first, last + 1))
    return ranges, plain


def _members(ranges) -> set[int]:
    return {n for first, last in ranges for n in range(first, last + 1)}


@given(STEPS)
def test_ranges_hold_what_a_set_holds(steps):
    ranges, plain = _both(steps)
    assert _members(ranges) == plain
    assert ranges.count() == len(plain)
    assert all((n in ranges) == (n in plain) for n in range(-1, 42))


@given(STEPS)
def test_ranges_are_ascending_and_never_touch(steps):
    pairs = list(_both(steps)[0])
    assert all(first <= last for first, last in pairs)
    assert all(left[1] + 1 < right[0] for left, right in pairwise(pairs))


@given(STEPS, NUMBER, NUMBER)
def test_absent_and_present_part_a_stretch(steps, first, last):
    ranges, plain = _both(steps)
    stretch = set(range(first, last + 1))
    assert _members(ranges.absent(first, last)) == stretch - plain
    assert _members(ranges.present(first, last)) == stretch & plain


@given(STEPS, STEPS)
def test_intersection_is_what_all_have(one, other):
    (left, left_plain), (right, right_plain) = _both(one), _both(other)
    assert _members(intersection([left, right])) == left_plain & right_plain
