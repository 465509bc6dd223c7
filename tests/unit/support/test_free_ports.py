"""No two tests are given one port, in whatever processes they run."""

import socket
import subprocess
import sys

import pytest

from tests.support import ports
from tests.support.ports import free_port

DRAW = "from tests.support.ports import free_port\nprint(*(free_port() for _ in range(50)))"


def test_processes_side_by_side_are_given_ports_of_their_own() -> None:
    others = [subprocess.Popen([sys.executable, "-c", DRAW], stdout=subprocess.PIPE) for _ in range(3)]
    mine = [free_port() for _ in range(50)]
    given = mine + [int(port) for other in others for port in other.communicate()[0].split()]
    assert len(given) == 200
    assert len(set(given)) == 200


def test_a_port_that_somebody_listens_on_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_port(), free_port()
    monkeypatch.setattr(ports, "_PORTS", [taken, free])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", taken))
        listener.listen()
        assert [free_port() for _ in range(4)] == [free] * 4
