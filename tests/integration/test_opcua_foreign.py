"""The gateway against a server that nobody here wrote: node-opcua's."""

import asyncio
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from gateway.pipeline import _SavedConnection
from gateway.sources.certificates import CertificateStore
from gateway.sources.session import Resumable
from gateway.sources.subscription import Saved
from tests.support.foreign_server import ForeignServer, foreign_server
from tests.support.opcua_gateway import MemoryOutbox, Reading, clock_us, configured, reading
from tests.support.opcua_server import until
from tests.support.ports import free_port

pytestmark = pytest.mark.slow
STATES = {"0": "stopped", "1": "running", "2": "idle"}
TAGS: dict[str, tuple[str, Any]] = {
    "State": ("Int32", 1),
    "Total": ("UInt32", 100),
    "Product": ("String", "cola"),
}


def machine(server: ForeignServer, name: str = "m1", prefix: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "state": {"node": server.node(f"{prefix}State"), "map": STATES},
        "total_units": server.node(f"{prefix}Total"),
    }


async def count_up(server: ForeignServer, first: int, last: int, pause_secs: float = 0.0) -> None:
    """Let counter and state change together; steps lie 2 ms apart because the server keeps milliseconds."""
    for total in range(first, last + 1):
        at_us = clock_us()
        await server.write("Total", "UInt32", total, at_us)
        await server.write("State", "Int32", total % 3, at_us)
        await asyncio.sleep(max(pause_secs, 0.002))


async def trusted(gateway: Reading, folder: Path) -> None:
    """Trust the server's certificate once it has been refused."""
    await until(lambda: gateway.source.status.state == "failed", 20)
    store = CertificateStore(folder / "pki")
    (waiting,) = store.shelved()
    store.trust(waiting.thumbprint)


def assert_each_state(outbox: MemoryOutbox, first: int, last: int) -> None:
    """Every state that was shown is told once, in order."""
    told = outbox.states()
    wanted = [STATES[str(n % 3)] for n in range(first, last + 1)]
    assert told[-len(wanted) :] == wanted
    times = [one.epoch_us for one in outbox.of("m1")]
    assert times == sorted(times)


