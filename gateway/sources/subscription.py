"""One subscription on one session: published, acknowledged after commit, its losses found."""

import asyncio
import contextlib
import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from asyncua import ua
from msgspec import Struct

from gateway.config import Connection
from gateway.errors import OutboxError, SourceError
from gateway.source_clock import ServerClock
from gateway.sources import stock
from gateway.sources.bridge import Bridge, Told, bridge
from gateway.sources.columns import Columns, Gathered
from gateway.sources.decoder import Decoder, Published
from gateway.sources.errors import NoAnswerError, ServiceError, mapped
from gateway.sources.history import BEFORE_US, read_history
from gateway.sources.port import BAD, Receiver, SourceCounters, TagBatch
from gateway.sources.publish_requests import PublishRequests, SubscriptionLostError
from gateway.sources.reconciler import GONE, Item, Reconciler, told
from gateway.sources.session import Resumable, Session
from gateway.sources.statuses import status_name
from gateway.sources.values import epoch_us
from gateway.sources.wire import DecodeError, UnknownLayoutError
from gateway.tags import Binding, Role

_log = logging.getLogger(__name__)
_Response = TypeVar("_Response")

_US: Final = 1_000_000
_MAX_NOTIFICATIONS: Final = 10_000
_MAX_GATHERED: Final = 100_000
_MAX_REPUBLISHED: Final = 10_000
_SEQUENCES: Final = 2**32 - 1
_OUTBOX_RETRY_SECS: Final = 1.0
_LOST: Final = "notifications lost between server and gateway"
_LATE_US: Final = 60 * _US
"""How long after a server has told its history of a moment it may still publish values of it."""
_PATIENCE_TRIES: Final = 3
_NEVER_US: Final = -1
_SESSION_OVER: Final = frozenset(
    {
        ua.StatusCodes.BadSessionIdInvalid,
        ua.StatusCodes.BadSessionClosed,
        ua.StatusCodes.BadSessionNotActivated,
        ua.StatusCodes.BadSecureChannelIdInvalid,
        ua.StatusCodes.BadSecureChannelClosed,
    }
)


class Saved(Struct, frozen=True, array_like=True):
    """What must be known to go on with a subscription, also in a new process.

    speaks_secs: [s] how often the server says something although nothing has changed; 0 where an earlier
        version kept this
    began_us: [us since 1970, its clock] since when the server ran; 0 where it did not tell
    proven_us: [us, our clock] when all of the items had certainly told everything; 0 where unknown
    """

    session: Resumable
    subscription: int
    fingerprint: str
    items: list[tuple[int, int]]
    speaks_secs: float = 0.0
    began_us: int = 0
    proven_us: int = 0


def fingerprint(connection: Connection, bindings: Sequence[Binding]) -> str:
    """Return what a saved subscription must have in common with the configuration to be taken over."""
    said = repr((connection.endpoint, connection.publishing_interval_secs, list(bindings)))
    if connection.source_clock_offset_secs:
        said += repr(connection.source_clock_offset_secs)
    return hashlib.sha256(said.encode()).hexdigest()


@cache
def _fast_way_is_safe() -> bool:
    """Try the fast decoder on what this version of the library writes; say where it must not be used."""
    if stock.assumptions_hold():
        return True
    _log.warning("this version of asyncua is not the one that fast decoding was made for: decoding is slow")
    return False


