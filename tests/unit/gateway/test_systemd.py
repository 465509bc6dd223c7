"""What systemd hears, on a real socket."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.systemd import Notifier


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        yield heard


def told(heard: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(heard.recv(1000))
        except BlockingIOError:
            return found


def test_the_watchdog_is_assured_by_the_clock_not_by_the_number_of_looks(
    listening: socket.socket,
) -> None:
    """Each second that was slept took four, as on a machine without processor."""
    notifier = Notifier({"NOTIFY_SOCKET": str(listening.getsockname()), "WATCHDOG_USEC": "30000000"})
    heard_at = []
    for at_secs in range(0, 120, 4):
        notifier.assure(at_secs)
        heard_at += [at_secs] * len(told(listening))
    assert heard_at == list(range(0, 120, 12))


def test_without_a_watchdog_nothing_is_said(listening: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(listening.getsockname())})
    notifier.assure(0.0)
    notifier.assure(1e6)
    assert told(listening) == []
