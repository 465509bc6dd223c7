"""The cloud side starts and stops connections of a running daemon, over a real broker."""

import asyncio
import json
import os
import signal
import time

import msgspec
import pytest

from contract.delivery import Command, Status, decode
from gateway import commands
from gateway.sources.opcua import OpcUaSource
from tests.support.gateway_parts import COMMAND_TOPIC, GATEWAY, SITE, Store, eventually
from tests.support.gateway_process import counting
from tests.support.gateway_service import running, written
from tests.support.mosquitto import Mosquitto
from tests.support.opcua_server import plc

ACCEPTING = "accept_commands = true"


def asking(number, action, connection="one", *, by="anna", asked_secs=0.0, lasts_secs=60.0):
    at = time.time() + asked_secs
    return msgspec.json.encode(
        Command(
            id=f"request-{number}",
            site=SITE,
            gateway=GATEWAY,
            connection=connection,
            action=action,
            requested_by=by,
            epochtime=at,
            expires_epochtime=at + lasts_secs,
        )
    )


@pytest.fixture
def mosquitto():
    with Mosquitto() as broker:
        yield broker


def answer(store, number):
    """The answer to a request in the newest status; None while there is none."""
    answers = store.statuses[-1].get("answers", []) if store.statuses else []
    return next((one for one in answers if one["id"] == f"request-{number}"), None)


def told(store, name):
    return next(one for one in store.statuses[-1]["connections"] if one["name"] == name)


def of_line(store, line):
    return [r for r in store.records.values() if r["line"] == line and "state" in r]


async def test_a_connection_is_stopped_and_started_and_the_time_between_is_a_gap(tmp_path, mosquitto, capsys):
    path = written(
        tmp_path,
        brokers={"broker": mosquitto.port},
        connections={"one": 2, "two": 1},
        gateway_extra=ACCEPTING,
    )
    with Store(mosquitto.port) as store:
        async with running(path) as daemon:
            await eventually(lambda: of_line(store, "one") and of_line(store, "two"))
            store.publish(COMMAND_TOPIC, asking(1, "stop"))
            await eventually(lambda: answer(store, 1))
            assert answer(store, 1)["done"]
            status = told(store, "one")
            assert (status["state"], status["stopped_by"]) == ("stopped", "anna")
            assert abs(status["since_epochtime"] - time.time()) < 30
            assert store.statuses[-1]["accepts_commands"]
            await eventually(lambda: any(r.get("cause") == "stopped by anna" for r in store.records.values()))
            before, others = len(of_line(store, "one")), len(of_line(store, "two"))
            await eventually(lambda: len(of_line(store, "two")) > others + 20)
            assert len(of_line(store, "one")) == before
            assert not daemon.health().problems, "what somebody wants is no problem"
            assert await asyncio.to_thread(commands.status, path) == 0
            assert "stopped by anna since" in capsys.readouterr().out

            store.publish(COMMAND_TOPIC, asking(2, "start", by="ben"))
            await eventually(lambda: answer(store, 2) and answer(store, 2)["done"])
            await eventually(lambda: len(of_line(store, "one")) > before + 10)
            assert told(store, "one")["state"] != "stopped"
    gaps = [r for r in store.records.values() if r.get("cause") == "stopped by anna"]
    assert {gap["machine"] for gap in gaps} == {"machine-0", "machine-1"}
    for machine in ("machine-0", "machine-1"):
        stops = sorted((g for g in gaps if g["machine"] == machine), key=lambda g: g["sequence"])
        assert stops[0]["to_epochtime"] == stops[1]["from_epochtime"], "one goes on where the other ends"
        seen = [r["epochtime"] for r in of_line(store, "one") if r["machine"] == machine]
        assert not [at for at in seen if stops[1]["from_epochtime"] < at < stops[1]["to_epochtime"]]


