"""TCP ports of this machine: free, taken, and the next free one."""

import contextlib
import errno
import socket
from collections.abc import Container
from typing import Final

from oee.errors import CommandError

_TRIES: Final = 200
_LAST: Final = 65535


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
    wanted: int, what: str, *, fixed: bool, taken: Container[int] = (), host: str = "127.0.0.1"
) -> int:
    """Return the wanted port, or the next free one after it.

    fixed: the person asked for exactly this port: raise CommandError when it is in use
    taken: ports already given to others, though nobody listens there yet
    """
    if fixed:
        if wanted in taken or not is_free(wanted, host):
            raise CommandError(f"port {wanted} for {what} is in use{_by_whom(wanted, host)}; choose another")
        return wanted
    for port in range(wanted, min(wanted + _TRIES, _LAST + 1)):
        if port not in taken and is_free(port, host):
            return port
    raise CommandError(f"no free port for {what} from {wanted} to {min(wanted + _TRIES, _LAST + 1) - 1}")


def _by_whom(port: int, host: str) -> str:
    """Return a hint whether somebody answers there, or the port is merely not ours to use."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=0.5):
        return " by another program"
    return " or not allowed"
