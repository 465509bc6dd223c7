"""What happens to PLCs and networks happens to a real server here; nothing is lost without being told."""

import asyncio
import datetime as dt
import math
import time
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.uaprocessor import UaProcessor

from gateway.sources.errors import NoAnswerError
from tests.support.opcua_gateway import MemoryOutbox, Reading, clock_us, configured, reading
from tests.support.opcua_server import EPOCH, Plc, plc, until
from tests.support.patience import PATIENCE
from tests.support.tcp_proxy import proxy

STATES = {"0": "stopped", "1": "running", "2": "idle"}
TAGS = {"State": 1, "Total": 100}


def machine(server: Plc, name: str = "m1", prefix: str = "") -> dict:
    return {
        "name": name,
        "state": {"node": server.node(f"{prefix}State"), "map": STATES},
        "total_units": {"node": server.node(f"{prefix}Total")},
    }


async def count_up(server: Plc, first: int, last: int, pause_secs: float = 0.0) -> None:
    """Let the counter go up, with the state flipping at each step, so that every write counts."""
    for total in range(first, last + 1):
        at_us = clock_us()
        await server.write("Total", total, at_us=at_us)
        await server.write("State", total % 3, at_us=at_us)
        await asyncio.sleep(pause_secs)


def assert_each_once(outbox: MemoryOutbox, first: int, last: int) -> None:
    """Every step of `count_up` is one record, in order, with the state that it had."""
    steps = [
        (one.total_units, one.state)
        for one, before in zip(outbox.telemetry[1:], outbox.telemetry, strict=False)
        if one.state != before.state
    ]
    told = [step for step in steps if first <= step[0] <= last]
    assert told == [(n, STATES[str(n % 3)]) for n in range(first, last + 1)]
    times = [one.epoch_us for one in outbox.telemetry]
    assert times == sorted(times)


async def test_restarted_plc_is_read_again_soon_and_the_gap_is_told(tmp_path: Path) -> None:
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox):
            await until(lambda: outbox.telemetry)
            await server.write("State", 0)
            await until(lambda: outbox.states() == ["running", "stopped"])
            before_us = clock_us()
            await server.stop()
            await asyncio.sleep(1.5)
            await server.start({"State": 2, "Total": 7})
            back = time.monotonic()
            await until(lambda: outbox.states()[-1] == "idle", 6)
            assert time.monotonic() - back < PATIENCE * 3.0
        (gap,) = outbox.gaps
        assert before_us - 1_000_000 < gap.from_epochtime * 1e6 < before_us + 1_000_000
        assert gap.to_epochtime - gap.from_epochtime > 1.3
        after = outbox.telemetry[-1]
        assert after.total_units == 7
        assert after.epochtime >= gap.to_epochtime


async def test_nodes_that_appear_after_the_port_are_read_when_they_come(tmp_path: Path) -> None:
    """A PLC opens its port before its program has made its tags; the other machine is read meanwhile."""
    async with plc({**TAGS, "late.Total": 1}) as server:
        outbox = MemoryOutbox()
        machines = [machine(server), machine(server, "m2", "late.")]
        async with reading(configured(server.url, machines, tmp_path), outbox) as gateway:
            await until(lambda: outbox.of("m1") and outbox.of("m2"))
            assert outbox.of("m2")[0].data_quality == "bad"
            assert outbox.of("m2")[0].state == "unknown"
            assert outbox.of("m2")[0].status == "BadNodeIdUnknown"
            assert gateway.source.status.items_live == 3
            assert gateway.source.status.last_error == "line/m2 state: BadNodeIdUnknown"
            await server.write("State", 0)
            await until(lambda: outbox.states("m1")[-1] == "stopped")
            await server.add("late.State", 1)
            await until(lambda: outbox.of("m2")[-1].state == "running", 8)
            assert outbox.of("m2")[-1].data_quality == "good"
            await until(lambda: gateway.source.status.items_live == 4)


async def test_a_cut_connection_loses_nothing(tmp_path: Path) -> None:
    """The session goes on over a new connection; what came in between is fetched, once."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            for cut in range(3):
                writing = asyncio.create_task(count_up(server, 101 + 40 * cut, 140 + 40 * cut, 0.02))
                await asyncio.sleep(0.3)
                server.drop_connections()
                await writing
            await until(lambda: outbox.telemetry[-1].total_units == 220)
            assert gateway.source.counters.reconnects == 3
        assert_each_once(outbox, 101, 220)
        assert outbox.gaps == []


async def test_a_killed_gateway_goes_on_where_it_was(tmp_path: Path) -> None:
    """After kill -9 the new process takes the subscription over: no value is missing, none is told twice."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        configuration = configured(server.url, [machine(server)], tmp_path)
        writing = asyncio.create_task(count_up(server, 101, 250, 0.02))
        for _ in range(3):
            gateway = Reading(configuration, outbox)
            gateway.start()
            await asyncio.sleep(0.8)
            await gateway.crash()
            await asyncio.sleep(0.2)
        async with reading(configuration, outbox) as last:
            await writing
            await until(lambda: outbox.telemetry[-1].total_units == 250)
            assert last.source.counters.gaps == 0
        first = outbox.telemetry[0].total_units
        assert isinstance(first, int)
        assert_each_once(outbox, first + 1, 250)
        assert outbox.gaps == []


