"""The session with the MQTT broker: telemetry in, acknowledged once stored; receipts, results, alerts out.

Each connection has a paho client of its own, so that nothing of a broken one lives on; the session itself is
kept by the broker. paho reads in its own thread, which waits while the inbox is full.
"""

import asyncio
import contextlib
import random
import ssl
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

import structlog
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from cloud.config import MqttTable
from cloud.errors import ConfigError, Fault
from cloud.ingest.message import Message
from contract import topics

SUBSCRIPTIONS: Final = (topics.ALL_STATUS, topics.ALL_GAPS, topics.ALL_BACKLOG, topics.ALL_TELEMETRY)
_MAX_PACKET_BYTES: Final = 1024 * 1024
"""Beyond what the contract refuses, so that what is refused can be kept; the broker drops larger ones."""
_IN_FLIGHT: Final = 50
_MIN_PAUSE_SECS: Final = 0.2
_JOIN_SECS: Final = 1.5
_REFUSED: Final = 0x80
_TAKEN_OVER: Final = 0x8E
_ADVICE: Final = "each service at a broker needs one of its own (mqtt.client_id in cloud.toml)"
_STEADY_SECS: Final = 5.0
_OFTEN: Final = 4
"""After so many sessions in a row that broke before they were steady, somebody else may be using our name."""
_UNSUPPORTED_VERSIONS: Final = frozenset({"Unsupported protocol version", "Protocol error"})

_log = structlog.get_logger("cloud.mqtt")


class Inbox:
    """Messages between the broker's thread and the ingest task: bounded; a full one makes `put` wait."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._messages: deque[Message] = deque()
        self._room = threading.Condition()
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def put(self, message: Message) -> bool:
        """Add a message from any thread but the loop's; wait while full. False when the inbox is closed."""
        with self._room:
            if len(self._messages) >= self._limit and not self._closed:
                self._room.wait_for(lambda: len(self._messages) < self._limit or self._closed)
            if self._closed:
                return False
            self._messages.append(message)
            if len(self._messages) == 1:
                self._loop.call_soon_threadsafe(self._arrived.set)
        return True

    async def take(self, limit: int, linger_secs: float) -> list[Message]:
        """Wait for a message, give others linger_secs to follow, and return at most `limit`, oldest first."""
        await self._arrived.wait()
        if len(self._messages) < limit:
            await asyncio.sleep(linger_secs)
        with self._room:
            taken = [self._messages.popleft() for _ in range(min(limit, len(self._messages)))]
            if not self._messages:
                self._arrived.clear()
            self._room.notify_all()
        return taken

    def close(self) -> None:
        """Let a waiting `put` go; what still waits is not acknowledged and comes again."""
        with self._room:
            self._closed = True
            self._room.notify_all()

    @property
    def waiting(self) -> int:
        """Return how many messages are not taken yet."""
        return len(self._messages)


class _Outgoing(NamedTuple):
    payload: bytes
    retain: bool
    sent: Callable[[], None] | None


class _Client(paho.Client):
    """A paho client for one connection, which says when its loop has ended, in whatever way."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.ended = threading.Event()

    def loop_forever(
        self,
        timeout: float = 1.0,
        retry_first_connection: bool = False,  # noqa: FBT001, FBT002  paho's signature
    ) -> MQTTErrorCode:
        """Do what paho does in its thread."""
        try:
            return super().loop_forever(timeout, retry_first_connection)
        finally:
            self.ended.set()

    def loop_stop(self) -> MQTTErrorCode:
        """Wait for the thread; paho's own way fails where that ends, and is forgotten, in between."""
        thread = self._thread
        if thread is None:
            return MQTTErrorCode.MQTT_ERR_INVAL
        self._thread_terminate = True
        thread.join()
        return MQTTErrorCode.MQTT_ERR_SUCCESS


State = Literal["connecting", "connected", "lost"]


