"""The OPC UA side of the gateway with an outbox that a test can look into."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from contract.delivery import Gap
from contract.telemetry import Telemetry, decode_one
from gateway.config import Configuration, parse
from gateway.errors import OutboxError
from gateway.outbox.port import Draft, GapDraft
from gateway.pipeline import Lane, Pipeline
from gateway.sources.opcua import OpcUaSource, identity


class MemoryOutbox:
    """As much of an outbox as sources see, kept in a list; `broken` makes it refuse."""

    def __init__(self) -> None:
        self.records: list[Telemetry | Gap] = []
        self.checkpoints: dict[str, bytes] = {}
        self.broken = False
        self.appends = 0

    def append(self, drafts: Sequence[Draft], checkpoints: Mapping[str, bytes] | None = None) -> int:
        if self.broken:
            raise OutboxError("broken by the test")
        self.appends += 1
        for draft in drafts:
            sequence = len(self.records) + 1
            if isinstance(draft, GapDraft):
                made: Any = __import__("msgspec").json.decode(draft.encode(sequence), type=Gap)
            else:
                made = decode_one(draft.encode(sequence))
                assert isinstance(made, Telemetry), made
            self.records.append(made)
        self.checkpoints.update(checkpoints or {})
        return len(self.records)

    def checkpoint(self, source: str) -> bytes | None:
        return self.checkpoints.get(source)

    @property
    def telemetry(self) -> list[Telemetry]:
        return [one for one in self.records if isinstance(one, Telemetry)]

    @property
    def gaps(self) -> list[Gap]:
        return [one for one in self.records if isinstance(one, Gap)]

    def of(self, machine: str) -> list[Telemetry]:
        return [one for one in self.telemetry if one.machine == machine]

    def states(self, machine: str = "m1") -> list[str]:
        """The machine's states without repetition."""
        found: list[str] = []
        for one in self.of(machine):
            if not found or found[-1] != one.state:
                found.append(str(one.state))
        return found


def configured(url: str, machines: Sequence[dict[str, Any]], folder: Path, **options: Any) -> Configuration:
    """A configuration of one connection called plc-1."""
    gateway = {
        "name": "gw-test",
        "site": "site",
        "data_dir": str(folder),
        "publish_interval_secs": options.pop("publish_interval_secs", 1.0),
        "heartbeat_secs": options.pop("heartbeat_secs", 10.0),
    }
    connection = {
        "name": "plc-1",
        "endpoint": url,
        "security": "None",
        "allow_insecure": True,
        "publishing_interval_secs": 0.05,
        "sampling_interval_secs": 0.0,
        "machine": [{"area": "area", "line": "line", **machine} for machine in machines],
        **options,
    }
    return parse({"gateway": gateway, "connection": [connection]}, "test.toml")


class Reading:
    """A source at work, with its lane."""

    def __init__(self, configuration: Configuration, outbox: MemoryOutbox) -> None:
        connection = configuration.connection[0]
        self.outbox = outbox
        self.lane = Lane(configuration, connection, outbox, clock_us)
        self.source = OpcUaSource(
            connection,
            identity=identity(configuration),
            bindings=self.lane.bindings,
            receiver=self.lane,
            clock_us=clock_us,
            saved=self.lane.saved,
            told_us=self.lane.told_us,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self.source.run()), asyncio.create_task(self._tick())]

    async def _tick(self) -> None:
        while True:
            with contextlib.suppress(OutboxError):
                self.lane.tick()
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def crash(self) -> None:
        """End as kill -9 does: the socket is cut, nothing is said to the server."""
        subscription = self.source._subscription
        if subscription is not None:
            protocol = subscription._session.client.uaclient.protocol
            if protocol is not None and protocol.transport is not None:
                protocol.transport.abort()
        await self.stop()


def clock_us() -> int:
    return time.time_ns() // 1000


@asynccontextmanager
async def reading(configuration: Configuration, outbox: MemoryOutbox) -> AsyncIterator[Reading]:
    """Read a PLC until the block ends."""
    made = Reading(configuration, outbox)
    made.start()
    try:
        yield made
    finally:
        await made.stop()


__all__ = ["MemoryOutbox", "Pipeline", "Reading", "clock_us", "configured", "reading"]