async def test_whether_commands_are_accepted_changes_by_a_reload_that_leaves_the_reading_alone(
    tmp_path, mosquitto
):
    sources = []

    def make_source(configuration, connection, lane):
        sources.append(connection.name)
        return counting(configuration, connection, lane)

    options = {"brokers": {"broker": mosquitto.port}, "connections": {"one": 1, "two": 1}}
    path = written(tmp_path, **options)
    with Store(mosquitto.port) as store:
        async with running(path, make_source):
            await eventually(lambda: of_line(store, "one") and of_line(store, "two"))
            written(tmp_path, **options, gateway_extra=ACCEPTING)
            os.kill(os.getpid(), signal.SIGHUP)
            await eventually(lambda: store.statuses[-1].get("accepts_commands"))
            assert sources == ["one", "two"]
            store.publish(COMMAND_TOPIC, asking(2, "stop"))
            await eventually(lambda: answer(store, 2))
            assert answer(store, 2)["done"]

            before = len(of_line(store, "one"))
            written(tmp_path, **options)
            os.kill(os.getpid(), signal.SIGHUP)
            await eventually(
                lambda: store.statuses[-1]["online"] and not store.statuses[-1].get("accepts_commands")
            )
            await eventually(lambda: len(of_line(store, "one")) > before)
            assert sources == ["one", "two", "one"], "a stop holds only as long as commands do"


async def test_a_stop_outlasts_a_restart_and_a_reload(tmp_path, mosquitto):
    path = written(
        tmp_path,
        brokers={"broker": mosquitto.port},
        connections={"one": 1, "two": 1},
        gateway_extra=ACCEPTING,
    )
    with Store(mosquitto.port) as store:
        async with running(path):
            await eventually(lambda: of_line(store, "one"))
            store.publish(COMMAND_TOPIC, asking(1, "stop"))
            await eventually(lambda: answer(store, 1))
        before = len(of_line(store, "one"))
        async with running(path):
            await eventually(
                lambda: store.statuses[-1]["online"] and told(store, "one").get("stopped_by") == "anna"
            )
            written(
                tmp_path,
                brokers={"broker": mosquitto.port},
                connections={"one": 3, "three": 1},
                gateway_extra=ACCEPTING,
            )
            os.kill(os.getpid(), signal.SIGHUP)
            await eventually(lambda: of_line(store, "three"))
            assert len(of_line(store, "one")) == before
            store.publish(COMMAND_TOPIC, asking(2, "start"))
            await eventually(
                lambda: len({r["machine"] for r in of_line(store, "one")}) == 3, 15
            )  # with the machines of the new configuration
        gaps = [r for r in store.records.values() if r["line"] == "one" and "cause" in r]
        assert {gap["cause"] for gap in gaps} == {"stopped by anna"}


async def test_a_gateway_that_accepts_no_commands_does_not_hear_them(tmp_path, mosquitto):
    path = written(tmp_path, brokers={"broker": mosquitto.port}, connections={"one": 1})
    with Store(mosquitto.port) as store:
        async with running(path) as daemon:
            await eventually(lambda: of_line(store, "one"))
            store.publish(COMMAND_TOPIC, asking(1, "stop"))
            before = len(of_line(store, "one"))
            await eventually(lambda: len(of_line(store, "one")) > before + 20)
            assert daemon._commands.empty()
            assert "accepts_commands" not in store.statuses[-1]


