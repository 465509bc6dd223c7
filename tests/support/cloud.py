"""The cloud side as a process of its own, with its files in a folder."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.patience import PATIENCE

PLANT = """
[site]
name = "berlin"
timezone = "Europe/Berlin"

[calendar.three-shift]
shifts = [
  { name = "1", start = "06:00", end = "14:00" },
  { name = "2", start = "14:00", end = "22:00" },
  { name = "3", start = "22:00", end = "06:00" },
]

[[machine]]
area = "packaging"
line = "line-1"
name = "filler-1"
calendar = "three-shift"
ideal_run_rate = 60.0
idle_alert_secs = 3

[[machine]]
area = "packaging"
line = "line-1"
name = "capper-1"
calendar = "three-shift"
ideal_run_rate = 60.0
"""

_PROGRAM = "import sys, pathlib; from cloud.commands import run; sys.exit(run(pathlib.Path(sys.argv[1])))"


def write_config(
    folder: Path, broker_url: str, *, plant: str = PLANT, options: Mapping[str, str] | None = None
) -> Path:
    """Write cloud.toml and plant.toml; return the path of cloud.toml.

    options: lines to add by table name, such as {"mqtt": "allow_insecure = true"}
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plant.toml").write_text(plant)
    tables = {
        "cloud": (
            'data_dir = "store"\nshift_close_grace_secs = 0\nrevision_settle_secs = 0.5\n'
            "live_interval_secs = 0.2\nplant_check_secs = 0.2\n"
        ),
        "mqtt": f'url = "{broker_url}"\n',
    }
    for table, lines in (options or {}).items():
        tables[table] = tables.get(table, "") + lines + "\n"
    path = folder / "cloud.toml"
    path.write_text("".join(f"[{table}]\n{lines}\n" for table, lines in tables.items()))
    return path


class CloudProcess:
    """A cloud service that may be killed and started again on the same store."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self._log = config.parent / "cloud.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the service; it needs a moment until it is connected."""
        assert self._process is None, "the service already runs"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", _PROGRAM, str(self.config)],
                cwd=Path(__file__).parents[2],
                stderr=log,
            )

    @property
    def pid(self) -> int:
        """Return the process id of the running service."""
        assert self._process is not None, "the service does not run"
        return self._process.pid

    def stop(self) -> tuple[int, float]:
        """End the service as a service manager does; return its exit code and the seconds that it took."""
        assert self._process is not None, "the service does not run"
        process, self._process = self._process, None
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=10 * PATIENCE), time.monotonic() - began

    def kill(self) -> None:
        """End the service as a loss of power does."""
        if self._process is not None:
            process, self._process = self._process, None
            os.kill(process.pid, signal.SIGKILL)
            process.wait(timeout=5)

    def wait(self, secs: float = 20.0) -> int:
        """Wait until the service ends by itself; return its exit code."""
        assert self._process is not None, "the service does not run"
        process, self._process = self._process, None
        return process.wait(timeout=secs)

    def log(self) -> str:
        """Return what the service has logged."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if error is not None:
            print(self.log())
