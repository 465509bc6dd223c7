"""What the status says of connections: how fast values come, and what else a message has room for. Pure."""

from collections import deque
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from contract.delivery import Status

_WINDOW_SECS: Final = 10.0
MAX_STATUS_BYTES: Final = 60_000
"""Half of what AWS IoT Core takes in one message."""
_Told = TypeVar("_Told")


class Pace:
    """How much was counted in a second, as the mean of the last ten."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def note(self, at_secs: float, messages: int, values: int) -> None:
        """Take note of what the counters show at a moment of the monotonic clock."""
        if self._seen and messages < self._seen[-1][1]:
            self._seen.clear()  # another source counts from nothing
        self._seen.append((at_secs, messages, values))
        while len(self._seen) > 2 and self._seen[1][0] <= at_secs - _WINDOW_SECS:
            self._seen.popleft()

    def per_sec(self) -> tuple[float, float]:
        """Return messages and values per second; zeros while that is unknown."""
        if len(self._seen) < 2:
            return 0.0, 0.0
        (began, messages, values), (ended, messages_now, values_now) = self._seen[0], self._seen[-1]
        secs = max(ended - began, 1e-3)
        return round((messages_now - messages) / secs, 2), round((values_now - values) / secs, 2)


def encode_status(status: Status, max_bytes: int = MAX_STATUS_BYTES) -> bytes:
    """Write a status; where it is too long, with fewer values and then fewer faults, fairly by connection."""
    payload = msgspec.json.encode(status)
    while len(payload) > max_bytes and (status.values or status.faults):
        if status.values:
            status = msgspec.structs.replace(status, values=status.values[: len(status.values) // 2])
        else:
            status = msgspec.structs.replace(status, faults=status.faults[-(len(status.faults) // 2) :])
        payload = msgspec.json.encode(status)
    return payload


def by_turns(lists: Sequence[Sequence[_Told]]) -> list[_Told]:
    """Return the first of each list, then the second of each, and so on: what is cut off is cut fairly."""
    longest = max(map(len, lists), default=0)
    return [one[turn] for turn in range(longest) for one in lists if turn < len(one)]
