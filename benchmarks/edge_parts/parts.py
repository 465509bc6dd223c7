"""Processes that a benchmark starts, asks, and ends."""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
_QUIET_SECS = 0.3


class Part:
    """A process that answers lines of JSON, held to one core.

    command: what to start
    core: where it runs; None for anywhere
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        core: int | None,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = " ".join(command[:4])
        self._errors = (folder / f"stderr-{time.monotonic_ns()}").open("w+")
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self._output = self.process.stdin, self.process.stdout
        if core is not None:
            os.sched_setaffinity(self.process.pid, {core})

    def answer(self) -> Any:
        """Return the next line of JSON that it says; raise SystemExit with its errors when it has ended."""
        while True:
            line = self._output.readline()
            if not line:
                self._errors.seek(0)
                raise SystemExit(f"{self.name} has ended: {self._errors.read()[-2000:]}")
            if line.startswith(("{", "[")):
                return json.loads(line)

    def ask(self, **what: Any) -> Any:
        """Ask by a line of JSON and return the answer."""
        self._input.write(json.dumps(what) + "\n")
        self._input.flush()
        return self.answer()

    def cpu_secs(self) -> float:
        """Return the processor time that it has taken so far, all its threads together."""
        return cpu_secs(self.process.pid)

    def quiet_cpu_secs(self) -> float:
        """Return the same, once it has nothing to do any more."""
        before = self.cpu_secs()
        while True:
            time.sleep(_QUIET_SECS)
            now = self.cpu_secs()
            if now - before <= 2 / _TICKS_PER_SEC:
                return now
            before = now

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        for stream in (self._input, self._output, self._errors):
            stream.close()


def cpu_secs(pid: int) -> float:
    """Return the processor time of a process so far, user and system, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SEC
