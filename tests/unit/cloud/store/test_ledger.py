"""Which sequences are stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.store.ledger import Ledger, runs
from contract.delivery import Receipt

sequences = st.lists(st.integers(0, 60), max_size=40)


def test_an_empty_ledger_has_nothing() -> None:
    ledger = Ledger()
    assert 0 not in ledger
    assert ledger.last == -1
    assert ledger.receipt() == Receipt(stored_through=0)
    assert ledger.missing(np.array([1, 2])).all()
    assert not len(ledger.missing(np.array([], dtype=np.int64)))


def test_neighbours_become_one_interval() -> None:
    ledger = Ledger([(1, 3), (5, 7)])
    change = ledger.insert(4, 4)
    assert ledger.intervals == [(1, 7)]
    assert change.removed == [(1, 3), (5, 7)]
    assert change.added == [(1, 7)]


def test_what_is_there_changes_nothing() -> None:
    ledger = Ledger([(1, 10)])
    assert ledger.insert(3, 5) == ([], [])
    assert ledger.intervals == [(1, 10)]


@pytest.mark.parametrize(
    ("intervals", "base", "receipt"),
    [
        ([(5, 9)], None, Receipt(stored_through=0, stored_beyond=[(5, 9)])),
        ([(5, 9)], 5, Receipt(stored_through=9)),
        ([(5, 9)], 4, Receipt(stored_through=3, stored_beyond=[(5, 9)])),
        ([(1, 2), (5, 9), (12, 13)], 5, Receipt(stored_through=9, stored_beyond=[(12, 13)])),
        ([(1, 2)], 100, Receipt(stored_through=99)),
        ([], 0, Receipt(stored_through=0)),
        ([(0, 4)], 0, Receipt(stored_through=4)),
    ],
)
def test_a_receipt_never_says_more_than_is_stored(
    intervals: list[tuple[int, int]], base: int | None, receipt: Receipt
) -> None:
    assert Ledger(intervals, base).receipt() == receipt


def test_of_too_many_ranges_the_oldest_and_the_newest_are_told() -> None:
    ledger = Ledger([(n, n) for n in range(0, 100, 2)], base=0)
    receipt = ledger.receipt(max_ranges=4)
    assert receipt == Receipt(stored_through=0, stored_beyond=[(2, 2), (4, 4), (96, 96), (98, 98)])


def test_a_copy_is_independent() -> None:
    ledger = Ledger([(1, 3)], base=1)
    twin = ledger.copy()
    twin.insert(4, 9)
    assert ledger.intervals == [(1, 3)]
    assert twin.base == 1


@settings(deadline=None)
@given(st.lists(sequences, max_size=6), sequences)
def test_a_ledger_is_a_set_of_integers(batches: list[list[int]], asked: list[int]) -> None:
    ledger, truth, mirror = Ledger(), set[int](), set[tuple[int, int]]()
    for batch in batches:
        numbers = np.array(batch, dtype=np.int64)
        assert ledger.missing(numbers).tolist() == [number not in truth for number in batch]
        change = ledger.insert_all(numbers)
        truth.update(batch)
        mirror.difference_update(change.removed)
        mirror.update(change.added)
        assert sorted(mirror) == ledger.intervals
    assert ledger.intervals == runs(np.array(sorted(truth), dtype=np.int64))
    assert all((number in ledger) == (number in truth) for number in asked)
    assert ledger.missing(np.array(asked, dtype=np.int64)).tolist() == [n not in truth for n in asked]
