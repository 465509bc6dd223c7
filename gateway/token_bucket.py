"""A rate that may be spent in bursts. Pure."""


class TokenBucket:
    """A rate with a second's worth of burst at most; None for no limit."""

    def __init__(self, per_sec: float | None) -> None:
        self._per_sec = per_sec
        self._level = per_sec or 0.0
        self._at = 0.0

    def wait_secs(self, amount: float, now: float, *, reserve: float = 0.0) -> float:
        """Return how long until amount may go, leaving a share of the burst (0..1) to others; 0 when now."""
        if self._per_sec is None:
            return 0.0
        self._level = min(self._per_sec, self._level + (now - self._at) * self._per_sec)
        self._at = now
        wanted = min(amount, self._per_sec * (1 - reserve)) + reserve * self._per_sec
        return max(0.0, (wanted - self._level) / self._per_sec)

    def spend(self, amount: float) -> None:
        """Take note that amount went."""
        if self._per_sec is not None:
            self._level -= amount
