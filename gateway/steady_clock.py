"""A clock that does not jump with the machine's, but comes after it. Pure."""

from collections.abc import Callable
from typing import Final

_US: Final = 1_000_000
_JUMP_US: Final = 2 * _US
"""A difference that no slewing makes between two readings a second apart."""
_BELIEVED_AFTER_US: Final = 60 * _US
_AT_ONCE_US: Final = 10_000
_TRIES: Final = 10


class SteadyClock:
    """The machine's clock, except that a jump of it is believed only once it has lasted a minute.

    A clock that someone sets wrong and right again must neither stamp a record nor make a PLC's own times
    look as if they lay in the future.

    wall_us: [us since 1970] the machine's clock, which may be set
    elapsed_us: [us] what cannot be set, and goes on while the machine sleeps
    """

    def __init__(self, wall_us: Callable[[], int], elapsed_us: Callable[[], int]) -> None:
        self._wall_us = wall_us
        self._elapsed_us = elapsed_us
        _, self._offset_us = self._read()
        self._doubted: tuple[int, int] | None = None
        """Since when there is another offset, and which."""

    def __call__(self) -> int:
        """Return microseconds since 1970."""
        elapsed_us, offset_us = self._read()
        if abs(offset_us - self._offset_us) < _JUMP_US:
            self._offset_us, self._doubted = offset_us, None
        elif self._doubted is None or abs(offset_us - self._doubted[1]) >= _JUMP_US:
            self._doubted = elapsed_us, offset_us
        elif elapsed_us - self._doubted[0] >= _BELIEVED_AFTER_US:
            self._offset_us, self._doubted = offset_us, None
        return elapsed_us + self._offset_us

    def _read(self) -> tuple[int, int]:
        """Return what has elapsed, and the machine's clock less it [us].

        Two clocks show two moments where this process is put aside between them: then they are read again.
        """
        for _ in range(_TRIES):
            before_us = self._elapsed_us()
            wall_us = self._wall_us()
            elapsed_us = self._elapsed_us()
            if elapsed_us - before_us <= _AT_ONCE_US:
                break
        return elapsed_us, wall_us - elapsed_us
