"""node-opcua's server as a PLC for tests: installed by npm into a cache, driven over its standard input."""

import asyncio
import atexit
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "integration" / "node_opcua"
_INSTALL_SECS = 600
_ANSWER_SECS = 120


class NodeMissingError(RuntimeError):
    """node or npm is not installed; the tests that need them fail and say so."""


def installed() -> Path:
    """Install the server once per version of its package.json; return its node_modules."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NodeMissingError(
                f"{program} was not found: install Node.js 18 or newer (Debian: nodejs npm)"
            )
    wanted = (FOLDER / "package.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "oee-gateway-tests"
    folder = cache / f"node-opcua-{hashlib.sha256(wanted).hexdigest()[:12]}"
    done = folder / "installed"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test runs side by side must not install over each other
        if not done.exists():
            (folder / "package.json").write_bytes(wanted)
            subprocess.run(
                ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
                cwd=folder,
                check=True,
                timeout=_INSTALL_SECS,
                stdin=subprocess.DEVNULL,
            )
            done.touch()
    return folder / "node_modules"


class Host:
    """The process in which servers run, one for all tests: to load node-opcua takes seconds."""

    def __init__(self) -> None:
        self.pki = tempfile.mkdtemp(prefix="node-opcua-pki-")
        self._process = subprocess.Popen(
            ["node", str(FOLDER / "server.js")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "NODE_PATH": str(installed()), "HOME": self.pki},
        )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, port: int, command: str, **arguments: Any) -> Any:
        """Have a server do something; fails with its own words when it cannot."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"port": port, "command": command, **arguments}
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        while True:
            line = self._process.stdout.readline()
            assert line, "the server has ended"
            if line.startswith(b"{"):  # the library prints warnings between
                answer: dict[str, Any] = json.loads(line)
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def kill(self) -> None:
        """End the process as a power cut does."""
        self._process.kill()
        self.end()

    def end(self) -> None:
        """End the process, and remove what it has written."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.pki, ignore_errors=True)


_hosts: list[Host] = []


def host() -> Host:
    """Return the running process, a new one where there is none."""
    if not _hosts or not _hosts[-1].is_alive:
        _hosts.append(Host())
        atexit.register(_hosts[-1].end)
    return _hosts[-1]


class ForeignServer:
    """A running server; `tags` are {name: (type, value)}."""

    def __init__(self, process: Host, port: int) -> None:
        self.process = process
        self.port = port

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}"

    def node(self, name: str) -> str:
        return f"nsu=urn:test:plc;s={name}"

    async def ask(self, command: str, **arguments: Any) -> Any:
        """Have the server do something; fails with its own words when it cannot."""
        async with asyncio.timeout(_ANSWER_SECS):
            return await asyncio.to_thread(self.process.ask, self.port, command, **arguments)

    async def write(self, name: str, kind: str, value: Any, at_us: int, status: str | None = None) -> None:
        """Show a value; the server keeps milliseconds."""
        await self.ask("write", name=name, type=kind, value=value, at_ms=at_us // 1000, status=status)

    async def kill(self) -> None:
        """End the process as a power cut does."""
        await asyncio.to_thread(self.process.kill)


@asynccontextmanager
async def foreign_server(
    tags: dict[str, tuple[str, Any]], *, port: int, **options: Any
) -> AsyncIterator[ForeignServer]:
    """Run node-opcua's server with these tags on a port."""
    made = ForeignServer(await asyncio.to_thread(host), port)
    told = {name: {"type": kind, "value": value} for name, (kind, value) in tags.items()}
    await made.ask("start", pki=made.process.pki, tags=told, **options)
    try:
        yield made
    finally:
        if made.process.is_alive:
            await made.ask("stop")
