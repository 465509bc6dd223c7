"""Values of a real OPC UA server become records."""

from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.opcua_gateway import MemoryOutbox, clock_us, configured, reading
from tests.support.opcua_server import plc, until

STATES = {"0": "stopped", "1": "running", "2": "idle"}


def machine(server, name="m1"):
    return {
        "name": name,
        "state": {"node": server.node("State"), "map": STATES},
        "total_units": {"node": server.node("Total")},
        "product": server.node("Product"),
    }


TAGS = {"State": 1, "Total": 100, "Product": "cola"}


async def test_first_record_is_whole(tmp_path: Path) -> None:
    """The first record waits for all tags, and is stamped by the newest of them."""
    async with plc(TAGS) as server:
        at_us = clock_us() - 3_000_000
        await server.write("State", 1, at_us=at_us - 1_000_000)
        await server.write("Total", 100, at_us=at_us)
        await server.write("Product", "cola", at_us=at_us - 2_000_000)
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox):
            await until(lambda: outbox.telemetry)
        first = outbox.telemetry[0]
        assert (first.state, first.total_units, first.product) == ("running", 100, "cola")
        assert first.epoch_us == at_us
        assert first.data_quality == "good"


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "stock"])
async def test_every_state_change_is_recorded_at_its_source_time(tmp_path: Path, fast: bool) -> None:
    """States that follow each other within one interval are all kept."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        configuration = configured(server.url, [machine(server)], tmp_path, fast_decoder=fast)
        async with reading(configuration, outbox) as gateway:
            await until(lambda: outbox.telemetry)
            base_us = clock_us()
            moments = [base_us + 1000 * i for i in range(1, 41)]
            for i, moment_us in enumerate(moments):
                await server.write("State", i % 2 * 2, at_us=moment_us)
            await until(lambda: len(outbox.telemetry) >= 41)
            assert (gateway.source.counters.slow_decodes == 0) == fast
        told = [(one.state, one.epoch_us) for one in outbox.telemetry[1:41]]
        assert told == [(["stopped", "idle"][i % 2], m) for i, m in enumerate(moments)]


async def test_played_back_hours_are_complete(tmp_path: Path) -> None:
    """Hours of past at full speed become the records that they would have become, heartbeats too."""
    async with plc(TAGS) as server:
        base_us = clock_us() // 60_000_000 * 60_000_000 - 4 * 3600 * 1_000_000
        for tag, value in TAGS.items():
            await server.write(tag, value, at_us=base_us)
        outbox = MemoryOutbox()
        configuration = configured(server.url, [machine(server)], tmp_path, queue_size=10_000)
        async with reading(configuration, outbox) as gateway:
            await until(lambda: gateway.source.status.items_live == 3)
            at_us = base_us
            total = 100
            for _ in range(6):
                await server.write("State", 1, at_us=at_us)
                for _ in range(300):
                    at_us += 1_000_000
                    total += 1
                    await server.write("Total", total, at_us=at_us)
                await server.write("State", 0, at_us=at_us)
                at_us += 900_000_000
                await server.write("State", 2, at_us=at_us)
                at_us += 60_000_000
            await server.write("State", 1, at_us=at_us)
            await until(lambda: outbox.telemetry and outbox.telemetry[-1].epoch_us >= at_us)
        records = outbox.telemetry
        times = [one.epoch_us for one in records]
        assert times == sorted(times)
        assert max(b - a for a, b in pairwise(times)) <= 11_000_000
        assert records[-1].total_units == total
        assert outbox.gaps == []
        changes = [(a.state, b.state) for a, b in pairwise(records) if a.state != b.state]
        assert changes == [("running", "stopped"), ("stopped", "idle"), ("idle", "running")] * 6


async def test_quiet_machine_has_heartbeats(tmp_path: Path) -> None:
    """A machine that changes nothing is still said to be so, in the present."""
    async with plc(TAGS) as server:
        outbox = MemoryOutbox()
        configuration = configured(
            server.url, [machine(server)], tmp_path, heartbeat_secs=1.0, assume_live_after_secs=0.5
        )
        began_us = clock_us()
        async with reading(configuration, outbox):
            await until(lambda: len(outbox.telemetry) >= 4)
        beats = [one.epoch_us for one in outbox.telemetry[1:4]]
        assert all(began_us - 1_000_000 < beat <= clock_us() for beat in beats)
        assert [b - a for a, b in pairwise(beats)] == [1_000_000] * 2
