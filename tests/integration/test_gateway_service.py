"""The daemon as a whole: clean ends, hard ends, reloads, several uplinks, health."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from gateway import commands
from gateway.errors import OutboxFullError
from gateway.outbox.sqlite import SqliteOutbox
from tests.support.gateway_parts import START_US, STATUS_TOPIC, Clock, Store, eventually, open_outbox
from tests.support.gateway_process import configuration_text, counting
from tests.support.gateway_service import running, written
from tests.support.mosquitto import Mosquitto
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def mosquitto():
    with Mosquitto() as broker:
        yield broker


@contextlib.contextmanager
def process(*arguments, **options):
    """Run a gateway process; kill it in the end if it still runs."""
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.support.gateway_process", *map(str, arguments)],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()
        started.stderr.close()


def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=5 * PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def no_sequence_is_missing_or_doubled(store):
    sequences = sorted(store.records)
    assert sequences == list(range(sequences[0], sequences[-1] + 1))


async def test_records_of_machines_reach_the_store_with_a_status_beside(tmp_path, mosquitto):
    with Store(mosquitto.port) as store:
        began = time.monotonic()
        async with running(written(tmp_path, brokers={"broker": mosquitto.port})):
            await eventually(lambda: store.records)
            assert time.monotonic() - began < PATIENCE * 1.5, "start to first record"
            await eventually(lambda: len(store.records) > 20)
            await eventually(
                lambda: any(s["connections"][0]["state"] == "connected" for s in store.statuses[1:]), 12
            )
        await eventually(lambda: store.statuses[-1]["online"] is False)
    status = next(s for s in store.statuses if s["online"])
    assert status["gateway"] == "edge"
    assert status["first_sequence"] <= min(store.records)
    assert {record["machine"] for record in store.records.values()} == {"machine-0"}
    no_sequence_is_missing_or_doubled(store)


async def test_a_clean_end_takes_less_than_2_secs_and_leaves_nothing_unsent(tmp_path, mosquitto):
    path = written(tmp_path, brokers={"broker": mosquitto.port}, connections={"one": 5, "two": 5})
    with Store(mosquitto.port) as store, process(path) as gateway:
        await eventually(lambda: len(store.records) > 100)
        began = time.monotonic()
        gateway.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait, 5 * PATIENCE) == 0
        assert time.monotonic() - began < PATIENCE * 2
        await eventually(lambda: store.statuses[-1]["online"] is False)
        no_sequence_is_missing_or_doubled(store)
        with contextlib.closing(open_outbox(tmp_path / "data")) as outbox:
            assert outbox.next_sequence == max(store.records) + 1


async def test_an_end_while_nothing_answers_takes_less_than_2_secs(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        path = written(tmp_path, brokers={"silent": silent.getsockname()[1], "refusing": free_port()})
        with process(path) as gateway:
            await eventually((tmp_path / "data" / "health.url").exists, 20)
            await asyncio.sleep(1)
            began = time.monotonic()
            gateway.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(gateway.wait, 5 * PATIENCE) == 0
            assert time.monotonic() - began < PATIENCE * 2
            log = gateway.stderr.read()
    assert log.count("uplink unreachable") == 1, log
    assert "refusing" in log


async def test_nothing_is_lost_or_doubled_when_the_gateway_is_killed(tmp_path, mosquitto):
    path = written(tmp_path, brokers={"broker": mosquitto.port}, connections={"one": 4})
    with Store(mosquitto.port) as store:
        for _ in range(4):
            with process(path) as gateway:
                before = len(store.records)
                await eventually(lambda before=before: len(store.records) > before + 40)
                gateway.kill()
        async with running(path):
            await asyncio.sleep(0.5)
        await eventually(lambda: store.statuses[-1]["online"] is False)
        with contextlib.closing(open_outbox(tmp_path / "data")) as outbox:
            assert outbox.next_sequence == max(store.records) + 1
    no_sequence_is_missing_or_doubled(store)


async def test_receipts_that_are_lost_delay_nothing_for_ever(tmp_path, mosquitto):
    with Store(mosquitto.port, receipts=False) as store:
        async with running(written(tmp_path, brokers={"broker": mosquitto.port})) as daemon:
            await eventually(lambda: len(store.records) > 30)
            await eventually(lambda: daemon.health().uplinks[0].store_silent)
            assert daemon.health().uplinks[0].backlog_records > 30
            store.receipts = True
            await eventually(lambda: daemon.health().uplinks[0].backlog_records < 10)
            assert not daemon.health().problems


async def test_each_uplink_has_its_own_place(tmp_path, mosquitto):
    with Mosquitto() as second, Store(mosquitto.port) as near, Store(second.port) as far:
        path = written(tmp_path, brokers={"near": mosquitto.port, "far": second.port})
        async with running(path) as daemon:
            await eventually(lambda: len(far.records) > 10 and len(near.records) > 10)
            second.kill()
            before = len(near.records)
            await eventually(lambda: len(near.records) > before + 50)
            [one, other] = daemon.health().uplinks
            assert (one.connected, other.connected) == (True, False)
            assert other.backlog_records >= 40
            assert any("far" in problem for problem in daemon.health().problems)
            second.start()
            await eventually(lambda: daemon.health().uplinks[1].backlog_records < 10)
            await eventually(lambda: len(far.records) >= before + 50)
        no_sequence_is_missing_or_doubled(near)
        no_sequence_is_missing_or_doubled(far)


async def test_a_reload_changes_what_changed_and_nothing_else(tmp_path, mosquitto):
    sources = []

    def make_source(configuration, connection, lane):
        source = counting(configuration, connection, lane)
        sources.append(source)
        return source

    broker = {"broker": mosquitto.port}
    path = written(tmp_path, brokers=broker, connections={"stays": 1, "goes": 1, "grows": 1})
    with Store(mosquitto.port) as store:
        async with running(path, make_source) as daemon:
            await eventually(lambda: len({r["line"] for r in store.records.values()}) == 3)
            written(tmp_path, brokers=broker, connections={"stays": 1, "grows": 2, "new": 1})
            os.kill(os.getpid(), signal.SIGHUP)
            await eventually(lambda: "new" in {r["line"] for r in store.records.values()})
            await eventually(lambda: "machine-1" in {r["machine"] for r in store.records.values()})
            names = {connection.status.name for connection in daemon.health().connections}
            assert names == {"stays", "grows", "new"}
            assert Counter(source.name for source in sources) == {"stays": 1, "goes": 1, "grows": 2, "new": 1}
            assert daemon.health().uplinks[0].reconnects == 0
            gone_at = max(s for s, r in store.records.items() if r["line"] == "goes")
            await eventually(lambda: max(store.records) > gone_at + 50)
        no_sequence_is_missing_or_doubled(store)


async def test_a_reload_while_the_disk_is_full_drops_nothing(tmp_path, mosquitto, monkeypatch):
    append = SqliteOutbox.append
    taken, refused = set(), set()
    is_full = False

    def appending(outbox, drafts, checkpoints=None):
        told = {(draft.topic, draft.epoch_us, draft.kind) for draft in drafts}
        if is_full:
            refused.update(told)
            raise OutboxFullError("full, for the test")
        taken.update(told)
        return append(outbox, drafts, checkpoints)

    monkeypatch.setattr(SqliteOutbox, "append", appending)
    broker = {"broker": mosquitto.port}
    path = written(tmp_path, brokers=broker, connections={"grows": 1, "goes": 1})
    with Store(mosquitto.port) as store:
        async with running(path) as daemon:
            await eventually(lambda: len({r["line"] for r in store.records.values()}) == 2)
            is_full = True
            await eventually(lambda: all(one.held_records for one in daemon.health().connections))
            written(tmp_path, brokers=broker, connections={"grows": 2})
            os.kill(os.getpid(), signal.SIGHUP)
            known = len(refused)
            await eventually(lambda: len(refused) > known + 5)
            is_full = False
            await eventually(lambda: "machine-1" in {r["machine"] for r in store.records.values()})
            assert [one.status.name for one in daemon.health().connections] == ["grows"]
        assert refused
        assert refused <= taken
        no_sequence_is_missing_or_doubled(store)


async def test_a_reload_with_faults_keeps_the_old_configuration(tmp_path, mosquitto, capsys):
    path = written(tmp_path, brokers={"broker": mosquitto.port})
    with Store(mosquitto.port) as store:
        async with running(path) as daemon:
            await eventually(lambda: store.records)
            path.write_text("[gateway]\nname = 5\n")
            os.kill(os.getpid(), signal.SIGHUP)
            before = len(store.records)
            await eventually(lambda: len(store.records) > before + 5)
            assert [c.status.name for c in daemon.health().connections] == ["plc"]


async def test_an_uplink_may_be_added_by_a_reload_and_gets_what_waits(tmp_path, mosquitto):
    path = written(tmp_path, brokers={"dead": free_port()})
    with Store(mosquitto.port) as store:
        async with running(path) as daemon:
            await eventually(lambda: daemon.health().records > 20)
            written(tmp_path, brokers={"broker": mosquitto.port})
            os.kill(os.getpid(), signal.SIGHUP)
            await eventually(lambda: len(store.records) > 30)
            await eventually(lambda: daemon.health().outbox.records < 10)
        no_sequence_is_missing_or_doubled(store)


async def test_a_source_that_fails_is_started_again_and_the_others_go_on(tmp_path, mosquitto, monkeypatch):
    monkeypatch.setattr("gateway.service._RESTART_SECS", 0.2)
    sources = {}

    def make_source(configuration, connection, lane):
        source = counting(configuration, connection, lane)
        sources[connection.name] = source
        if connection.name == "bad":
            whole = source.run

            async def run():
                if source.runs == 0:
                    source.runs += 1
                    raise RuntimeError("a fault of ours")
                await whole()

            source.run = run
        return source

    path = written(tmp_path, brokers={"broker": mosquitto.port}, connections={"bad": 1, "good": 1})
    with Store(mosquitto.port) as store:
        async with running(path, make_source):
            await eventually(lambda: {r["line"] for r in store.records.values()} == {"bad", "good"})
    assert sources["bad"].runs == 2


async def test_health_and_metrics_are_served(tmp_path, mosquitto):
    with Store(mosquitto.port) as store:
        async with running(written(tmp_path, brokers={"broker": mosquitto.port})) as daemon:
            await eventually(lambda: len(store.records) > 10 and daemon.health_url)
            await eventually(lambda: not daemon.health().problems)
            status, text = await asyncio.to_thread(fetch, f"{daemon.health_url}/healthz")
            health = json.loads(text)
            assert status == 200
            assert health["outbox"]["alarm"] is None
            assert health["connections"][0]["status"]["state"] == "connected"
            status, text = await asyncio.to_thread(fetch, f"{daemon.health_url}/metrics")
            assert status == 200
            for name in (
                'oee_gateway_connection_up{connection="plc"} 1.0',
                'oee_gateway_uplink_up{uplink="broker"} 1.0',
                'oee_gateway_dropped_records_total{cause="full"} 0.0',
                "oee_gateway_records_total ",
                'oee_gateway_connection_values_total{connection="plc"} ',
                'oee_gateway_uplink_reconnects_total{uplink="broker"} 0.0',
                "oee_gateway_outbox_oldest_age_seconds ",
            ):
                assert name in text, name
            assert (await asyncio.to_thread(fetch, f"{daemon.health_url}/other"))[0] == 404
            mosquitto.kill()
            await eventually(lambda: daemon.health().problems)
            status, text = await asyncio.to_thread(fetch, f"{daemon.health_url}/healthz")
            assert status == 503
            assert "uplink broker is not connected" in json.loads(text)["problems"][0]


async def test_status_shows_a_running_daemon_and_says_when_there_is_none(tmp_path, mosquitto, capsys):
    path = written(tmp_path, brokers={"broker": mosquitto.port})
    assert await asyncio.to_thread(commands.status, path) == 3
    assert "no gateway answers" in capsys.readouterr().err
    with Store(mosquitto.port) as store:
        async with running(path) as daemon:
            await eventually(lambda: store.records and daemon.health_url and not daemon.health().problems)
            assert await asyncio.to_thread(commands.status, path) == 0
            shown = capsys.readouterr().out
            assert "plant/edge" in shown
            assert "plc" in shown
            mosquitto.kill()
            await eventually(lambda: daemon.health().problems)
            assert await asyncio.to_thread(commands.status, path) == 1
            assert "uplink broker is not connected" in capsys.readouterr().out


async def test_another_gateways_health_is_not_shown_as_ours(tmp_path, mosquitto, capsys):
    """Two gateways of one machine, both with the port that is the default."""
    path = written(tmp_path, brokers={"broker": mosquitto.port})
    async with running(path) as daemon:
        await eventually(lambda: daemon.health_url)
        other = tmp_path / "other.toml"
        other.write_text(path.read_text().replace('name = "edge"', 'name = "edge-2"'))
        assert await asyncio.to_thread(commands.status, other) == 3
        assert "another gateway answers" in capsys.readouterr().err


async def test_a_health_port_in_use_is_said_and_the_daemon_runs_on(tmp_path, mosquitto, capsys):
    with socket.socket() as taken, Store(mosquitto.port) as store:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        path = tmp_path / "gateway.toml"
        text = configuration_text(tmp_path / "data", brokers={"broker": mosquitto.port})
        path.write_text(text.replace("port = 0", f"port = {taken.getsockname()[1]}"))
        async with running(path):
            await eventually(lambda: len(store.records) > 5)
    said = capsys.readouterr()
    assert (said.out + said.err).count("health cannot be served there") == 1


async def test_the_health_port_shrugs_off_nonsense(tmp_path):
    async with running(written(tmp_path, brokers={"dead": free_port()})) as daemon:
        await eventually(lambda: daemon.health_url)
        port = int(daemon.health_url.rpartition(":")[2])
        for nonsense in (b"\r\n\r\n", b"\0" * 9000, b"POST /healthz HTTP/1.1\r\n\r\n", b"GET\r\n\r\n", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(nonsense)
            if writer.can_write_eof():
                writer.write_eof()
            await reader.read()
            writer.close()
            await writer.wait_closed()
        assert (await asyncio.to_thread(fetch, f"{daemon.health_url}/healthz"))[0] == 503


async def test_systemd_hears_of_readiness_life_and_end(tmp_path):
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(10)
        environment = os.environ | {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"}
        with process(written(tmp_path, brokers={"dead": free_port()}), env=environment) as gateway:
            assert b"READY=1" in await asyncio.to_thread(systemd.recv, 1000)
            assert await asyncio.to_thread(systemd.recv, 1000) == b"WATCHDOG=1"
            gateway.send_signal(signal.SIGTERM)
            while (told := await asyncio.to_thread(systemd.recv, 1000)) == b"WATCHDOG=1":
                pass
            assert told == b"STOPPING=1"


async def test_a_full_disk_ends_nothing_and_the_newest_still_arrive(tmp_path, mosquitto):
    """With the broker away the outbox meets the limit of its file; then it is emptied again."""
    mosquitto.stop()
    path = written(tmp_path, brokers={"broker": mosquitto.port}, connections={"one": 40})
    with process(path, 250_000) as gateway:
        url_file = tmp_path / "data" / "health.url"
        await eventually(url_file.exists)
        url = url_file.read_text()

        def health():
            return json.loads(fetch(f"{url}/healthz")[1])

        await eventually(lambda: health()["outbox"]["alarm"], 30)
        assert gateway.poll() is None
        mosquitto.start()
        with Store(mosquitto.port) as store:
            newest = health()["outbox"]["next_sequence"]
            await eventually(lambda: store.records and max(store.records) > newest + 200, 30)
            await eventually(lambda: health()["outbox"]["alarm"] is None, 30)
        gateway.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait, 5 * PATIENCE) == 0


def gateway_run(path, **options):
    return subprocess.run(
        [sys.executable, "-m", "oee", "gateway", "run", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=20 * PATIENCE,
        cwd=REPOSITORY,
        check=False,
        **options,
    )


def test_a_faulty_configuration_is_exit_code_2(tmp_path):
    (tmp_path / "gateway.toml").write_text('[gateway]\nname = "a b"\nsite = "s"\ncolour = 1\n')
    done = gateway_run(tmp_path / "gateway.toml")
    assert done.returncode == 2
    assert "gateway.colour" in done.stderr
    assert "gateway.name" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_folder_that_cannot_be_made_is_exit_code_2(tmp_path):
    (tmp_path / "data").write_text("a file in the way")
    done = gateway_run(written(tmp_path, brokers={"broker": 1}))
    assert done.returncode == 2
    assert "data folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_folder_in_use_is_exit_code_2(tmp_path):
    (tmp_path / "data").mkdir()
    with contextlib.closing(open_outbox(tmp_path / "data")):
        done = gateway_run(written(tmp_path, brokers={"broker": 1}))
    assert done.returncode == 2
    assert f"pid {os.getpid()}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_clock_that_was_never_set_is_no_danger_to_sequences(tmp_path):
    outbox = SqliteOutbox(
        tmp_path, gateway="edge", uplinks=["a"], clock_us=Clock(5_000_000), running_us=Clock(0)
    )
    assert outbox.next_sequence == 5_000_000
    outbox.skip_past(START_US)
    assert outbox.next_sequence == START_US + 1
    outbox.close()


def test_the_status_topic_is_the_gateways_own():
    assert STATUS_TOPIC == "oee/v1/plant/gateways/edge/status"