async def test_a_gateway_that_was_off_for_long_tells_the_gap(tmp_path: Path) -> None:
    """When the PLC has forgotten the session, the time in between is a gap from the last record on."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        configuration = configured(server.url, [machine(server)], tmp_path)
        gateway = Reading(configuration, outbox)
        gateway.start()
        await until(lambda: outbox.telemetry)
        await server.write("State", 0)
        await until(lambda: outbox.states()[-1] == "stopped")
        last = outbox.telemetry[-1]
        await gateway.crash()
        await server.stop()
        await asyncio.sleep(0.5)
        await server.start({"State": 1, "Total": 900})
        async with reading(configuration, outbox):
            await until(lambda: outbox.telemetry[-1].total_units == 900)
        (gap,) = outbox.gaps
        assert gap.from_epochtime == last.epochtime
        assert gap.to_epochtime == outbox.telemetry[-1].epochtime
        assert gap.cause == "the gateway was not running"


async def test_nothing_is_acknowledged_before_it_is_on_disk(tmp_path: Path) -> None:
    """While the outbox refuses, the server keeps the messages; a crash in that state loses nothing."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        configuration = configured(server.url, [machine(server)], tmp_path)
        gateway = Reading(configuration, outbox)
        gateway.start()
        await until(lambda: outbox.telemetry)
        await asyncio.sleep(0.3)
        outbox.broken = True
        await count_up(server, 101, 130, 0.01)
        await asyncio.sleep(0.5)
        (subscription,) = server.subscriptions()
        assert subscription._not_acknowledged_results
        assert len(outbox.telemetry) == 1
        await gateway.crash()
        outbox.broken = False
        async with reading(configuration, outbox):
            await until(lambda: outbox.telemetry[-1].total_units == 130)
        assert_each_once(outbox, 101, 130)
        assert outbox.gaps == []


async def test_a_disk_that_recovers_has_everything(tmp_path: Path) -> None:
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox):
            await until(lambda: outbox.telemetry)
            outbox.broken = True
            await count_up(server, 101, 160, 0.01)
            await asyncio.sleep(0.5)
            outbox.broken = False
            await until(lambda: outbox.telemetry[-1].total_units == 160)
            await asyncio.sleep(0.5)
            (subscription,) = server.subscriptions()
            assert not subscription._not_acknowledged_results
        assert_each_once(outbox, 101, 160)
        assert outbox.gaps == []


async def test_a_dropped_subscription_is_made_anew(tmp_path: Path) -> None:
    """The server forgets the subscription while the connection lives."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        options = {"silence_secs": 2.0}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox):
            await until(lambda: outbox.telemetry)
            (subscription,) = server.subscriptions()
            await server.server.iserver.subscription_service.delete_subscriptions(
                [subscription.data.SubscriptionId]
            )
            await server.write("State", 2)
            await until(lambda: outbox.states()[-1] == "idle", 5)
            await server.write("State", 0)
            await until(lambda: outbox.states()[-1] == "stopped", 5)
        assert len(outbox.gaps) == 1


async def test_a_server_that_answers_before_it_publishes_again_keeps_its_subscription(tmp_path: Path) -> None:
    """It had no processor for a while: first it answers what it is asked, then it publishes what was due."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        options = {"silence_secs": 2.0}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            (subscription,) = server.subscriptions()
            publish = subscription.publish_results
            asked = note_answers(gateway, ua.ReadRequest)
            subscription.publish_results = held_back = AsyncMock(return_value=False)
            await server.write("State", 2)
            await until(asked.is_set, 20)
            await asyncio.sleep(0.1)
            assert held_back.await_count
            subscription.publish_results = publish
            await until(lambda: outbox.states()[-1] == "idle")
            assert gateway.source.counters.reconnects == 0
        assert outbox.gaps == []


def note_answers(gateway: Reading, kind: type) -> asyncio.Event:
    """Return what is set once the server has answered the next request of a kind that the session makes."""
    session = gateway.source._subscription._session
    call = session.call
    answered = asyncio.Event()

    async def noting(request, *arguments):
        answer = await call(request, *arguments)
        if isinstance(request, kind):
            answered.set()
        return answer

    session.call = noting
    return answered


