"""README.md is true: its commands run as they stand, its files are used, with a PLC and a broker of ours."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from contract import telemetry
from contract.delivery import Receipt, decode
from tests.support.mosquitto import Mosquitto
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PLC = "192.168.0.10:4840"
BROKER = "localhost:1883"
START_SECS = 30.0


class Block(NamedTuple):
    language: str
    text: str


BLOCKS = [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)]
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TZ": "UTC"}


def commands(containing: str) -> list[str]:
    """Return the lines of the one block of commands in which something stands."""
    found = [block for block in BLOCKS if block.language == "sh" and containing in block.text]
    assert len(found) == 1, f"{len(found)} blocks contain {containing!r}"
    return found[0].text.splitlines()


def run(line: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euc", line], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def plc() -> Iterator[str]:
    """A simulated PLC; returns HOST:PORT."""
    command = [sys.executable, "-m", "oee", "simulate", "--port", "0", "--no-wait", "--history-hours", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT) as simulator:
        assert simulator.stdout is not None
        address = simulator.stdout.readline().split()[1]
        yield address.removeprefix("opc.tcp://")
        simulator.terminate()


def test_the_two_commands_exist() -> None:
    for line in commands("make demo"):
        subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.slow
def test_any_number_can_be_checked_from_files(tmp_path: Path) -> None:
    printed = [run(line, tmp_path) for line in commands("--telemetry day.jsonl --level line")]
    assert "demo-plant/packaging/line-2" in printed[1]
    assert (tmp_path / "hours.csv").read_text().count("\n") > 100
    assert "405" in printed[3], "planned minutes: 480 less a break of 30 and maintenance of 45"


@pytest.mark.slow
def test_a_plc_is_connected_in_the_steps_that_are_given(plc: str, tmp_path: Path) -> None:
    with Mosquitto() as broker:

        def here(text: str) -> str:
            return text.replace(PLC, plc).replace(BROKER, f"localhost:{broker.port}")

        for block in BLOCKS:
            if block.language == "toml":
                name = block.text.split("\n", 1)[0].removeprefix("# ")
                (tmp_path / name).write_text(here(block.text))
        with (tmp_path / "cloud.toml").open("a") as cloud:
            cloud.write(f"\n[web]\nport = {free_port()}\n")
        listed, drafted, checked = (run(here(line), tmp_path) for line in commands("oee gateway browse"))
        assert "Factory/line-1/filler-1/TotalUnits" in listed
        assert drafted == ""
        assert "fault" not in checked
        (cloud_run,) = commands("oee cloud run")
        (gateway_run,) = commands("oee gateway run")
        with Background(cloud_run, tmp_path), Background(gateway_run, tmp_path):
            stored = receipt(broker.port, "oee/v1/berlin/gateways/gw-1/receipt")
            assert stored.stored_through or stored.stored_beyond


def test_the_record_shown_is_one_of_the_contract() -> None:
    (shown,) = (block.text for block in BLOCKS if block.language == "json")
    record = telemetry.decode_one(shown.encode())
    assert isinstance(record, telemetry.Telemetry)


class Background:
    """A command that runs until the end of a `with`, then ends well when it is asked to."""

    def __init__(self, line: str, folder: Path) -> None:
        with (folder / "background.log").open("ab") as log:
            self._process = subprocess.Popen(
                line.split(), cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log
            )

    def __enter__(self) -> None:
        assert self._process.poll() is None

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(timeout=15) == 0


def receipt(port: int, topic: str) -> Receipt:
    """Wait for the store's receipt."""
    heard: list[Receipt] = []
    arrived = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2)

    def on_message(_client: object, _user: object, message: object) -> None:
        heard.append(decode(message.payload, Receipt))
        arrived.set()

    client.on_connect = lambda client, *_: client.subscribe(topic, 1)
    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        assert arrived.wait(START_SECS), "no receipt came"
    finally:
        client.disconnect()
        client.loop_stop()
    return heard[-1]
