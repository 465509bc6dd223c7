"""A small PLC for tests: an asyncua server on a loopback port of its own, with tags that a test writes."""

import asyncio
import datetime as dt
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asyncua import Server, ua
from asyncua.crypto.permission_rules import SimpleRoleRuleset

NAMESPACE = "urn:test:plc"
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
TYPES = {
    bool: ua.VariantType.Boolean,
    int: ua.VariantType.Int32,
    float: ua.VariantType.Double,
    str: ua.VariantType.String,
}


class Plc:
    """One server; `restart` keeps the port. Tags stand in Objects/Plant."""

    def __init__(self, *, port: int = 0, extra_namespaces: tuple[str, ...] = ()) -> None:
        self.port = port
        self.extra_namespaces = extra_namespaces
        self.server: Server = None
        self.nodes: dict[str, Any] = {}
        self.space = 0
        self._folder: Any = None
        self.policies = [ua.SecurityPolicyType.NoSecurity]
        self.certificate: Any = None
        self.key: Any = None
        self.user_manager: Any = None
        self.application_uri = "urn:test:plc:server"
        self.configure: Any = None

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}"

    async def start(self, tags: dict[str, Any]) -> None:
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
        self.server = Server(user_manager=self.user_manager)
        await self.server.init()
        # A PLC whose program was changed shows other types than before; asyncua would not let a test do that.
        self.server.iserver.aspace._is_expected_variant_type = lambda *_: True
        await self.server.set_application_uri(self.application_uri)
        self.server.set_endpoint(self.url)
        self.server.set_security_policy(self.policies, permission_ruleset=SimpleRoleRuleset())
        if self.certificate is not None:
            await self.server.load_certificate(self.certificate)
            await self.server.load_private_key(self.key)
        for uri in self.extra_namespaces:
            await self.server.register_namespace(uri)
        self.space = await self.server.register_namespace(NAMESPACE)
        self._folder = await self.server.nodes.objects.add_folder(
            ua.NodeId("Plant", self.space), f"{self.space}:Plant"
        )
        for name, value in tags.items():
            await self.add(name, value)
        if self.configure is not None:
            await self.configure(self.server)
        await self.server.start()
        if self.port == 0:
            self.port = self.server.bserver._server.sockets[0].getsockname()[1]
            self.server.set_endpoint(self.url)

    async def stop(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            await server.stop()

    async def add(self, name: str, value: Any, kind: ua.VariantType | None = None) -> None:
        kind = kind or TYPES[type(value)]
        self.nodes[name] = await self._folder.add_variable(
            ua.NodeId(name, self.space), f"{self.space}:{name}", value, kind
        )

    async def remove(self, name: str) -> None:
        await self.server.delete_nodes([self.nodes.pop(name)])

    async def write(
        self,
        name: str,
        value: Any,
        *,
        at_us: int | None = None,
        status: int = 0,
        kind: ua.VariantType | None = None,
        server_us: int | None = None,
    ) -> None:
        kind = kind or (TYPES[type(value)] if value is not None else ua.VariantType.Null)
        stamp = None if at_us == 0 else EPOCH + dt.timedelta(microseconds=at_us or time.time_ns() // 1000)
        server = None if server_us is None else EPOCH + dt.timedelta(microseconds=server_us)
        written = await self.server.iserver.aspace.write_attribute_value(
            self.nodes[name].nodeid,
            ua.AttributeIds.Value,
            ua.DataValue(ua.Variant(value, kind), ua.StatusCode(status), stamp, server),
        )
        written.check()

    def node(self, name: str) -> str:
        return f"nsu={NAMESPACE};s={name}"

    def subscriptions(self) -> list[Any]:
        found = self.server.iserver.subscription_service.subscriptions.values()
        return [one for one in found if one.pub_request_callback]

    def drop_connections(self) -> None:
        """Cut every client's connection, as a cable does that somebody pulls."""
        for client in list(self.server.bserver.clients):
            client.transport.abort()


@asynccontextmanager
async def plc(tags: dict[str, Any], **options: Any) -> AsyncIterator[Plc]:
    """Run a PLC with these tags."""
    made = Plc(**options)
    await made.start(tags)
    try:
        yield made
    finally:
        await made.stop()


async def until(condition: Any, secs: float = 10.0, what: str = "") -> None:
    """Wait for a condition, at most a while; fails when it does not come true."""
    end = asyncio.get_running_loop().time() + secs
    while not condition():
        if asyncio.get_running_loop().time() > end:
            raise AssertionError(f"not within {secs} s: {what or condition}")
        await asyncio.sleep(0.02)
