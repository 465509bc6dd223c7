"""Carries what is queued in the store to one receiver: mail, a chat, a web address, a database.

What is queued stays queued until the receiver has taken it, over restarts, in order. A receiver that cannot
be reached is asked again at growing intervals and holds up no other one: each has a thread and a queue of its
own. After a crash between sending and noting it, the last message is sent once more.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, NamedTuple, TypeVar

import structlog

from cloud.errors import CloudError

IDLE_SECS: Final = 0.5
_FIRST_RETRY_SECS: Final = 1.0

Item = TypeVar("Item")

_log = structlog.get_logger("cloud.carrier")


class Statistics(NamedTuple):
    """What a carrier has done since the start."""

    sent: int
    failures: int
    dropped: int
    """Messages that were never sent: too old, or refused for good."""


class Carrier(ABC, Generic[Item]):
    """Empties one queue."""

    def __init__(self, name: str, *, retry_max_secs: float) -> None:
        self.name = name
        self._retry_max_secs = retry_max_secs
        self._fault: str | None = None
        self._in_a_row = 0
        self._sent = self._failures = self._dropped = 0
        self._woken = asyncio.Event()

    @abstractmethod
    def waiting(self) -> Sequence[Item]:
        """Return what waits, oldest first, at most as much as is held in memory at once."""

    @abstractmethod
    def carry(self, item: Item) -> bool:
        """Send one item or drop it; return False when it has to wait, raise CloudError when it was not taken.

        Blocks for seconds at most.
        """

    @abstractmethod
    def done(self, item: Item) -> None:
        """Note that an item needs not be sent any more."""

    @property
    def statistics(self) -> Statistics:
        """Return what was done since the start."""
        return Statistics(self._sent, self._failures, self._dropped)

    @property
    def fault(self) -> str | None:
        """Return why the receiver takes nothing now; None when it does."""
        return self._fault

    async def run(self) -> None:
        """Send until cancelled, in a thread of its own: no receiver waits for another."""
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"cloud.carrier.{self.name}")
        try:
            while True:
                self._woken.clear()
                wait_secs = await loop.run_in_executor(thread, self.turn)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), wait_secs)
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    def wake(self) -> None:
        """Look at once, in the loop's thread; a receiver that takes nothing has its pause."""
        if self._fault is None:
            self._woken.set()

    def turn(self) -> float:
        """Send what may be sent now, oldest first; return how long to wait [s]."""
        try:
            while items := self.waiting():
                for item in items:
                    if not self.carry(item):
                        return IDLE_SECS
                    self.done(item)
        except Exception as error:  # noqa: BLE001  whatever a receiver does, it is asked again and named here
            return self._later(error)
        return IDLE_SECS

    def _note_sent(self) -> None:
        """Count what was taken; after a fault, say that it is over."""
        self._sent += 1
        self._in_a_row = 0
        if self._fault is not None:
            _log.info("the channel takes messages again", channel=self.name)
        self._fault = None

    def _note_dropped(self, why: str, what: str) -> None:
        self._dropped += 1
        _log.warning(why, channel=self.name, what=what, dropped=self._dropped)

    def _later(self, error: Exception) -> float:
        fault = str(error) if isinstance(error, CloudError) else type(error).__name__
        if fault != self._fault:
            _log.warning("the channel takes no messages", channel=self.name, fault=fault)
        self._fault = fault
        self._failures += 1
        wait_secs = min(self._retry_max_secs, _FIRST_RETRY_SECS * 2.0 ** min(self._in_a_row, 30))
        self._in_a_row += 1
        return float(wait_secs)
