"""Wanted tags compared with those that the server watches, for ever; what differs is healed."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from asyncua import ua

from gateway.config import Connection
from gateway.errors import OutboxError
from gateway.sources.addresses import Unresolved, resolve
from gateway.sources.columns import Columns
from gateway.sources.errors import ServiceError
from gateway.sources.port import BAD, Receiver, SourceCounters
from gateway.sources.session import Session, standard_node
from gateway.sources.statuses import status_name
from gateway.sources.values import add_value
from gateway.tags import Binding, Role

_log = logging.getLogger(__name__)

_US: Final = 1_000_000
_RETRY_FIRST_SECS: Final = 0.5
GONE: Final = frozenset({ua.StatusCodes.BadNodeIdUnknown, ua.StatusCodes.BadNodeIdInvalid})
"""Statuses of a node that is not there."""
_FILTER_REFUSED: Final = frozenset(
    {
        ua.StatusCodes.BadFilterNotAllowed,
        ua.StatusCodes.BadMonitoredItemFilterInvalid,
        ua.StatusCodes.BadMonitoredItemFilterUnsupported,
        ua.StatusCodes.BadDeadbandFilterInvalid,
    }
)
_QUIET: Final = "the server had stopped telling of a tag"


@dataclass(slots=True)
class Item:
    """One wanted tag and how it stands on the server."""

    binding: Binding
    node: ua.NodeId | None = None
    item_id: int | None = None
    fault: int = 0
    reason: str = ""
    failures: int = 0
    retry_at: float = 0.0
    plain: bool = False
    """Without a filter, because the server takes none."""
    suspected_us: int = 0
    """[us, our clock] since when reading shows what it has not told; 0 for a tag above suspicion."""
    asked_us: int = 0
    """[us, our clock] when it was read, to find that out."""
    shown_us: int = 0
    """[us since 1970] the source time that reading showed then."""
    proven_us: int = 0
    """[us, our clock] when it had certainly told everything."""


class Publishing(Protocol):
    """The subscription that the items belong to."""

    id: int

    @property
    def stamps(self) -> Mapping[int, int]:
        """Return each tag's last source time as the server told it [us since 1970]."""
        ...

    @property
    def told_us(self) -> int:
        """Return up to when the server has told us all that it had to tell [us, our clock]."""
        ...

    def settled(self) -> None:
        """Take note that other items are live than before."""
        ...

    def proved(self) -> None:
        """Take note that items are known to have told everything."""
        ...