async def test_a_server_that_speaks_seldom_is_borne_with_over_connections(tmp_path: Path) -> None:
    """It makes the keep-alive count larger than it was asked to; another connection has to know that."""

    async def slow_down(server) -> None:
        service = server.iserver.subscription_service
        create = service.create_subscription

        async def slower(params, *arguments, **more):
            params.RequestedMaxKeepAliveCount = 60
            return await create(params, *arguments, **more)

        service.create_subscription = slower

    server = Plc()
    server.configure = slow_down
    await server.start(TAGS)
    try:
        outbox = MemoryOutbox()
        options = {"silence_secs": 1.0, "verify_secs": 0}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            server.drop_connections()
            await until(lambda: gateway.source.counters.reconnects == 1)
            alive = gateway.source.counters.keepalives
            await until(lambda: gateway.source.counters.keepalives > alive + 1, 20)
            assert gateway.source.counters.reconnects == 1
        assert outbox.gaps == []
    finally:
        await server.stop()


async def test_a_black_hole_is_noticed_and_left(tmp_path: Path) -> None:
    """The network swallows everything, no connection is closed: noticed, and healed by a new client."""
    async with plc(TAGS) as server, proxy(server.port) as way:
        outbox = MemoryOutbox()
        options = {"silence_secs": 2.0, "connect_timeout_secs": 1.0}
        url = f"opc.tcp://127.0.0.1:{way.port}"
        async with reading(configured(url, [machine(server)], tmp_path, **options), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            way.swallow = True
            since = time.monotonic()
            await until(lambda: gateway.source.status.state != "connected", 6)
            assert time.monotonic() - since < PATIENCE * 3.5
            await count_up(server, 101, 110, 0.01)
            way.swallow = False
            way.cut()
            back = time.monotonic()
            await until(lambda: outbox.telemetry[-1].total_units == 110, 6)
            assert time.monotonic() - back < PATIENCE * 4.0
        assert_each_once(outbox, 101, 110)
        assert outbox.gaps == []


async def test_a_frozen_server_is_noticed_while_only_its_answers_stop(tmp_path: Path) -> None:
    """One way of the network is dead: we still send, nothing comes back."""
    async with plc(TAGS) as server, proxy(server.port) as way:
        outbox = MemoryOutbox()
        url = f"opc.tcp://127.0.0.1:{way.port}"
        options = {"silence_secs": 2.0}
        async with reading(configured(url, [machine(server)], tmp_path, **options), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            way.swallow_answers = True
            await until(lambda: gateway.source.status.state != "connected", 5)
            way.swallow_answers = False
            way.cut()
            await server.write("State", 2)
            await until(lambda: outbox.states()[-1] == "idle", 8)


@pytest.mark.parametrize("is_first", [True, False])
async def test_what_was_under_way_when_a_slow_connection_ended_is_in_the_gap(
    tmp_path: Path, is_first: bool
) -> None:
    """All messages of a new session are late alike; what the last one told is no older for that."""
    async with plc(TAGS) as server, proxy(server.port) as way:
        outbox = MemoryOutbox()
        url = f"opc.tcp://127.0.0.1:{way.port}"
        way.answer_secs = 0.6 if is_first else 0.0
        async with reading(configured(url, [machine(server)], tmp_path), outbox) as gateway:
            await count_up(server, 101, 103, 0.1)
            await until(lambda: outbox.telemetry and outbox.telemetry[-1].total_units == 103, 20)
            if not is_first:
                way.answer_secs = 0.6
                (subscription,) = server.subscriptions()
                await server.server.iserver.subscription_service.delete_subscriptions(
                    [subscription.data.SubscriptionId]
                )
                await until(lambda: gateway.source.counters.reconnects == 1)
            written_us: dict[int, int] = {}
            while outbox.telemetry[-1].total_units < 110:
                number = 104 + len(written_us)
                written_us[number] = clock_us()
                await count_up(server, number, number, 0.1)
            way.cut()
            await server.stop()
            way.answer_secs = 0.0
            await server.start({"State": 2, "Total": 999})
            await until(lambda: outbox.telemetry[-1].total_units == 999, 20)
        told = max(one.total_units for one in outbox.telemetry[:-1])
        assert 104 < told < max(written_us)
        assert outbox.gaps[-1].from_epochtime * 1e6 < written_us[told + 1]


async def test_a_server_that_takes_five_at_once_is_asked_in_fives(tmp_path: Path) -> None:
    """It says so neither in its limits nor per item: the whole request is refused."""

    async def limit(server) -> None:
        service = server.iserver.subscription_service
        create = service.create_monitored_items

        async def refusing(params):
            if len(params.ItemsToCreate) > 5:
                raise ServiceError(ua.StatusCodes.BadTooManyOperations)
            return await create(params)

        service.create_monitored_items = refusing

    tags = {f"n{i}.{tag}": value for i in range(9) for tag, value in TAGS.items()}
    server = Plc()
    server.configure = limit
    await server.start(tags)
    try:
        outbox = MemoryOutbox()
        machines = [machine(server, f"m{i}", f"n{i}.") for i in range(9)]
        async with reading(configured(server.url, machines, tmp_path), outbox) as gateway:
            await until(lambda: gateway.source.status.items_live == 18)
            await until(lambda: len({one.machine for one in outbox.telemetry}) == 9)
    finally:
        await server.stop()


async def test_an_overflowed_queue_becomes_a_gap(tmp_path: Path) -> None:
    """A state whose predecessors the server threw away is known only from its own time on."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            await asyncio.sleep(0.2)
            at_us = clock_us()
            await server.write("State", 2, at_us=at_us, status=0x480)
            await until(lambda: outbox.states()[-1] == "idle")
            assert gateway.source.counters.overflows == 1
        (gap,) = outbox.gaps
        assert gap.from_epochtime == outbox.telemetry[0].epochtime
        assert round(gap.to_epochtime * 1e6) == at_us
        assert outbox.telemetry[1].epoch_us == at_us
        assert outbox.telemetry[1].data_quality == "good"


async def test_a_deleted_and_reborn_node_is_read_again(tmp_path: Path) -> None:
    """asyncua's server says nothing when a node goes, and leaves the item dead when it comes back."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        options = {"verify_secs": 0.5}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox):
            await until(lambda: outbox.telemetry)
            await delete_quietly(server, "State")
            await until(lambda: outbox.telemetry[-1].data_quality == "bad", 6)
            await server.add("State", 2)
            await until(lambda: outbox.states()[-1] == "idle", 6)
            await server.write("State", 0)
            await until(lambda: outbox.states()[-1] == "stopped", 6)


async def test_a_node_reborn_at_once_is_not_left_dead(tmp_path: Path) -> None:
    """Between two looks the node was another: its item is dead although reading works."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        options = {"verify_secs": 0.5}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox):
            await until(lambda: outbox.telemetry)
            died_us = clock_us()
            await delete_quietly(server, "State")
            await server.add("State", 2)
            await until(lambda: outbox.states()[-1] == "idle", 6)
            assert outbox.gaps, "what was told in between is withdrawn"
            assert outbox.gaps[0].from_us < died_us
            await server.write("State", 0)
            await until(lambda: outbox.states()[-1] == "stopped", 6)


async def test_a_tag_whose_changes_wait_for_their_publication_is_not_taken_for_dead(tmp_path: Path) -> None:
    """Each look finds another value than the one that was told; only the server is slow to tell."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        options = {"verify_secs": 0.1, "reconcile_secs": 0.1, "publishing_interval_secs": 1.0}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox):
            await until(lambda: outbox.telemetry)
            for _ in range(25):
                await count_up(server, 101, 103, 0.04)
            await until(lambda: len(outbox.telemetry) > 70, 6)
        assert outbox.gaps == []


async def test_what_is_read_of_a_dead_tag_does_not_overtake_what_others_have_to_tell(tmp_path: Path) -> None:
    """A factory tells its past, ten seconds at a step: a look sees further than what was published."""
    async with plc({**TAGS, "other.State": 1, "other.Total": 0}) as server:
        outbox = MemoryOutbox()
        machines = [machine(server), machine(server, "m2", "other.")]
        options = {"verify_secs": 0.1, "reconcile_secs": 0.1, "publishing_interval_secs": 0.7}
        told: dict[int, int] = {}
        at_us = clock_us() - 24 * 3600 * 1_000_000
        for name, value in {**TAGS, "other.State": 1, "other.Total": 0}.items():
            await server.write(name, value, at_us=at_us)
        async with reading(configured(server.url, machines, tmp_path, **options), outbox):
            await until(lambda: outbox.of("m1") and outbox.of("m2"))
            for step in range(300):
                at_us += 10_000_000
                if step == 50:
                    deafen(server, "State")
                    await server.write("State", 2, at_us=at_us)
                await server.write("other.Total", step + 1, at_us=at_us)
                told[at_us] = step + 1
                await asyncio.sleep(0.015)
            await until(lambda: outbox.of("m2")[-1].total_units == 300, 6)
        assert outbox.gaps
        assert {gap.machine for gap in outbox.gaps} == {"m1"}
        steps = sorted(told)
        for record in outbox.of("m2"):
            last = bisect_right(steps, record.epoch_us)
            assert record.total_units == (told[steps[last - 1]] if last else 0)


async def test_of_a_tag_that_never_rests_no_more_is_withdrawn_than_since_it_was_known_to_live(
    tmp_path: Path,
) -> None:
    """Hardly a look finds the value that was told last: it is known by what it tells next."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        options = {"verify_secs": 0.2, "reconcile_secs": 0.1, "publishing_interval_secs": 1.0}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            began_us, total, notifications = clock_us(), 100, gateway.source.counters.notifications
            while gateway.source.counters.notifications < notifications + 4:
                total += 1
                await server.write("Total", total)
                await asyncio.sleep(0.004)
            assert outbox.gaps == []
            deafen(server, "Total")
            await server.write("Total", total + 1000)
            await until(lambda: outbox.gaps, 8)
            assert outbox.gaps[0].from_us > began_us
            await until(lambda: outbox.telemetry[-1].total_units == total + 1000)


async def test_of_a_tag_that_dies_after_a_restart_no_more_is_withdrawn_than_since_it_was_looked_at(
    tmp_path: Path,
) -> None:
    """When all tags were last known to live is on disk: not all that was ever told is in doubt."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        options = {"verify_secs": 0.2, "reconcile_secs": 0.1}
        configuration = configured(server.url, [machine(server)], tmp_path, **options)
        gateway = Reading(configuration, outbox)
        gateway.start()
        await count_up(server, 101, 110, 0.1)
        await asyncio.sleep(1.5)
        looked_us = clock_us()
        subscription = gateway.source._subscription
        assert subscription is not None
        await until(lambda: min(subscription.proofs.values()) > looked_us)
        await count_up(server, 111, 112, 0.1)
        await until(lambda: outbox.telemetry[-1].total_units == 112)
        await gateway.crash()
        deafen(server, "Total")
        await server.write("Total", 1000)
        async with reading(configuration, outbox):
            await until(lambda: outbox.gaps and outbox.telemetry[-1].total_units == 1000, 8)
        assert outbox.gaps[0].from_us > looked_us - 1_000_000


def deafen(server: Plc, name: str) -> None:
    """Have the server tell nothing of a tag any more, as if its item were dead."""

    async def nothing(_handle: int, _value: ua.DataValue) -> None: ...

    node = server.nodes[name]
    callbacks = server.server.iserver.aspace._nodes[node.nodeid].attributes[ua.AttributeIds.Value]
    for handle in callbacks.datachange_callbacks:
        callbacks.datachange_callbacks[handle] = nothing


async def delete_quietly(server: Plc, name: str) -> None:
    """Delete a node; asyncua's server calls its callback without awaiting it."""
    node = server.nodes[name]
    callbacks = server.server.iserver.aspace._nodes[node.nodeid].attributes[ua.AttributeIds.Value]
    callbacks.datachange_callbacks.clear()
    await server.remove(name)


async def test_renumbered_namespaces_are_followed(tmp_path: Path) -> None:
    """After a restart the same URI has another index; addresses say the URI."""
    server = Plc()
    await server.start(TAGS)
    try:
        outbox = MemoryOutbox()
        by_path = {
            "name": "m2",
            "state": {"node": "/Objects/Plant/State", "map": STATES},
        }
        async with reading(configured(server.url, [machine(server), by_path], tmp_path), outbox):
            await until(lambda: outbox.of("m1") and outbox.of("m2"))
            await server.stop()
            server.extra_namespaces = ("urn:somebody:else", "urn:another")
            before = server.space
            await server.start({"State": 2, "Total": 5})
            assert server.space == before + 2
            await until(lambda: outbox.states("m1")[-1] == "idle" and outbox.states("m2")[-1] == "idle", 8)
    finally:
        await server.stop()


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "stock"])
async def test_a_server_that_takes_one_publish_request_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fast: bool
) -> None:
    """It refuses the others: there are fewer from then on, and nothing else comes of it."""
    monkeypatch.setattr(UaProcessor, "publish_request_limit", lambda *_: 1)
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        configuration = configured(server.url, [machine(server)], tmp_path, fast_decoder=fast)
        async with reading(configuration, outbox) as gateway:
            await until(lambda: outbox.telemetry)
            await count_up(server, 101, 110, 0.1)
            await until(lambda: outbox.telemetry[-1].total_units == 110)
            assert gateway.source.counters.reconnects == 0
        assert_each_once(outbox, 101, 110)


