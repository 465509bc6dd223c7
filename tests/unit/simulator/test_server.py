"""The simulated PLC over real OPC UA, read with a plain asyncua client."""

# ruff: noqa: SIM117 - first the server, then who reads it, then how long

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua

from simulator import scenarios
from simulator.errors import OptionError, ServerError
from simulator.scenarios import Outage, Scenario
from simulator.server import NAMESPACE_URI, TAG_TYPES, LineServer
from simulator.service import Settings, Simulation, simulate
from simulator.timetable import US_PER_SEC
from simulator.truth import Truth, read_log

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW_US = 1_790_000_040 * US_PER_SEC
Write = tuple[str, int, Any]


@dataclass
class Watcher:
    """Keeps each notification: tag, source timestamp [us], value (None when bad)."""

    seen: list[Write] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def datachange_notification(self, node: Any, value: Any, notification: Any) -> None:
        shown = notification.monitored_item.Value
        stamp = shown.SourceTimestamp
        stamp = stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)
        at_us = (stamp - EPOCH) // timedelta(microseconds=1)
        self.seen.append((node.nodeid.Identifier, at_us, value if shown.StatusCode.is_good() else None))
        self.changed.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.seen) < count:
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def watching(
    server: LineServer, *, queue_size: int = 1000, interval_ms: float = 50
) -> AsyncIterator[Watcher]:
    watcher = Watcher()
    async with Client(server.url) as client:
        space = await client.get_namespace_index(NAMESPACE_URI)
        nodes = [
            client.get_node(f"ns={space};s={server.line.name}.{machine.name}.{tag}")
            for machine in server.line.machines
            for tag in TAG_TYPES
        ]
        subscription = await client.create_subscription(interval_ms, watcher)
        await subscription.subscribe_data_change(nodes, queuesize=queue_size)
        yield watcher


def settings(folder: Path | None = None, **changes: Any) -> Settings:
    usual: dict[str, Any] = {"port": 0, "data_dir": folder, "history_secs": 900.0}
    if folder is not None:
        usual["truth_log"] = folder / "truth.jsonl"
    return Settings(**{**usual, **changes})


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a server has no event for its port
        await asyncio.sleep(0.02)


def small(name: str = "demo", **changes: Any) -> Scenario:
    return replace(scenarios.build(name, lines=1), **changes)


def logged(path: Path, *, served: bool = True) -> list[Write]:
    return [
        (f"{row['machine'].replace('/', '.')}.{row['tag']}", row["at_us"], row["value"])
        for row in read_log(path)
        if "kind" not in row and row.get("served", True) is served
    ]


@pytest.mark.parametrize("queue_size", [1000, 7])
async def test_a_client_sees_each_write_of_the_past_with_its_time(tmp_path: Path, queue_size: int) -> None:
    """However small its queue, nothing overflows, and every logged write arrives."""
    scenario = small("demo", idle_soon=None)
    chosen = settings(tmp_path, now_us=lambda: NOW_US, history_secs=900.0 if queue_size > 10 else 200.0)
    async with simulate(scenario, chosen) as simulation:
        async with watching(simulation.lines[0].server, queue_size=queue_size) as watcher:
            async with asyncio.timeout(20):
                await simulation.wait_until_live()
            written = logged(tmp_path / "truth.jsonl")
            await watcher.until(len(written))
    assert sorted(watcher.seen) == sorted(written)
    assert len(written) > 200


async def test_all_tags_of_a_moment_carry_its_time(tmp_path: Path) -> None:
    async with simulate(small(), settings(tmp_path, now_us=lambda: NOW_US)) as simulation:
        async with watching(simulation.lines[0].server) as watcher:
            await simulation.wait_until_live()
            await watcher.until(len(logged(tmp_path / "truth.jsonl")))
    turns = {(tag.rsplit(".", 1)[0], at_us) for tag, at_us, _ in watcher.seen if tag.endswith(".State")}
    speeds = {(tag.rsplit(".", 1)[0], at_us) for tag, at_us, _ in watcher.seen if tag.endswith(".Speed")}
    assert len(turns) > 10
    assert speeds <= turns


