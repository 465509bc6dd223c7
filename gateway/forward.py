"""Forwarding: an outbox's records to one uplink, newest first, backlog beside, until they have arrived."""

import asyncio
import contextlib
from asyncio import TimerHandle
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import takewhile
from typing import Final, Literal

import msgspec
import structlog
from msgspec import Struct

from contract import topics
from contract.delivery import Receipt
from contract.telemetry import MAX_BACKLOG_BYTES, encode_backlog
from gateway.errors import (
    MessageTooLargeError,
    OutboxError,
    PublishRefusedError,
    UnreachableError,
    UplinkError,
)
from gateway.ledger import Ledger
from gateway.outbox.port import Outbox, Stored
from gateway.outbox.ranges import Range, Ranges
from gateway.token_bucket import TokenBucket
from gateway.uplinks.port import Limits, Uplink, Will

Acknowledge = Literal["store", "broker"]

_UNDER_WAY_MAX_RECORDS: Final = 5_000
"""Backlog that is sent and not stored: beyond this it is waited for.

What is live comes to the store behind it; and no broker's queue overflows.
"""
_STRIKES: Final = 3
"""How often a message that stood alone may take the connection with it."""
_RETRY_SECS: Final = 0.2
HOLD_OFF_SECS: Final = 30.0
"""How long a message waits that the broker refuses for now."""
_BATCH_RECORDS: Final = 1_000
_NOTE_SECS: Final = 0.2
"""How long an answer may go unnoted where nothing waits for it: to wake for each costs more than it tells."""
_RECEIPT: Final = msgspec.json.Decoder(Receipt)


class Parcel(Struct, frozen=True, gc=False):
    """One message under way: a record on its live topic, or several as an array."""

    first: int
    last: int
    records: int
    live: bool


class ForwardCounters(Struct, kw_only=True):
    """What a forwarder has counted since it was made.

    live_records, backlog_records_sent: that the broker has accepted, alone and in arrays
    messages, bytes: sent, accepted or not
    resent_records: sent again, after a lost session or without a receipt
    refused_messages: by the broker, or too large for it
    quarantined_records: set aside because this uplink can never deliver them
    """

    live_records: int = 0
    backlog_records_sent: int = 0
    messages: int = 0
    bytes: int = 0
    resent_records: int = 0
    refused_messages: int = 0
    quarantined_records: int = 0
    receipts: int = 0
    malformed_receipts: int = 0