async def test_values_of_every_type_are_read_fast(tmp_path: Path) -> None:
    tags: dict[str, tuple[str, Any]] = {
        "State": ("Int32", 1),
        "Total": ("UInt32", 100),
        "a": ("Boolean", True),
        "b": ("Int16", -7),
        "c": ("Float", 1.5),
        "d": ("Double", -2.25),
        "e": ("String", "Grüße"),
        "f": ("Byte", 200),
    }
    async with foreign_server(tags, port=free_port()) as server:
        outbox = MemoryOutbox()
        one = machine(server) | {"tags": {name: server.node(name) for name in "abcdef"}}
        async with reading(configured(server.url, [one], tmp_path), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            first = outbox.telemetry[0]
            assert (first.state, first.total_units) == ("running", 100)
            assert first.tags == {"a": True, "b": -7, "c": 1.5, "d": -2.25, "e": "Grüße", "f": 200}
            await count_up(server, 101, 120)
            await until(lambda: outbox.telemetry[-1].total_units == 120)
            assert gateway.source.counters.slow_decodes == 0
        assert_each_state(outbox, 101, 120)


async def test_a_cut_connection_loses_nothing(tmp_path: Path) -> None:
    async with foreign_server(TAGS, port=free_port()) as server:
        outbox = MemoryOutbox()
        async with reading(configured(server.url, [machine(server)], tmp_path), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            for cut in range(2):
                writing = asyncio.create_task(count_up(server, 101 + 60 * cut, 160 + 60 * cut, 0.01))
                await asyncio.sleep(0.3)
                gateway.source._subscription._session.client.uaclient.protocol.transport.abort()
                await writing
            await until(lambda: outbox.telemetry[-1].total_units == 220)
        assert_each_state(outbox, 101, 220)
        assert outbox.gaps == []


async def test_a_killed_gateway_goes_on_where_it_was(tmp_path: Path) -> None:
    async with foreign_server(TAGS, port=free_port()) as server:
        outbox = MemoryOutbox()
        configuration = configured(server.url, [machine(server)], tmp_path)
        gateway = Reading(configuration, outbox)
        gateway.start()
        await until(lambda: outbox.telemetry)
        writing = asyncio.create_task(count_up(server, 101, 160, 0.01))
        await asyncio.sleep(0.4)
        await gateway.crash()
        await writing
        async with reading(configuration, outbox):
            await until(lambda: outbox.telemetry[-1].total_units == 160)
        assert_each_state(outbox, 101, 160)
        assert outbox.gaps == []


def without_its_session(outbox: MemoryOutbox) -> None:
    """Make the saved session one that the server does not know: its subscription must be transferred."""
    kept = msgspec.msgpack.decode(outbox.checkpoints["plc-1"], type=_SavedConnection)
    assert kept.source is not None
    saved = msgspec.msgpack.decode(kept.source[4:], type=Saved)
    stranger = msgspec.structs.replace(saved, session=Resumable("ns=0;g=" + str(uuid.uuid4()), b"x" * 32))
    source = kept.source[:4] + msgspec.msgpack.encode(stranger)
    outbox.checkpoints["plc-1"] = msgspec.msgpack.encode(msgspec.structs.replace(kept, source=source))


async def test_no_tag_is_watched_twice_when_the_answer_to_its_creation_was_lost(tmp_path: Path) -> None:
    """Killed after the server has made an item and before we note it; else its values would come twice."""
    async with foreign_server(TAGS, port=free_port()) as server:
        outbox = MemoryOutbox()
        configuration = configured(server.url, [machine(server)], tmp_path)
        gateway = Reading(configuration, outbox)
        gateway.start()
        await until(lambda: outbox.telemetry)
        watched = gateway.source.status.items_live
        subscription = gateway.source._subscription.id
        await gateway.crash()
        kept = msgspec.msgpack.decode(outbox.checkpoints["plc-1"], type=_SavedConnection)
        assert kept.source is not None
        saved = msgspec.msgpack.decode(kept.source[4:], type=Saved)
        fewer = msgspec.structs.replace(saved, items=saved.items[1:])
        source = kept.source[:4] + msgspec.msgpack.encode(fewer)
        outbox.checkpoints["plc-1"] = msgspec.msgpack.encode(msgspec.structs.replace(kept, source=source))
        async with reading(configuration, outbox) as again:
            await until(lambda: again.source.status.items_live == watched)
            assert again.source._subscription.id == subscription
            assert await server.ask("items") == watched
            await count_up(server, 101, 110, 0.01)
            await until(lambda: outbox.telemetry[-1].total_units == 110)


SIGNED = {
    "security": "Basic256Sha256",
    "security_mode": "sign",
    "allow_insecure": False,
    "connect_timeout_secs": 10.0,
}
"""Without it, the server rightly lets nobody take over an anonymous reader's subscription."""


@pytest.mark.parametrize("session", ["the same session", "another session"])
async def test_what_a_killed_gateway_had_not_on_disk_is_sent_again(tmp_path: Path, session: str) -> None:
    """TransferSubscriptions and Republish: messages had come, but were not acknowledged."""
    async with foreign_server(TAGS, port=free_port()) as server:
        outbox = MemoryOutbox()
        options = SIGNED if session == "another session" else {}
        configuration = configured(
            server.url, [machine(server)], tmp_path, publishing_interval_secs=0.1, **options
        )
        gateway = Reading(configuration, outbox)
        gateway.start()
        if session == "another session":
            await trusted(gateway, tmp_path)
        await until(lambda: outbox.telemetry, 20)
        received = gateway.source.counters.notifications
        outbox.broken = True
        await count_up(server, 101, 130, 0.01)
        await until(lambda: gateway.source.counters.notifications > received)
        subscription = gateway.source._subscription.id
        await gateway.crash()
        outbox.broken = False
        await count_up(server, 131, 160, 0.01)
        if session == "another session":
            without_its_session(outbox)
        async with reading(configuration, outbox) as again:
            await until(lambda: outbox.telemetry[-1].total_units == 160, 20)
            assert again.source._subscription.id == subscription
            assert again.source._subscription._session.resumed == (session == "the same session")
            assert again.source.counters.republished > 0
        assert_each_state(outbox, 101, 160)
        assert outbox.gaps == []


@pytest.mark.parametrize("history", [True, False])
async def test_a_subscription_that_may_not_be_taken_over_leaves_a_gap_only_without_history(
    tmp_path: Path, *, history: bool
) -> None:
    """The gateway was away for longer than the server keeps its subscription."""
    async with foreign_server({**TAGS, "Other": ("Int32", 1)}, port=free_port(), history=history) as server:
        outbox = MemoryOutbox()
        quiet = {"name": "m2", "state": {"node": server.node("Other"), "map": STATES}}
        configuration = configured(server.url, [machine(server), quiet], tmp_path, heartbeat_secs=1.0)
        gateway = Reading(configuration, outbox)
        gateway.start()
        await until(lambda: outbox.of("m1") and outbox.of("m2"))
        await count_up(server, 101, 110)
        await until(lambda: outbox.of("m1")[-1].total_units == 110)
        await until(lambda: len(outbox.of("m2")) > 2, what="heartbeats: it is watched")
        await gateway.crash()
        without_its_session(outbox)
        left_us = clock_us()
        await count_up(server, 111, 130)
        await asyncio.sleep(3)
        async with reading(configuration, outbox) as again:
            await count_up(server, 131, 140)
            await until(lambda: outbox.of("m1")[-1].total_units == 140)
            assert (again.source.counters.history_values > 0) == history
            await until(lambda: outbox.of("m2")[-1].epochtime > left_us / 1e6 + 3)
        gaps = [] if history else [("m1", "the gateway was not running")]
        assert [(gap.machine, gap.cause) for gap in outbox.gaps] == gaps, "what m2 shows is of before"
        if history:
            assert_each_state(outbox, 101, 140)
            times = [one.epochtime for one in outbox.of("m2")]
            assert max(after - before for before, after in pairwise(times)) < 1.5, "its silence is known"


async def test_what_only_another_run_of_the_server_knew_is_a_gap_of_the_next_process(tmp_path: Path) -> None:
    """A history that began while the gateway was away does not tell what was before."""
    port = free_port()
    outbox = MemoryOutbox()
    async with foreign_server(TAGS, port=port, history=True) as server:
        configuration = configured(server.url, [machine(server)], tmp_path)
        gateway = Reading(configuration, outbox)
        gateway.start()
        await until(lambda: outbox.telemetry)
        await gateway.crash()
        await server.kill()
    async with foreign_server(TAGS, port=port, history=True), reading(configuration, outbox) as again:
        await until(lambda: outbox.gaps)
        assert again.source.counters.history_values == 0


async def test_a_history_too_long_to_be_read_at_once_is_read_machine_by_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one machine has is kept in memory until it is on disk; what is more than that is a gap."""
    monkeypatch.setattr("gateway.sources.history.MAX_VALUES", 50)
    tags = {f"{name}Total": ("UInt32", 0) for name in "ABC"}
    async with foreign_server(tags, port=free_port(), history=True) as server:
        outbox = MemoryOutbox()
        machines = [
            {
                "name": name,
                "state": {"moving": "total_units"},
                "total_units": server.node(f"{name}Total"),
            }
            for name in "ABC"
        ]
        configuration = configured(server.url, machines, tmp_path, assume_live_after_secs=1.0)
        gateway = Reading(configuration, outbox)
        gateway.start()
        await until(lambda: all(outbox.of(name) for name in "ABC"))
        await gateway.crash()
        without_its_session(outbox)
        for total in range(1, 91):
            for name in "ABC":
                if total <= 40 or name == "B":
                    await server.write(f"{name}Total", "UInt32", total, clock_us())
        async with reading(configuration, outbox):
            await until(lambda: [outbox.of(name)[-1].total_units for name in "ABC"] == [40, 90, 40])
        assert [gap.machine for gap in outbox.gaps] == ["B"]


async def test_a_killed_server_is_read_again(tmp_path: Path) -> None:
    port = free_port()
    outbox = MemoryOutbox()
    async with foreign_server(TAGS, port=port) as server:
        configuration = configured(server.url, [machine(server)], tmp_path)
        gateway = Reading(configuration, outbox)
        gateway.start()
        await until(lambda: outbox.telemetry)
        await server.kill()
    try:
        async with foreign_server({**TAGS, "State": ("Int32", 2)}, port=port):
            await until(lambda: outbox.states()[-1] == "idle", 15)
        assert len(outbox.gaps) == 1
    finally:
        await gateway.stop()


async def test_renumbered_namespaces_are_followed(tmp_path: Path) -> None:
    """The PLC's program was changed: its URI has another index; by URI and path its tags are found."""
    port = free_port()
    outbox = MemoryOutbox()
    by_path = {"name": "m2", "state": {"node": "/Objects/Plant/State", "map": STATES}}
    async with foreign_server(TAGS, port=port) as server:
        before = await server.ask("namespace")
        gateway = Reading(configured(server.url, [machine(server), by_path], tmp_path), outbox)
        gateway.start()
        await until(lambda: outbox.of("m1") and outbox.of("m2"), 20)
    try:
        others = ["urn:somebody:else", "urn:another"]
        tags = {**TAGS, "State": ("Int32", 2)}
        async with foreign_server(tags, port=port, namespaces_before=others) as server:
            assert await server.ask("namespace") == before + 2
            await until(lambda: outbox.states("m1")[-1] == "idle", 20)
            await until(lambda: outbox.states("m2")[-1] == "idle", 20)
            await server.write("State", "Int32", 0, clock_us())
            await until(lambda: outbox.states("m1")[-1] == outbox.states("m2")[-1] == "stopped", 20)
    finally:
        await gateway.stop()


@pytest.mark.parametrize(
    ("kind", "value", "quality", "total"),
    [("Double", 120.0, "good", 120), ("Int16", 120, "good", 120), ("String", "many", "uncertain", None)],
)
async def test_a_tag_that_comes_back_with_another_type_is_read_as_what_it_is(
    tmp_path: Path, kind: str, value: object, quality: str, total: int | None
) -> None:
    async with foreign_server(TAGS, port=free_port()) as server:
        outbox = MemoryOutbox()
        options = {"verify_secs": 0.5}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox) as gateway:
            await until(lambda: outbox.telemetry and outbox.telemetry[-1].total_units == 100, 20)
            await server.ask("remove", name="Total")
            await until(lambda: outbox.telemetry[-1].total_units is UNSET, 20)
            await server.ask("add", name="Total", type=kind, value=value)
            await until(lambda: gateway.source.status.items_live == 2, 20)
            await server.write("State", "Int32", 2, clock_us())
            await until(lambda: outbox.states()[-1] == "idle", 20)
            await until(lambda: outbox.telemetry[-1].data_quality == quality, 20)
            assert outbox.telemetry[-1].total_units == (UNSET if total is None else total)


async def test_its_limits_are_kept(tmp_path: Path) -> None:
    limits = {"maxNodesPerRead": 4, "maxMonitoredItemsPerCall": 5, "maxNodesPerBrowse": 3}
    tags = {f"n{i}.{tag}": value for i in range(9) for tag, value in TAGS.items()}
    async with foreign_server(tags, port=free_port(), limits=limits) as server:
        outbox = MemoryOutbox()
        machines = [machine(server, f"m{i}", f"n{i}.") for i in range(9)]
        async with reading(configured(server.url, machines, tmp_path), outbox) as gateway:
            await until(lambda: gateway.source.status.items_live == 18)
            await until(lambda: len({one.machine for one in outbox.telemetry}) == 9)


async def test_a_full_queue_is_told_as_a_gap(tmp_path: Path) -> None:
    """This server sets the overflow bit, as real PLCs do."""
    async with foreign_server(TAGS, port=free_port()) as server:
        outbox = MemoryOutbox()
        options = {"queue_size": 3, "publishing_interval_secs": 1.0}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox) as gateway:
            await until(lambda: outbox.telemetry)
            await count_up(server, 101, 130)
            await until(lambda: outbox.telemetry[-1].total_units == 130)
            assert gateway.source.counters.overflows > 0
        assert outbox.gaps
        assert all(gap.cause == "queue overflow in the server" for gap in outbox.gaps)