async def test_a_lost_message_is_asked_for_again(tmp_path: Path) -> None:
    """A publish response that never arrives shows in the sequence numbers, and is republished."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            await asyncio.sleep(0.2)
            lose_next_message(server)
            await count_up(server, 101, 120, 0.02)
            await until(lambda: outbox.telemetry[-1].total_units == 120)
            assert gateway.source.counters.republished == 1
        assert_each_once(outbox, 101, 120)
        assert outbox.gaps == []


async def test_a_session_that_ends_while_a_lost_message_is_asked_for_loses_nothing(tmp_path: Path) -> None:
    """Another session asks for the same message; only a server that has it no more makes a gap."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            await asyncio.sleep(0.2)
            service = server.server.iserver.subscription_service
            republish = service.republish

            def end_session(_params: ua.RepublishParameters) -> ua.NotificationMessage:
                service.republish = republish
                raise ServiceError(ua.StatusCodes.BadSessionNotActivated)

            service.republish = end_session
            lose_next_message(server)
            await count_up(server, 101, 120, 0.02)
            await until(lambda: outbox.telemetry[-1].total_units == 120)
            assert gateway.source.counters.reconnects == 1
            assert gateway.source.counters.republished >= 1
        assert_each_once(outbox, 101, 120)
        assert outbox.gaps == []


