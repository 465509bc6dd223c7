"""The cloud side against a real broker: stored once, receipted after the commit, whatever is killed."""

import json
import random
import resource
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from cloud.commands import import_telemetry
from cloud.store.rows import to_telemetry
from cloud.store.sqlite import SqliteStore
from contract.delivery import Gap
from contract.telemetry import Telemetry, encode
from tests.support.cloud import PLANT, CloudProcess, write_config
from tests.support.edge import Edge, wait_for
from tests.support.mosquitto import Mosquitto
from tests.support.patience import PATIENCE

HOUR = 3600
FILLER = "oee/v1/berlin/packaging/line-1/filler-1"
RECEIPT = "oee/v1/berlin/gateways/gw/receipt"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def cloud(tmp_path: Path, broker: Mosquitto) -> Iterator[CloudProcess]:
    with CloudProcess(write_config(tmp_path / "cloud", broker.url)) as running:
        yield running


@pytest.fixture
def edge(broker: Mosquitto) -> Iterator[Edge]:
    with Edge(broker.port) as connected:
        yield connected


def stored(folder: Path) -> list[Telemetry | Gap]:
    store = SqliteStore(folder / "cloud" / "store" / "store.sqlite3")
    try:
        machines = range(len(store.names.all("machine")))
        return to_telemetry(store.read_table(machines, 0, 2**62), store.names)
    finally:
        store.close()


def dead_letters(folder: Path) -> list[Any]:
    store = SqliteStore(folder / "cloud" / "store" / "store.sqlite3")
    try:
        return store.dead_letters(1000)
    finally:
        store.close()


def test_records_are_stored_and_receipted(cloud: CloudProcess, edge: Edge, tmp_path: Path) -> None:
    edge.say_status()
    records = [edge.record("filler-1", total_units=n, at=time.time() - 60 + n / 10) for n in range(500)]
    edge.send(records[:10], live=True)
    edge.send(records[10:])
    edge.settle()
    assert wait_for(lambda: edge.last(RECEIPT) == {"stored_through": records[-1].sequence})
    assert stored(tmp_path) == records


def test_duplicates_are_stored_once(cloud: CloudProcess, edge: Edge, tmp_path: Path) -> None:
    records = [edge.record("filler-1", total_units=n) for n in range(50)]
    for _ in range(3):
        edge.send(records)
        edge.send(records[::-1], live=True)
    edge.settle()
    cloud.stop()
    assert sorted(item.sequence for item in stored(tmp_path)) == [record.sequence for record in records]


def test_a_receipt_is_told_to_whoever_comes_later(cloud: CloudProcess, edge: Edge, broker: Mosquitto) -> None:
    edge.say_status()
    edge.send([edge.record("filler-1")])
    edge.settle()
    with Edge(broker.port) as late:
        assert wait_for(lambda: late.last(RECEIPT) is not None)


def test_poison_becomes_dead_letters_and_its_neighbours_are_stored(
    cloud: CloudProcess, edge: Edge, tmp_path: Path
) -> None:
    good = [edge.record("filler-1", total_units=n) for n in range(4)]
    edge.send(good[:1])
    edge.settle()
    backlog = "oee/v1/berlin/gateways/gw/backlog"
    texts = [json.dumps(record_fields(record)) for record in good[1:]]
    poison = [
        (f"{FILLER}/telemetry", b"\xff\xfe"),
        (f"{FILLER}/telemetry", b""),
        (f"{FILLER}/telemetry", b'{"state": NaN}'),
        (f"{FILLER}/telemetry", b"[" * 100_000),
        (f"{FILLER}/telemetry", b"x" * 200_000),
        (f"{FILLER}/telemetry", json.dumps(record_fields(good[0]) | {"machine": "capper-1"}).encode()),
        ("oee/v1/berlin/gateways/gw/gap", b"{}"),
        ("oee/v1/berlin/gateways/gw/status", b"nonsense"),
        (backlog, ("[" + texts[0] + ', {"state": 1e999}, ' + texts[1] + "]").encode()),
    ]
    for topic, payload in poison:
        edge.publish(topic, payload)
    edge.send(good[1:])
    edge.settle()
    cloud.stop()
    assert sorted(item.sequence for item in stored(tmp_path)) == [record.sequence for record in good]
    letters = dead_letters(tmp_path)
    assert len(letters) == len(poison)
    assert all(letter.reason for letter in letters)
    assert {letter.payload for letter in letters} >= {payload for _, payload in poison[:-1]}


