"""Messages that belong together say the same as their values one after the other."""

import random

import pytest

from gateway.sources.columns import Columns, Gathered


def message(dice: random.Random, handles: list[int]) -> Columns:
    """Values of these tags, of one time or each of its own, now and then without any."""
    together = dice.randrange(1, 10**6)
    times = [together if dice.random() < 0.5 else dice.choice([0, dice.randrange(1, 10**6)]) for _ in handles]
    if dice.random() < 0.5:
        times = [together] * len(handles)
    overflowed = [place for place in range(len(handles)) if dice.random() < 0.05]
    return Columns(list(handles), [dice.random() for _ in handles], [0] * len(handles), times, overflowed)


@pytest.mark.parametrize("seed", range(20))
def test_gathered_messages_are_their_values_in_order(seed: int) -> None:
    dice = random.Random(seed)
    gathered = Gathered()
    one_by_one = Columns()
    newest: dict[int, int] = {}
    usual = list(range(20))
    for sequence in range(1, dice.choice([2, 20, 200])):
        handles = usual if dice.random() < 0.6 else [dice.randrange(30) for _ in range(dice.randrange(5))]
        found = message(dice, handles)
        gathered.add(sequence, found)
        one_by_one.extend(found)
        newest.update(zip(found.handles, found.source_us, strict=True))
        assert gathered.sequences == list(range(1, sequence + 1))
    assert gathered.columns == one_by_one
    if len(one_by_one):
        assert (gathered.least_us, gathered.most_us) == (
            min(one_by_one.source_us),
            max(one_by_one.source_us),
        )
    assert gathered.newest_us() == newest


def test_values_of_no_message_are_gathered_alike() -> None:
    found = Columns([3, 3], [1, 2], [0, 0], [5, 4], [1])
    gathered = Gathered.of(found)
    assert (gathered.columns, gathered.sequences) == (found, [])
    assert (gathered.least_us, gathered.most_us) == (4, 5)
    assert gathered.newest_us() == {3: 4}


def test_nothing_gathered_is_nothing() -> None:
    gathered = Gathered()
    gathered.add(7, Columns())
    assert (len(gathered.columns), gathered.sequences, gathered.newest_us()) == (0, [7], {})
