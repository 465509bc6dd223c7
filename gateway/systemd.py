"""What systemd is told: that the daemon is ready, alive, stopping; a no-op where nobody listens."""

import contextlib
import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends state lines to the socket that systemd names in NOTIFY_SOCKET."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        own = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_secs = int(environ.get("WATCHDOG_USEC", "0")) / 1e6 if own else 0.0
        self._assured_at = float("-inf")

    def tell(self, *lines: str) -> None:
        """Send lines such as `READY=1`; whoever no longer listens does not stop us."""
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto("\n".join(lines).encode(), self._address)

    def assure(self, at_secs: float) -> None:
        """Let the watchdog know that we live, three times as often as it wants to hear it.

        at_secs: [s] of a monotonic clock; how often this is called says nothing on a busy machine
        """
        if self._watchdog_secs and at_secs - self._assured_at >= self._watchdog_secs / 3:
            self._assured_at = at_secs
            self.tell("WATCHDOG=1")