class Reconciler:
    """Keeps the items of one subscription alive.

    items: by handle; shared with the subscription
    """

    def __init__(
        self,
        session: Session,
        connection: Connection,
        items: Mapping[int, Item],
        receiver: Receiver,
        clock_us: Callable[[], int],
        tally: SourceCounters,
        publishing: Publishing,
    ) -> None:
        self._session = session
        self._connection = connection
        self.items = items
        self._receiver = receiver
        self._clock_us = clock_us
        self._tally = tally
        self._publishing = publishing
        self.look_closer = asyncio.Event()
        """Set where something hints at an item that is dead."""
        self._is_stale = False
        self._suspects: set[int] = set()

    def heard(self, handles: Iterable[int]) -> None:
        """Take note that tags have told something: those are not dead.

        One that has told what reading showed, or something newer, had told everything when it was read. So a
        tag that changes all the time, whose last word no reading finds, is known to live, too.
        """
        if self._suspects:
            for handle in self._suspects.intersection(handles):
                item = self.items[handle]
                if self._publishing.stamps.get(handle, 0) >= item.shown_us > 0:
                    item.proven_us = max(item.proven_us, item.asked_us)
                self._clear(item)

    def _clear(self, item: Item) -> None:
        item.suspected_us = 0
        self._suspects.discard(item.binding.handle)

    def read_anew(self) -> None:
        """Have every item made anew soon: what was lost may be the last word of a tag."""
        self._is_stale = True
        self.look_closer.set()

    async def reconcile(self) -> None:
        """Compare wanted with live items for ever, and heal what differs."""
        loop = asyncio.get_running_loop()
        verify_secs = self._connection.verify_secs
        verify_at = loop.time() + verify_secs
        while True:
            await self.mend()
            try:
                async with asyncio.timeout(self._connection.reconcile_secs):
                    await self.look_closer.wait()
            except TimeoutError:
                pass
            if self.look_closer.is_set() or (verify_secs and loop.time() >= verify_at):
                self.look_closer.clear()
                await self.verify()
                verify_at = loop.time() + verify_secs

    async def mend(self) -> None:
        """Create the items that are wanted, not live, and due for another try."""
        now = asyncio.get_running_loop().time()
        due = [item for item in self.items.values() if item.item_id is None and item.retry_at <= now]
        if not due:
            return
        await self.find(due)
        ready = [item for item in due if item.node is not None]
        if ready:
            told(lambda: self._receiver.on_subscribed(_handles(ready), resumed=False))
            await self._create_items(ready)
        failed = [item for item in due if item.item_id is None]
        for status in {item.fault for item in failed}:
            handles = _handles(item for item in failed if item.fault == status)
            told(partial(self._receiver.on_unreadable, handles, status))
        for item in failed:
            self._put_off(item)
        self._publishing.settled()

    async def open(self) -> list[Item]:
        """Create all items that can be had at once, and tell nobody yet; return those that are live."""
        wanted = list(self.items.values())
        await self.find(wanted)
        await self._create_items([item for item in wanted if item.node is not None])
        return [item for item in wanted if item.item_id is not None]

    def _put_off(self, item: Item) -> None:
        """Set when a failed item is tried again; say so once."""
        if item.failures == 0:
            _log.warning(
                "%s: %s (%s) cannot be read: %s",
                self._connection.name,
                item.binding.name,
                item.binding.node,
                item.reason,
            )
        delay_secs = min(_RETRY_FIRST_SECS * 2**item.failures, self._connection.node_retry_max_secs)
        item.failures = min(item.failures + 1, 30)
        item.retry_at = asyncio.get_running_loop().time() + delay_secs

    async def find(self, items: Iterable[Item]) -> None:
        """Resolve the addresses of items under the server's present namespaces."""
        wanted = list(items)
        nodes = await resolve(self._session, [item.binding.node for item in wanted])
        for item in wanted:
            found = nodes[item.binding.node]
            if isinstance(found, Unresolved):
                item.node, item.fault, item.reason = None, found.status, found.reason
            else:
                item.node = found

    async def _create_items(self, items: Sequence[Item]) -> None:
        async def ask(part: Sequence[Item]) -> Sequence[ua.MonitoredItemCreateResult]:
            request = ua.CreateMonitoredItemsRequest()
            request.Parameters.SubscriptionId = ua.UInt32(self._publishing.id)
            request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
            request.Parameters.ItemsToCreate = [_wanted_item(item) for item in part]
            return (await self._session.call(request, ua.CreateMonitoredItemsResponse)).Results

        again: list[Item] = []
        for item, result in zip(items, await self._session.in_chunks("items", items, ask), strict=True):
            status = int(result.StatusCode.value)
            if status in _FILTER_REFUSED and not item.plain:
                item.plain = True
                again.append(item)
            elif status >> 30 >= BAD:
                item.fault, item.reason = status, status_name(status)
            else:
                self._created(item, result)
        if again:
            await self._create_items(again)

    def _created(self, item: Item, result: ua.MonitoredItemCreateResult) -> None:
        if item.failures:
            _log.info("%s: %s is read again", self._connection.name, item.binding.name)
        item.item_id = int(result.MonitoredItemId)
        item.failures, item.fault, item.reason = 0, 0, ""
        self._clear(item)
        item.proven_us = self._clock_us()
        granted = int(result.RevisedQueueSize)
        if granted < item.binding.queue_size and item.binding.role is Role.FACT:
            self._tally.queues_cut += 1
            _log.info(
                "%s: %s: the server queues %d values, not %d",
                self._connection.name,
                item.binding.name,
                granted,
                item.binding.queue_size,
            )

    async def verify(self) -> None:
        """Read what the items should have told, and make those anew that have not told it.

        An item is dead when reading shows a value that differs from the last one delivered, and nothing of it
        has been delivered by the next time although the server has published since; or when its node is gone;
        or when its address now leads to another node. What was told since it was last known to live is
        withdrawn. A server that is merely behind, as one that plays back its past, is no reason.
        """
        before = list(self._session.namespaces)
        await self._session.learn()
        live = [item for item in self.items.values() if item.item_id is not None]
        if self._is_stale:
            self._is_stale = False
            await self._discard(live)
            await self.mend()
            return
        dead: list[Item] = []
        if self._session.namespaces != before:
            nodes = {item.binding.handle: item.node for item in live}
            await self.find(live)
            dead = [item for item in live if item.node != nodes[item.binding.handle]]
        looked = [item for item in live if item.node is not None and item not in dead]
        asked_us = self._clock_us()
        read = await self._session.read(
            [item.node for item in looked if item.node is not None], max_age_secs=self._connection.verify_secs
        )
        shown = Columns()
        for item, value in zip(looked, read, strict=True):
            add_value(shown, item.binding.handle, value)
        gone = [item for place, item in enumerate(looked) if self._is_dead(item, shown, place, asked_us)]
        self._prove(looked, shown, asked_us)
        self._publishing.proved()
        dead += gone
        if dead:
            names = ", ".join(item.binding.name for item in dead[:3])
            _log.warning(
                "%s: %d tags are read anew, they had gone quiet: %s", self._connection.name, len(dead), names
            )
            await self._discard(dead)
            self._bury(dead, shown)
            await self.mend()

    def _bury(self, dead: Sequence[Item], shown: Columns) -> None:
        """Withdraw what was told of dead tags, and tell which of them are gone.

        What reading shows of the others comes again with their new items, in its turn: told here, it would
        overtake what the server has still to tell of all the others.
        """
        for since_us in sorted({item.proven_us for item in dead}):
            handles = _handles(item for item in dead if item.proven_us == since_us)
            told(partial(self._receiver.on_died, handles, since_us, _QUIET))
        of_dead = frozenset(_handles(dead))
        for handle, status in zip(shown.handles, shown.statuses, strict=True):
            if handle in of_dead and status in GONE:
                told(partial(self._receiver.on_unreadable, [handle], status))

    def _is_dead(self, item: Item, columns: Columns, place: int, asked_us: int) -> bool:
        shown = columns.values[place], columns.statuses[place]
        if shown[1] in GONE:
            return True
        known = self._receiver.known(item.binding.handle)
        if known is None or shown == known or not _differs(shown[0], known[0], item.binding.deadband):
            self._clear(item)
            return False
        if not item.suspected_us:
            item.suspected_us = self._clock_us()
            item.asked_us, item.shown_us = asked_us, columns.source_us[place]
            self._suspects.add(item.binding.handle)
            return False
        patience_secs = item.binding.sampling_interval_secs + self._connection.publishing_interval_secs
        return self._publishing.told_us >= item.suspected_us + round(patience_secs * _US)

    def _prove(self, items: Sequence[Item], shown: Columns, asked_us: int) -> None:
        """Take note which items had told everything when they were read.

        Those whose value is the one delivered last, with the time it was delivered with: a value that has
        changed and changed back has another. Where most times differ, the server stamps what has not changed,
        and times say nothing.
        """
        agreeing = [
            place
            for place, item in enumerate(items)
            if not item.suspected_us and self._receiver.known(item.binding.handle) is not None
        ]
        stamped = [
            place
            for place in agreeing
            if self._publishing.stamps.get(items[place].binding.handle) == shown.source_us[place]
        ]
        for place in agreeing if 2 * len(stamped) < len(agreeing) else stamped:
            items[place].proven_us = max(items[place].proven_us, asked_us)

    async def forget_strangers(self) -> None:
        """Have the server delete the items of the subscription that we know nothing of.

        The answer that told of them was lost with a connection or a process. Their tags are asked for again,
        and the values of a tag that is watched twice come twice, out of order.
        """
        asked = ua.CallMethodRequest()
        asked.ObjectId = standard_node(ua.ObjectIds.Server)
        asked.MethodId = standard_node(ua.ObjectIds.Server_GetMonitoredItems)
        asked.InputArguments = [ua.Variant(ua.UInt32(self._publishing.id), ua.VariantType.UInt32)]
        request = ua.CallRequest()
        request.Parameters.MethodsToCall = [asked]
        try:
            (result,) = (await self._session.call(request, ua.CallResponse)).Results
        except ServiceError as error:
            _log.debug("%s: the server does not list its items: %s", self._connection.name, error)
            return
        if int(result.StatusCode.value) >> 30 >= BAD or not result.OutputArguments:
            return  # not every server can tell
        ours = {item.item_id for item in self.items.values()}
        await self._delete(
            [int(one) for one in result.OutputArguments[0].Value or () if int(one) not in ours]
        )

    async def _discard(self, items: Sequence[Item]) -> None:
        """Give up items on the server; whether it still knows them does not matter."""
        await self._delete([item.item_id for item in items if item.item_id is not None])
        for item in items:
            item.item_id, item.retry_at = None, 0.0
            self._clear(item)

    async def _delete(self, item_ids: Sequence[int]) -> None:
        async def ask(part: Sequence[int]) -> Sequence[ua.StatusCode]:
            request = ua.DeleteMonitoredItemsRequest()
            request.Parameters.SubscriptionId = ua.UInt32(self._publishing.id)
            request.Parameters.MonitoredItemIds = [ua.UInt32(one) for one in part]
            return (await self._session.call(request, ua.DeleteMonitoredItemsResponse)).Results

        await self._session.in_chunks("items", item_ids, ask)


