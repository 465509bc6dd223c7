import numpy as np
import pytest

from cloud.oee.counters import forgets, increments


def made(values, *, jitter=0, modulus=0, machines=None):
    machine = np.array(machines or [0] * len(values), dtype=np.int32)
    width = max(machine, default=0) + 1
    step, baseline = increments(
        machine,
        np.array(values, dtype=np.int64),
        np.full(width, jitter, dtype=np.int64),
        np.full(width, modulus, dtype=np.int64),
    )
    return step.tolist(), baseline.tolist()


@pytest.mark.parametrize(
    ("values", "how", "expected"),
    [
        ([7], {}, [0]),
        ([7, 7, 9], {}, [0, 0, 2]),
        ([100, 3, 10], {}, [0, 3, 7]),
        ([100, 0, 0, 5], {}, [0, 0, 0, 5]),
        ([100, 99, 100, 102], {"jitter": 1}, [0, 0, 0, 2]),
        ([100, 99, 98], {"jitter": 1}, [0, 0, 98]),
        ([100, 99, 98, 97, 100], {"jitter": 1}, [0, 0, 98, 0, 2]),
        ([65_530, 4], {"modulus": 65_536}, [0, 10]),
        ([65_530, 4], {"modulus": 65_536, "jitter": 5}, [0, 10]),
        ([65_530, 65_529, 4], {"modulus": 65_536, "jitter": 5}, [0, 0, 10]),
        ([49_151, 0], {"modulus": 65_536}, [0, 0]),
        ([49_152, 0], {"modulus": 65_536}, [0, 16_384]),
        ([60_000, 30_000], {"modulus": 65_536}, [0, 30_000]),
        ([70_000, 5], {"modulus": 65_536}, [0, 5]),
        ([2**53, 1], {"modulus": 0}, [0, 1]),
    ],
)
def test_increments(values, how, expected):
    assert made(values, **how)[0] == expected


def test_machines_do_not_meet():
    assert made([5, 9, 100, 101, 3, 4], machines=[0, 0, 1, 1, 2, 2])[0] == [0, 4, 0, 1, 0, 1]


def test_noise_of_one_machine_leaves_others_alone():
    assert made([100, 99, 100, 50, 40], machines=[0, 0, 0, 1, 1], jitter=1)[0] == [0, 0, 0, 0, 40]


def test_long_noise_is_found_across_windows():
    values = [1000 + number // 10 - number % 2 for number in range(1000)]
    step, baseline = made(values, jitter=1)
    assert sum(step) == max(values) - values[0]
    assert baseline == list(np.maximum.accumulate(values))


def test_a_falling_counter_with_jitter_takes_no_time_to_speak_of():
    values = list(range(200_000, 0, -1))
    step, _ = made(values, jitter=1)
    assert sum(count > 0 for count in step) == 100_000 - 1


@pytest.mark.parametrize(
    ("values", "jitter", "expected"),
    [
        ([], 0, None),
        ([5], 0, 0),
        ([5], 2, None),
        ([5, 6], 2, None),
        ([5, 7], 2, 1),
        ([5, 2], 2, 1),
        ([5, 3], 2, None),
        ([5, 4, 1], 2, 2),
        ([5, 4, 2], 2, None),
    ],
)
def test_forgets(values, jitter, expected):
    assert forgets(np.array(values, dtype=np.int64), jitter) == expected