def record_fields(record: Telemetry) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(record)
    return fields


def test_gaps_are_stored_and_make_time_unknown(cloud: CloudProcess, edge: Edge, tmp_path: Path) -> None:
    now = float(int(time.time()))
    edge.send([edge.record("filler-1", at=now - 50), edge.record("filler-1", at=now - 30)])
    edge.settle()
    sequence = edge.record("filler-1").sequence
    gap = Gap(
        site="berlin",
        area="packaging",
        line="line-1",
        machine="filler-1",
        gateway="gw",
        sequence=sequence,
        from_epochtime=now - 20,
        to_epochtime=now - 10,
        cause="PLC silent",
    )
    edge.publish("oee/v1/berlin/gateways/gw/gap", msgspec.json.encode(gap))
    assert wait_for(lambda: any(isinstance(item, Gap) for item in stored(tmp_path)))
    assert stored(tmp_path)[-1] == gap
    assert wait_for(lambda: (edge.last(f"{FILLER}/oee") or {}).get("current", {}).get("unknown_secs", 0) > 0)


def test_figures_of_running_and_closed_shifts_are_published(cloud: CloudProcess, edge: Edge) -> None:
    now = time.time()
    records = [
        edge.record("filler-1", at=now - 20 * HOUR + n, total_units=n) for n in range(0, 20 * HOUR, 10)
    ]
    edge.send(records)
    edge.settle()

    def result() -> Any:
        return edge.last(f"{FILLER}/oee") or {}

    assert wait_for(lambda: result().get("closed") and result()["closed"]["total_units"] == 8 * HOUR, 20)
    assert result()["closed"]["revision"] == 1
    assert result()["closed"]["quality"] == 1.0
    assert result()["current"]["run_secs"] > 0


def test_late_records_revise_their_shift_once_and_the_revision_is_published(
    cloud: CloudProcess, edge: Edge
) -> None:
    now = time.time()
    start = last_shift_start(now)
    records = [edge.record("filler-1", at=start - HOUR + n, total_units=n) for n in range(0, 10 * HOUR, 10)]
    records = [record for record in records if record.epochtime < now]
    late = [record for record in records if start + HOUR <= record.epochtime < start + 2 * HOUR]
    edge.send(record for record in records if record not in late)
    edge.settle()
    topic = f"{FILLER}/oee"

    def closed() -> Any:
        return (edge.last(topic) or {}).get("closed") or {}

    assert wait_for(lambda: closed().get("revision") == 1, 20)
    assert closed()["unknown_secs"] == pytest.approx(HOUR, abs=40)
    for part in range(4):
        edge.send(late[part::4])
        edge.settle()
    assert wait_for(lambda: closed()["revision"] == 2, 20)
    assert closed()["unknown_secs"] == 0
    time.sleep(1.5)
    assert closed()["revision"] == 2
    told = [json.loads(message).get("closed") for message in edge.heard[topic]]
    assert [row["revision"] for row in told if row] == sorted(row["revision"] for row in told if row)


def test_a_shift_of_days_ago_is_published_anew_when_it_is_revised(cloud: CloudProcess, edge: Edge) -> None:
    """Of its machine and its line, each revision, also when the service was away meanwhile."""
    start = last_shift_start(time.time()) - 48 * HOUR
    records = [edge.record("filler-1", at=start + n, total_units=n) for n in range(0, 26 * HOUR, 20)]
    late = [record for record in records if start + HOUR <= record.epochtime < start + 2 * HOUR]
    edge.send(record for record in records if record not in late)
    edge.settle()

    def told(topic: str) -> list[tuple[int, str]]:
        messages = [json.loads(message) for message in edge.heard.get(f"{topic}/shift", [])]
        begin = datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return list(
            dict.fromkeys(
                (said["revision"], said["why"]) for said in messages if said["figures"]["start"] == begin
            )
        )

    assert wait_for(lambda: told(FILLER) == [(1, "shift ended")], 20)
    cloud.stop()
    cloud.start()
    edge.send(late)
    edge.settle()
    line = FILLER.rpartition("/")[0]
    for topic in (FILLER, line):
        assert wait_for(lambda topic=topic: told(topic) == [(1, "shift ended"), (2, "late data")], 20), topic
    newest = json.loads(edge.heard[f"{FILLER}/shift"][-1])
    assert newest["figures"]["revision"] == newest["revision"]
    assert edge.last(f"{FILLER}/oee")["closed"]["start"] > newest["figures"]["start"]


