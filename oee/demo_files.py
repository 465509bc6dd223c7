"""The configuration files of a demo, as a person would write them: each process reads its own."""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from simulator import configuration
from simulator.scenarios import Scenario

RECEIPT_TIMEOUT_SECS = 3.0
SHIFT_CLOSE_GRACE_SECS = 5.0
REVISION_SETTLE_SECS = 2.0
_ALERTS_TOML: Final = """\
# Alerts of the demo, beside the idle machine that plant.toml asks for. A change is taken while the demo runs:
# add rules, or a channel such as the last one. `oee config show alerts` explains every option.
[[rule]]
name = "gateway-offline"
kind = "gateway"
advice = "See whether the edge computer has power and network."

[[rule]]
name = "plc-silent"
kind = "plc"
advice = "See whether the PLC runs and its network cable is in."

# [[channel]]
# name = "webhook"
# kind = "apprise"
# url = "json://127.0.0.1:8000"
"""


class Ports(NamedTuple):
    """TCP ports of loopback."""

    opcua: int
    """Of the first line; each further line has the next one."""
    board: int
    broker: int | None
    """None: somebody else's broker."""
    health: int


def write(folder: Path, scenario: Scenario, ports: Ports, broker_url: str) -> dict[str, Path]:
    """Write the files of gateway, plant, cloud side and alerts into folder/config; return their paths."""
    place = folder / "config"
    place.mkdir(parents=True, exist_ok=True)
    endpoints = {
        line.name: f"opc.tcp://127.0.0.1:{ports.opcua + index}"
        for index, line in enumerate(scenario.factory.lines)
    }
    # amqtt speaks no MQTT 5; a receipt is never far on one machine, so a lost message is sent again soon
    uplink: dict[str, Any] = {"version": "3.1.1", "receipt_timeout_secs": RECEIPT_TIMEOUT_SECS}
    texts = {
        "gateway": configuration.gateway_toml(
            scenario.factory,
            endpoints,
            broker_url=broker_url,
            data_dir=(folder / "gateway").absolute(),
            gateway={"accept_commands": True},
            uplink=uplink,
            health_port=ports.health,
        ),
        "plant": configuration.plant_toml(scenario),
        "cloud": _cloud_toml(folder, ports.board, broker_url),
    }
    if not (place / "alerts.toml").exists():  # people may edit it, also while the demo runs
        texts["alerts"] = _ALERTS_TOML
    paths = {name: place / f"{name}.toml" for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text)
    return paths


def _cloud_toml(folder: Path, board_port: int, broker_url: str) -> str:
    return f"""\
# The cloud side of the demo.
[cloud]
data_dir = {json.dumps(str((folder / "cloud").absolute()), ensure_ascii=False)}
plant = "plant.toml"
alerts = "alerts.toml"
shift_close_grace_secs = {SHIFT_CLOSE_GRACE_SECS}
revision_settle_secs = {REVISION_SETTLE_SECS}

[mqtt]
url = "{broker_url}"
protocol = "3.1.1"
allow_insecure = true

[web]
host = "127.0.0.1"
port = {board_port}
sign_in = false
"""