class Subscription:
    """The tags of one connection on one session.

    bindings: what is wanted
    receiver: takes the values; a notification is acknowledged only after it has them safe
    clock_us: [us since 1970] our clock
    stamps: by handle, each tag's last source time as the server told it [us since 1970], less than 0 where it
        has told none; kept up to date, and of no other tags
    """

    def __init__(
        self,
        session: Session,
        connection: Connection,
        bindings: Sequence[Binding],
        receiver: Receiver,
        clock_us: Callable[[], int],
        tally: SourceCounters,
        stamps: dict[int, int],
        server_clock: ServerClock,
    ) -> None:
        self._session = session
        self._connection = connection
        self._receiver = receiver
        self._clock_us = clock_us
        self._tally = tally
        self.items = {binding.handle: Item(binding) for binding in bindings}
        self._fingerprint = fingerprint(connection, bindings)
        self.id = 0
        self.next_sequence = 1
        self._acks: list[int] = []
        self._owed = 0
        self._gathered: Gathered | None = None
        self._newest_us = 0
        self._offset_us = round(connection.source_clock_offset_secs * _US)
        self._fetched: set[tuple[int, int, Any]] = set()
        """What the server's history has told: handle, source time, value."""
        self._fetched_us = 0
        self._stamps = stamps
        for handle in self.items:
            stamps.setdefault(handle, _NEVER_US)
        self._server_clock = server_clock
        fast = connection.fast_decoder and _fast_way_is_safe()
        self._decoder = Decoder() if fast else None
        self.as_of_us = clock_us()
        self._told_us = 0
        self._requests = PublishRequests(session, connection, clock_us, fast=fast)
        self._static: bytes = b""
        self.on_change: Callable[[], None] = lambda: None
        self.reconciler = Reconciler(session, connection, self.items, receiver, clock_us, tally, self)

    # --- life ---

    @property
    def live(self) -> int:
        """Return how many wanted tags the server watches for us."""
        return sum(item.item_id is not None for item in self.items.values())

    @property
    def stamps(self) -> Mapping[int, int]:
        """Return each tag's last source time as the server told it [us since 1970]."""
        return self._stamps

    @property
    def told_us(self) -> int:
        """Return up to when the server has told us all that it had to tell [us, our clock]."""
        return self._told_us

    async def create(self) -> None:
        """Make a new subscription, without items yet."""
        interval_secs = self._connection.publishing_interval_secs
        keepalive = self._requests.keepalive_count(interval_secs)
        lifetime = math.ceil(self._connection.subscription_lifetime_secs / interval_secs)
        request = ua.CreateSubscriptionRequest()
        wanted = request.Parameters
        wanted.RequestedPublishingInterval = interval_secs * 1000.0
        wanted.RequestedMaxKeepAliveCount = keepalive
        wanted.RequestedLifetimeCount = max(lifetime, 3 * keepalive)
        wanted.MaxNotificationsPerPublish = _MAX_NOTIFICATIONS
        wanted.PublishingEnabled = True
        revised = (await self._session.call(request, ua.CreateSubscriptionResponse)).Parameters
        self.id = int(revised.SubscriptionId)
        self.next_sequence = 1
        self._requests.speaks(revised.RevisedPublishingInterval * revised.RevisedMaxKeepAliveCount / 1000.0)
        self._save()

    async def take_over(self, saved: Saved, next_sequence: int) -> bool:
        """Go on with a subscription of an earlier connection; false when that is not possible.

        Values that came in between are fetched when the first message shows which are missing.
        """
        if saved.fingerprint != self._fingerprint:
            await self._give_up(saved.subscription)
            return False
        try:
            if self._session.resumed:
                request = ua.SetPublishingModeRequest()
                request.Parameters.PublishingEnabled = True
                request.Parameters.SubscriptionIds = [ua.UInt32(saved.subscription)]
                answer = await self._session.call(request, ua.SetPublishingModeResponse)
                status = int(answer.Parameters.Results[0].value)
            else:
                transfer = ua.TransferSubscriptionsRequest()
                transfer.Parameters.SubscriptionIds = [ua.UInt32(saved.subscription)]
                transfer.Parameters.SendInitialValues = False
                moved = await self._session.call(transfer, ua.TransferSubscriptionsResponse)
                status = int(moved.Parameters.Results[0].StatusCode.value)
        except ServiceError as error:
            _log.info("%s: the earlier subscription cannot go on: %s", self._connection.name, error)
            return False
        if status >> 30 >= BAD:
            _log.info(
                "%s: the earlier subscription is not ours: %s", self._connection.name, status_name(status)
            )
            return False
        self.id = saved.subscription
        self.next_sequence = next_sequence
        if saved.speaks_secs:
            self._requests.speaks(saved.speaks_secs)
        for handle, item_id in saved.items:
            if handle in self.items:
                self.items[handle].item_id = item_id
        await self.reconciler.find(self.items.values())
        if self.live < len(self.items):
            await self.reconciler.forget_strangers()
        self._save()
        return True

    async def go_on(self, unheard_us: int) -> None:
        """Take up, before anything is published, what the server's history has of the time in between.

        unheard_us: [us] how long ago it was heard last; 0 where it is known to have run ever since
        """
        live = await self.reconciler.open()
        whole: set[int] = set()
        parts = bridge(self._session, live, Told(self._stamps, self._receiver.known), unheard_us)
        async with contextlib.aclosing(parts):
            async for found in parts:
                whole |= found.whole
                await self._take_up(found)
        if whole:
            _log.info("%s: nothing is missing of %d tags", self._connection.name, len(whole))
        rest = [item.binding.handle for item in live if item.binding.handle not in whole]
        told(lambda: self._receiver.on_subscribed(rest, resumed=False))
        self.settled()

    async def _take_up(self, found: Bridge) -> None:
        """Go on with machines of which nothing is missing, over what was missed."""
        missed = found.missed
        told(lambda: self._receiver.on_subscribed(list(found.whole), resumed=True))
        self._fetched_us = found.until_us
        rows = zip(missed.handles, missed.source_us, missed.values, strict=True)
        self._fetched |= found.shown
        self._fetched |= {row for row in rows if row[1] > found.until_us - _LATE_US}
        if len(missed):
            self._tally.history_values += len(missed)
            await self.commit(missed, None, is_past=True)

    def is_of(self, saved: Saved) -> bool:
        """Tell whether what a process kept is of these tags, and of this server as it has run ever since."""
        return saved.fingerprint == self._fingerprint and 0 < saved.began_us == self._session.began_us

    async def _give_up(self, subscription: int) -> None:
        """Delete a subscription whose tags are not the ones that are wanted now."""
        request = ua.DeleteSubscriptionsRequest()
        request.Parameters.SubscriptionIds = [ua.UInt32(subscription)]
        with contextlib.suppress(ServiceError):
            await self._session.call(request, ua.DeleteSubscriptionsResponse)

    @property
    def saved(self) -> Saved:
        """Return what is needed to go on with this subscription over another connection."""
        items = [(handle, item.item_id) for handle, item in self.items.items() if item.item_id is not None]
        return Saved(
            self._session.resumable,
            self.id,
            self._fingerprint,
            items,
            self._requests.speaks_secs,
            self._session.began_us,
            min(self.proofs.values(), default=0),
        )

    @property
    def proofs(self) -> dict[int, int]:
        """Return when each live tag had certainly told everything [us, our clock]."""
        return {h: item.proven_us for h, item in self.items.items() if item.item_id is not None}

    def take_over_proofs(self, proofs: Mapping[int, int]) -> None:
        """Go on with the proofs of an earlier connection; without them all that is known of is in doubt."""
        for handle, item in self.items.items():
            item.proven_us = proofs.get(handle, 0)
        self._save()

    def settled(self) -> None:
        """Take note that other items are live than before."""
        self._save()
        told(lambda: self._receiver.on_checkpoint(self.checkpoint(self.next_sequence)))
        self.on_change()

    def proved(self) -> None:
        """Take note that items are known to have told everything; with the next values it is on disk, too."""
        self._save()

    def _save(self) -> None:
        self._static = msgspec.msgpack.encode(self.saved)

    def checkpoint(self, next_sequence: int) -> bytes:
        """Return the checkpoint that is true once everything before a sequence number is on disk."""
        return next_sequence.to_bytes(4, "big") + self._static

    # --- publishing ---

    async def publish(self) -> None:
        """Receive for ever; raises SourceError when the subscription or the server is lost."""
        self._requests.heard()
        try:
            for _ in range(self._connection.publish_requests):
                self._request()
            while True:
                await self._handle(await self._requests.answer())
        finally:
            await self._requests.cancel()

    def _request(self, *, more: bool = False) -> None:
        """Have another request wait at the server.

        more: the server has more to tell at once, so that half of the requests may be sent together while it
            answers the rest: each sending costs as much as reading some hundred values
        """
        self._owed += 1
        if not more or self._owed >= len(self._requests):
            self._ask_what_is_due()

    def _ask_what_is_due(self) -> None:
        if self._owed:
            acks, self._acks = self._acks, []
            owed, self._owed = self._owed, 0
            self._requests.send(self.id, acks, owed)

    async def _handle(self, body: Any) -> None:
        """Take one answer to a publish request."""
        if isinstance(body, SourceError):
            self._refused(body)
            return
        try:
            published = self._decoded(body)
        except ServiceError as error:
            self._refused(error)
            return
        if published is None or published.subscription != self.id:
            self._request()
            return
        self._judge_time(published.published_us)
        if not published.has_notifications:
            self._tally.keepalives += 1
            await self._missing(published.sequence, published)
            if self._gathered is None:
                self._receiver.on_alive(self.as_of_us)
        elif self._is_new(published.sequence):
            await self._missing(published.sequence, published)
            self._leave_out_fetched(published)
            await self._take(published.sequence, published.columns, more=published.more)
            self._status_changed(published.status_changes)
        else:
            self._acks.append(published.sequence)
        if self._gathered is None:
            self._told_us = self.as_of_us
        self._acknowledge_old(published.available)
        self._request(more=published.more)

    def _decoded(self, body: Any) -> Published | None:
        """Decode a publish response, the fast way where it can; None for a damaged one.

        What a damaged one held shows as missing in the next one's sequence number.
        """
        message, start = body._data, body._cur_pos  # noqa: SLF001 - checked by stock.assumptions_hold
        end = start + len(body)
        try:
            if self._decoder is not None:
                try:
                    published = self._decoder.decode(message, start, end)
                    self._tally.slow_decodes += published.unhurried
                except UnknownLayoutError as reason:
                    _log.debug("%s: decoded the slow way: %s", self._connection.name, reason)
                else:
                    return published
            with mapped("Publish"):
                published = stock.decode(message, start, end)
            self._tally.slow_decodes += published.unhurried
        except DecodeError as error:
            self._tally.damaged_messages += 1
            _log.warning("%s: a damaged message: %s", self._connection.name, error)
            return None
        return published

    def _refused(self, error: SourceError) -> None:
        status = error.status if isinstance(error, ServiceError) else 0
        if status == ua.StatusCodes.BadTooManyPublishRequests and len(self._requests) + self._owed:
            self._ask_what_is_due()  # one fewer from now on
            return
        if status == ua.StatusCodes.BadTimeout:
            self._request()
            return
        if status in (ua.StatusCodes.BadNoSubscription, ua.StatusCodes.BadSubscriptionIdInvalid):
            raise SubscriptionLostError("the server has dropped our subscription") from error
        raise error

    def _judge_time(self, published_us: int) -> None:
        """Settle when, by our clock, the server made the message that is in hand."""
        self.as_of_us = self._server_clock.heard(published_us, self._clock_us())

    def _is_new(self, sequence: int) -> bool:
        return (sequence - self.next_sequence) % _SEQUENCES < _SEQUENCES // 2

    def _acknowledge_old(self, available: Iterable[int]) -> None:
        """Acknowledge what the server still keeps although we have it."""
        waiting = {*self._acks, *(self._gathered.sequences if self._gathered is not None else ())}
        self._acks += [
            int(sequence)
            for sequence in available
            if int(sequence) not in waiting and not self._is_new(int(sequence))
        ]

    async def _take(self, sequence: int, found: Columns, *, more: bool = False) -> None:
        """Hand a notification on; messages that belong together are handed on together."""
        if self._gathered is None:
            self._gathered = Gathered()
        self._gathered.add(sequence, found)
        self._tally.notifications += 1
        self.next_sequence = sequence % _SEQUENCES + 1
        if not more or len(self._gathered.columns) >= _MAX_GATHERED:
            await self._commit_gathered()

    async def _commit_gathered(self) -> None:
        """Have what has come of messages that belong together made safe."""
        if self._gathered is not None:
            gathered, self._gathered = self._gathered, None
            await self._commit(gathered, self.next_sequence)
            self._acks += gathered.sequences

    def _status_changed(self, statuses: Iterable[int]) -> None:
        for status in statuses:
            if status in (ua.StatusCodes.BadTimeout, ua.StatusCodes.GoodSubscriptionTransferred):
                raise SubscriptionLostError(f"the server ended our subscription: {status_name(status)}")
            self.reconciler.look_closer.set()

    async def commit(self, found: Columns, next_sequence: int | None, *, is_past: bool = False) -> None:
        """Have the receiver make values safe, for as long as that takes."""
        await self._commit(Gathered.of(found), next_sequence, is_past=is_past)

    async def _commit(self, gathered: Gathered, next_sequence: int | None, *, is_past: bool = False) -> None:
        self._stamps.update(gathered.newest_us())
        found = gathered.columns
        if len(self._stamps) > len(self.items):
            self._leave_out_strangers(found)
            gathered = Gathered.of(found)
        if not len(found):
            return
        batch = self._batch(gathered, next_sequence, is_past=is_past)
        self._tally.values += len(found)
        self._tally.overflows += len(found.overflowed)
        self.reconciler.heard(found.handles)
        if any(found.statuses) and not GONE.isdisjoint(found.statuses):
            self.reconciler.look_closer.set()
        warned = False
        while True:
            try:
                self._receiver.on_batch(batch)
                break
            except OutboxError as error:
                if not warned:
                    _log.error("%s: values cannot be put on disk: %s", self._connection.name, error)
                    warned = True
                await asyncio.sleep(_OUTBOX_RETRY_SECS)
        if warned:
            _log.warning("%s: values are put on disk again", self._connection.name)
            self._requests.heard()

    def _leave_out_strangers(self, found: Columns) -> None:
        """Drop values of tags that nobody asked for."""
        before = len(found)
        found.keep([place for place, handle in enumerate(found.handles) if handle in self.items])
        self._tally.unasked_values += before - len(found)
        for handle in self._stamps.keys() - self.items.keys():
            del self._stamps[handle]

    def _leave_out_fetched(self, published: Published) -> None:
        """Drop values that the server's history has told: they would undo what it has told after them.

        A server that is behind keeps a value before it publishes it.
        """
        if not self._fetched:
            return
        if published.published_us > self._fetched_us + _LATE_US:
            self._fetched.clear()
            return
        found = published.columns
        rows = enumerate(zip(found.handles, found.source_us, found.values, strict=True))
        found.keep([place for place, row in rows if row not in self._fetched])

    def _batch(self, gathered: Gathered, next_sequence: int | None, *, is_past: bool) -> TagBatch:
        found = gathered.columns
        offset_us, most_us = self._offset_us, gathered.most_us
        times: list[int] = found.source_us
        unstamped: frozenset[int] = frozenset()
        if gathered.least_us <= 0:
            unstamped = frozenset(position for position, stamp in enumerate(times) if stamp <= 0)
        if offset_us or unstamped:
            times = [stamp + offset_us if stamp > 0 else self.as_of_us for stamp in times]
            most_us = max(times)
        self._newest_us = max(self._newest_us, min(most_us, self.as_of_us + _US))
        return TagBatch(
            handles=found.handles,
            values=found.values,
            statuses=found.statuses,
            source_us=times,
            received_us=self.as_of_us,
            unstamped=unstamped,
            overflowed=frozenset(found.overflowed),
            is_past=is_past,
            checkpoint=None if next_sequence is None else self.checkpoint(next_sequence),
        )

    def _gap(self, handles: Sequence[int], from_us: int, to_us: int, cause: str) -> None:
        self._tally.gaps += 1
        told(lambda: self._receiver.on_gap(handles, from_us, to_us, cause))

    # --- what is missing ---

    async def _missing(self, sequence: int, following: Published) -> None:
        """Fetch the messages between the last one and the following; record a gap where they are gone."""
        missed = (sequence - self.next_sequence) % _SEQUENCES
        if not missed or missed >= _SEQUENCES // 2:
            return
        self._tally.missed_notifications += missed
        from_us, as_of_us = self._newest_us, self.as_of_us
        lost = missed > _MAX_REPUBLISHED
        while not lost and self.next_sequence != sequence:
            again = await self._republish(self.next_sequence)
            if again is None:
                lost = True
            else:
                self._tally.republished += 1
                found, published_us = again
                if published_us > 0:  # what it tells is true of then, not of the message that is in hand
                    self.as_of_us = self._server_clock.ours(published_us, as_of_us)
                await self._take(self.next_sequence, found)
        self.as_of_us = as_of_us
        if lost:
            _log.warning("%s: %d notifications were missed", self._connection.name, missed)
            await self._commit_gathered()
            await self._from_history(from_us, following)
            self.next_sequence = sequence

    async def _republish(self, sequence: int) -> tuple[Columns, int] | None:
        """Return the values of an earlier message and when the server made it [us since 1970].

        None where the server does not have it any more.
        """
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = ua.UInt32(self.id)
        request.Parameters.RetransmitSequenceNumber = ua.UInt32(sequence)
        try:
            answer = await self._patiently(request, ua.RepublishResponse)
        except SourceError as error:
            is_over = isinstance(error, ServiceError) and error.status in _SESSION_OVER
            if is_over or not self._session.is_open or not self._is_alive(error):
                raise  # another session can ask for the same message
            _log.info("%s: message %d: %s", self._connection.name, sequence, error)
            return None
        message = answer.NotificationMessage
        if int(message.SequenceNumber) != sequence or not message.NotificationData:
            return None  # asyncua's server answers so when it has none
        found, changes = stock.taken(message)
        self._status_changed(changes)
        return found, epoch_us(message.PublishTime) if message.PublishTime is not None else 0

    async def _patiently(self, request: Any, response_type: type[_Response]) -> _Response:
        """Ask a few times, as long as the server is heard of: it may only be behind with its answers."""
        for _ in range(_PATIENCE_TRIES - 1):
            try:
                return await self._session.call(request, response_type)
            except NoAnswerError as error:
                if not self._is_alive(error):
                    raise
        return await self._session.call(request, response_type)

    def _is_alive(self, error: SourceError) -> bool:
        """Tell whether a server that has just failed to answer one question answers others."""
        return not isinstance(error, NoAnswerError) or self._requests.have_come

    async def _from_history(self, from_us: int, following: Published) -> None:
        """Fetch missed values from the server's history; record a gap for those that it does not keep.

        following: the message after the missed ones; what it holds is in the history too, and left out here
        """
        to_us = following.published_us or self.as_of_us - self._offset_us
        known_again_us = min((stamp for stamp in following.columns.source_us if stamp > 0), default=to_us)
        to_come = set(zip(following.columns.handles, following.columns.source_us, strict=True))
        live = [item for item in self.items.values() if item.item_id is not None and item.node is not None]
        found = Columns()
        without: list[int] = []
        answers = await self._past_of(live, to_us)
        for item, values in zip(live, answers, strict=True):
            if values is None:
                without.append(item.binding.handle)
            else:
                rows = enumerate(zip(values.handles, values.source_us, strict=True))
                values.keep([place for place, row in rows if row not in to_come])
                found.extend(values)
        self._tally.history_values += len(found)
        missing_facts = [h for h in without if self.items[h].binding.role is not Role.ANALOGUE]
        if missing_facts:
            self._gap(missing_facts, from_us, known_again_us + self._offset_us, _LOST)
        if len(found):
            self._fetched = set(zip(found.handles, found.source_us, found.values, strict=True))
            self._fetched_us = to_us
            await self.commit(found, following.sequence, is_past=True)
        if missing_facts:
            self.reconciler.read_anew()

    async def _past_of(self, live: Sequence[Item], to_us: int) -> list[Columns | None]:
        """Return what the server's history has of items since each was told; None where it keeps none."""
        newest_us = min(max(self._stamps.values(), default=_NEVER_US), to_us)
        nodes = [(item.binding.handle, item.node) for item in live if item.node]
        if newest_us <= 0:
            return [None] * len(live)  # what was told before is not known: its whole past would come again
        try:
            answers = await read_history(self._session, nodes, newest_us - BEFORE_US, to_us)
        except SourceError as error:
            _log.info("%s: no history: %s", self._connection.name, error)
            return [None] * len(live)
        for values in answers:
            if values:
                told_us = self._stamps.get(values.handles[0], _NEVER_US)
                since_us = told_us if told_us > 0 else newest_us
                values.keep([place for place, at_us in enumerate(values.source_us) if at_us > since_us])
        # something was lost, so a history without anything keeps none
        return answers if any(answers) else [None] * len(live)