class Broker:
    """One persistent session, kept alive from a thread of its own for as long as `run` lasts.

    It is renewed for ever, with pauses that vary by chance; the loss and the recovery are logged once each.
    Everything retained that was ever published is published again on each connection, since a broker that
    lost its memory would otherwise show nothing.
    """

    def __init__(self, settings: MqttTable, inbox: Inbox) -> None:
        self._settings = settings
        self._inbox = inbox
        self._random = random.Random()  # noqa: S311  pauses need no secrecy
        self._lock = threading.Lock()
        self._retained: dict[str, bytes] = {}
        self._waiting: OrderedDict[str, _Outgoing] = OrderedDict()
        self._in_flight: dict[int, tuple[str, _Outgoing]] = {}
        self._answered_early: set[int] = set()
        self._is_draining = False
        self._stopping = threading.Event()
        self._connection = 0
        self._session_made = False
        self._may_be_version = False
        self._version: Literal["5", "3.1.1"] = "3.1.1" if settings.protocol == "3.1.1" else "5"
        self._ever_connected = False
        self._fault: str | None = None
        self._logged_fault: str | None = None
        self._brief_in_a_row = 0
        """Sessions that ended before they were steady."""
        self._session_began = 0.0
        self.fault: str | None = None
        """Why the session does not hold; None when it does."""
        self.state: State = "connecting"
        self.state_since_us = time.time_ns() // 1000
        self._client: _Client | None = None

    async def run(self) -> None:
        """Hold the session until cancelled."""
        if self._settings.is_exposed:
            _log.warning("telemetry crosses the network in plain text", broker=self._settings.url)
        thread = threading.Thread(target=self._serve, name="cloud.mqtt", daemon=True)
        thread.start()
        try:
            await asyncio.Event().wait()
        finally:
            self._stopping.set()
            self._inbox.close()
            if (client := self._client) is not None:
                client.disconnect()
            await asyncio.shield(asyncio.to_thread(thread.join, _JOIN_SECS))

    def acknowledge(self, message: Message) -> None:
        """Tell the broker that a message is stored; one of an earlier connection comes again by itself."""
        if message.qos and message.connection == self._connection and self._client is not None:
            self._client.ack(message.packet, message.qos)

    def publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish what holds until it is replaced; of several that wait, the last wins."""
        with self._lock:
            if self._retained.get(topic) == payload:
                return
            self._retained[topic] = payload
            self._waiting[topic] = _Outgoing(payload, retain=True, sent=None)
        self._drain()

    def publish_event(self, name: str, topic: str, payload: bytes, sent: Callable[[], None]) -> None:
        """Publish a message once; `sent` is called, from another thread, when the broker has it.

        name: an event under a name that still waits is not queued twice
        """
        key = f"{topic}#{name}"
        with self._lock:
            if key in self._waiting or any(key == waiting for waiting, _ in self._in_flight.values()):
                return
            self._waiting[key] = _Outgoing(payload, retain=False, sent=sent)
        self._drain()

    def _serve(self) -> None:
        attempts = 0
        while not self._stopping.is_set():
            self._session_made = False
            self._may_be_version = False
            self._fault = None
            try:
                self._connect()
            except (OSError, ValueError) as error:
                self._fault = str(error) or type(error).__name__
            except ConfigError as error:
                self._fault = str(error)
            except Exception as error:  # noqa: BLE001 - without this thread nothing is stored any more
                _log.exception("a fault of our own in the broker's session; trying on")
                self._fault = repr(error)
            if self._stopping.is_set():
                break
            self._note_loss()
            attempts = max(0, self._brief_in_a_row - 1) if self._session_made else attempts + 1
            self._choose_version()
            self._stopping.wait(self._pause_secs(attempts))
        self._set_state("lost")

    def _pause_secs(self, attempts: int) -> float:
        longest = min(self._settings.reconnect_max_secs, _MIN_PAUSE_SECS * 2 ** min(attempts, 10))
        return float(longest * self._random.uniform(0.5, 1.0))

    def _connect(self) -> None:
        """Make one connection and return when it has ended."""
        settings = self._settings
        client = self._client = self._make_client()
        if self._version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = settings.session_expiry_secs
            properties.ReceiveMaximum = settings.max_unacknowledged
            properties.MaximumPacketSize = _MAX_PACKET_BYTES
            client.connect(
                settings.host,
                settings.port,
                settings.keepalive_secs,
                clean_start=False,
                properties=properties,
            )
        else:
            client.connect(settings.host, settings.port, settings.keepalive_secs)
        self._may_be_version = True
        try:
            client.loop_start()
            while not client.ended.wait(_STEADY_SECS):
                if self._session_made:
                    self._note_steady()
        finally:
            client.loop_stop()

    def _choose_version(self) -> None:
        """With protocol = "auto", try the other version where the broker let no session begin."""
        if self._settings.protocol == "auto" and not self._ever_connected and self._may_be_version:
            self._version = "3.1.1" if self._version == "5" else "5"

    def _make_client(self) -> "_Client":
        settings = self._settings
        is_five = self._version == "5"
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if is_five else False,
            protocol=paho.MQTTv5 if is_five else paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = settings.connect_timeout_secs
        client.max_inflight_messages_set(_IN_FLIGHT)
        if settings.username is not None:
            client.username_pw_set(settings.username, _password(settings))
        if settings.is_encrypted:
            client.tls_set_context(_tls_context(settings))
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        return client

    def _on_connect(
        self, client: paho.Client, _user: Any, flags: paho.ConnectFlags, code: ReasonCode, _more: Any
    ) -> None:
        if code.is_failure:
            self._fault = f"the broker refuses us: {code}"
            self._may_be_version = str(code) in _UNSUPPORTED_VERSIONS
            client.disconnect()
            return
        self._connection += 1
        is_back = self._ever_connected
        self._session_made = self._ever_connected = True
        self._session_began = time.monotonic()
        wanted: Any = (
            [(topic, SubscribeOptions(qos=1)) for topic in SUBSCRIPTIONS]
            if self._version == "5"
            else [(topic, 1) for topic in SUBSCRIPTIONS]
        )
        client.subscribe(wanted)
        with self._lock:
            for key, outgoing in self._in_flight.values():
                self._waiting.setdefault(key, outgoing)
            self._in_flight.clear()
            for topic, payload in self._retained.items():
                self._waiting.setdefault(topic, _Outgoing(payload, retain=True, sent=None))
        self._set_state("connected")
        if self._brief_in_a_row < _OFTEN:
            self._logged_fault = self.fault = None
            _log.info(
                "the broker is back" if is_back else "connected to the broker",
                broker=self._settings.url,
                mqtt=self._version,
                session="kept" if flags.session_present else "new",
            )
        self._drain()

    def _on_subscribe(
        self, _client: paho.Client, _user: Any, _packet: int, codes: list[ReasonCode], _more: Any
    ) -> None:
        for topic, code in zip(SUBSCRIPTIONS, codes, strict=False):
            if code.is_failure:
                _log.error("the broker refuses a subscription", topic=topic, reason=str(code))

    def _on_message(self, _client: paho.Client, _user: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError as error:
            topic = repr(error.object)
        with contextlib.suppress(RuntimeError):  # the loop has ended: the message comes again
            self._inbox.put(
                Message(
                    topic,
                    bytes(message.payload),
                    message.mid,
                    message.qos,
                    self._connection,
                    message.retain,
                )
            )

    def _on_publish(
        self, _client: paho.Client, _user: Any, packet: int, code: ReasonCode, _more: Any
    ) -> None:
        with self._lock:
            if packet not in self._in_flight:
                self._answered_early.add(packet)
                return
            key, outgoing = self._in_flight.pop(packet)
        if code.is_failure:
            _log.error("the broker refuses what we publish", topic=key, reason=str(code))
        if outgoing.sent is not None:
            outgoing.sent()
        self._drain()

    def _on_disconnect(
        self, _client: paho.Client, _user: Any, flags: paho.DisconnectFlags, code: ReasonCode, _more: Any
    ) -> None:
        if code.value == _TAKEN_OVER:
            self._fault = f"another client has taken our session over: {self._advice()}"
        if self._fault is None:
            who = (
                "the broker ended the session"
                if flags.is_disconnect_packet_from_server
                else "the connection broke"
            )
            self._fault = f"{who}: {code}"

    def _drain(self) -> None:
        """Publish what waits, few at a time: paho looks through all that is in flight for each answer.

        One thread at a time does so, for the order of what is retained; and it holds no lock of ours,
        because paho holds its own while it calls `_on_publish`.
        """
        while (taken := self._take_waiting()) is not None:
            client, connection, key, outgoing = taken
            topic = key.partition("#")[0]
            answered = None
            try:
                packet = client.publish(topic, outgoing.payload, qos=1, retain=outgoing.retain).mid
                with self._lock:
                    if client is not self._client or connection != self._connection:
                        self._waiting.setdefault(key, outgoing)
                    elif packet in self._answered_early:
                        answered = outgoing
                    else:
                        self._in_flight[packet] = (key, outgoing)
                    self._answered_early.clear()
            finally:
                with self._lock:
                    self._is_draining = False
            if answered is not None and answered.sent is not None:
                answered.sent()

    def _take_waiting(self) -> "tuple[paho.Client, int, str, _Outgoing] | None":
        """Take the next message to publish; None when there is none, or another thread is at it."""
        with self._lock:
            client = self._client
            if (
                client is None
                or self._is_draining
                or not self._waiting
                or len(self._in_flight) >= _IN_FLIGHT
                or self.state != "connected"
                or self._stopping.is_set()
            ):
                return None
            self._is_draining = True
            key, outgoing = self._waiting.popitem(last=False)
            return client, self._connection, key, outgoing

    def _note_loss(self) -> None:
        fault = self._fault or "the broker ended the connection before the session began"
        self._set_state("lost")
        is_brief = self._session_made and time.monotonic() - self._session_began < _STEADY_SECS
        self._brief_in_a_row = self._brief_in_a_row + 1 if is_brief else 0
        if self._brief_in_a_row >= _OFTEN and _ADVICE not in fault:
            fault = f"{fault}, again and again; another client may be using our session: {self._advice()}"
        if self._brief_in_a_row == _OFTEN:
            self._logged_fault = None
        self.fault = fault
        if self._logged_fault is None:
            self._logged_fault = fault
            _log.warning("no broker; trying on", broker=self._settings.url, reason=fault)

    def _note_steady(self) -> None:
        """Take a session that has lasted for a sound one."""
        is_news = self._brief_in_a_row >= _OFTEN
        self._brief_in_a_row = 0
        self._logged_fault = self.fault = None
        if is_news:
            _log.info("the session with the broker holds again", broker=self._settings.url)

    def _advice(self) -> str:
        return f"client_id is {self._settings.client_id!r}, and {_ADVICE}"

    def _set_state(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self.state_since_us = time.time_ns() // 1000


def _password(settings: MqttTable) -> str | None:
    if settings.password_file is None:
        return None
    try:
        lines = settings.password_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Fault("cloud.toml", "mqtt.password_file", str(error))]) from error
    return lines[0] if lines else ""


def _tls_context(settings: MqttTable) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.certificate_file is not None:
            context.load_cert_chain(settings.certificate_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([Fault("cloud.toml", "mqtt", f"certificates cannot be used: {error}")]) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