async def test_the_past_waits_for_somebody_to_read_it(tmp_path: Path) -> None:
    async with simulate(small(), settings(tmp_path)) as simulation:
        await asyncio.sleep(0.3)
        assert not simulation.is_live
        assert simulation.lines[0].server.writes == 24


async def test_the_present_follows_the_clock() -> None:
    scenario = small("good-day")
    async with simulate(scenario, settings(history_secs=0.0)) as simulation:
        async with watching(simulation.lines[0].server) as watcher:
            await watcher.until(40)
    stamps = [at_us for tag, at_us, _ in watcher.seen if tag.endswith("TotalUnits")]
    assert all(at_us % US_PER_SEC == 0 for at_us in stamps)
    assert len(set(stamps)) >= 3


async def test_a_restart_goes_on_where_the_clock_is(tmp_path: Path) -> None:
    """Counters go on as if the machines had run all the time; what nobody could read is logged as such."""
    now_us = NOW_US
    scenario = small("counter-reset")
    quiet = settings(tmp_path, now_us=lambda: now_us, wait_for_subscriber=False)
    async with simulate(scenario, quiet) as simulation:
        await simulation.wait_until_live()
    now_us += 600 * US_PER_SEC
    async with simulate(scenario, quiet) as simulation:
        await simulation.wait_until_live()
    unseen = logged(tmp_path / "truth.jsonl", served=False)
    assert {at_us for _, at_us, _ in unseen if at_us > NOW_US}
    truth = Truth.from_log(tmp_path / "truth.jsonl")
    run = simulation.run
    known = Truth.from_moments(
        scenario.factory,
        itertools.takewhile(
            lambda tagged: tagged.moment.at_us <= now_us, run.line_moments(scenario.factory.lines[0])
        ),
    )
    assert truth.figures(run.origin_us, now_us) == known.figures(run.origin_us, now_us)


async def test_what_a_booting_plc_writes_late_is_logged_with_when_it_was(tmp_path: Path) -> None:
    now_us = NOW_US
    booted_us = NOW_US + 60 * US_PER_SEC

    class SlowServer(LineServer):
        async def start(self, rows: Any) -> None:
            nonlocal now_us
            await super().start(rows)
            now_us = booted_us

    quiet = settings(tmp_path, now_us=lambda: now_us, wait_for_subscriber=False)
    async with simulate(small(), quiet) as simulation:
        await simulation.wait_until_live()
    now_us = booted_us - 30 * US_PER_SEC
    async with simulate(small(), replace(quiet, server=SlowServer)) as simulation:
        await simulation.wait_until_live()
    late = [
        row
        for row in read_log(tmp_path / "truth.jsonl")
        if "tag" in row and row.get("served", True) and booted_us - 30 * US_PER_SEC < row["at_us"]
    ]
    assert late
    assert {row.get("logged_us") for row in late} == {booted_us}


async def test_plcs_boot_beside_each_other(tmp_path: Path) -> None:
    class Together(LineServer):
        all_boot = asyncio.Barrier(2)

        async def start(self, rows: Any) -> None:
            async with asyncio.timeout(20):
                await self.all_boot.wait()
            await super().start(rows)

    two_lines = scenarios.build("demo", seed=3, lines=2)
    async with simulate(two_lines, settings(tmp_path, server=Together, history_secs=0.0)) as simulation:
        assert [show.server.is_up for show in simulation.lines] == [True, True]


async def test_a_start_broken_off_in_the_past_goes_on_there(tmp_path: Path) -> None:
    chosen = settings(tmp_path, now_us=lambda: NOW_US, history_pace=1500.0, wait_for_subscriber=False)
    async with simulate(small(), chosen) as simulation:
        await asyncio.sleep(0.2)
        assert not simulation.is_live
    async with simulate(small(), chosen) as simulation:
        async with asyncio.timeout(20):
            await simulation.wait_until_live()
    assert not logged(tmp_path / "truth.jsonl", served=False)
    truth = Truth.from_log(tmp_path / "truth.jsonl")
    known = Truth.from_moments(
        simulation.scenario.factory,
        itertools.takewhile(
            lambda tagged: tagged.moment.at_us <= NOW_US,
            simulation.run.line_moments(simulation.scenario.factory.lines[0]),
        ),
    )
    assert truth.figures(simulation.run.origin_us, NOW_US) == known.figures(simulation.run.origin_us, NOW_US)