def last_shift_start(now: float) -> float:
    """Return when the last shift began that has ended some minutes ago."""
    zone = ZoneInfo("Europe/Berlin")
    local = datetime.fromtimestamp(now - 300, zone).replace(minute=0, second=0, microsecond=0)
    while local.hour not in (6, 14, 22):
        local -= timedelta(hours=1)
    return (local - timedelta(hours=8)).timestamp()


def test_an_idle_machine_raises_one_alert_that_survives_a_restart(
    cloud: CloudProcess, edge: Edge, tmp_path: Path
) -> None:
    topic = f"{FILLER}/alert"

    def beat(state: str) -> None:
        edge.send([edge.record("filler-1", state), edge.record("capper-1", "running")], live=True)

    stop = threading.Event()
    state = "idle"

    def keep_beating() -> None:
        while not stop.wait(0.3):
            beat(state)

    beating = threading.Thread(target=keep_beating)
    beating.start()
    try:
        assert wait_for(lambda: edge.heard.get(topic), 15), "no alert was raised"
        raised = edge.last(topic)
        assert raised["event"] == "raised"
        assert raised["epochtime"] - raised["since_epochtime"] >= 3.0
        cloud.kill()
        cloud.start()
        assert wait_for(lambda: cloud.log().count("connected to the broker") == 2)
        time.sleep(2)
        assert len(edge.heard[topic]) == 1
        state = "running"
        assert wait_for(lambda: len(edge.heard[topic]) == 2)
        assert edge.last(topic)["event"] == "cleared"
        assert edge.last(topic)["id"] == raised["id"]
        time.sleep(1)
        assert len(edge.heard[topic]) == 2
    finally:
        stop.set()
        beating.join()


def test_nothing_is_lost_or_doubled_when_cloud_and_broker_are_killed(
    cloud: CloudProcess, broker: Mosquitto, edge: Edge, tmp_path: Path
) -> None:
    dice = random.Random(7)
    edge.say_status()
    sent: list[Telemetry] = []
    for round_ in range(6):
        for _ in range(10):
            records = [edge.record("filler-1", total_units=len(sent) + n) for n in range(dice.randint(1, 40))]
            sent += records
            edge.send(records, live=dice.random() < 0.5)
            time.sleep(dice.uniform(0, 0.03))
        if round_ % 2:
            broker.kill()
            broker.start()
        else:
            cloud.kill()
            cloud.start()
    edge.settle(40)
    found = sorted(item.sequence for item in stored(tmp_path))
    assert found == [record.sequence for record in sent]


def test_a_machine_that_is_not_in_the_plant_is_stored_all_the_same(
    cloud: CloudProcess, edge: Edge, tmp_path: Path
) -> None:
    edge.send([edge.record("stranger")], live=True)
    edge.settle()
    assert [item.machine for item in stored(tmp_path)] == ["stranger"]


def test_a_changed_plant_is_taken_when_right_and_refused_when_not(
    cloud: CloudProcess, edge: Edge, tmp_path: Path
) -> None:
    assert wait_for(lambda: "connected to the broker" in cloud.log())
    path = tmp_path / "cloud" / "plant.toml"
    path.write_text(PLANT.replace("60.0", "0.0", 1).replace("Europe/Berlin", "Europe/Nowhere"))
    assert wait_for(lambda: "is refused" in cloud.log())
    assert "ideal_run_rate" in cloud.log()
    assert "timezone" in cloud.log()
    path.write_text(PLANT.replace("capper-1", "capper-2"))
    assert wait_for(lambda: "is in force" in cloud.log())
    edge.send([edge.record("capper-2")], live=True)
    assert wait_for(lambda: edge.last("oee/v1/berlin/packaging/line-1/capper-2/oee") is not None)


