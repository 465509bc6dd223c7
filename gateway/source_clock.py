"""What time it is at a source, and at a server, judged by how old what comes from it is. Pure."""

from typing import Final

_US: Final = 1_000_000
_NEVER: Final = 1 << 62
_LAG_WINDOW_US: Final = 60 * _US
_DOUBTED_RISE_US: Final = 5 * _US
_SET_BACK_US: Final = _US
_LONGEST_WAY_US: Final = 60 * _US


class SourceClock:
    """What time it is at the source, judged by how old its values are when they come.

    The lag is the least that was seen in the last one to two minutes. Before any fresh value has come it is
    unknown, and after `assume_live_after_us` taken to be nothing.

    A value can be old although the clock that stamped it is right (a module that was away, a buffer), but
    never younger than its clock says. So a lag that falls is believed at once; one that would rise by much,
    only when a second value, later at the source, says the same.
    """

    def __init__(self, assume_live_after_us: int, lag_us: int | None = None) -> None:
        self._assume_live_after_us = assume_live_after_us
        self._connected_us = _NEVER
        self._window_us = 0
        self._least: int | None = None
        self._least_before: int | None = None
        self._doubted_us: int | None = None
        self.lag_us = lag_us
        """[us] our clock less the source's; None while unknown."""

    def connected(self, wall_us: int) -> None:
        """Take note that values of this source come from now on."""
        self._connected_us = min(self._connected_us, wall_us)

    def lost(self) -> None:
        """Take note that no values come any more."""
        self._connected_us = _NEVER

    def heard(self, source_us: int, wall_us: int) -> None:
        """Take note of the newest of some fresh values and of when it came."""
        lag = wall_us - source_us
        if wall_us - self._window_us >= _LAG_WINDOW_US or wall_us < self._window_us:
            is_recent = abs(wall_us - self._window_us) < 2 * _LAG_WINDOW_US
            self._least_before, self._least = self._least if is_recent else None, None
            self._window_us = wall_us
        self._least = lag if self._least is None else min(lag, self._least)
        least = self._least if self._least_before is None else min(self._least, self._least_before)
        rises = self.lag_us is not None and least - self.lag_us > _DOUBTED_RISE_US
        if rises and (self._doubted_us is None or source_us <= self._doubted_us):
            self._doubted_us = source_us
            return
        self._doubted_us = None
        self.lag_us = least

    def at(self, wall_us: int) -> int | None:
        """Return the source's time at a moment of ours; None while unknown."""
        if self.lag_us is None:
            if wall_us - self._connected_us < self._assume_live_after_us:
                return None
            self.lag_us = 0
        return wall_us - self.lag_us


class ServerClock:
    """When, by our clock, a server made the messages that come from it.

    It goes on over connections, and is told what a server says of the time before its messages come: one
    that begins with messages that were long under way has nothing else to tell by that they were, and what
    they do not tell of yet would count as unchanged.

    Messages come in the order in which they were made, and none is under way for long: a connection that is
    so slow is given up. One that seems otherwise shows that a clock was set, and all that was known of it is
    forgotten.
    """

    def __init__(self) -> None:
        self._clock = SourceClock(0)
        self._newest_us = 0

    def asked(self, told_us: int, sent_us: int) -> None:
        """Take note of the time that a server told, not before we asked [us, its clock and ours]."""
        self._clock.heard(told_us, sent_us)

    def heard(self, made_us: int, now_us: int) -> int:
        """Take note of a new message; return when it was made [us, our clock], now where it does not say.

        made_us: [us, the server's clock] 0 where it does not say
        """
        if made_us <= 0:
            return now_us
        lag_us = self._clock.lag_us
        is_long = lag_us is not None and now_us - made_us - lag_us > _LONGEST_WAY_US
        if is_long or made_us < self._newest_us - _SET_BACK_US:
            self._clock = SourceClock(0)
        self._newest_us = made_us
        self._clock.heard(made_us, now_us)
        return self.ours(made_us, now_us)

    def ours(self, made_us: int, at_most_us: int) -> int:
        """Return what time it was here when the server's clock showed a time; at most a bound [us]."""
        return min(at_most_us, made_us + (self._clock.lag_us or 0))
