"""thingsboard-gateway from PyPI as one who reads the player: from its socket to the acknowledging broker.

It is installed, with the asyncua that it wants, into an environment of its own that is kept. It asks whoever
it takes for a ThingsBoard for its limits and is told that there are none; its telemetry is counted at the
broker. It is never at rest, so that its processor time is that of the time until all is told.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.edge_parts.parts import Part
from benchmarks.edge_parts.plant import ALL_TAGS, MACHINES, node
from tests.support.mosquitto import Mosquitto

PACKAGE: Final = "thingsboard-gateway==3.8.5"
_LIBRARY: Final = "asyncua==1.1.5"
_INSTALL_SECS: Final = 300
_START_SECS: Final = 180
_TOLD_SECS: Final = 60
_NO_LIMIT: Final = "0:0,"


class NotInstalledError(RuntimeError):
    """The package cannot be installed here."""


def installed() -> Path:
    """Install the package once; return its interpreter. Raises NotInstalledError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "oee-gateway-benchmarks"
    folder = cache / PACKAGE.replace("==", "-")
    python = folder / "bin" / "python"
    done = folder / "installed"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            for command in (
                [sys.executable, "-m", "venv", str(folder)],
                [str(python), "-m", "pip", "install", "--quiet", PACKAGE, _LIBRARY],
            ):
                try:
                    subprocess.run(
                        command,
                        check=True,
                        timeout=_INSTALL_SECS,
                        capture_output=True,
                        stdin=subprocess.DEVNULL,
                    )
                except (subprocess.SubprocessError, OSError) as error:
                    raise NotInstalledError(f"it does not install here: {error}") from error
            done.touch()
    return python


class Cloud:
    """Who answers it as a ThingsBoard does, and counts the values that come."""

    def __init__(self, broker: int) -> None:
        self.values = 0
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", broker)
        self._client.subscribe("v1/#", 1)
        self._client.loop_start()

    def _on_message(self, client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        if "rpc/request" in message.topic:
            none = {"messages": _NO_LIMIT, "telemetryMessages": _NO_LIMIT, "telemetryDataPoints": _NO_LIMIT}
            limits = {"maxPayloadSize": 65_536, "maxInflightMessages": 100}
            answer = {**limits, "rateLimits": none, "gatewayRateLimits": none}
            client.publish(message.topic.replace("request", "response"), json.dumps(answer), 1)
        elif message.topic == "v1/gateway/telemetry":
            rows = [row for device in json.loads(message.payload).values() for row in device]
            self.values += sum(len(row["values"]) for row in rows)

    def close(self) -> None:
        """Count no more."""
        self._client.disconnect()
        self._client.loop_stop()


class Thingsboard:
    """The gateway, once it has told every tag. `run` plays to it."""

    def __init__(self, part: Part, player: Part, cloud: Cloud, messages: int) -> None:
        self._part = part
        self._player = player
        self._cloud = cloud
        self._messages = messages
        self._next = 1
        self.walls: list[float] = []
        deadline = time.monotonic() + _START_SECS
        while cloud.values < MACHINES * len(ALL_TAGS):
            if part.process.poll() is not None or time.monotonic() > deadline:
                raise NotInstalledError("it does not come to read every tag")
            time.sleep(0.5)
        self._subscription = int(player.ask(do="subscriptions")[-1][0])

    def run(self) -> float:
        """Play; return processor time per value until all have come to the broker [us]."""
        before, told, began = self._part.cpu_secs(), self._cloud.values, time.monotonic()
        done = self._player.ask(
            do="play", subscription=self._subscription, first=self._next, messages=self._messages
        )
        self._next += self._messages
        while self._cloud.values - told < done["values"]:
            if time.monotonic() - began > _TOLD_SECS:
                raise SystemExit("thingsboard-gateway has not told all that was played to it")
            time.sleep(0.01)
        self.walls.append(done["values"] / (time.perf_counter() - done["began"]))
        return (self._part.cpu_secs() - before) / int(done["values"]) * 1e6


@contextlib.contextmanager
def reading(url: str, player: Part, folder: Path, core: int | None, messages: int) -> Iterator[Thingsboard]:
    """Have thingsboard-gateway read a player for as long as a `with` lasts. Raises NotInstalledError."""
    python = installed()
    place = folder / "thingsboard"
    place.mkdir()
    with Mosquitto(folder / "thingsboard-broker") as broker:
        cloud = Cloud(broker.port)
        _configure(place, url, broker.port)
        start = (
            f"import os; os.chdir({str(place)!r}); from thingsboard_gateway.tb_gateway import main; main()"
        )
        environment = {"TB_GW_CONFIG_DIR": str(place), "PYTHONPATH": ""}
        try:
            with Part([str(python), "-c", start], core=core, folder=folder, environment=environment) as part:
                _discard(part)
                yield Thingsboard(part, player, cloud, messages)
        finally:
            cloud.close()


def _discard(part: Part) -> None:
    """Read away what it says, so that it need not wait for a reader."""
    output = part.process.stdout
    assert output is not None
    threading.Thread(target=output.read, daemon=True).start()


def _configure(folder: Path, url: str, broker: int) -> None:
    limits = (
        "rateLimits",
        "dpRateLimits",
        "messagesRateLimits",
        "deviceMessagesRateLimits",
        "deviceRateLimits",
        "deviceDpRateLimits",
    )
    cloud = {
        "host": "127.0.0.1",
        "port": broker,
        "remoteShell": False,
        "remoteConfiguration": False,
        "statistics": {"enable": False, "statsSendPeriodInSeconds": 600},
        "maxPayloadSizeBytes": 65_536,
        "minPackSendDelayMS": 0,
        "minPackSizeToSend": 500,
        "security": {"type": "accessToken", "accessToken": "token"},
        "qos": 1,
        **dict.fromkeys(limits, "0:0"),
    }
    server = {
        "url": url,
        "timeoutInMillis": 20_000,
        "scanPeriodInMillis": 3_600_000,
        "pollPeriodInMillis": 3_600_000,
        "enableSubscriptions": True,
        "subCheckPeriodInMillis": 50,
        "subDataMaxBatchSize": 5_000,
        "subDataMinBatchCreationTimeMs": 50,
        "subscriptionProcessBatchSize": 5_000,
        "sessionTimeoutInMillis": 120_000,
        "showMap": False,
        "security": "None",
        "identity": {"type": "anonymous"},
    }
    device = {
        "deviceNodeSource": "path",
        "deviceNodePattern": "Root\\.Objects",
        "deviceInfo": {
            "deviceNameExpression": "plc",
            "deviceNameExpressionSource": "constant",
            "deviceProfileExpression": "default",
            "deviceProfileExpressionSource": "constant",
        },
        "attributes": [],
        "timeseries": [
            {
                "key": f"{machine}.{tag.name}",
                "type": "identifier",
                "value": f"${{ns=2;s={node(machine, tag.name)}}}",
            }
            for machine in range(MACHINES)
            for tag in ALL_TAGS
        ],
        "rpc_methods": [],
        "attributes_updates": [],
    }
    files = {
        "tb_gateway.json": {
            "thingsboard": cloud,
            "storage": {"type": "memory", "read_records_count": 1000, "max_records_count": 1_000_000},
            "grpc": {"enabled": False},
            "connectors": [{"name": "plc", "type": "opcua", "configuration": "opcua.json"}],
        },
        "opcua.json": {"name": "plc", "server": server, "mapping": [device]},
        "logs.json": {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"console": {"class": "logging.StreamHandler", "level": "ERROR"}},
            "root": {"handlers": ["console"], "level": "ERROR"},
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