async def test_a_message_that_is_gone_becomes_a_gap_and_no_endless_asking(tmp_path: Path) -> None:
    """asyncua's server answers Republish with an empty message when it has none."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            await asyncio.sleep(0.2)
            lose_next_message(server, forget=True)
            await server.write("State", 0)
            await server.write("Total", 170)
            await asyncio.sleep(0.3)
            await server.write("State", 2)
            await until(lambda: outbox.states()[-1] == "idle")
            await until(lambda: outbox.telemetry[-1].total_units == 170)
            await asyncio.sleep(0.3)
            assert gateway.source.counters.missed_notifications == 1
            assert gateway.source.status.state == "connected"
        assert len(outbox.gaps) == 1
        assert outbox.gaps[0].cause == "notifications lost between server and gateway"


async def test_what_the_server_keeps_in_its_history_is_fetched_from_there(tmp_path: Path) -> None:
    async with plc(TAGS) as server:
        for node in server.nodes.values():
            await server.server.historize_node_data_change(node, period=None, count=1000)
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            await asyncio.sleep(0.3)
            lose_next_message(server, forget=True)
            await count_up(server, 101, 120, 0.02)
            await until(lambda: outbox.telemetry[-1].total_units == 120)
            assert gateway.source.counters.history_values > 0
        assert_each_once(outbox, 101, 120)
        assert outbox.gaps == []


async def test_what_is_lost_after_a_subscription_was_taken_over_is_fetched_from_the_history(
    tmp_path: Path,
) -> None:
    """The new process knows of each tag what the earlier one has told: only what follows is told."""
    async with plc(TAGS) as server:
        for node in server.nodes.values():
            await server.server.historize_node_data_change(node, period=None, count=1000)
        outbox = MemoryOutbox()
        configuration = configured(server.url, [machine(server)], tmp_path)
        gateway = Reading(configuration, outbox)
        gateway.start()
        await until(lambda: outbox.telemetry)
        await count_up(server, 101, 110, 0.02)
        await until(lambda: outbox.telemetry[-1].total_units == 110)
        await gateway.crash()
        lose_next_message(server, forget=True)
        await count_up(server, 111, 115, 0.02)
        async with reading(configuration, outbox) as again:
            await until(lambda: again.source.status.state == "connected")
            await count_up(server, 116, 120, 0.02)
            await until(lambda: outbox.telemetry[-1].total_units == 120)
            assert again.source.counters.history_values > 0
        assert_each_once(outbox, 101, 120)
        assert outbox.gaps == []


async def test_a_server_that_is_slow_to_send_a_message_again_is_asked_again(tmp_path: Path) -> None:
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            await asyncio.sleep(0.3)
            session = gateway.source._subscription._session
            call = session.call

            async def without_an_answer(request, *arguments):
                if not isinstance(request, ua.RepublishRequest):
                    return await call(request, *arguments)
                session.call = call
                await until(lambda: gateway.source._subscription._arrived)
                raise NoAnswerError("Republish: no answer in time")

            session.call = without_an_answer
            lose_next_message(server)
            await count_up(server, 101, 120, 0.02)
            await until(lambda: outbox.telemetry[-1].total_units == 120)
            assert gateway.source.counters.republished >= 1
        assert_each_once(outbox, 101, 120)
        assert outbox.gaps == []


@pytest.mark.parametrize("offset_secs", [0, 3600])
async def test_what_the_history_has_told_is_not_told_again_when_it_is_published_late(
    tmp_path: Path, offset_secs: int
) -> None:
    """A server that is behind keeps values in its history before it publishes them."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        began_us = clock_us() - offset_secs * 1_000_000
        for name, value in TAGS.items():
            await server.write(name, value, at_us=began_us)
            await server.server.historize_node_data_change(server.nodes[name], period=None, count=1000)
        options = {"source_clock_offset_secs": offset_secs}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            await server.write("Total", 101, at_us=began_us + 1000)
            await until(lambda: gateway.source.counters.values > 2)
            lose_next_message(server, forget=True)
            await server.write("Total", 102, at_us=began_us + 2000)
            await asyncio.sleep(0.3)
            kept = server.server.iserver.history_manager.storage
            for state, after_us in ((2, 3000), (0, 4000)):
                await kept.save_node_value(server.nodes["State"].nodeid, stamped(state, began_us + after_us))
            await server.write("Total", 103, at_us=began_us + 5000)
            await until(lambda: gateway.source.counters.history_values)
            await server.write("State", 2, at_us=began_us + 3000)
            await server.write("State", 0, at_us=began_us + 4000)
            await server.write("Total", 104, at_us=began_us + 6000)
            await until(lambda: outbox.telemetry[-1].total_units == 104)
        assert outbox.states() == ["running", "idle", "stopped"]
        assert outbox.gaps == []


