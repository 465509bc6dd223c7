"""A PostgreSQL server of its own in a folder, on loopback."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from tests.support.patience import PATIENCE
from tests.support.ports import free_port

_PLACES = ("/usr/lib/postgresql", "/usr/local/lib/postgresql")


class Postgres:
    """Runs while it is open; `stop` and `start` keep what is in it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="oee-pg-"))
        self.port = free_port()
        # The server refuses to be root.
        self._as = ["setpriv", "--reuid=nobody", "--clear-groups"] if os.geteuid() == 0 else []
        if self._as:
            shutil.chown(self._folder, "nobody")
        self._run("initdb", "--auth=trust", "--username=oee", "--no-sync", "--pgdata", "cluster")

    @property
    def url(self) -> str:
        """Return the address as SQLAlchemy wants it."""
        return f"postgresql+psycopg://oee@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Run the server."""
        options = f"-p {self.port} -h 127.0.0.1 -k {self._folder} -F"
        self._run("pg_ctl", "start", "--wait", "-D", "cluster", "-l", "log", "-o", options)

    def stop(self) -> None:
        """Let the server be away."""
        self._run("pg_ctl", "stop", "--wait", "-D", "cluster", "-m", "immediate")

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement in a transaction of its own; return its rows."""
        address = f"postgresql://oee@127.0.0.1:{self.port}/postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):  # it was stopped before
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as, _program(program), *arguments],
            cwd=self._folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=10 * PATIENCE,
        )


def _program(name: str) -> str:
    """Return a program of PostgreSQL: Debian keeps them out of the PATH."""
    found = shutil.which(name)
    if found is not None:
        return found
    candidates = sorted(path for place in _PLACES for path in Path(place).glob(f"*/bin/{name}"))
    assert candidates, f"{name} is missing: packaging/system-packages postgresql"
    return str(candidates[-1])