def told(call: Callable[[], None]) -> None:
    """Tell the receiver something that it keeps in memory while the outbox takes nothing."""
    try:
        call()
    except OutboxError as error:
        _log.debug("the outbox takes nothing now; it is kept in memory: %s", error)


def _handles(items: Iterable[Item]) -> list[int]:
    return [item.binding.handle for item in items]


def _differs(one: Any, other: Any, deadband: float) -> bool:
    if deadband and isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) > deadband
    return not (one == other or (one != one and other != other))  # noqa: PLR0124 - NaN is like NaN here


def _wanted_item(item: Item) -> ua.MonitoredItemCreateRequest:
    binding = item.binding
    wanted = ua.MonitoredItemCreateRequest()
    wanted.ItemToMonitor.NodeId = item.node
    wanted.ItemToMonitor.AttributeId = ua.AttributeIds.Value
    wanted.MonitoringMode = ua.MonitoringMode.Reporting
    wanted.RequestedParameters.ClientHandle = ua.UInt32(binding.handle)
    wanted.RequestedParameters.SamplingInterval = binding.sampling_interval_secs * 1000.0
    wanted.RequestedParameters.QueueSize = ua.UInt32(binding.queue_size)
    wanted.RequestedParameters.DiscardOldest = True
    if binding.deadband and not item.plain:
        wanted.RequestedParameters.Filter = ua.DataChangeFilter(
            Trigger=ua.DataChangeTrigger.StatusValue,
            DeadbandType=ua.UInt32(ua.DeadbandType.Absolute),
            DeadbandValue=binding.deadband,
        )
    return wanted
