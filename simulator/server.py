"""One line's PLC: an OPC UA server whose tags show what the machines do; the only door to asyncua."""

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from asyncua import Server, ua
from asyncua.crypto.permission_rules import SimpleRoleRuleset

from simulator.certificates import APPLICATION_URI
from simulator.errors import ServerError
from simulator.factory import Factory, Line
from simulator.truth import Row

NAMESPACE_URI: Final = "urn:oee-gateway:simulated-factory"
TAG_TYPES: Final[dict[str, ua.VariantType]] = {
    "State": ua.VariantType.Int32,
    "TotalUnits": ua.VariantType.UInt32,
    "OffQualityUnits": ua.VariantType.UInt32,
    "FaultCode": ua.VariantType.Int32,
    "Product": ua.VariantType.String,
    "Speed": ua.VariantType.Double,
}
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - asyncua takes naive UTC
_POLL_SECS: Final = 0.005
_STUCK_SECS: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a line's server listens, and how.

    certificate, private_key: PEM files; the server then offers Basic256Sha256
    plain: offers unprotected connections
    """

    host: str = "127.0.0.1"
    port: int = 4840
    certificate: Path | None = None
    private_key: Path | None = None
    plain: bool = True

    @property
    def url(self) -> str:
        """Return the address that clients use."""
        return f"opc.tcp://{self.host}:{self.port}"


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Collect no garbage while thousands of nodes are made that stay: a third of the time goes there."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class _Shown(ua.DataValue):
    """A value that nobody changes after it was written, so that no subscription has to copy it."""

    __slots__ = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shown":
        return self


class LineServer:
    """The OPC UA server of one line. `start` and `stop` may alternate: each start is a PLC that boots."""

    def __init__(self, factory: Factory, line: Line, endpoint: Endpoint) -> None:
        self._factory = factory
        self._line = line
        self._endpoint = endpoint
        self._server: Server | None = None
        self._listens = False
        self._prepared: Server | None = None
        self._nodes: dict[tuple[str, str], ua.NodeId] = {}
        self.writes = 0

    @property
    def url(self) -> str:
        """Return the address that clients use; the real port where 0 was asked for."""
        return self._endpoint.url

    @property
    def line(self) -> Line:
        """Return the line that is served."""
        return self._line

    @property
    def is_up(self) -> bool:
        """Tell whether the server listens."""
        return self._listens

    async def prepare(self) -> None:
        """Do the slow part of the next start: a server with all its tags, which does not listen yet."""
        if self._prepared is not None:
            return
        server = Server()
        server.name = f"Simulated {self._line.name}"
        server.product_uri = NAMESPACE_URI
        with _without_collection():
            await server.init()
        await server.set_application_uri(APPLICATION_URI)
        server.set_endpoint(self.url)
        await self._secure(server)
        await self._lay_out(server)
        _mend_transfers(server)
        _mend_republishing(server)
        self._prepared = server

    async def start(self, rows: Iterable[Row]) -> None:
        """Show these values, then listen; raises ServerError where the port is taken."""
        if self._server is not None:
            raise ServerError(f"{self.url} is up already")
        await self.prepare()
        assert self._prepared is not None
        server, self._server, self._prepared = self._prepared, self._prepared, None
        await self.write(list(rows))
        try:
            await server.start()
        except OSError as error:
            self._server = None
            raise ServerError(f"{self.url}: {error.strerror or error}") from error
        await self._settle_port(server)
        self._listens = True

    async def stop(self) -> None:
        """Close the port and every connection; does nothing when it is closed."""
        server, self._server, self._listens = self._server, None, False
        if server is not None:
            await server.stop()

    async def write(self, rows: Sequence[Row]) -> None:
        """Show rows, all of them before any client is served again."""
        server = self._up()
        space = server.iserver.aspace
        now = datetime.now(UTC).replace(tzinfo=None)
        for row in rows:
            space_id = self._nodes[row.machine, row.tag]
            code = await space.write_attribute_value(space_id, ua.AttributeIds.Value, _value(row, now))
            code.check()
        self.writes += len(rows)

    def subscriptions(self) -> "list[Subscriber]":
        """Return the subscriptions of clients that watch at least one value."""
        found: Iterator[Any] = iter(self._up().iserver.subscription_service.subscriptions.values())
        subscribers = (Subscriber(internal) for internal in found if internal.pub_request_callback)
        return [subscriber for subscriber in subscribers if subscriber.items]

    async def wait_for_subscriber(self, settle_secs: float = 0.4) -> None:
        """Return when a client watches every machine, or has stopped adding values for a while."""
        seen = 0
        since = time.monotonic()
        while True:
            items = max((subscriber.items for subscriber in self.subscriptions()), default=0)
            if items != seen:
                seen, since = items, time.monotonic()
            patience_secs = settle_secs if items >= 3 * len(self._line.machines) else 5 * settle_secs
            if items and time.monotonic() - since >= patience_secs:
                return
            await asyncio.sleep(0.02)

    async def wait_until_read(self) -> int:
        """Return when every subscriber has been sent all values: how many more of a tag it has room for.

        A subscriber that asks for nothing any more holds us up for a few seconds only, unless it is the only
        one. Returns 0 when there is no subscriber.
        """
        stuck_since = time.monotonic()
        while True:
            subscribers = self.subscriptions()
            waiting = [subscriber for subscriber in subscribers if subscriber.pending]
            if not waiting:
                break
            overdue = time.monotonic() - stuck_since > _STUCK_SECS
            if overdue and len(waiting) < len(subscribers):
                subscribers = [subscriber for subscriber in subscribers if not subscriber.pending]
                break
            await asyncio.sleep(_POLL_SECS)
        return min((subscriber.queue_size for subscriber in subscribers), default=0)

    def _up(self) -> Server:
        if self._server is None:
            raise ServerError(f"{self.url} is away")
        return self._server

    async def _secure(self, server: Server) -> None:
        endpoint = self._endpoint
        policies = [ua.SecurityPolicyType.NoSecurity] if endpoint.plain else []
        if endpoint.certificate is not None and endpoint.private_key is not None:
            policies += [
                ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
                ua.SecurityPolicyType.Basic256Sha256_Sign,
            ]
            await server.load_certificate(endpoint.certificate)
            await server.load_private_key(endpoint.private_key)
        rules = SimpleRoleRuleset()  # type: ignore[no-untyped-call]
        server.set_security_policy(policies, permission_ruleset=rules)

    async def _lay_out(self, server: Server) -> None:
        """Make Objects/Factory/line/machine/tag; a flat list of variables would take quadratic time."""
        space = await server.register_namespace(NAMESPACE_URI)
        factory = await server.nodes.objects.add_folder(_node_id("Factory", space), f"{space}:Factory")
        line_name = self._line.name
        line = await factory.add_folder(_node_id(line_name, space), f"{space}:{line_name}")
        for machine in self._line.machines:
            path = f"{line_name}.{machine.name}"
            folder = await line.add_folder(_node_id(path, space), f"{space}:{machine.name}")
            for tag, kind in TAG_TYPES.items():
                node_id = _node_id(f"{path}.{tag}", space)
                initial = "" if kind is ua.VariantType.String else 0
                await folder.add_variable(node_id, f"{space}:{tag}", initial, kind)
                self._nodes[f"{line_name}/{machine.name}", tag] = node_id

    async def _settle_port(self, server: Server) -> None:
        if self._endpoint.port == 0 and server.bserver is not None:
            listener: Any = server.bserver._server  # noqa: SLF001 - asyncua does not tell the port it was given
            port = listener.sockets[0].getsockname()[1]
            self._endpoint = Endpoint(**{**self._endpoint.__dict__, "port": port})


class Subscriber:
    """A client's subscription as the server keeps it: what it watches, and what it was not sent yet."""

    def __init__(self, internal: Any) -> None:
        self._queues: dict[int, list[Any]] = internal._triggered_datachanges  # noqa: SLF001 - no public way
        self._watched: dict[int, Any] = internal.monitored_item_srv._monitored_items  # noqa: SLF001

    @property
    def items(self) -> int:
        """Return how many values it watches."""
        return len(self._watched)

    @property
    def pending(self) -> int:
        """Return how many notifications wait for it."""
        return sum(map(len, self._queues.values()))

    @property
    def queue_size(self) -> int:
        """Return how many changes of one value are kept for it at least."""
        return min((int(item.queue_size) for item in self._watched.values()), default=1) or 1