async def test_a_lost_plc_comes_back_with_what_it_did_meanwhile(tmp_path: Path) -> None:
    scenario = small("plc-lost", outages=(Outage(after_secs=1.0, secs=1.0),))
    chosen = settings(tmp_path, history_secs=0.0, wait_for_subscriber=False)
    async with simulate(scenario, chosen) as simulation:
        server = simulation.lines[0].server
        async with asyncio.timeout(60):
            await until(lambda: server.is_up)
            await until(lambda: not server.is_up)
            await until(lambda: server.is_up)
            async with watching(server) as watcher:
                await watcher.until(30)
    assert set(watcher.seen) <= set(logged(tmp_path / "truth.jsonl"))


async def test_another_factory_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with simulate(small(), settings(tmp_path, wait_for_subscriber=False)):
        pass
    with pytest.raises(OptionError, match="belongs to another factory"):
        Simulation(scenarios.build("demo", lines=1, seed=2), settings(tmp_path))


async def test_a_port_in_use_is_said_plainly() -> None:
    async with simulate(small(), settings()) as simulation:
        port = int(simulation.lines[0].server.url.rsplit(":", 1)[1])
        with pytest.raises(ServerError, match=f":{port}: "):
            async with simulate(small(), settings(port=port)):
                pass


async def test_a_machine_stands_idle_soon_after_each_start(tmp_path: Path) -> None:
    for start in range(2):
        now_us = NOW_US + start * 3600 * US_PER_SEC
        async with simulate(
            small("demo"), settings(tmp_path, now_us=lambda at=now_us: at, wait_for_subscriber=False)
        ) as simulation:
            forced = simulation.run.forced
        assert len(forced) == start + 1
        assert now_us < forced[-1].start_us < now_us + 15 * US_PER_SEC
    assert json.loads((tmp_path / "factory.json").read_text())["forced"] == [list(item) for item in forced]


async def test_bad_values_are_written_with_their_status(tmp_path: Path) -> None:
    scenario = small("bad-quality")
    machines = tuple(
        replace(m, bad_every_secs=60.0, bad_secs=20.0) for m in scenario.factory.lines[0].machines
    )
    line = replace(scenario.factory.lines[0], machines=machines)
    scenario = replace(scenario, factory=replace(scenario.factory, lines=(line,)))
    async with simulate(
        scenario, settings(tmp_path, now_us=lambda: NOW_US, history_secs=300.0)
    ) as simulation:
        async with watching(simulation.lines[0].server) as watcher:
            await simulation.wait_until_live()
            await asyncio.sleep(0.3)
    bad = [write for write in watcher.seen if write[2] is None]
    assert bad
    assert set(watcher.seen) <= set(logged(tmp_path / "truth.jsonl"))


async def test_a_secured_server_can_be_read_with_a_certificate(tmp_path: Path) -> None:
    from simulator import certificates

    certificate, private_key = await certificates.own(tmp_path, "127.0.0.1")
    secured = settings(certificate=certificate, private_key=private_key, plain=False)
    async with simulate(small(), secured) as simulation:
        client = Client(simulation.lines[0].server.url)
        policy = "Basic256Sha256,SignAndEncrypt"
        await client.set_security_string(f"{policy},{certificate},{private_key}")
        client.application_uri = certificates.APPLICATION_URI
        async with client:
            assert await client.get_namespace_index(NAMESPACE_URI) > 0
        with pytest.raises((ua.UaError, ConnectionError, asyncio.TimeoutError)):
            async with Client(simulation.lines[0].server.url, timeout=2):
                pass