async def test_bad_nodes_do_not_hinder_good_ones(tmp_path: Path) -> None:
    async with foreign_server(TAGS, port=free_port()) as server:
        outbox = MemoryOutbox()
        machines = [machine(server), machine(server, "m2", "late.")]
        async with reading(configured(server.url, machines, tmp_path), outbox):
            await until(lambda: outbox.of("m1") and outbox.of("m2"))
            assert (outbox.of("m1")[-1].data_quality, outbox.of("m2")[-1].data_quality) == ("good", "bad")
            await server.ask("add", name="late.State", type="Int32", value=1)
            await server.ask("add", name="late.Total", type="UInt32", value=9)
            await until(lambda: outbox.of("m2")[-1].data_quality == "good", 15)
            await server.ask("remove", name="late.State")
            await until(lambda: outbox.of("m2")[-1].data_quality == "bad", 15)
            await server.ask("add", name="late.State", type="Int32", value=2)
            await until(lambda: outbox.of("m2")[-1].state == "idle", 15)


async def test_a_dropped_subscription_is_made_anew(tmp_path: Path) -> None:
    async with foreign_server(TAGS, port=free_port()) as server:
        outbox = MemoryOutbox()
        options = {"silence_secs": 2.0}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox):
            await until(lambda: outbox.telemetry)
            await server.ask("drop_subscriptions")
            await server.write("State", "Int32", 2, clock_us())
            await until(lambda: outbox.states()[-1] == "idle", 15)