def test_a_changed_plant_makes_new_figures_and_leaves_those_of_past_shifts(
    cloud: CloudProcess, edge: Edge, tmp_path: Path
) -> None:
    now = time.time()
    edge.send(
        [edge.record("filler-1", at=now - 20 * HOUR + n, total_units=n) for n in range(0, 20 * HOUR, 10)]
    )
    edge.settle()

    def result(part: str) -> Any:
        return (edge.last(f"{FILLER}/oee") or {}).get(part) or {}

    assert wait_for(lambda: result("closed").get("total_units") == 8 * HOUR, 20)
    closed, running = result("closed"), result("current")
    path = tmp_path / "cloud" / "plant.toml"
    path.write_text(PLANT.replace("ideal_run_rate = 60.0", "ideal_run_rate = 0").replace('"06:00"', '"5:61"'))
    assert wait_for(lambda: "is refused" in cloud.log())
    refused = cloud.log().split("is refused")[1]
    for fault in ("machine[filler-1].ideal_run_rate", "machine[capper-1].ideal_run_rate", "5:61"):
        assert fault in refused
    path.write_text(PLANT.replace("ideal_run_rate = 60.0", "ideal_run_rate = 120.0"))
    assert wait_for(lambda: "is in force" in cloud.log())
    halved = pytest.approx(running["performance"] / 2, rel=0.1)
    assert wait_for(lambda: result("current").get("performance") == halved, 20)
    assert result("closed") == closed
    assert cloud.stop()[0] == 0
    store = SqliteStore(tmp_path / "cloud" / "store" / "store.sqlite3")
    try:
        start_us = round(datetime.fromisoformat(closed["start"]).timestamp() * 1e6)
        (only,) = store.closed("berlin/packaging/line-1/filler-1", start_us)
    finally:
        store.close()
    assert only.figures == closed


def test_it_stops_soon(cloud: CloudProcess) -> None:
    assert wait_for(lambda: "connected to the broker" in cloud.log())
    code, secs = cloud.stop()
    assert code == 0
    assert secs < 2.0
    assert "Traceback" not in cloud.log()


def test_it_stops_soon_without_a_broker(cloud: CloudProcess, broker: Mosquitto) -> None:
    assert wait_for(lambda: "connected to the broker" in cloud.log())
    broker.kill()
    assert wait_for(lambda: "no broker" in cloud.log())
    time.sleep(1)
    code, secs = cloud.stop()
    assert code == 0
    assert secs < 2.0
    assert cloud.log().count("no broker") == 1


def refused_start(config: Path) -> tuple[int, str]:
    process = CloudProcess(config)
    process.start()
    try:
        return process.wait(), process.log()
    finally:
        process.kill()


def test_a_bad_configuration_is_told_in_full_and_exits_2(tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "cloud", "mqtt://127.0.0.1:1", options={"mqtt": "colour = 1", "web": "port = -1"}
    )
    code, log = refused_start(config)
    assert code == 2
    assert "mqtt.colour" in log
    assert "web.port" in log
    assert "Traceback" not in log


def test_a_data_folder_that_cannot_be_written_is_told_and_exits_2(tmp_path: Path) -> None:
    config = write_config(tmp_path / "cloud", "mqtt://127.0.0.1:1")
    (tmp_path / "cloud" / "store").write_text("a file where the folder should be")
    code, log = refused_start(config)
    assert code == 2
    assert "cannot be written" in log
    assert len(log.splitlines()) == 1


def test_a_second_service_on_the_same_folder_is_refused(cloud: CloudProcess) -> None:
    assert wait_for(lambda: "started" in cloud.log())
    code, log = refused_start(cloud.config)
    assert code == 2
    assert "in use" in log


