"""Carries what is queued in the store to one receiver: mail, a chat, a web address, a database.

What is queued stays queued until the receiver has taken it, over restarts, in order. A receiver that cannot
be reached is asked again at growing intervals and holds up no other one: each has a thread and a queue of its
own. After a crash between sending and noting it, the last message is sent once more; a store that cannot note
it for a while, such as on a full disk, has nothing sent twice. What was sent is counted in the store, for as
long as the receiver is known.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec
import structlog

from cloud.clock import clock_us
from cloud.errors import CloudError, StoreError
from cloud.store.port import Store
from cloud.views import ChannelView

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

    def __init__(
        self,
        name: str,
        store: Store,
        *,
        kind: str,
        retry_max_secs: float,
        now_us: Callable[[], int] = clock_us,
    ) -> None:
        self.name = name
        self._store = store
        self._retry_max_secs = retry_max_secs
        self._now_us = now_us
        known = next((each for each in store.channels() if each.name == name), None)
        self._before = known or ChannelView(name=name, kind=kind, waiting=0)
        self.table: object = None
        """What the configuration says of the receiver."""
        self.view = self._before
        """What was done since the receiver is known, and what waited at the last turn."""
        self._last_sent_epochtime = self._before.last_sent_epochtime
        self._last_dropped_epochtime = self._before.last_dropped_epochtime
        self._is_stopped = False
        self._fault: str | None = None
        self._in_a_row = 0
        self._sent = self._failures = self._dropped = 0
        self._unnoted: Item | None = None
        """What was taken last, while the store cannot note that it was."""
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

    @abstractmethod
    def backlog(self) -> int:
        """Return how much waits."""

    def reopen(self) -> None:
        """Forget the way to the receiver after a fault, so that its address and secret are read anew."""

    def oldest_epochtime(self) -> float | None:
        """Return of when the oldest is that waits, where that is told."""
        return None

    @property
    def statistics(self) -> Statistics:
        """Return what was done since the start."""
        return Statistics(self._sent, self._failures, self._dropped)

    @property
    def fault(self) -> str | None:
        """Return why the receiver takes nothing now; None when it does."""
        return self._fault

    async def run(self) -> None:
        """Send until stopped or cancelled, in a thread of its own: no receiver waits for another."""
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"cloud.carrier.{self.name}")
        try:
            while not self._is_stopped:
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

    def stop(self) -> None:
        """Send nothing more but what is on its way, in the loop's thread; `run` returns."""
        self._is_stopped = True
        self._woken.set()

    def turn(self) -> float:
        """Send what may be sent now, oldest first, and keep count; return how long to wait [s]."""
        wait_secs = self._send()
        done = self.statistics
        with contextlib.suppress(StoreError):  # a store that cannot be used says so itself
            now = msgspec.structs.replace(
                self.view,
                sent=self._before.sent + done.sent,
                failures=self._before.failures + done.failures,
                dropped=self._before.dropped + done.dropped,
                fault=self._fault,
                waiting=self.backlog(),
                oldest_epochtime=self.oldest_epochtime(),
                last_sent_epochtime=self._last_sent_epochtime,
                last_dropped_epochtime=self._last_dropped_epochtime,
            )
            if now != self.view:
                self._store.save_channel(now)
                self.view = now
        return wait_secs

    def _send(self) -> float:
        try:
            while items := self.waiting():
                for item in items:
                    if self._is_stopped:
                        return IDLE_SECS
                    if item != self._unnoted and not self.carry(item):
                        return IDLE_SECS
                    self._unnoted = item
                    self.done(item)
                    self._unnoted = None
                    self._note_recovery()
        except Exception as error:  # noqa: BLE001  whatever a receiver does, it is asked again and named here
            return self._later(error)
        return IDLE_SECS

    def _note_sent(self) -> None:
        """Count what was taken."""
        self._sent += 1
        self._in_a_row = 0
        self._last_sent_epochtime = self._now_us() / 1e6
        self._note_recovery()

    def _note_recovery(self) -> None:
        """Say that a fault is over."""
        if self._fault is not None:
            _log.info("the channel takes messages again", channel=self.name)
        self._fault = None

    def _note_dropped(self, why: str, what: str) -> None:
        self._dropped += 1
        self._last_dropped_epochtime = self._now_us() / 1e6
        _log.warning(why, channel=self.name, what=what, dropped=self._dropped)

    def _later(self, error: Exception) -> float:
        fault = str(error) if isinstance(error, CloudError) else type(error).__name__
        if fault != self._fault:
            _log.warning("the channel takes no messages", channel=self.name, fault=fault)
        self._fault = fault
        self._failures += 1
        self.reopen()
        wait_secs = min(self._retry_max_secs, _FIRST_RETRY_SECS * 2.0 ** min(self._in_a_row, 30))
        self._in_a_row += 1
        return float(wait_secs)


class Running:
    """The carriers at work, whichever these are by now; in the loop's thread."""

    def __init__(self) -> None:
        self._at_work: dict[str, tuple[Carrier[Any], asyncio.Task[None]]] = {}

    def serve(self, carriers: Iterable[Carrier[Any]], group: asyncio.TaskGroup) -> None:
        """Let these work, and no others; who takes another's place begins when that one has ended."""
        wanted = {carrier.name: carrier for carrier in carriers}
        leaving: dict[str, asyncio.Task[None]] = {}
        for name, (carrier, task) in list(self._at_work.items()):
            if wanted.get(name) is not carrier:
                carrier.stop()
                leaving[name] = task
                del self._at_work[name]
        for name, carrier in wanted.items():
            if name not in self._at_work:
                work = _after(leaving.get(name), carrier)
                self._at_work[name] = carrier, group.create_task(work, name=f"cloud.carrier.{name}")


async def _after(leaving: asyncio.Task[None] | None, carrier: Carrier[Any]) -> None:
    if leaving is not None:
        await asyncio.wait([leaving])
    await carrier.run()
