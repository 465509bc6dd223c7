"""TCP ports of this machine: free, taken, and the next free one."""

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Container
from typing import Final

from oee.errors import CommandError

_TRIES: Final = 200
_LAST: Final = 65535
_LOOK_SECS: Final = 0.05


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a server may listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: a closing connection is no obstacle
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
        return True


def choose(
    wanted: int,
    what: str,
    *,
    fixed: bool,
    taken: Container[int] = (),
    count: int = 1,
    host: str = "127.0.0.1",
) -> int:
    """Return the wanted port, or the next free one after it; with `count`, the first of so many in a row.

    fixed: the person asked for exactly this port: raise CommandError when it is in use
    taken: ports already given to others, though nobody listens there yet
    """

    def in_use(first: int) -> int | None:
        ports = range(first, first + count)
        return next((port for port in ports if port in taken or not is_free(port, host)), None)

    if fixed:
        if (busy := in_use(wanted)) is not None:
            raise CommandError(f"port {busy} for {what} is in use{_by_whom(busy, host)}; choose another")
        return wanted
    last = min(wanted + _TRIES, _LAST + 2 - count)
    for port in range(wanted, last):
        if in_use(port) is None:
            return port
    raise CommandError(f"no free port for {what} from {wanted} to {last - 1}")


async def listening(port: int, *, within_secs: float, host: str = "127.0.0.1") -> bool:
    """Wait until somebody listens, without calling, which a broker would log; tell whether it came true."""
    deadline = time.monotonic() + within_secs
    while is_free(port, host):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_LOOK_SECS)
    return True


def _by_whom(port: int, host: str) -> str:
    """Return a hint whether somebody answers there, or the port is merely not ours to use."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=0.5):
        return " by another program"
    return " or not allowed"
