"""Ports of loopback for servers under test: never one port to two tests, whatever runs side by side."""

import contextlib
import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import Final

# Below those that the kernel gives to connections that go out: a server that is killed and started again must
# not find one of them on its port. Every fifth: a test may want neighbours.
_PORTS: Final = range(15_000, 32_000, 5)


def free_port() -> int:
    """Return a port of loopback that nobody listens on now; the four behind it are given to nobody, either.

    What is given is listened on only seconds later, so that all processes of all runs on this machine draw
    from one row, and none is given twice before all have been given.
    """
    while True:
        port = _PORTS[_draw() % len(_PORTS)]
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def _draw() -> int:
    """Return how often was drawn before, counted in a file that one process at a time holds."""
    place = Path(tempfile.gettempdir()) / f"oee-test-ports-{os.getuid()}"
    with place.open("a+") as row:
        fcntl.flock(row, fcntl.LOCK_EX)
        row.seek(0)
        before = int(row.read() or 0)
        row.truncate(0)
        row.write(str(before + 1))
    return before
