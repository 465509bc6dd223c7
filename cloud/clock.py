"""What time it is: read here, handed on as an argument."""

import time
from collections.abc import Callable
from typing import Final

_CLOCK_STEP_US: Final = 2_000_000
"""By so much a clock is set, and does not drift between two looks."""


def clock_us() -> int:
    """Return this machine's clock [us since 1970 UTC]."""
    return time.time_ns() // 1000


def monotonic_us() -> int:
    """Return how long time goes by now, whatever is done to the clock [us]."""
    return time.monotonic_ns() // 1000


class Watch:
    """Tells since when something holds, by a clock that may be set: of what was before nothing is known."""

    def __init__(
        self, *, now_us: Callable[[], int] = clock_us, monotonic_us: Callable[[], int] = monotonic_us
    ) -> None:
        self._now_us = now_us
        self._monotonic_us = monotonic_us
        self._ahead_us: int | None = None
        self._of_us = 0
        self._since_us = 0

    def since_us(self, began_us: int) -> int:
        """Return when something began [us since 1970], or when the clock was set since.

        began_us: by the clock as it was then
        """
        now_us = self._now_us()
        ahead_us = now_us - self._monotonic_us()
        is_set = self._ahead_us is not None and abs(ahead_us - self._ahead_us) > _CLOCK_STEP_US
        self._ahead_us = ahead_us
        if is_set:
            self._since_us = now_us
        elif began_us != self._of_us:
            self._since_us = began_us
        self._of_us = began_us
        return self._since_us


def thread_cpu_us() -> int:
    """Return how much processor time the calling thread has used [us]."""
    return time.thread_time_ns() // 1000
