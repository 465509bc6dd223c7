"""node-opcua's server as a PLC for tests: installed by npm into a cache, driven over its standard input."""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "integration" / "node_opcua"
_INSTALL_SECS = 600
_START_SECS = 60


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


class ForeignServer:
    """A running server; `tags` are {name: (type, value)}."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}"

    def node(self, name: str) -> str:
        return f"nsu=urn:test:plc;s={name}"

    async def ask(self, command: str, **arguments: Any) -> Any:
        """Have the server do something; fails with its own words when it cannot."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
        await self.process.stdin.drain()
        answer = await self._answer()
        assert "error" not in answer, answer["error"]
        return answer["result"]

    async def write(self, name: str, kind: str, value: Any, at_us: int, status: str | None = None) -> None:
        """Show a value; the server keeps milliseconds."""
        await self.ask("write", name=name, type=kind, value=value, at_ms=at_us // 1000, status=status)

    async def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        while True:
            line = await asyncio.wait_for(self.process.stdout.readline(), _START_SECS)
            assert line, "the server has ended"
            if line.startswith(b"{"):  # the library prints warnings between
                found: dict[str, Any] = json.loads(line)
                return found

    async def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 10)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    async def kill(self) -> None:
        """End the process as a power cut does."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def foreign_server(
    folder: Path, tags: dict[str, tuple[str, Any]], *, port: int, **options: Any
) -> AsyncIterator[ForeignServer]:
    """Run node-opcua's server with these tags on a port."""
    modules = await asyncio.to_thread(installed)
    said = {
        "port": port,
        "pki": str(folder / "node-pki"),
        "tags": {name: {"type": kind, "value": value} for name, (kind, value) in tags.items()},
        **options,
    }
    process = await asyncio.create_subprocess_exec(
        "node",
        str(FOLDER / "server.js"),
        json.dumps(said),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "NODE_PATH": str(modules), "HOME": str(folder)},
        limit=2**20,
    )
    made = ForeignServer(process, port)
    try:
        answer = await made._answer()
        assert "ready" in answer, answer
        yield made
    finally:
        if process.returncode is None:
            await made.stop()
