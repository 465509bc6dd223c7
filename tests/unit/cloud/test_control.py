"""When a gateway need not be asked, and what it is asked."""

import pytest

from cloud import control
from contract.delivery import ConnectionStatus, Status

LINE_1 = ConnectionStatus(
    name="line-1", endpoint="opc.tcp://plc:4840", state="connected", since_epochtime=1.0
)


def status(**said):
    told = {"gateway": "gw", "site": "berlin", "online": True, "epochtime": 1.0, "accepts_commands": True}
    return Status(**told | {"connections": [LINE_1]} | said)


def test_a_gateway_that_is_there_and_willing_is_asked():
    assert control.refusal(status(), "gw", "line-1") is None


@pytest.mark.parametrize(
    ("said", "connection", "words"),
    [
        (None, "line-1", "never said anything"),
        (status(accepts_commands=False), "line-1", "accept_commands = true"),
        (status(online=False), "line-1", "offline"),
        (status(), "line-9", "no such connection"),
    ],
)
def test_what_would_lead_to_nothing_is_said_at_once(said, connection, words):
    assert words in control.refusal(said, "gw", connection)


def test_each_command_has_a_name_of_its_own_and_ends_by_itself():
    first, second = (
        control.command("berlin", "gw", "line-1", "stop", by="Ida", now_us=5_000_000) for _ in range(2)
    )
    assert first.id != second.id
    assert first.expires_epochtime - first.epochtime == control.EXPIRES_SECS


@pytest.mark.parametrize("by", ["Ida\nroot: all well", "Ida\u2028root", "\x9b2JIda", "x" * 500, "\x00"])
def test_a_hostile_name_becomes_one_short_line(by):
    asked = control.command("berlin", "gw", "line-1", "stop", by=by, now_us=5_000_000)
    assert 0 < len(asked.requested_by) <= 128
    assert asked.requested_by.isprintable()