@pytest.mark.parametrize("history", [True, False])
async def test_a_lost_subscription_leaves_a_gap_only_where_the_server_keeps_no_history(
    tmp_path: Path, *, history: bool
) -> None:
    async with foreign_server({**TAGS, "Other": ("Int32", 1)}, port=free_port(), history=history) as server:
        outbox = MemoryOutbox()
        options = {"silence_secs": 1.0}
        quiet = {"name": "m2", "state": {"node": server.node("Other"), "map": STATES}}
        configuration = configured(server.url, [machine(server), quiet], tmp_path, **options)
        async with reading(configuration, outbox) as gateway:
            await until(lambda: outbox.of("m1") and outbox.of("m2"), 20)
            await count_up(server, 101, 110)
            await until(lambda: outbox.of("m1")[-1].total_units == 110, 20)
            await server.ask("drop_subscriptions")
            await count_up(server, 111, 130)
            await until(lambda: gateway.source.counters.reconnects, 20)
            await until(lambda: outbox.of("m1")[-1].total_units == 130, 20)
            await count_up(server, 131, 140)
            await until(lambda: outbox.of("m1")[-1].total_units == 140, 20)
            assert (gateway.source.counters.history_values > 0) == history
        assert {gap.machine for gap in outbox.gaps} == (set() if history else {"m1"})
        assert {one.data_quality for one in outbox.telemetry} == {"good"}
        if history:
            assert_each_state(outbox, 101, 140)


