"""An uplink to any MQTT broker by paho, driven by the event loop: no thread that could die unseen."""

import asyncio
import contextlib
import random
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from gateway import config
from gateway.errors import (
    PublishRefusedError,
    RefusedError,
    UnreachableError,
    UplinkError,
)
from gateway.uplinks.paho_client import PahoClient
from gateway.uplinks.port import UNBOUNDED, Limits, Will, limits_of
from gateway.uplinks.sessions import TAKEN_OVER, TRANSIENT, End, Session, SessionUplink, fail, narrowed

Version = Literal["auto", "5", "3.1.1"]

_UNSUPPORTED_PROTOCOL: Final = 132


@dataclass(frozen=True, slots=True)
class Tls:
    """How the broker is proven to us, and we to it.

    ca_file: PEM of who may sign the broker's certificate; the system's trust store when None
    """

    ca_file: Path | None = None
    certificate_file: Path | None = None
    private_key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Read the files; raise RefusedError when one is unusable."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.certificate_file is not None:
                context.load_cert_chain(self.certificate_file, self.private_key_file)
        except (OSError, ssl.SSLError) as error:
            raise RefusedError(f"the TLS certificates cannot be used: {error}") from error
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where a broker is and how to talk to it.

    tls: None for an unprotected connection
    version: "auto" tries MQTT 5 and, where no session began with that, 3.1.1
    keepalive_secs: a silent broker is noticed within twice this and a second
    limits: what we allow ourselves; paho is fastest with 20 to 100 in flight
    """

    host: str
    port: int
    client_id: str
    tls: Tls | None = None
    username: str = ""
    password: str | None = None
    version: Version = "auto"
    keepalive_secs: int = 4
    connect_timeout_secs: float = 5.0
    limits: Limits = UNBOUNDED

    def __repr__(self) -> str:
        """Show where, never how: the password stays out of logs."""
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"


class MqttUplink(SessionUplink):
    """An uplink by paho.

    subscriptions: topics subscribed in every session before it counts as connected
    will: what is published, retained, when a session ends; asked anew for each session
    """

    def __init__(
        self,
        name: str,
        broker: Broker,
        *,
        subscriptions: Sequence[str] = (),
        will: Callable[[], Will] | None = None,
        randomness: random.Random | None = None,
    ) -> None:
        self._broker = broker
        self._subscriptions = tuple(subscriptions)
        self._will = will
        self._version: Version = "5" if broker.version == "auto" else broker.version
        super().__init__(
            name,
            repr(broker),
            broker.client_id,
            self._begin,
            connect_timeout_secs=broker.connect_timeout_secs,
            randomness=randomness,
        )

    @classmethod
    def from_config(
        cls,
        settings: config.MqttUplink,
        *,
        client_id: str,
        subscriptions: Sequence[str] = (),
        will: Callable[[], Will] | None = None,
        randomness: random.Random | None = None,
    ) -> "MqttUplink":
        """Build the uplink that the configuration asks for; reads the password."""
        tls = None
        if settings.tls:
            tls = Tls(settings.ca_file, settings.certificate_file, settings.private_key_file)
        broker = Broker(
            host=settings.host,
            port=settings.port,
            client_id=client_id,
            tls=tls,
            username=settings.username,
            password=config.secret(settings.password_file, settings.password_env),
            version=settings.version,
            keepalive_secs=settings.keepalive_secs,
            limits=limits_of(settings),
        )
        uplink = cls(settings.name, broker, subscriptions=subscriptions, will=will, randomness=randomness)
        if tls is None and not config.is_loopback(settings.host):
            uplink._log.warning("this uplink is not encrypted: anyone on the network can read and forge")
        return uplink

    async def try_once(self, said: tuple[str, bytes] | None = None) -> None:
        """Open one session and leave it in good order, in the other version where the first is not taken."""
        version = self._version
        try:
            await super().try_once(said)
        except UplinkError:
            if self._version == version:
                raise
            await super().try_once(said)

    def _begin(self) -> "_Session":
        return _Session(self._broker, self._version, self._subscriptions, self._will, self._version_refused)

    def _version_refused(self, *, silently: bool) -> None:
        """Take the other version next: some brokers refuse MQTT 5, hang up, or say nothing when they meet it.

        One that has let us in before, and says nothing, is only slow.
        """
        if self._broker.version == "auto" and not (silently and self._sessions):
            self._version = "3.1.1" if self._version == "5" else "5"


class _Session(Session):
    """One connection of one paho client, from connect to its end."""

    def __init__(
        self,
        broker: Broker,
        version: Version,
        subscriptions: Sequence[str],
        will: Callable[[], Will] | None,
        version_refused: Callable[..., None],
    ) -> None:
        super().__init__(repr(broker), will, broker.keepalive_secs)
        self._broker = broker
        self._version = version
        self._version_refused = version_refused
        self._deliver: Callable[[str, bytes], None] = _ignore
        self._subscriptions = subscriptions
        self._connack = asyncio.Future[Limits](loop=self._loop)
        self._suback = asyncio.Future[None](loop=self._loop)
        self._client = self._new_client()
        self._socket: Any = None
        self._is_writing = False
        self._is_blocked = False

    async def _connect(self, on_message: Callable[[str, bytes], None]) -> Limits:
        self._deliver = on_message
        await self._open_socket()
        try:
            limits = await self._connack
        except asyncio.CancelledError:  # nobody waits any longer
            self._version_refused(silently=True)
            raise
        if self._subscriptions:
            self._client.subscribe([(topic, 1) for topic in self._subscriptions])
            await self._suback
        return limits

    def _tend(self) -> None:
        if not self._end.done():
            self._client.loop_misc()

    def _send(self, topic: str, payload: bytes, *, retain: bool) -> int:
        number = self._client.send(topic, payload, retain=retain, taken=self._pending)
        if number is None:
            raise UnreachableError("the connection is closed")
        self._write_soon()
        return number

    async def _leave(self) -> None:
        self._client.disconnect()
        if self._socket is not None and self._client.want_write():
            self._client.loop_write()

    def _let_go(self) -> None:
        self._detach()
        self._client._sock_close()  # noqa: SLF001 - paho offers no way to drop a connection without a DISCONNECT

    def _fail_waiting(self, error: UplinkError) -> None:
        fail(self._connack, error)
        fail(self._suback, error)

    # Connecting

    def _new_client(self) -> PahoClient:
        five = self._version == "5"
        client = PahoClient(
            CallbackAPIVersion.VERSION2,
            client_id=self._broker.client_id,
            clean_session=None if five else True,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._broker.connect_timeout_secs
        if self._broker.username:
            client.username_pw_set(self._broker.username, self._broker.password)
        if self._broker.tls is not None:
            context = self._broker.tls.context()
            client.tls_set_context(context)
            client.handshake = context, self._broker.host, self._broker.connect_timeout_secs
        if self._will is not None:
            will = self._will()
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_answer = self._on_answer
        client.on_message = self._on_message
        return client

    async def _open_socket(self) -> None:
        """Connect in a thread of our own (name lookup and handshake block), then serve the socket here."""
        done = asyncio.Future[None](loop=self._loop)

        def settle(error: Exception | None) -> None:
            if done.done():  # we no longer wait: nobody else would close it
                self._client._sock_close()  # noqa: SLF001
            elif error is None:
                done.set_result(None)
            else:
                done.set_exception(UnreachableError(f"{self._broker!r} cannot be reached: {error}"))

        client = self._client

        def connect() -> None:
            error: Exception | None = None
            try:
                client.connect(self._broker.host, self._broker.port, keepalive=self._broker.keepalive_secs)
            except (OSError, ValueError) as reason:
                error = reason
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                self._loop.call_soon_threadsafe(settle, error)

        threading.Thread(target=connect, name=f"connect {self._broker!r}", daemon=True).start()
        await done
        self._socket = client.socket()
        if self._socket is None:
            raise UnreachableError(f"{self._broker!r} closed the connection")
        client.on_socket_register_write = self._write_soon
        client.on_socket_close = self._socket_closed
        self._loop.add_reader(self._socket, self._readable)
        self._write_soon()

    # The socket

    def _readable(self) -> None:
        try:
            if self._client.take_answers():
                self._client.loop_read()
            while self._client.unread():
                self._client.loop_read()
        except Exception as error:  # noqa: BLE001 - whatever a packet breaks, a new session heals
            self._finish(End(f"a packet could not be handled: {error!r}", silent=False))

    def _write_soon(self, *_: Any) -> None:
        """Write once the loop has gone round, all that has gathered until then."""
        if not self._is_writing:
            self._is_writing = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        """Write as much as there is room for, and the rest when there is more."""
        self._is_writing = False
        self._client.loop_write()
        if self._socket is not None and self._client.want_write() is not self._is_blocked:
            self._is_blocked = not self._is_blocked
            if self._is_blocked:
                self._loop.add_writer(self._socket, self._write)
            else:
                self._loop.remove_writer(self._socket)

    def _socket_closed(self, _client: Client, _userdata: Any, _sock: Any) -> None:
        self._detach()

    def _detach(self) -> None:
        if self._socket is not None and self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._socket = None

    # What the broker says

    def _on_connect(
        self, _client: Client, _userdata: Any, _flags: ConnectFlags, reason: ReasonCode, properties: Any
    ) -> None:
        if reason.is_failure:
            if reason.value == _UNSUPPORTED_PROTOCOL:
                self._version_refused(silently=False)
            fail(self._connack, RefusedError(f"{self._broker!r} refused us: {reason}"))
        elif not self._connack.done():
            limits = narrowed(
                self._broker.limits,
                packet_bytes=getattr(properties, "MaximumPacketSize", None),
                receive_maximum=getattr(properties, "ReceiveMaximum", None),
            )
            self._connack.set_result(limits)

    def _on_subscribe(
        self, _client: Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        refused = [
            f"{topic}: {reason}"
            for topic, reason in zip(self._subscriptions, reasons, strict=False)
            if reason.is_failure
        ]
        if refused:
            fail(self._suback, RefusedError(f"the broker refused to subscribe {'; '.join(refused)}"))
        elif not self._suback.done():
            self._suback.set_result(None)

    def _on_disconnect(
        self, _client: Client, _userdata: Any, flags: DisconnectFlags, reason: ReasonCode, _properties: Any
    ) -> None:
        told = flags.is_disconnect_packet_from_server
        text = f"the broker says: {reason}" if told else f"the connection broke: {reason}"
        if not self._connack.done():
            self._version_refused(
                silently=False
            )  # old brokers hang up when they meet a version they do not know
            fail(self._connack, UnreachableError(f"{self._broker!r} hung up before it answered"))
        taken_over = reason.value == TAKEN_OVER
        self._finish(End(text, silent=str(reason) == "Keep alive timeout", is_taken_over=taken_over))

    def _on_answer(self, number: int, reason: ReasonCode | None) -> None:
        refused = None
        if reason is not None:
            refused = PublishRefusedError(str(reason), transient=reason.value in TRANSIENT)
        self._answered(number, refused)

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        self._deliver(message.topic, bytes(message.payload))


def _ignore(_topic: str, _payload: bytes) -> None:
    """Drop a message that arrives before anybody listens."""
