"""paho's client, made to send, and to hear the answers to, many messages at once."""

import ssl
import struct
import time
from collections.abc import Callable, Container
from functools import lru_cache
from typing import Any, Final

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

_READ_BYTES: Final = 65_536
_NUMBERS: Final = 65_535
_PUBLISH_QOS_1: Final = PacketTypes.PUBLISH << 4 | 1 << 1
_PLAIN_PUBACK: Final = bytes((PacketTypes.PUBACK << 4, 2))
"""An answer that is its message's number alone: all went well."""
_PLAIN_PUBACK_BYTES: Final = 4


class PahoClient(Client):
    """paho, with one system call for what stands ready instead of one per packet or byte.

    Messages go out without the objects, locks and copies by which paho would send them again in another
    session: that is the outbox's work. Also closes the socket of a failed handshake, which paho leaves open.

    on_answer: called with the number of a message and why the broker refuses it; None where it took it
    handshake: TLS context, host and time-out [s]; None for an unprotected connection
    """

    on_answer: Callable[[int, ReasonCode | None], None]
    handshake: tuple[ssl.SSLContext, str, float] | None = None
    _received = b""
    _read_to = 0
    _unsent: dict[str, Any] | None = None
    """The packet of paho's queue that takes further messages until it has gone."""

    def send(self, topic: str, payload: bytes, *, retain: bool, taken: Container[int]) -> int | None:
        """Have a message of QoS 1 go with the next `loop_write`; return its number.

        That is none of those taken; None where there is no connection.
        """
        if self._sock is None:
            return None
        number = self._last_mid % _NUMBERS + 1
        while number in taken:
            number = number % _NUMBERS + 1
        self._last_mid = number
        packet = _publish(topic, payload, number, self._protocol, retain=retain)
        waiting = self._out_packet
        if waiting and waiting[-1] is self._unsent:
            self._unsent["packet"] += packet
            self._unsent["to_process"] += len(packet)
        else:
            self._unsent = {
                "command": _PUBLISH_QOS_1,
                "mid": number,
                "qos": 1,
                "pos": 0,
                "to_process": len(packet),
                "packet": bytearray(packet),
                "info": None,
            }
            waiting.append(self._unsent)  # type: ignore[arg-type]
        return number

    def take_answers(self) -> bool:
        """Read the plain answers that come before all else; tell whether `loop_read` has to go on."""
        if self._in_packet["command"] != 0:
            return True
        if self._read_to >= len(self._received):
            try:
                self._received = super()._sock_recv(_READ_BYTES)
            except BlockingIOError:
                return False
            except OSError:
                return True  # it meets the same, and tells
            self._read_to = 0
            self._last_bytes_received = time.monotonic()
        self._pass_answers()
        return self._read_to < len(self._received) or not self._received

    def _pass_answers(self) -> None:
        received, at = self._received, self._read_to
        while received.startswith(_PLAIN_PUBACK, at) and at + _PLAIN_PUBACK_BYTES <= len(received):
            self.on_answer(received[at + 2] << 8 | received[at + 3], None)
            at += _PLAIN_PUBACK_BYTES
        self._read_to = at

    def unread(self) -> bool:
        """Tell whether bytes have arrived that select cannot see."""
        sock = self.socket()
        return sock is not None and (
            self._read_to < len(self._received) or getattr(sock, "pending", _zero)() > 0
        )

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._read_to >= len(self._received):
            self._received = super()._sock_recv(_READ_BYTES)
            self._read_to = 0
        taken = self._received[self._read_to : self._read_to + bufsize]
        self._read_to += len(taken)
        return taken

    def _packet_read(self) -> MQTTErrorCode:
        """Read a packet, and all plain answers that came with it."""
        result = super()._packet_read()
        if result == MQTTErrorCode.MQTT_ERR_SUCCESS and self._in_packet["command"] == 0:
            self._pass_answers()
        return result

    def _handle_pubackcomp(self, cmd: Any) -> MQTTErrorCode:
        packet = self._in_packet["packet"]
        is_plain = len(packet) == len(_PLAIN_PUBACK)
        if cmd != "PUBACK" or not (
            is_plain or (len(packet) > 2 and self._protocol == MQTTProtocolVersion.MQTTv5)
        ):
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        reason = None if is_plain else ReasonCode(PacketTypes.PUBACK, identifier=packet[2])
        self.on_answer(
            packet[0] << 8 | packet[1], reason if reason is not None and reason.is_failure else None
        )
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _ssl_wrap_socket(self, tcp_sock: Any) -> Any:
        assert self.handshake is not None
        context, host, timeout_secs = self.handshake
        wrapped = context.wrap_socket(tcp_sock, server_hostname=host, do_handshake_on_connect=False)
        try:
            wrapped.settimeout(timeout_secs)
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped


def _publish(topic: str, payload: bytes, number: int, version: int, *, retain: bool) -> bytes:
    """Return a PUBLISH of QoS 1 as it goes over the wire: MQTT 5, and 3.1.1, part 3.3."""
    name = _named(topic)
    no_properties = b"\x00" if version == MQTTProtocolVersion.MQTTv5 else b""
    length = len(name) + 2 + len(no_properties) + len(payload)
    return b"".join(
        (
            bytes((_PUBLISH_QOS_1 | retain, *_variable_length(length))),
            name,
            number.to_bytes(2),
            no_properties,
            payload,
        )
    )


@lru_cache(maxsize=1024)
def _named(topic: str) -> bytes:
    """Return a topic as it goes over the wire; a gateway has few, and says each again and again."""
    name = topic.encode()
    return struct.pack("!H", len(name)) + name


def _variable_length(length: int) -> tuple[int, ...]:
    """Return a number in MQTT's bytes of seven bits, the lowest first."""
    if length < 1 << 7:
        return (length,)
    return (length & 0x7F | 0x80, *_variable_length(length >> 7))


def _zero() -> int:
    return 0
