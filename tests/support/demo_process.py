"""A running `oee demo`, as a person starts and ends it."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.support.patience import PATIENCE

URL_SECS = 20.0
ALONE = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
"""Environment variables that bring in no code from elsewhere."""


class Demo:
    """A running demo: what it prints, what it says on MQTT, which processes it has."""

    def __init__(
        self, oee: Path, folder: Path, *options: str, environment: Mapping[str, str] = ALONE
    ) -> None:
        self.began = time.monotonic()
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [str(oee), "demo", "--no-browser", "--data-dir", str(folder), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder.parent,
            env={**environment, "HOME": str(folder.parent)},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def left(self, within_secs: float) -> float:
        """Return what is left of so many seconds since the start, more where others share the machine."""
        return self.began + within_secs * crowding() - time.monotonic()

    def find(self, pattern: str) -> re.Match[str] | None:
        return re.search(pattern, self.output)

    def wait_for(self, pattern: str, within_secs: float) -> re.Match[str]:
        """Wait until a line matches, counted from the demo's start."""
        found = wait_until(lambda: self.find(pattern), self.left(within_secs))
        assert found, f"no {pattern!r} within {within_secs} s of the start:\n{self.output}"
        return found

    @property
    def board(self) -> str:
        return self.wait_for(r"board  (http://\S+)", URL_SECS)[1]

    @property
    def broker_port(self) -> int:
        return int(self.wait_for(r"mqtt://127\.0\.0\.1:(\d+)", URL_SECS)[1])

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self._process.pid).children(recursive=True)

    def pid_of(self, part: str) -> int:
        return int(self.wait_for(rf"{part} +pid (\d+)", URL_SECS)[1])

    def end(self, how: signal.Signals = signal.SIGINT) -> tuple[int, float]:
        """Send a signal; return the exit code and how long the end took."""
        began = time.monotonic()
        self._process.send_signal(how)
        code = self._process.wait(timeout=20 * PATIENCE)
        took_secs = time.monotonic() - began
        self._reader.join(timeout=5)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code, took_secs

    def kill(self) -> None:
        """Make sure that nothing stays, whatever a test did."""
        if self._process.poll() is None:
            self.end(signal.SIGKILL)


def crowding() -> float:
    """Return how much longer than promised things may take: a test's patience, more on a fuller machine."""
    return max(PATIENCE, os.getloadavg()[0] / (os.cpu_count() or 1))


def wait_until(probe: Callable[[], Any], within_secs: float) -> Any:
    """Ask again until something is found; return it, or what was found last."""
    deadline = time.monotonic() + within_secs
    while not (found := probe()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found