@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"])
@pytest.mark.parametrize("mode", ["sign", "sign_and_encrypt"])
async def test_values_come_over_every_policy_with_a_named_user(
    tmp_path: Path, policy: str, mode: str
) -> None:
    async with foreign_server(TAGS, port=free_port(), anonymous=False) as server:
        password = tmp_path / "password"
        password.write_text("secret")
        outbox = MemoryOutbox()
        options = {
            "security": policy,
            "security_mode": mode,
            "allow_insecure": False,
            "username": "operator",
            "password_file": str(password),
            "connect_timeout_secs": 10.0,
        }
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox) as gateway:
            await trusted(gateway, tmp_path)
            await until(lambda: outbox.telemetry, 20)
            await server.write("State", "Int32", 2, clock_us())
            await until(lambda: outbox.states()[-1] == "idle")
            gateway.source._subscription._session.client.uaclient.protocol.transport.abort()
            await server.write("State", "Int32", 1, clock_us())
            await until(lambda: outbox.states()[-1] == "running", 15)
            assert gateway.source._subscription._session.resumed
            assert outbox.gaps == []


async def test_the_secure_channel_is_renewed_in_time(tmp_path: Path) -> None:
    """The server grants a few seconds; when they are over the same session is still at work."""
    async with foreign_server(TAGS, port=free_port(), token_ms=6000) as server:
        outbox = MemoryOutbox()
        options = {"security": "auto", "allow_insecure": False, "connect_timeout_secs": 10.0}
        async with reading(configured(server.url, [machine(server)], tmp_path, **options), outbox) as gateway:
            await trusted(gateway, tmp_path)
            await until(lambda: outbox.telemetry, 20)
            token = gateway.source._subscription._session.client.uaclient.protocol._connection.security_token
            reconnects = gateway.source.counters.reconnects
            for total in range(101, 115):
                await count_up(server, total, total, 0.5)
            await until(lambda: outbox.telemetry[-1].total_units == 114)
            assert gateway.source.counters.reconnects == reconnects
            now = gateway.source._subscription._session.client.uaclient.protocol._connection.security_token
            assert now.TokenId != token.TokenId
        assert_each_state(outbox, 101, 114)