async def test_what_a_hostile_network_brings_stops_nothing(tmp_path, mosquitto, capsys):
    path = written(
        tmp_path, brokers={"broker": mosquitto.port}, connections={"one": 1}, gateway_extra=ACCEPTING
    )
    other = json.loads(asking(9, "stop")) | {"gateway": "another"}
    with Store(mosquitto.port) as store:
        async with running(path):
            await eventually(lambda: of_line(store, "one"))
            for payload in (b"", b"{", b"[" * 50_000, b"\xff\xfe", json.dumps(other).encode()):
                store.publish(COMMAND_TOPIC, payload)
            store.publish(COMMAND_TOPIC, asking(1, "stop", asked_secs=-120))
            store.publish(COMMAND_TOPIC, asking(2, "stop", connection="elsewhere"))
            await eventually(lambda: answer(store, 2))
            assert answer(store, 1)["reason"] == "it has expired"
            assert answer(store, 2)["reason"] == "there is no such connection"
            late = asking(3, "stop", asked_secs=-1)
            store.publish(COMMAND_TOPIC, asking(4, "start"))
            store.publish(COMMAND_TOPIC, late)
            store.publish(COMMAND_TOPIC, late)
            await eventually(lambda: answer(store, 3))
            assert answer(store, 3)["reason"] == "a newer command has been carried out"
            for number in range(5, 60):
                store.publish(COMMAND_TOPIC, asking(number, "start", connection="elsewhere"))
            before = len(of_line(store, "one"))
            await eventually(lambda: len(of_line(store, "one")) > before + 20)
        decode(json.dumps(store.statuses[-2]).encode(), Status)
        assert all(len(json.dumps(status)) < 10_000 for status in store.statuses)


async def test_a_broker_keeps_commands_to_the_cloud_side(tmp_path):
    acl = (
        "user edge\ntopic write oee/v1/plant/#\ntopic read oee/v1/plant/gateways/edge/+\n"
        "user store\ntopic readwrite oee/v1/#\n"
        "user guest\ntopic read oee/v1/#\n"
    )
    users = {"edge": "e", "store": "s", "guest": "g"}
    (tmp_path / "password").write_text("e")
    login = f'username = "edge"\npassword_file = "{tmp_path / "password"}"'
    with (
        Mosquitto(users=users, acl=acl) as broker,
        Store(broker.port, login=("store", "s")) as store,
        Store(broker.port, login=("guest", "g"), client_id="guest", receipts=False) as guest,
    ):
        path = written(
            tmp_path,
            brokers={"broker": broker.port},
            connections={"one": 1},
            gateway_extra=ACCEPTING,
            uplink_extra=login,
        )
        async with running(path):
            await eventually(lambda: of_line(store, "one"))
            guest.publish(COMMAND_TOPIC, asking(1, "stop"))
            store.publish(COMMAND_TOPIC, asking(2, "stop", connection="elsewhere"))
            await eventually(lambda: answer(store, 2))
            assert answer(store, 1) is None


async def test_a_stopped_plc_keeps_nothing_for_us(tmp_path, mosquitto):
    async with plc({"State": 1, "Total": 100}) as server:
        path = written(
            tmp_path, brokers={"broker": mosquitto.port}, connections={"one": 1}, gateway_extra=ACCEPTING
        )
        text = path.read_text().replace("opc.tcp://127.0.0.1:1", server.url)
        path.write_text(text.replace("ns=2;s=", server.node("")))
        with Store(mosquitto.port) as store:
            async with running(path, None) as daemon:
                assert isinstance(daemon._running.readings["one"].source, OpcUaSource)
                await eventually(lambda: of_line(store, "one"))
                assert len(server.subscriptions()) == 1
                store.publish(COMMAND_TOPIC, asking(1, "stop"))
                await eventually(lambda: answer(store, 1))
                await eventually(lambda: not server.subscriptions())
                await server.write("Total", 150)
                await server.write("Total", 160)
                store.publish(COMMAND_TOPIC, asking(2, "start"))
                await eventually(lambda: of_line(store, "one")[-1]["total_units"] == 160)
                assert 150 not in [record["total_units"] for record in of_line(store, "one")]
                daemon._running.sendings["broker"].forwarder.announce()
                wanted = {"area/one/machine-0 state": 1, "area/one/machine-0 total_units": 160}
                await eventually(
                    lambda: {v["tag"]: v["value"] for v in store.statuses[-1]["values"]} == wanted
                )
            gaps = [r for r in store.records.values() if "cause" in r]
            assert {gap["cause"] for gap in gaps} == {"stopped by anna"}
