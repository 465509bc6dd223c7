"""Sums over the last while, from samples of the running shift's sums: pure.

The window begins anew where its sums could mislead: after time of which nothing was known, and where records
came late, since then sums grow by more than the time that passed.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

_RESOLUTION: Final = 120
"""Samples per window."""
_TOLERANCE_US: Final = 2_500_000
"""By how much running time may grow beyond the time that passed: a look's own delay."""


class Sums(NamedTuple):
    """Sums of a running shift."""

    shift_start_us: int
    running_us: int
    ideal_us: int
    """What the units would have taken at their ideal rates."""
    total_units: int
    off_quality_units: int


class Tally(NamedTuple):
    """What was done in a window."""

    span_us: int
    running_us: int
    ideal_us: int
    total_units: int
    off_quality_units: int


_NOTHING: Final = Tally(0, 0, 0, 0, 0)


class Window:
    """Samples of one machine, long enough for a window of time, or of running time."""

    def __init__(self, window_us: int, of: Literal["time", "running"]) -> None:
        self._window_us = window_us
        self._of = 0 if of == "time" else 1
        self._samples: deque[tuple[int, Tally]] = deque()
        """(instant, sums since the first sample), ascending."""
        self._last: tuple[int, Sums] | None = None

    def begin_with(self, parts: Sequence[Tally], now_us: int) -> None:
        """Begin with what the store says of consecutive stretches of the time up to now."""
        at_us = now_us - sum(part.span_us for part in parts)
        self._samples = deque([(at_us, _NOTHING)])
        for part in parts:
            at_us += part.span_us
            so_far = self._samples[-1][1]
            self._samples.append((at_us, Tally(*map(sum, zip(so_far, part, strict=True)))))

    def forget(self) -> None:
        """Begin anew: nothing is known of the time since the last sample."""
        self._samples.clear()
        self._last = None

    def add(self, now_us: int, sums: Sums) -> None:
        """Take a sample."""
        last, self._last = self._last, (now_us, sums)
        if not self._samples:
            self._samples.append((now_us, _NOTHING))
        if last is None:
            return
        before_us, before = last
        same = before.shift_start_us == sums.shift_start_us
        grown = [now - (then if same else 0) for now, then in zip(sums[1:], before[1:], strict=True)]
        if min(grown) < 0 or grown[0] > now_us - before_us + _TOLERANCE_US:
            self._samples = deque([(now_us, _NOTHING)])
            return
        at_us, so_far = self._samples[-1]
        fresh = Tally(
            so_far.span_us + now_us - at_us,
            *(old + more for old, more in zip(so_far[1:], grown, strict=True)),
        )
        if len(self._samples) > 1 and self._is_close(fresh):
            self._samples.pop()
        self._samples.append((now_us, fresh))

    def tally(self) -> Tally | None:
        """Return what was done in the last window; None when less is known."""
        if not self._samples:
            return None
        newest = self._samples[-1][1]
        wanted = newest[self._of] - self._window_us
        if self._samples[0][1][self._of] > wanted:
            return None
        while len(self._samples) > 1 and self._samples[1][1][self._of] <= wanted:
            self._samples.popleft()
        return Tally(*(now - then for now, then in zip(newest, self._at(wanted), strict=True)))

    def _at(self, wanted: int) -> Tally:
        """Return the sums when the window began, between two samples in proportion."""
        first = self._samples[0][1]
        if len(self._samples) == 1 or first[self._of] == wanted:
            return first
        second = self._samples[1][1]
        share = (wanted - first[self._of]) / (second[self._of] - first[self._of])
        return Tally(*(low + round(share * (high - low)) for low, high in zip(first, second, strict=True)))

    def _is_close(self, fresh: Tally) -> bool:
        """Tell whether the last sample may give way to a newer one."""
        grown = fresh[self._of] - self._samples[-2][1][self._of]
        return grown < self._window_us // _RESOLUTION
