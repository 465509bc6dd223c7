"""A small seeded generator whose numbers are the same on every machine and Python version."""

import hashlib
import math
from collections.abc import Sequence
from typing import Final

_MASK: Final = 2**64 - 1
_STEP: Final = 0x9E3779B97F4A7C15


class Dice:
    """One independent stream of random numbers per set of names (splitmix64)."""

    __slots__ = ("_state",)

    def __init__(self, *names: object) -> None:
        digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
        self._state = int.from_bytes(digest[:8], "big")

    def bits(self) -> int:
        """Return 64 random bits."""
        self._state = (self._state + _STEP) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)

    def uniform(self) -> float:
        """Return a number in (0, 1]."""
        return ((self.bits() >> 11) + 1) / 2**53

    def between(self, low: float, high: float) -> float:
        """Return a number in (low, high], every one as likely."""
        return low + (high - low) * self.uniform()

    def exponential(self, mean: float) -> float:
        """Return a waiting time of this mean."""
        return -mean * math.log(self.uniform())

    def waiting(self, probability: float) -> int:
        """Return how many trials it takes until one succeeds, at least 1 (geometric)."""
        if probability >= 1:
            return 1
        return 1 + int(math.log(self.uniform()) / math.log1p(-probability))

    def weighted(self, weights: Sequence[float]) -> int:
        """Return an index, each as likely as its weight."""
        left = self.uniform() * sum(weights)
        for index, weight in enumerate(weights):
            left -= weight
            if left <= 0:
                return index
        return len(weights) - 1
