"""`oee demo` as a stranger meets it: from the wheel, in an empty folder, with one command."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from contract.delivery import Alert, Status, decode
from simulator import scenarios
from tests.support.demo_process import ALONE, URL_SECS, Demo, crowding, wait_until
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
SHIFT_SECS = 20.0
ALERT_SECS = 90.0
STOP_SECS = 3.0
STATUS_SECS = 20.0
"""Twice the interval at which a gateway tells how it is."""
IDLE_MACHINE = "labeller-2"
"""The machine that the demo's scenario lets stand idle soon after the start."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def oee(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel of this tree; what it depends on comes from the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, str(next(folder.glob("*.whl")))], check=True)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    found = subprocess.run(
        [str(python), "-c", "import simulator; print(simulator.__file__)"],
        capture_output=True,
        text=True,
        cwd=folder,
        check=True,
        env=ALONE,
    )
    assert found.stdout.startswith(str(folder)), "the demo must not run from the clone"
    return folder / "venv" / "bin" / "oee"


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10 * PATIENCE) as answer:
        return str(answer.read().decode())


class Ear:
    """Listens on the demo's broker, as any outside process may."""

    def __init__(self, port: int) -> None:
        self.alerts: list[Alert] = []
        self.statuses: list[Status] = []
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=f"ear-{port}-{id(self)}")
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *_: client.subscribe(
            [("oee/v1/+/+/+/+/alert", 1), ("oee/v1/+/gateways/+/status", 1)]
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _on_message(self, _client: Client, _user: object, message: MQTTMessage) -> None:
        if message.topic.endswith("/alert"):
            self.alerts.append(decode(message.payload, Alert))
        elif message.topic.endswith("/status"):  # amqtt sends newcomers what others asked for, too
            self.statuses.append(decode(message.payload, Status))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stranger") / "demo"


@pytest.fixture(scope="module")
def demo(oee: Path, folder: Path) -> Iterator[Demo]:
    """One demo for the tests that only look, in the order in which they stand here."""
    demo = Demo(oee, folder)
    yield demo
    demo.kill()


@pytest.fixture(scope="module")
def ear(demo: Demo) -> Iterator[Ear]:
    demo.wait_for(r"cloud +pid", URL_SECS)
    ear = Ear(demo.broker_port)
    yield ear
    ear.close()


def test_the_board_shows_live_machines_soon_after_the_start(demo: Demo, ear: Ear) -> None:
    board = demo.board
    assert wait_until(lambda: "Running" in page(board), demo.left(URL_SECS)), "no machine runs on the board"
    shown = page(board)
    for line in (1, 2):
        for kind in ("filler", "capper", "labeller", "packer"):
            assert f"{kind}-{line}" in shown
    assert wait_until(lambda: ear.statuses and ear.statuses[-1].online, STATUS_SECS * crowding())


def test_a_shift_that_is_already_closed_has_its_oee(demo: Demo) -> None:
    """Its telemetry went the whole way, over OPC UA and MQTT, within these seconds."""

    def figures(line: str) -> list[float]:
        said = re.findall(rf"{line} closed shift \S+ of \S+: OEE (.*)", demo.output)
        return [float(oee) for oee in re.findall(r"([\d.]+) %", said[-1])] if said else []

    for line in ("line-1", "line-2"):
        known = wait_until(lambda line=line: all(figures(line)) and figures(line), demo.left(SHIFT_SECS))
        assert known, f"no closed shift of {line} after {demo.seconds:.0f} s:\n{demo.output}"
        assert len(known) == 4
        assert all(0 < oee < 110 for oee in known)
    shifts = json.loads(page(f"{demo.board}api/v1/board"))["lines"]
    assert [len(line["machines"]) for line in shifts] == [4, 4]


def test_an_idle_machine_raises_one_alert_on_page_terminal_and_mqtt(demo: Demo, ear: Ear) -> None:
    demo.wait_for(rf"! alert raised: {IDLE_MACHINE} .*has been idle since", ALERT_SECS)

    def raised() -> list[Alert]:
        return [alert for alert in ear.alerts if alert.machine == IDLE_MACHINE and alert.event == "raised"]

    assert wait_until(raised, 5 * crowding()), "the alert is not on MQTT"
    message = raised()[0].message
    assert wait_until(lambda: message in page(demo.board), 5 * crowding()), "the alert is not on the page"
    assert len(raised()) == 1
    assert demo.output.count(f"alert raised: {message}") == 1


def test_a_part_that_is_killed_is_started_again_and_nothing_is_lost(demo: Demo, ear: Ear) -> None:
    killed = demo.pid_of("gateway")
    os.kill(killed, signal.SIGKILL)
    assert wait_until(lambda: demo.find(r"gateway ended with SIGKILL; it is started again"), 5 * crowding())
    back = wait_until(lambda: ear.statuses and _all_connected(ear.statuses[-1]), STATUS_SECS * crowding())
    assert back, "the gateway did not come back"
    drained = wait_until(lambda: ear.statuses[-1].backlog_records < 100, STATUS_SECS * crowding())
    assert drained, "its backlog does not drain"


def test_a_second_demo_in_the_same_folder_is_told_where_the_first_is(
    oee: Path, demo: Demo, folder: Path
) -> None:
    second = Demo(oee, folder)
    code, _ = second.end(signal.SIGCONT)
    assert code == 1
    assert f"a demo already runs in {folder}, see {demo.board}" in second.output
    assert "Traceback" not in second.output


def test_a_port_in_use_is_told_plainly_when_it_was_asked_for(oee: Path, demo: Demo, tmp_path: Path) -> None:
    taken = demo.board.rstrip("/").rpartition(":")[2]
    refused = Demo(oee, tmp_path / "demo", "--board-port", taken)
    code, _ = refused.end(signal.SIGCONT)
    assert code == 1
    assert f"port {taken} for the board is in use by another program; choose another" in refused.output


def test_ctrl_c_ends_everything_quickly_and_leaves_no_process(demo: Demo) -> None:
    family = demo.processes()
    assert len(family) >= 4
    code, took_secs = demo.end(signal.SIGINT)
    assert code == 0, demo.output
    assert took_secs < STOP_SECS * crowding()
    assert [process for process in family if process.is_running()] == []
    assert "Traceback" not in demo.output


def test_the_next_start_goes_on_from_what_is_stored(oee: Path, demo: Demo, folder: Path) -> None:
    before = _closed_shifts(oee, folder)
    assert before
    again = Demo(oee, folder, "--board-port", str(free_port()))
    try:
        again.wait_for(r"line-2 closed shift", SHIFT_SECS)
        ear = Ear(again.broker_port)
        assert wait_until(lambda: ear.statuses and _all_connected(ear.statuses[-1]), STATUS_SECS * crowding())
        assert wait_until(lambda: ear.statuses[-1].backlog_records < 100, STATUS_SECS * crowding())
        ear.close()
    finally:
        code, _ = again.end()
    assert code == 0, again.output
    after = _closed_shifts(oee, folder)
    for key, figures in before.items():
        assert after[key] == figures, "the past was played or counted twice"


def test_a_demo_that_is_killed_takes_its_processes_along(oee: Path, folder: Path) -> None:
    doomed = Demo(oee, folder)
    doomed.wait_for(r"gateway +pid", URL_SECS)
    family = doomed.processes()
    assert len(family) >= 4
    doomed.end(signal.SIGKILL)
    assert wait_until(lambda: not any(process.is_running() for process in family), STOP_SECS * crowding())


def _all_connected(status: Status) -> bool:
    states = [connection.state for connection in status.connections]
    return status.online and len(states) == 2 and set(states) == {"connected"}


def _closed_shifts(oee: Path, folder: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the figures of the shifts that were over when the demo was first started."""
    report = subprocess.run(
        [str(oee), "report", "--config", str(folder / "config" / "cloud.toml"), "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder.parent,
        env=ALONE,
    )
    origin_secs = json.loads((folder / "simulator" / "factory.json").read_text())["origin_us"] / 1e6
    first_start = origin_secs + scenarios.build("demo").history_secs
    over = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(first_start))
    rows = [row for row in json.loads(report.stdout) if row["end"] <= over and row["total_units"]]
    return {(row["line"], row["machine"], row["production_date"], row["shift"]): row for row in rows}
