"""Takes messages from the inbox to the store; only then acknowledges them and sends receipts."""

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec
import structlog

from cloud.config import IngestTable
from cloud.errors import StoreError
from cloud.ingest.entitlement import Entitlement
from cloud.ingest.message import Message, Received, receive
from cloud.store.port import Appended, Gateway, Store
from contract import topics
from contract.delivery import Receipt

_RATE_SECS: Final = 10
_MAX_RETRY_SECS: Final = 5.0
_TELL_AGAIN_US: Final = 60_000_000
_TOPICS_TOLD: Final = 1_000
_CLOCK_TOLERANCE_US: Final = 30_000_000
"""A status is stamped when it is sent: one further than this from our clock tells of a wrong clock."""

Kept = TypeVar("Kept")

_log = structlog.get_logger("cloud.ingest")


class Inbox(Protocol):
    """Where messages wait."""

    async def take(self, limit: int, linger_secs: float) -> list[Message]:
        """Wait for messages, oldest first."""


class Replies(Protocol):
    """Where answers go."""

    def acknowledge(self, message: Message) -> None:
        """Tell the broker that a message is stored."""

    def publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish what holds until it is replaced."""


class IntakeStatistics(NamedTuple):
    """What was taken in since the start."""

    stored: int
    repeated: int
    refused: int
    records_per_sec: float


class Intake:
    """One task; batches are read and stored in a thread of its own, one after the other."""

    def __init__(
        self,
        store: Store,
        inbox: Inbox,
        replies: Replies,
        settings: IngestTable,
        *,
        max_future_secs: float,
        clock_us: Callable[[], int],
        executor: Executor,
        on_stored: Callable[[Appended], None],
    ) -> None:
        self._store = store
        self._inbox = inbox
        self._replies = replies
        self._settings = settings
        self._max_future_secs = max_future_secs
        self._entitlement = Entitlement(settings.gateways)
        self._clock_us = clock_us
        self._executor = executor
        self._on_stored = on_stored
        self._stored = self._repeated = self._refused = 0
        self._recent: deque[tuple[int, int]] = deque()
        self._told_us: dict[str, int] = {}
        self._clock_warnings: dict[Gateway, str] = {}
        self.store_fault: str | None = None

    async def run(self) -> None:
        """Take in what comes until cancelled; what cannot be stored is tried again for ever."""
        while True:
            messages = await self._inbox.take(self._settings.batch_messages, self._settings.linger_secs)
            if messages:
                await self._take_in(messages)

    async def _take_in(self, messages: Sequence[Message]) -> None:
        received, appended = await self._until_stored(functools.partial(self._keep, messages))
        # Records that are stored count as repeated when they are kept once more: they are told of at once.
        self._count(received, appended)
        self._on_stored(appended)
        if received.statuses:
            await self._until_stored(functools.partial(self._keep_statuses, received))
        for message in messages:
            self._replies.acknowledge(message)

    async def _until_stored(self, work: Callable[[], Kept]) -> Kept:
        """Do work in the executor's thread, again and again until the store takes it."""
        pause_secs = 0.1
        loop = asyncio.get_running_loop()
        while True:
            try:
                kept = await loop.run_in_executor(self._executor, work)
                break
            except StoreError as error:
                if self.store_fault is None:
                    _log.error("nothing can be stored, nor acknowledged", reason=str(error))
                self.store_fault = str(error)
                await asyncio.sleep(pause_secs)
                pause_secs = min(2 * pause_secs, _MAX_RETRY_SECS)
        if self.store_fault is not None:
            self.store_fault = None
            _log.info("records are stored again")
        return kept

    def _keep(self, messages: Sequence[Message]) -> tuple[Received, Appended]:
        """Read and store all but what gateways say of themselves; then send the receipts."""
        received = receive(messages, self._clock_us(), self._max_future_secs, self._entitlement)
        appended = self._store.append(received.arrivals)
        self._send(appended.receipts)
        return received, appended

    def _keep_statuses(self, received: Received) -> None:
        """Store what gateways say of themselves, and send each its receipt."""
        now_us = self._clock_us()
        for status in received.statuses.values():
            receipt = self._store.set_status(status, now_us)
            self._send({(status.site, status.gateway): receipt})

    def _send(self, receipts: Mapping[Gateway, Receipt]) -> None:
        for (site, gateway), receipt in receipts.items():
            self._replies.publish_retained(
                topics.gateway_topic(site, gateway, "receipt"), msgspec.json.encode(receipt)
            )

    def _count(self, received: Received, appended: Appended) -> None:
        now_us = self._clock_us()
        fresh = len(appended.fresh)
        self._stored += fresh
        self._repeated += appended.repeated
        self._refused += len(received.arrivals.dead_letters)
        self._recent.append((now_us, fresh))
        self._tell_refusals(received, now_us)
        self._compare_clocks(received, now_us)

    def _tell_refusals(self, received: Received, now_us: int) -> None:
        """Log the first refusal on a topic, and no other for a while: all are counted and kept."""
        for letter in received.arrivals.dead_letters:
            if now_us - self._told_us.get(letter.topic, -_TELL_AGAIN_US) >= _TELL_AGAIN_US:
                if len(self._told_us) >= _TOPICS_TOLD:
                    self._told_us.clear()
                self._told_us[letter.topic] = now_us
                _log.warning("refused", topic=letter.topic, reason=letter.reason, refused=self._refused)

    def _compare_clocks(self, received: Received, now_us: int) -> None:
        """Say once of each gateway that its clock and ours differ, and once that they agree again."""
        for gateway in received.just_said:
            status = received.statuses[gateway]
            behind_us = now_us - round(status.epochtime * 1e6)
            was_wrong = gateway in self._clock_warnings
            is_wrong = status.online and abs(behind_us) > _CLOCK_TOLERANCE_US
            if is_wrong and not was_wrong:
                where = "behind" if behind_us > 0 else "ahead of"
                text = f"the clock of {gateway[1]} is {abs(behind_us) / 1e6:.0f} s {where} this machine's"
                self._clock_warnings[gateway] = text
                _log.warning("a clock is far off", gateway=gateway[1], seconds_behind=behind_us / 1e6)
            elif was_wrong and not is_wrong:
                del self._clock_warnings[gateway]
                _log.info("the clocks agree again", gateway=gateway[1])

    @property
    def clock_warnings(self) -> list[str]:
        """Return which gateways' clocks differ from ours."""
        return list(self._clock_warnings.values())

    def statistics(self) -> IntakeStatistics:
        """Return what was taken in so far."""
        since_us = self._clock_us() - _RATE_SECS * 1_000_000
        while self._recent and self._recent[0][0] < since_us:
            self._recent.popleft()
        return IntakeStatistics(
            self._stored,
            self._repeated,
            self._refused,
            sum(count for _, count in self._recent) / _RATE_SECS,
        )
