"""A gateway process for tests: the real daemon, reading counting machines instead of PLCs.

Run as `python -m tests.support.gateway_process CONFIG [FILE_SIZE_LIMIT]`.
"""

import asyncio
import resource
import sys
from pathlib import Path

from gateway import config
from gateway.config import Configuration, Connection
from gateway.logging import configure
from gateway.pipeline import Lane
from gateway.service import Daemon
from gateway.sources.port import Source
from tests.support.gateway_parts import CountingSource


def counting(_configuration: Configuration, connection: Connection, lane: Lane) -> Source:
    """Return a source of counting machines for a connection."""
    return CountingSource(connection.name, lane, [binding.handle for binding in lane.bindings])


def configuration_text(
    data_dir: Path,
    *,
    brokers: dict[str, int],
    connections: dict[str, int] | None = None,
    extra: str = "",
    uplink_extra: str = "",
    gateway_extra: str = "",
) -> str:
    """Write a gateway.toml: uplinks by name and port, connections by name and number of machines."""
    lines = [
        "[gateway]",
        'name = "edge"',
        'site = "plant"',
        f'data_dir = "{data_dir}"',
        "publish_interval_secs = 0.05",
        "heartbeat_secs = 1",
        gateway_extra,
        "[health]",
        "port = 0",
        extra,
    ]
    for name, machines in (connections or {"plc": 1}).items():
        lines += ["[[connection]]", f'name = "{name}"', 'endpoint = "opc.tcp://127.0.0.1:1"']
        lines += ['security = "None"', "allow_insecure = true"]
        for number in range(machines):
            lines += [
                "[[connection.machine]]",
                'area = "area"',
                f'line = "{name}"',
                f'name = "machine-{number}"',
            ]
            lines += ['state = { node = "ns=2;s=State", map = { 0 = "stopped", 1 = "running" } }']
            lines += ['total_units = "ns=2;s=Total"']
    for name, port in brokers.items():
        lines += ["[[uplink]]", f'name = "{name}"', 'kind = "mqtt"', f'url = "mqtt://127.0.0.1:{port}"']
        lines += ["receipt_timeout_secs = 1", uplink_extra]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    loaded = config.load(path)
    configure(loaded.log.level, loaded.log.format)
    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    asyncio.run(Daemon(loaded, path=path, make_source=counting).run())
