"""Who reads the player, as a process of its own: ours without what follows it, or asyncua used as it is.

    python -m benchmarks.edge_parts.listener ours|handler|iterator|naive opc.tcp://127.0.0.1:PORT [BROKER]

Says `{"ready": true}` once every tag has come, and then how many values have come whenever asked by a line.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from asyncua import Client, ua
from asyncua.common.subscription import OverflowPolicy
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.edge_parts.plant import ALL_TAGS, MACHINES, gateway_toml, node
from gateway import config
from gateway.pipeline import Lane
from gateway.sources.opcua import OpcUaSource, identity
from gateway.sources.port import TagBatch

_QUEUE = 5_000_000
TAGS = MACHINES * len(ALL_TAGS)


class Count:
    """How many values have come."""

    def __init__(self) -> None:
        self.values = 0


class _NoOutbox:
    def checkpoint(self, source: str) -> None:
        """Return that nothing was kept."""


class _Counting:
    """A receiver that only counts: what its source costs alone."""

    def __init__(self, count: Count) -> None:
        self._count = count

    def on_batch(self, batch: TagBatch) -> None:
        """Count."""
        self._count.values += len(batch.values)

    def known(self, handle: int) -> None:
        """Return that nothing is known of a tag."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_args, **_more: None


async def ours(url: str, count: Count) -> None:
    """Read as the gateway does, up to the columns."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.toml"
        path.write_text(gateway_toml(folder, url, 1))
        made = config.load(path)
        connection = made.connection[0]
        lane = Lane(made, connection, _NoOutbox(), int)  # type: ignore[arg-type]
        source = OpcUaSource(
            connection,
            identity=identity(made),
            bindings=lane.bindings,
            receiver=_Counting(count),
            clock_us=_clock_us,
        )
        await source.run()


def _clock_us() -> int:
    import time

    return time.time_ns() // 1000


class _Handler:
    def __init__(self, count: Count) -> None:
        self._count = count

    def datachange_notification(self, _node: Any, _value: Any, _notification: Any) -> None:
        """Count."""
        self._count.values += 1


class _Publishing:
    """What one writes first: a message for each value."""

    def __init__(self, count: Count, broker: int) -> None:
        self._count = count
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.max_queued_messages_set(0)
        self._client.connect("127.0.0.1", broker)
        self._client.loop_start()

    def datachange_notification(self, tag: Any, value: Any, notification: Any) -> None:
        """Publish one value."""
        shown = notification.monitored_item.Value
        told = {
            "tag": tag.nodeid.to_string(),
            "value": value,
            "status": shown.StatusCode.value,
            "time": shown.SourceTimestamp.isoformat(),
        }
        self._client.publish(f"naive/{tag.nodeid.Identifier}", json.dumps(told), qos=1)
        self._count.values += 1


async def stock(url: str, count: Count, handler: Any) -> None:
    """Read with asyncua: a handler's call for each value, or its iterator where there is no handler."""
    async with Client(url) as client:
        if handler is not None:
            subscription = await client.create_subscription(50, handler)
        else:
            subscription = await client.create_subscription(
                50, queue_maxsize=_QUEUE, overflow=OverflowPolicy.DROP_OLDEST
            )
        nodes = [
            client.get_node(ua.NodeId(ua.String(node(machine, tag.name)), ua.Int16(2)))
            for machine in range(MACHINES)
            for tag in ALL_TAGS
        ]
        await subscription.subscribe_data_change(nodes)
        if handler is None:
            async for _ in subscription:
                count.values += 1
        await asyncio.Event().wait()


async def main(how: str, url: str, broker: int) -> None:
    """Listen until standard input ends."""
    count = Count()
    if how == "ours":
        listening = ours(url, count)
    elif how == "naive":
        listening = stock(url, count, _Publishing(count, broker))
    else:
        listening = stock(url, count, _Handler(count) if how == "handler" else None)
    task = asyncio.create_task(listening)
    while count.values < TAGS:
        await asyncio.sleep(0.05)
        if task.done():
            await task
    print(json.dumps({"ready": True}), flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps({"values": count.values}), flush=True)
    task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0))