class Forwarder:
    """Moves one outbox's records over one uplink; its `run` and the uplink's belong into one TaskGroup.

    acknowledge: "store" keeps a record until the cloud side's receipt, "broker" until the PUBACK
    status: writes the gateway's status for this uplink, asked anew each time it is published
    monotonic: [s] clock for time-outs and rates
    """

    def __init__(
        self,
        outbox: Outbox,
        uplink: Uplink,
        *,
        site: str,
        gateway: str,
        monotonic: Callable[[], float],
        acknowledge: Acknowledge = "store",
        receipt_timeout_secs: float = 30.0,
        status: Callable[[], Will] | None = None,
        status_interval_secs: float = 10.0,
        hold_off_secs: float = HOLD_OFF_SECS,
    ) -> None:
        self.counters = ForwardCounters()
        self._outbox = outbox
        self._uplink = uplink
        self._name = uplink.name
        self._monotonic = monotonic
        self._acknowledge = acknowledge
        self._receipt_timeout_secs = receipt_timeout_secs
        self._status = status
        self._status_interval_secs = status_interval_secs
        self._status_at = 0.0
        self._hold_off_secs = hold_off_secs
        self._backlog_topic = topics.gateway_topic(site, gateway, "backlog")
        self._gap_topic = topics.gateway_topic(site, gateway, "gap")
        self._receipt_topic = topics.gateway_topic(site, gateway, "receipt")
        self._log = structlog.get_logger("forward").bind(uplink=self._name)
        self._ledger = self._new_ledger()
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._limits = Limits()
        self._publishes = TokenBucket(None)
        self._bytes = TokenBucket(None)
        self._is_metered = False
        self._waits_for_answers = False
        """Whether the last turn ended because too much had no answer, though records may be free."""
        self._alarm: TimerHandle | None = None
        self._in_flight: dict[int, Parcel] = {}
        """By the first sequence of each."""
        self._accepted: list[Parcel] = []
        """What the broker has taken and the ledger has not been told of: that is done for many at once."""
        self._strikes: dict[int, int] = {}
        self._others_accepted = False
        self._careful = 0
        self._alone = Ranges()
        self._probe_at = 0.0
        self._held: list[tuple[float, Parcel]] = []
        self._refused_said: str | None = None
        outbox.subscribe(self._wake.set)

    @property
    def uplink(self) -> Uplink:
        """Return the uplink that is fed."""
        return self._uplink

    @property
    def store_silent(self) -> bool:
        """Tell whether the cloud side owes receipts for too long."""
        return self._ledger.store_silent

    async def run(self) -> None:
        """Forward for ever; sleeps until something may be sent or a time-out is due."""
        said: str | None = None
        while True:
            self._wake.clear()
            try:
                delay_secs = self._pump(self._monotonic())
                said = None
            except OutboxError as error:
                if said != str(error):
                    self._log.error("the outbox cannot be read", reason=str(error))
                said, delay_secs = str(error), 1.0
            await self._woken(delay_secs)

    async def _woken(self, delay_secs: float | None) -> None:
        """Sleep until something may be sent, and not much longer than this."""
        if delay_secs is not None:
            self._ring_in(delay_secs)
        await self._wake.wait()

    def _ring_in(self, delay_secs: float) -> None:
        """Be woken after a time at the latest; an alarm that is set for earlier stays, for it costs less."""
        loop = asyncio.get_running_loop()
        if self._alarm is not None:
            if self._alarm.when() <= loop.time() + delay_secs:
                return
            self._alarm.cancel()
        self._alarm = loop.call_later(delay_secs, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._wake.set()

    async def drained(self) -> None:
        """Return once nothing is in flight and nothing is free to be sent."""
        while True:
            self._note_accepted(self._monotonic())
            self._ledger.appended(self._outbox.next_sequence - 1)
            if not self._in_flight and not self._ledger.next_live() and not self._ledger.next_backlog():
                return
            self._drained = asyncio.Event()
            await self._drained.wait()

    def close(self) -> None:
        """Want to hear no more of the outbox."""
        self._outbox.unsubscribe(self._wake.set)
        if self._alarm is not None:
            self._alarm.cancel()

    def announce(self) -> None:
        """Have the status published soon."""
        self._status_at = 0.0
        self._wake.set()

    # What the uplink tells

    def on_connected(self, limits: Limits) -> None:
        """Take note that a session began; subscriptions stand."""
        statistics = self._outbox.statistics()
        self._limits = limits
        self._publishes = TokenBucket(limits.publishes_per_sec)
        self._bytes = TokenBucket(limits.bytes_per_sec)
        self._is_metered = limits.publishes_per_sec is not None or limits.bytes_per_sec is not None
        self._ledger.begin_session(statistics.first_sequence, statistics.next_sequence - 1)
        self.announce()

    def on_lost(self, reason: str, *, silent: bool) -> None:
        """Take back what was in flight, and remember which message may have broken the session."""
        parcels = list(self._in_flight.values())
        self._in_flight.clear()
        for parcel in parcels:
            self._ledger.release(parcel.first, parcel.last)
            self.counters.resent_records += parcel.records
        if silent or not parcels:
            return
        self._careful = max(self._careful, len(parcels))
        if len(parcels) == 1:
            self._strike(parcels[0], reason)

    def on_message(self, topic: str, payload: bytes) -> None:
        """Take a receipt."""
        if topic != self._receipt_topic or self._acknowledge == "broker":
            return
        try:
            receipt = _RECEIPT.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.counters.malformed_receipts += 1
            self._log.warning("malformed receipt", reason=str(error))
            return
        self.counters.receipts += 1
        self._take_receipt(receipt)
        self._wake.set()

    def _take_receipt(self, receipt: Receipt) -> None:
        highest = max([receipt.stored_through, *(last for _, last in receipt.stored_beyond)])
        following = self._outbox.next_sequence
        if highest >= following:
            self._log.error("the store has sequences that we never gave; going on above", highest=highest)
            self._outbox.skip_past(highest)
            return  # these receipts are for records of another life
        was_silent = self._ledger.store_silent
        self._ledger.appended(following - 1)
        fresh = self._ledger.receive(receipt, self._outbox.first_sequence, self._monotonic())
        if fresh:
            self._outbox.acknowledge(self._name, fresh)
        if was_silent and not self._ledger.store_silent:
            self._log.info("the store sends receipts again")

    # Sending

    def _pump(self, now: float) -> float | None:
        """Send what may be sent; return the time until something is due [s], None when only events matter."""
        self._note_accepted(now)
        if not self._uplink.connected:
            return None
        self._ledger.appended(self._outbox.next_sequence - 1)
        delays = [self._publish_status(now), self._expire(now), self._free_held(now)]
        window = self._window
        try:
            while len(self._in_flight) < window:
                delay = self._send_live(now, window)
                if delay is None and len(self._in_flight) < max(1, window // 2):
                    delay = self._send_backlog(now)
                if delay is None or delay > 0:
                    delays.append(delay)
                    break
            self._waits_for_answers = len(self._in_flight) >= max(1, window // 2)
        except UnreachableError:
            delays.append(_RETRY_SECS)  # the uplink is about to say that it lost its session
        return min((delay for delay in delays if delay is not None), default=None)

    @property
    def _window(self) -> int:
        """Return how many messages may be without an answer."""
        return 1 if self._careful else self._limits.max_in_flight

    def _send_live(self, now: float, window: int) -> float | None:
        """Send newest records, each as its own message; return 0 when any went, None when there is none."""
        free = self._ledger.next_live()
        if free is None:
            return None
        first, last = free
        if self._live_outruns_limits(last - first + 1):
            return self._send_array(first, last, now, reserve=0.0)
        if (wait := self._publishes.wait_secs(1, now)) > 0:
            return wait
        records = self._read(first, last, window - len(self._in_flight), MAX_BACKLOG_BYTES)
        sent_before = 0
        if records:
            self._ledger.take(records[0].sequence, records[-1].sequence)
        try:
            for record in records:
                if (wait := self._wait_secs(len(record.payload), now)) > 0:
                    return wait
                parcel = Parcel(record.sequence, record.sequence, 1, live=True)
                self._send(record.topic, record.payload, parcel)
                sent_before += 1
        finally:
            if sent_before < len(records):
                self._ledger.release(records[sent_before].sequence, records[-1].sequence)
        return 0.0

    def _live_outruns_limits(self, records: int) -> bool:
        """Tell whether one message per record would take longer than half a second at the uplink's rate."""
        rate = self._limits.publishes_per_sec
        return rate is not None and records > rate / 2

    def _send_backlog(self, now: float) -> float | None:
        """Send the oldest free records as one array; return 0 when it went, None when there is none."""
        free = self._ledger.next_backlog()
        if free is None:
            return None
        if self._ledger.store_silent:
            if now < self._probe_at:
                return self._probe_at - now
            self._ledger.probe()
            self._probe_at = now + self._ledger.patience_secs
        elif self._records_under_way() >= _UNDER_WAY_MAX_RECORDS:
            return None  # an answer, a receipt or its time-out goes on
        return self._send_array(*free, now, reserve=0.2)

    def _records_under_way(self) -> int:
        """Return how many records wait for the broker's answer or for the store's receipt."""
        return sum(parcel.records for parcel in self._in_flight.values()) + self._ledger.awaiting.count()

    def _send_array(self, first: int, last: int, now: float, *, reserve: float) -> float:
        """Send records up to the next gap as one array; a gap goes alone, on its own topic."""
        max_bytes = min(MAX_BACKLOG_BYTES, self._limits.max_message_bytes)
        if (wait := self._wait_secs(max_bytes, now, reserve=reserve)) > 0:
            return wait
        alone = next(self._alone.present(first, last), None)
        if alone is not None:
            last = alone[0] if alone[0] == first else alone[0] - 1
        records = self._read(first, last, _BATCH_RECORDS, max_bytes - 2)
        telemetry = list(takewhile(lambda record: record.topic != self._gap_topic, records))
        if telemetry:
            payload = encode_backlog([record.payload for record in telemetry])
            parcel = Parcel(telemetry[0].sequence, telemetry[-1].sequence, len(telemetry), live=False)
            self._send_taken(self._backlog_topic, payload, parcel)
        elif records:
            gap = records[0]
            self._send_taken(gap.topic, gap.payload, Parcel(gap.sequence, gap.sequence, 1, live=False))
        return 0.0

    def _wait_secs(self, size: int, now: float, *, reserve: float = 0.0) -> float:
        if not self._is_metered:
            return 0.0
        return max(
            self._publishes.wait_secs(1, now, reserve=reserve),
            self._bytes.wait_secs(size, now, reserve=reserve),
        )

    def _read(self, first: int, last: int, max_records: int, max_bytes: int) -> list[Stored]:
        """Read records, and tell the ledger about sequences that have none."""
        records = self._outbox.read(first, last, max_records=max_records, max_bytes=max_bytes)
        expected = first
        for record in records:
            if record.sequence > expected:
                self._ledger.vacant(expected, record.sequence - 1)
            expected = record.sequence + 1
        if not records:
            self._ledger.vacant(first, last)
        return records

    def _send_taken(self, topic: str, payload: bytes, parcel: Parcel) -> None:
        """Send a message of records that nothing else sends meanwhile."""
        self._ledger.take(parcel.first, parcel.last)
        try:
            self._send(topic, payload, parcel)
        except UnreachableError:
            self._ledger.release(parcel.first, parcel.last)
            raise

    def _send(self, topic: str, payload: bytes, parcel: Parcel) -> None:
        """Send a message of records that are taken; raises UnreachableError."""
        try:
            self._uplink.publish(topic, payload, partial(self._answered, parcel))
        except (MessageTooLargeError, PublishRefusedError) as error:
            self._refused(parcel, str(error), surely=isinstance(error, MessageTooLargeError))
            return
        if self._is_metered:
            self._publishes.spend(1)
            self._bytes.spend(len(payload))
        self.counters.messages += 1
        self.counters.bytes += len(payload)
        self._in_flight[parcel.first] = parcel

    def _answered(self, parcel: Parcel, error: UplinkError | None) -> None:
        """Take the broker's answer to one message."""
        if self._in_flight.get(parcel.first) is not parcel:
            return  # its session was lost before
        del self._in_flight[parcel.first]
        if error is not None or (self._waits_for_answers and len(self._in_flight) <= self._window // 2):
            self._wake.set()
        elif not self._accepted:
            self._ring_in(_NOTE_SECS)
        if not self._in_flight:
            self._drained.set()
        if self._careful:
            self._careful -= 1
        if error is None:
            self._refused_said = None
            self._others_accepted = True
            self._accepted.append(parcel)
        elif isinstance(error, PublishRefusedError) and error.transient:
            self._hold(parcel, error.reason)
        elif isinstance(error, UnreachableError):
            self._ledger.release(parcel.first, parcel.last)
        else:
            self._refused(parcel, str(error))

    def _note_accepted(self, now: float) -> None:
        """Tell the ledger of what the broker has taken."""
        accepted, self._accepted = self._accepted, []
        for parcel in accepted:
            if parcel.live:
                self.counters.live_records += parcel.records
            else:
                self.counters.backlog_records_sent += parcel.records
        for first, last in _spans(accepted):
            if self._strikes:
                self._strikes = {at: n for at, n in self._strikes.items() if not first <= at <= last}
            self._alone.discard(first, last)
            if self._acknowledge == "store":
                self._ledger.accepted_by_broker(first, last, now)
            else:
                self._deliver(first, last)

    def _deliver(self, first: int, last: int) -> None:
        self._ledger.acknowledge(first, last)
        self._outbox.acknowledge(self._name, [(first, last)])

    # What does not go through

    def _hold(self, parcel: Parcel, reason: str) -> None:
        """Try again later what the broker refuses for now (a quota, a missing permission)."""
        self.counters.refused_messages += 1
        if self._refused_said != reason:
            self._log.error("the broker refuses messages; they are kept and tried again", reason=reason)
            self._refused_said = reason
        self._held.append((self._monotonic() + self._hold_off_secs, parcel))

    def _free_held(self, now: float) -> float | None:
        while self._held and self._held[0][0] <= now:
            _, parcel = self._held.pop(0)
            self._ledger.release(parcel.first, parcel.last)
            self.counters.resent_records += parcel.records
        return self._held[0][0] - now if self._held else None

    def _strike(self, parcel: Parcel, reason: str) -> None:
        """Count that the connection broke while this message stood alone in flight."""
        strikes = self._strikes[parcel.first] = self._strikes.get(parcel.first, 0) + 1
        if strikes >= _STRIKES:
            del self._strikes[parcel.first]
            self._refused(parcel, f"the connection broke {strikes} times while it was sent: {reason}")

    def _refused(self, parcel: Parcel, reason: str, *, surely: bool = False) -> None:
        """Find the poison in an array by sending its records alone; set a lone record aside.

        A broker that took nothing else since the last one was set aside may refuse everything (a wrong
        policy): then the record is kept and tried again, unless it is surely its own fault.
        """
        if parcel.records == 1 and not surely and not self._others_accepted:
            self._ledger.take(parcel.first, parcel.last)
            self._hold(parcel, reason)
            return
        self.counters.refused_messages += 1
        if parcel.records > 1:
            self._alone.add(parcel.first, parcel.last)
            self._ledger.release(parcel.first, parcel.last)
            self._careful = max(self._careful, parcel.records)
        else:
            self._others_accepted = surely and self._others_accepted
            self._quarantine(parcel.first, reason)
        self._wake.set()

    def _quarantine(self, sequence: int, reason: str) -> None:
        self.counters.quarantined_records += 1
        self._outbox.quarantine(self._name, sequence, reason)
        self._ledger.acknowledge(sequence, sequence)

    # Time

    def _expire(self, now: float) -> float | None:
        """Free what waited too long for its receipt."""
        was_silent = self._ledger.store_silent
        before = self._ledger.awaiting.count()
        for sequence in self._ledger.expire(now):
            self._quarantine(sequence, "the store never acknowledged it")
        self.counters.resent_records += max(0, before - self._ledger.awaiting.count())
        if self._ledger.store_silent and not was_silent:
            self._log.warning(
                "no receipt from the store; records are kept", timeout_secs=self._receipt_timeout_secs
            )
            self._probe_at = now + self._receipt_timeout_secs
        due = self._ledger.next_expiry()
        return None if due is None else max(0.01, due - now)

    def _publish_status(self, now: float) -> float | None:
        if self._status is None:
            return None
        if now - self._status_at >= self._status_interval_secs or self._status_at == 0.0:
            self._status_at = now
            status = self._status()
            with contextlib.suppress(UnreachableError, MessageTooLargeError, PublishRefusedError):
                self._uplink.publish(status.topic, status.payload, _forget, retain=True)
        return self._status_at + self._status_interval_secs - now

    def _new_ledger(self) -> Ledger:
        statistics = self._outbox.statistics()
        return Ledger(
            self._outbox.acknowledged(self._name),
            statistics.next_sequence - 1,
            self._receipt_timeout_secs,
        )


def _forget(_error: UplinkError | None) -> None:
    """Let a status be lost; the next one follows."""


def _spans(parcels: Iterable[Parcel]) -> Iterator[Range]:
    """Yield what messages hold, in their order; those that follow each other as one."""
    first, last = 1, 0
    for parcel in parcels:
        if parcel.first != last + 1:
            if first <= last:
                yield first, last
            first = parcel.first
        last = parcel.last
    if first <= last:
        yield first, last