def stamped(value: int, at_us: int) -> ua.DataValue:
    """A value as a server's history has it."""
    at = EPOCH + dt.timedelta(microseconds=at_us)
    return ua.DataValue(ua.Variant(value, ua.VariantType.Int32), ua.StatusCode(0), at, at)


def lose_next_message(server: Plc, *, forget: bool = False) -> None:
    """Let the next publish response with values vanish; and, with `forget`, from the server's memory too."""
    (subscription,) = server.subscriptions()
    send = subscription.pub_result_callback

    async def losing(result, request):
        if result.NotificationMessage.NotificationData:
            subscription.pub_result_callback = send
            if forget:
                subscription._not_acknowledged_results.clear()
            return
        await send(result, request)

    subscription.pub_result_callback = losing


@pytest.mark.parametrize(
    ("value", "status", "kind", "quality", "total"),
    [
        (None, 0x80000000 | 0x008B0000, None, "uncertain", None),
        (120, 0x40900000, None, "uncertain", 120),
        ("many", 0, None, "uncertain", None),
        (math.nan, 0, ua.VariantType.Double, "uncertain", None),
        (120.0, 0, ua.VariantType.Double, "good", 120),
    ],
    ids=["bad", "uncertain", "text", "nan", "float"],
)
async def test_a_value_that_is_not_good_is_never_counted_as_good(
    tmp_path: Path,
    value: object,
    status: int,
    kind: ua.VariantType | None,
    *,
    quality: str,
    total: int | None,
) -> None:
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox):
            await until(lambda: outbox.telemetry)
            await server.write("Total", value, status=status, kind=kind)
            await until(lambda: len(outbox.telemetry) > 1)
            told = outbox.telemetry[-1]
            assert told.data_quality == quality
            assert (None if not isinstance(told.total_units, int) else told.total_units) == total
            assert told.state == "running"
            await server.write("Total", 130)
            await until(lambda: outbox.telemetry[-1].total_units == 130)
            assert outbox.telemetry[-1].data_quality == "good"