def _mend_transfers(server: Server) -> None:
    """Let a transferred subscription answer its new session; asyncua leaves it with the old requests."""
    service: Any = server.iserver.subscription_service
    transfer = service.transfer_subscriptions

    async def mended(params: Any, session_id: Any, callback: Any) -> Any:
        results = await transfer(params, session_id, callback)
        for number in params.SubscriptionIds:
            if (subscription := service.subscriptions.get(int(number))) is not None:
                subscription.pub_request_callback = callback.__self__.get_publish_request
        return results

    service.transfer_subscriptions = mended


def _mend_republishing(server: Server) -> None:
    """Keep a message until it is acknowledged, as the standard asks; asyncua forgets it once asked again."""
    service: Any = server.iserver.subscription_service

    def mended(params: Any) -> Any:
        subscription = service.subscriptions.get(int(params.SubscriptionId))
        kept = {} if subscription is None else subscription._not_acknowledged_results  # noqa: SLF001
        found = kept.get(int(params.RetransmitSequenceNumber))
        return ua.NotificationMessage() if found is None else found.NotificationMessage

    service.republish = mended


def quiet_library() -> None:
    """Let asyncua say only what is wrong."""
    logging.getLogger("asyncua").setLevel(logging.ERROR)


def _node_id(name: str, space: int) -> ua.NodeId:
    return ua.NodeId(ua.String(name), ua.Int16(space))


def _value(row: Row, now: Any) -> _Shown:
    kind = TAG_TYPES[row.tag]
    variant = ua.Variant(None, ua.VariantType.Null) if row.value is None else ua.Variant(row.value, kind)
    source: Any = _EPOCH + timedelta(microseconds=row.at_us)
    return _Shown(variant, ua.StatusCode(ua.UInt32(row.status)), source, now)
