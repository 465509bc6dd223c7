"""What was counted between successive readings of cumulative counters.

A counter that falls was reset, and what it shows is what it counted since; unless it stood near the top of
its width, when it rolled over. A fall of at most `jitter` below the highest value since the last reset is
noise: 100, 99, 100 counts nothing.
"""

from typing import Final

import numpy as np

from cloud.oee.columns import Flags, Indexes, Ints, firsts

_WINDOW: Final = 64


def increments(machine: Indexes, value: Ints, jitter: Ints, modulus: Ints) -> tuple[Ints, Ints]:
    """Return (increment, baseline) of each reading; a machine's first reading counts nothing.

    machine, value: the readings, sorted by machine and then by time
    jitter: [units] per machine index, the largest fall that is ignored
    modulus: [units] per machine index, 2 ** width of the counter; 0: it never rolls over
    baseline: what the next reading has to be compared with; the reading itself but for jitter
    """
    step = np.zeros(len(value), dtype=np.int64)
    np.subtract(value[1:], value[:-1], out=step[1:])
    first = firsts(machine)
    step[first] = 0
    falls = np.flatnonzero(step < 0)
    if not len(falls):
        return step, value
    baseline = value
    noisy = np.unique(machine[falls][jitter[machine[falls]] > 0])
    if len(noisy):
        baseline = value.copy()
        for index in noisy:
            rows = slice(*np.searchsorted(machine, (index, index + 1)))
            baseline[rows] = _baseline(value[rows], int(jitter[index]))
        step[1:] = baseline[1:] - baseline[:-1]
        step[first] = 0
        falls = np.flatnonzero(step < 0)
    before, after, width = baseline[falls - 1], baseline[falls], modulus[machine[falls]]
    step[falls] = np.where(rolled_over(before, after, width), after + width - before, after)
    return step, baseline


def rolled_over(before: Ints, after: Ints, modulus: Ints) -> Flags:
    """Tell which falls are rollovers: from the top quarter of the width, by less than half of it."""
    result: Flags = (
        (before < modulus) & (before >= modulus - modulus // 4) & (after + modulus - before < modulus // 2)
    )
    return result


def beyond_width(machine: Indexes, value: Ints, modulus: Ints) -> Indexes:
    """Return the machines of which a reading is too large for its counter's width."""
    width = modulus[machine]
    return np.unique(machine[(width > 0) & (value >= width)])


def forgets(value: Ints, jitter: int) -> int | None:
    """Return from which reading of one machine on it no longer matters what was read before the first.

    The baseline before may be up to `jitter` above the first reading. It is forgotten at a reading that is as
    high as that, or so low that it is a reset whatever the baseline was; None: not within these readings.
    """
    if jitter == 0 or not len(value):
        return 0 if len(value) else None
    lowest = np.minimum.accumulate(value)[:-1]
    sure = (value[1:] >= value[0] + jitter) | (value[1:] < lowest - jitter)
    return int(np.argmax(sure)) + 1 if sure.any() else None


def _baseline(value: Ints, jitter: int) -> Ints:
    """Return the highest value since the last reset, one window of readings after another."""
    baseline = value.copy()
    start, size = 0, _WINDOW
    while start < len(baseline) - 1:
        window = baseline[start : start + size]
        highest = np.maximum.accumulate(window)
        resets = highest - window > jitter
        if resets.any():
            length = int(np.argmax(resets))
            window[:length] = highest[:length]
            start, size = start + length, _WINDOW
        else:
            window[:] = highest
            start, size = start + len(window) - 1, size * 2  # the highest value opens the next window
    return baseline