def test_two_services_with_one_client_id_say_which_and_what_to_do(
    cloud: CloudProcess, broker: Mosquitto, tmp_path: Path
) -> None:
    advice = "client_id is 'oee-cloud', and each service at a broker needs one of its own"
    with CloudProcess(write_config(tmp_path / "other", broker.url)) as other:
        assert wait_for(lambda: advice in cloud.log() and advice in other.log())
        taken = broker.log().count("already connected")
        assert wait_for(lambda: broker.log().count("already connected") > taken + 1)
        assert cloud.log().count(advice) == 1
    assert wait_for(lambda: "holds again" in cloud.log())


def test_a_broker_that_says_that_the_session_was_taken_over_is_understood(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = write_config(tmp_path / "cloud", f"mqtt://127.0.0.1:{server.getsockname()[1]}")
        with CloudProcess(config) as cloud:
            server.settimeout(10 * PATIENCE)
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(bytes([0x20, 3, 0, 0, 0, 0xE0, 1, 0x8E]))
                assert wait_for(lambda: "another client has taken our session over" in cloud.log())
            assert "client_id is 'oee-cloud'" in cloud.log()


def test_without_a_broker_it_waits_and_says_so_once(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        config = write_config(tmp_path / "cloud", f"mqtt://127.0.0.1:{nobody.getsockname()[1]}")
        with CloudProcess(config) as cloud:
            assert wait_for(lambda: "no broker" in cloud.log())
            time.sleep(1.5)
            assert cloud.log().count("no broker") == 1


def test_a_full_disk_stops_nothing_but_storing(cloud: CloudProcess, edge: Edge, tmp_path: Path) -> None:
    edge.say_status()
    edge.send([edge.record("filler-1")])
    edge.settle()
    size = max(path.stat().st_size for path in (tmp_path / "cloud" / "store").iterdir())
    unlimited = resource.prlimit(cloud.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(cloud.pid, resource.RLIMIT_FSIZE, (size + 50_000, unlimited[1]))
    sent = [edge.record("filler-1", total_units=n, at=time.time() - 60 + n / 1000) for n in range(20_000)]
    edge.send(sent)
    assert wait_for(lambda: "nothing can be stored" in cloud.log(), 20)
    time.sleep(2)
    assert cloud.log().count("nothing can be stored") == 1
    resource.prlimit(cloud.pid, resource.RLIMIT_FSIZE, unlimited)
    assert wait_for(lambda: "records are stored again" in cloud.log(), 20)
    edge.settle(40)
    assert len(stored(tmp_path)) == len(sent) + 1


def test_a_frozen_broker_is_noticed_and_left_for_a_new_connection(
    cloud: CloudProcess, broker: Mosquitto, edge: Edge
) -> None:
    assert wait_for(lambda: "connected to the broker" in cloud.log())
    began = time.monotonic()
    broker.freeze()
    try:
        assert wait_for(lambda: "no broker" in cloud.log(), 12)
        assert time.monotonic() - began < PATIENCE * 10
    finally:
        broker.thaw()
    began = time.monotonic()
    assert wait_for(lambda: "the broker is back" in cloud.log(), 10)
    assert time.monotonic() - began < PATIENCE * (5 + 3)
    edge.send([edge.record("filler-1")])
    edge.settle()


def test_records_that_are_imported_beside_the_service_are_shown(
    cloud: CloudProcess, edge: Edge, tmp_path: Path
) -> None:
    edge.send([edge.record("filler-1", at=time.time() - 5, total_units=1000)], live=True)
    edge.settle()
    topic = f"{FILLER}/oee"

    def run_secs() -> float:
        return float(((edge.last(topic) or {}).get("current") or {}).get("run_secs", 0))

    assert wait_for(lambda: run_secs() > 0)
    start = time.time() - 65
    lines = [encode(edge.record("filler-1", at=start + n, total_units=900 + n)) for n in range(60)]
    (tmp_path / "minute.jsonl").write_bytes(b"\n".join([*lines, b"nonsense"]))
    assert import_telemetry([tmp_path / "minute.jsonl"], cloud.config) == 0
    assert wait_for(lambda: run_secs() > 55)
    assert import_telemetry([tmp_path / "minute.jsonl"], cloud.config) == 0
    assert len(stored(tmp_path)) == 61
    assert [letter.topic for letter in dead_letters(tmp_path)] == ["minute.jsonl:61"]
