"""What goes over the wire is what paho itself would send; answers are heard however the network cuts them."""

import socket
from collections.abc import Iterator

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from gateway.uplinks.paho_client import PahoClient

FIVE, THREE = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection: the client's, which does not block, and the broker's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(5)
    with ours, theirs:
        yield ours, theirs


def connected(made: Client, ours: socket.socket) -> Client:
    """Have a client think that its session stands."""
    made._sock = ours
    made.on_socket_register_write = lambda *_: None
    return made


def ours_to(
    ours: socket.socket, version: MQTTProtocolVersion = FIVE
) -> tuple[PahoClient, list[tuple[int, int]]]:
    """Return our client and what answers it hears: a message's number and the reason, 0 for none."""
    client = PahoClient(CallbackAPIVersion.VERSION2, client_id="one", protocol=version)
    connected(client, ours)
    heard: list[tuple[int, int]] = []

    def on_answer(number: int, reason: ReasonCode | None) -> None:
        heard.append((number, 0 if reason is None else reason.value))

    client.on_answer = on_answer
    return client, heard


@pytest.mark.parametrize("version", [FIVE, THREE])
@pytest.mark.parametrize("retain", [False, True])
def test_messages_are_those_that_paho_writes(
    sockets: tuple[socket.socket, socket.socket], version: MQTTProtocolVersion, *, retain: bool
) -> None:
    """Payloads around each step of the length's encoding, and a topic that is not ASCII."""
    ours, theirs = sockets
    messages = [("a/b", b"x" * size) for size in (1, 100, 130, 16_370, 16_400)] + [("für/ü", b"{}")]
    written = []
    for client in (ours_to(ours, version)[0], Client(CallbackAPIVersion.VERSION2, protocol=version)):
        connected(client, ours)
        for topic, payload in messages:
            if isinstance(client, PahoClient):
                client.send(topic, payload, retain=retain, taken=())
            else:
                client.publish(topic, payload, qos=1, retain=retain)
        while client.want_write():
            client.loop_write()
        size = sum(len(topic.encode()) + len(payload) + 5 for topic, payload in messages)
        received = b""
        while len(received) < size:
            received += theirs.recv(1 << 20)
        written.append(received)
    assert written[0] == written[1]


def test_a_number_that_still_waits_for_its_answer_is_not_given_again(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    """After 65,535 messages numbers begin anew."""
    client, _ = ours_to(sockets[0])
    client._last_mid = 65_534
    taken = {1: None, 2: None}
    assert [client.send("a", b"1", retain=False, taken=taken) for _ in range(2)] == [65_535, 3]


def test_without_a_connection_nothing_is_taken(sockets: tuple[socket.socket, socket.socket]) -> None:
    """The message stays with whoever sends it."""
    client, _ = ours_to(sockets[0])
    client._sock = None
    assert client.send("a", b"1", retain=False, taken=()) is None
    assert not client.want_write()


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("cut", range(1, 15))
def test_answers_are_heard_wherever_the_network_cuts_them(
    sockets: tuple[socket.socket, socket.socket], cut: int, *, first: bool
) -> None:
    """Plain ones, one that refuses for a reason, one that is longer and accepts, and a ping between them."""
    ours, theirs = sockets
    client, heard = ours_to(ours)
    told = b"\x40\x02\x00\x01\x40\x02\x00\x02\xd0\x00\x40\x03\x00\x03\x87\x40\x04\x01\x04\x10\x00"
    for part in (told[:cut], told[cut:] + b"\x40\x02\xff\xff"):
        theirs.sendall(part)
        if not first or client.take_answers():
            client.loop_read()
        while client.unread():
            client.loop_read()
    assert heard == [(1, 0), (2, 0), (3, 0x87), (0x104, 0), (0xFFFF, 0)]


def test_plain_answers_need_no_other_reading(sockets: tuple[socket.socket, socket.socket]) -> None:
    """What is not one, half of one, and a broker that hangs up are left to paho."""
    ours, theirs = sockets
    client, heard = ours_to(ours)
    assert not client.take_answers()  # nothing is there
    theirs.sendall(b"\x40\x02\x00\x01\x40\x02\x00\x02")
    assert not client.take_answers()
    theirs.sendall(b"\x40\x02\x00\x03\x40\x02")
    assert client.take_answers()
    assert heard == [(1, 0), (2, 0), (3, 0)]
    client.loop_read()
    assert client.take_answers()  # a packet has begun
    theirs.sendall(b"\x00\x04")
    client.loop_read()
    assert heard[-1] == (4, 0)
    theirs.close()
    assert client.take_answers()
    assert client.loop_read() == MQTTErrorCode.MQTT_ERR_CONN_LOST


@pytest.mark.parametrize(("version", "told"), [(THREE, b"\x40\x03\x00\x01\x87"), (FIVE, b"\x40\x01\x00")])
def test_an_answer_that_is_none_ends_the_session(
    sockets: tuple[socket.socket, socket.socket], version: MQTTProtocolVersion, told: bytes
) -> None:
    """A reason that version 3.1.1 does not have; and half a number."""
    ours, theirs = sockets
    client, heard = ours_to(ours, version)
    theirs.sendall(told)
    assert client._packet_read() == MQTTErrorCode.MQTT_ERR_PROTOCOL
    assert heard == []