async def test_a_bad_state_is_unknown(tmp_path: Path) -> None:
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox):
            await until(lambda: outbox.telemetry)
            await server.write("State", None, status=0x808B0000)
            await until(lambda: outbox.states()[-1] == "unknown")
            assert outbox.telemetry[-1].data_quality == "bad"
            assert outbox.telemetry[-1].status == "BadSensorFailure" or outbox.telemetry[-1].status
            await server.write("State", 1)
            await until(lambda: outbox.states()[-1] == "running")


async def test_missing_timestamps_fall_back_to_the_servers_then_to_ours(tmp_path: Path) -> None:
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox):
            await until(lambda: outbox.telemetry)
            server_us = clock_us() + 1234
            await server.write("State", 0, at_us=0, server_us=server_us)
            await until(lambda: outbox.states()[-1] == "stopped")
            assert outbox.telemetry[-1].epoch_us == server_us
            assert outbox.telemetry[-1].data_quality == "good"
            before_us = clock_us()
            await server.write("State", 2, at_us=0)
            await until(lambda: outbox.states()[-1] == "idle")
            last = outbox.telemetry[-1]
            assert before_us - 1_000_000 < last.epoch_us <= clock_us()
            assert (last.data_quality, last.status) == ("uncertain", "GatewayTimestamp")


