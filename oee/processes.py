"""Child processes that end with their parent, whatever ends it."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

KILL_AFTER_SECS: Final = 2.0
_PR_SET_PDEATHSIG: Final = 1
_LOG_TAIL_BYTES: Final = 8192


class Child:
    """One process of ours: started in a group of its own, its output in a log file.

    name: what people call it
    command: program and arguments; never through a shell
    log: file that gets stdout and stderr; the one of the run before is kept beside it as `.1`
    """

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.command = tuple(command)
        self.log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Return the process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the process; on Linux the kernel ends it when this process ends, even by SIGKILL."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self.log.replace(self.log.with_suffix(self.log.suffix + ".1"))
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,  # Ctrl-C in the terminal reaches the parent alone, which ends all in order
                preexec_fn=_end_with_parent(os.getpid()),
            )

    async def wait(self) -> int:
        """Wait until the process ends; return its exit code (negative: the signal)."""
        assert self._process is not None, f"{self.name} was never started"
        return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and all that it started."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def last_lines(self, count: int = 12) -> list[str]:
        """Return the end of the log."""
        with contextlib.suppress(OSError), self.log.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _LOG_TAIL_BYTES))
            return stream.read().decode(errors="replace").splitlines()[-count:]
        return []


async def stop_all(children: Iterable[Child], *, within_secs: float = KILL_AFTER_SECS) -> list[str]:
    """Ask all processes at once to end, after within_secs kill the rest; return the names of those killed."""
    running = [child for child in children if child.pid is not None]
    for child in running:
        child.signal(signal.SIGTERM)
    waits = {asyncio.create_task(child.wait(), name=f"end of {child.name}"): child for child in running}
    late: list[str] = []
    if waits:
        _, pending = await asyncio.wait(waits, timeout=within_secs)
        for task in pending:
            late.append(waits[task].name)
            waits[task].signal(signal.SIGKILL)
        if pending:
            await asyncio.wait(pending)
    for child in running:  # what a process started and left behind in its group
        _kill_group(child)
    return late


def _kill_group(child: Child) -> None:
    process = child._process  # noqa: SLF001 - same module
    if process is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _end_with_parent(parent: int) -> Callable[[], None] | None:
    """Return what the child does between fork and exec; None where the kernel has no such thing."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)  # loaded here: after the fork as little as possible may happen

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)

    return prepare
