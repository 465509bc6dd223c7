# ruff: noqa: SLF001 - asyncua has no other place to put a message that is encoded already
"""A PLC in a process of its own: asyncua's server for sessions, recorded messages for values.

It answers publish requests as fast as they come, with messages that stand ready, so that it costs less than
whoever listens. Told what to do by lines of JSON on its standard input, it answers by such lines:

- `{"do": "subscriptions"}`: ids and numbers of items of the subscriptions that there are
- `{"do": "play", "subscription": 1, "first": 0, "messages": 100}`: what it took, once all are acknowledged,
  and when the first of them was ready to be sent, by the clock that all processes share
- `{"do": "live", "secs": 60}`: writes every machine's tags once a second through asyncua's server instead;
  says so at once and again at the end
"""

import asyncio
import datetime as dt
import json
import sys
import time
from collections import deque
from typing import Any

from asyncua import Server, ua
from asyncua.server.internal_subscription import InternalSubscription

from benchmarks.edge_parts.plant import (
    ALL_TAGS,
    MACHINES,
    STATE,
    STEP_US,
    encode,
    node,
    response,
    state_at,
)

_US = 1_000_000
_SILENT_SECS = 30.0
LIVE_STATE_SECS = 5


def value_at(number: int, machine: int, tag: Any) -> Any:
    """Return what a tag shows as of a message."""
    return state_at(number, machine) if tag.name == STATE else tag.value(number, machine)


class Player:
    """The server, and what was played of each subscription."""

    def __init__(self, server: Server, start_us: int) -> None:
        self._server = server
        self._start_us = start_us
        self._nodes: dict[ua.NodeId, tuple[int, str]] = {}

    async def build(self) -> None:
        """Make the tags, each with a value from just before the first message."""
        before: Any = dt.datetime.fromtimestamp((self._start_us - STEP_US) / _US, dt.UTC)
        index = await self._server.register_namespace("urn:benchmark:plc")
        for machine in range(MACHINES):
            folder = await self._server.nodes.objects.add_folder(index, f"machine-{machine}")
            for tag in ALL_TAGS:
                identifier = ua.NodeId(ua.String(node(machine, tag.name)), ua.Int16(index))
                made = await folder.add_variable(identifier, tag.name, value_at(0, machine, tag), tag.kind)
                shown = ua.Variant(value_at(0, machine, tag), tag.kind)
                await made.write_value(ua.DataValue(shown, None, before, before))
                self._nodes[identifier] = machine, tag.name

    @property
    def _subscriptions(self) -> dict[int, InternalSubscription]:
        return self._server.iserver.subscription_service.subscriptions

    def subscriptions(self) -> list[list[int]]:
        """Return id and number of items of each subscription."""
        return [
            [int(number), len(one.monitored_item_srv._monitored_items)]
            for number, one in self._subscriptions.items()
        ]

    async def play(self, subscription: int, first: int, messages: int) -> dict[str, Any]:
        """Answer a client's publish requests with so many messages; return what it took."""
        found = self._subscriptions[subscription]
        handles = {
            self._nodes[one.read_value_id.NodeId]: one.client_handle
            for one in found.monitored_item_srv._monitored_items.values()
            if one.read_value_id is not None and one.client_handle is not None
        }
        ready = deque(
            encode(number, self._start_us + number * STEP_US, handles)
            for number in range(first, first + messages)
        )
        values = sum(one.values for one in ready)
        callback: Any = found.pub_request_callback
        processor = callback.__self__
        asked = asyncio.Event()
        acknowledged: set[int] = set()
        ordinary = processor.session.publish

        def publish(acks: Any) -> tuple[Any, list[ua.StatusCode]]:
            acknowledged.update(int(one.SequenceNumber) for one in acks or ())
            asked.set()
            subscriptions, _ = ordinary([])
            return subscriptions, [ua.StatusCode(ua.UInt32(0))] * len(acks or ())

        processor.session.publish = publish
        if found._task is not None:
            found._task.cancel()  # the ordinary way of publishing rests meanwhile
        processor._publish_results_subs.pop(found.data.SubscriptionId, None)
        sequence = found._notification_seq
        began = time.perf_counter()
        heard_at = began
        last = sequence + messages - 1
        while last not in acknowledged:
            while ready and processor._publish_requests:
                request = processor._publish_requests.popleft()
                encoded = ready.popleft()
                body = response(
                    encoded,
                    request=request.requesthdr.RequestHandle,
                    subscription=int(found.data.SubscriptionId),
                    sequence=sequence,
                    at_us=time.time_ns() // 1000,
                    more=bool(ready),
                    acknowledged=len(request.results or ()),
                )
                found._notification_seq = sequence = sequence + 1
                processor._transport.write(
                    processor._connection.message_to_binary(
                        body,
                        message_type=ua.MessageType.SecureMessage,
                        request_id=request.seqhdr.RequestId,
                    )
                )
            asked.clear()
            try:
                async with asyncio.timeout(0.05):
                    await asked.wait()
            except TimeoutError:
                if time.perf_counter() - heard_at > _SILENT_SECS:
                    raise SystemExit(
                        f"subscription {found.data.SubscriptionId} is not acknowledged up to {last}: "
                        f"{len(ready)} of {messages} messages left, "
                        f"{len(processor._publish_requests)} requests, acknowledged {sorted(acknowledged)}"
                    ) from None
            else:
                heard_at = time.perf_counter()
        took_secs = time.perf_counter() - began
        processor.session.publish = ordinary
        found._task = asyncio.create_task(found._subscription_loop())
        return {"values": values, "secs": took_secs, "began": began}

    async def live(self, secs: int) -> dict[str, Any]:
        """Show new values of every machine once a second, each at its own time; of states every fifth."""
        began = time.perf_counter()
        for second in range(secs):
            for machine in range(MACHINES):
                due = began + second + machine / MACHINES
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                await self._show(machine, second)
        return {"secs": time.perf_counter() - began}

    async def _show(self, machine: int, number: int) -> None:
        now: Any = dt.datetime.now(dt.UTC)
        for tag in ALL_TAGS:
            value = tag.value(number, machine)
            if tag.name == STATE:
                if (number + machine) % LIVE_STATE_SECS:
                    continue
                value = (number + machine) // LIVE_STATE_SECS % 3
            await self._server.iserver.aspace.write_attribute_value(
                ua.NodeId(ua.String(node(machine, tag.name)), ua.Int16(2)),
                ua.AttributeIds.Value,
                ua.DataValue(ua.Variant(value, tag.kind), None, now, now),
            )


async def serve(port: int, start_us: int) -> None:
    """Serve until standard input ends."""
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    player = Player(server, start_us)
    await player.build()
    async with server:
        print(json.dumps({"ready": True}), flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            asked = json.loads(line)
            what = asked.pop("do")
            if what == "subscriptions":
                answer: Any = player.subscriptions()
            elif what == "play":
                answer = await player.play(**asked)
            else:
                print(json.dumps({"live": True}), flush=True)
                answer = await player.live(**asked)
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