async def test_a_clock_ahead_of_ours_is_not_believed(tmp_path: Path) -> None:
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox):
            await until(lambda: outbox.telemetry)
            await server.write("State", 0, at_us=clock_us() + 365 * 86_400_000_000)
            await until(lambda: outbox.states()[-1] == "stopped")
            last = outbox.telemetry[-1]
            assert abs(last.epoch_us - clock_us()) < 5_000_000
            assert last.status == "SourceClockAhead"


async def test_a_clock_set_back_does_not_turn_records_back(tmp_path: Path) -> None:
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox):
            await until(lambda: outbox.telemetry)
            await server.write("State", 0)
            await until(lambda: outbox.states()[-1] == "stopped")
            await server.write("State", 2, at_us=clock_us() - 3600 * 1_000_000)
            await until(lambda: outbox.states()[-1] == "idle")
            assert outbox.telemetry[-1].status == "SourceClockWentBack"
        times = [one.epoch_us for one in outbox.telemetry]
        assert all(a <= b for a, b in pairwise(times))


async def test_a_gateway_that_is_restarted_has_no_gap(tmp_path: Path) -> None:
    """A clean end leaves the subscription with the PLC, which goes on collecting for us."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        configuration = configured(server.url, [machine(server)], tmp_path)
        async with reading(configuration, outbox):
            await until(lambda: outbox.telemetry)
        await count_up(server, 101, 110)
        async with reading(configuration, outbox):
            await until(lambda: outbox.telemetry[-1].total_units == 110)
        assert_each_once(outbox, 101, 110)
        assert outbox.gaps == []
        assert len(server.subscriptions()) == 1


async def test_other_tags_than_before_are_read_by_a_subscription_of_their_own(tmp_path: Path) -> None:
    """After a change of configuration nothing is left behind in the PLC."""
    async with plc({**TAGS, "Other": 5}) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox):
            await until(lambda: outbox.telemetry)
        changed = {**machine(server), "total_units": {"node": server.node("Other")}}
        async with reading(configured(server.url, [changed], tmp_path), outbox):
            await until(lambda: outbox.telemetry[-1].total_units == 5)
            assert len(server.subscriptions()) == 1
        assert [gap.cause for gap in outbox.gaps] == ["the gateway was not running"]


async def test_nodes_that_are_not_there_at_reconnect_are_not_forgotten(tmp_path: Path) -> None:
    """A PLC comes back, its port first, one of its tags three seconds later."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox):
            await until(lambda: outbox.telemetry)
            await server.stop()
            await server.start({"Total": 1})
            await until(lambda: outbox.telemetry[-1].data_quality == "bad", 8)
            await asyncio.sleep(1.0)
            await server.add("State", 2)
            await until(lambda: outbox.states()[-1] == "idle", 8)
            assert outbox.telemetry[-1].data_quality == "good"


async def test_a_value_of_a_tag_that_nobody_asked_for_is_left_out(tmp_path: Path) -> None:
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            (subscription,) = server.subscriptions()
            for item in subscription.monitored_item_srv._monitored_items.values():
                item.client_handle = item.client_handle if item.client_handle == 1 else 4_000_000_000
            await count_up(server, 103, 104, 0.1)
            await until(lambda: outbox.states()[-1] == "idle")
            assert gateway.source.counters.unasked_values == 2
            assert gateway.source.status.state == "connected"


async def test_requests_that_the_library_gives_up_end_no_reading(tmp_path: Path) -> None:
    """On a busy machine it cancels what waits for an answer; nobody has asked the reading to end."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            connect = gateway.source._connect_and_serve
            given_up = asyncio.Event()

            async def give_up() -> None:
                given_up.set()
                gateway.source._connect_and_serve = connect  # type: ignore[method-assign]
                raise asyncio.CancelledError

            gateway.source._connect_and_serve = give_up  # type: ignore[method-assign]
            await server.stop()
            await until(given_up.is_set)
            await server.start(TAGS)
            await until(lambda: gateway.source.status.state == "connected")


@pytest.mark.parametrize("what", ["publish", "reconcile", "renew"])
async def test_no_part_of_a_session_ends_without_a_word(tmp_path: Path, what: str) -> None:
    """What one of its tasks waits for is cancelled, as the library does with what it gives up."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            name = f"source[{gateway.source.name}].{what}"
            next(task for task in asyncio.all_tasks() if task.get_name() == name).cancel()
            await until(lambda: gateway.source.counters.reconnects == 1)
            await until(lambda: gateway.source.status.state == "connected")
            await server.write("State", 0)
            await until(lambda: outbox.states()[-1] == "stopped")
