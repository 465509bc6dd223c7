"""An uplink to AWS IoT Core by AWS's own client: mutual TLS, port 443 by ALPN, persistent session."""

import asyncio
import contextlib
import random
from asyncio import Future
from collections.abc import Callable, Sequence
from concurrent.futures import Future as ThreadFuture
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from awscrt import io, mqtt5
from awscrt.exceptions import AwsCrtError

from gateway import config
from gateway.errors import (
    PublishRefusedError,
    RefusedError,
    UnreachableError,
    UplinkError,
)
from gateway.uplinks.port import Limits, Will, limits_of
from gateway.uplinks.sessions import (
    GOODBYE_SECS,
    TAKEN_OVER,
    TRANSIENT,
    End,
    Session,
    SessionUplink,
    fail,
    narrowed,
)

ALPN_PORT: Final = 443
ALPN_PROTOCOL: Final = "x-amzn-mqtt-ca"
"""What asks for MQTT with client certificates on port 443."""

AWS_LIMITS: Final = Limits(publishes_per_sec=100.0, bytes_per_sec=500_000.0)
"""Of one connection, a little below what AWS cuts off."""
_FIRST_FAILURE: Final = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A registered thing and where its account's endpoint is.

    name: of the thing; it is the client id, as the policy wants it
    ca_file: who may sign the endpoint's certificate; the system's trust store when None
    alpn: ask for MQTT by ALPN, which port 443 needs
    session_expiry_secs: how long AWS keeps the session's subscriptions after a loss; 0 for none
    """

    endpoint: str
    port: int
    name: str
    certificate_file: Path
    private_key_file: Path
    ca_file: Path | None = None
    alpn: bool = False
    session_expiry_secs: int = 3600
    keepalive_secs: int = 4
    connect_timeout_secs: float = 10.0
    limits: Limits = AWS_LIMITS


class AwsIotCore(SessionUplink):
    """An uplink by awscrt.

    subscriptions: topics subscribed in every session before it counts as connected
    will: what is published, retained, when a session ends; asked anew for each session
    """

    def __init__(
        self,
        name: str,
        thing: Thing,
        *,
        subscriptions: Sequence[str] = (),
        will: Callable[[], Will] | None = None,
        randomness: random.Random | None = None,
    ) -> None:
        # One thread serves the socket; awscrt would start one per processor.
        bootstrap = io.ClientBootstrap(group := io.EventLoopGroup(1), io.DefaultHostResolver(group))

        def begin() -> _Session:
            return _Session(thing, bootstrap, tuple(subscriptions), will)

        super().__init__(
            name,
            f"{thing.endpoint}:{thing.port}",
            thing.name,
            begin,
            connect_timeout_secs=thing.connect_timeout_secs,
            randomness=randomness,
        )

    @classmethod
    def from_config(
        cls,
        settings: config.AwsIotUplink,
        *,
        subscriptions: Sequence[str] = (),
        will: Callable[[], Will] | None = None,
    ) -> "AwsIotCore":
        """Build the uplink that the configuration asks for."""
        thing = Thing(
            endpoint=settings.endpoint,
            port=settings.port,
            name=settings.thing,
            certificate_file=settings.certificate_file,
            private_key_file=settings.private_key_file,
            ca_file=settings.ca_file,
            alpn=settings.port == ALPN_PORT,
            session_expiry_secs=settings.session_expiry_secs,
            keepalive_secs=settings.keepalive_secs,
            limits=limits_of(settings),
        )
        return cls(settings.name, thing, subscriptions=subscriptions, will=will)


class _Session(Session):
    """One connection of one awscrt client; its callbacks, of a thread of its own, are passed to the loop."""

    def __init__(
        self,
        thing: Thing,
        bootstrap: io.ClientBootstrap,
        subscriptions: Sequence[str],
        will: Callable[[], Will] | None,
    ) -> None:
        super().__init__(f"{thing.endpoint}:{thing.port}", will, thing.keepalive_secs)
        self._thing = thing
        self._subscriptions = subscriptions
        self._deliver: Callable[[str, bytes], None] = lambda _topic, _payload: None
        self._opened: Future[Limits] = self._loop.create_future()
        self._stopped: Future[None] = self._loop.create_future()
        self._numbers = count()
        self._client = mqtt5.Client(self._options(bootstrap))

    async def _connect(self, on_message: Callable[[str, bytes], None]) -> Limits:
        self._deliver = on_message
        self._client.start()
        limits = await self._opened
        await self._subscribe()
        return limits

    def _no_answer(self, timeout_secs: float) -> str:
        # awscrt keeps a failed handshake to itself for half a minute, so that the two look the same.
        return f"{super()._no_answer(timeout_secs)}, or its certificate is not trusted"

    def _send(self, topic: str, payload: bytes, *, retain: bool) -> int:
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=retain)
        number = next(self._numbers)
        self._client.publish(packet).add_done_callback(lambda done: self._call(self._told, number, done))
        return number

    async def _leave(self) -> None:
        self._client.stop(mqtt5.DisconnectPacket())
        await asyncio.wait([self._stopped], timeout=GOODBYE_SECS)

    def _let_go(self) -> None:
        self._client.stop()

    def _fail_waiting(self, error: UplinkError) -> None:
        fail(self._opened, error)

    def _options(self, bootstrap: io.ClientBootstrap) -> mqtt5.ClientOptions:
        thing = self._thing
        keep = thing.session_expiry_secs > 0
        behaviour = mqtt5.ClientSessionBehaviorType
        return mqtt5.ClientOptions(
            host_name=thing.endpoint,
            port=thing.port,
            bootstrap=bootstrap,
            tls_ctx=_tls(thing),
            connect_options=mqtt5.ConnectPacket(
                client_id=thing.name,
                keep_alive_interval_sec=thing.keepalive_secs,
                session_expiry_interval_sec=thing.session_expiry_secs,
                will=self._will_packet(),
            ),
            session_behavior=behaviour.REJOIN_ALWAYS if keep else behaviour.CLEAN,
            extended_validation_and_flow_control_options=(
                mqtt5.ExtendedValidationAndFlowControlOptions.AWS_IOT_CORE_DEFAULTS
            ),
            # Nothing waits in memory: the outbox is on disk.
            offline_queue_behavior=mqtt5.ClientOperationQueueBehaviorType.FAIL_ALL_ON_DISCONNECT,
            ping_timeout_ms=max(500, (thing.keepalive_secs - 1) * 1000),
            connack_timeout_ms=round(thing.connect_timeout_secs * 1000),
            on_publish_callback_fn=self._on_publish_received,
            on_lifecycle_event_connection_success_fn=lambda told: self._call(self._on_success, told),
            on_lifecycle_event_connection_failure_fn=self._on_failure,
            on_lifecycle_event_disconnection_fn=self._on_disconnection,
            on_lifecycle_event_stopped_fn=lambda _told: self._call(self._on_stopped),
        )

    def _will_packet(self) -> mqtt5.PublishPacket | None:
        if self._will is None:
            return None
        will = self._will()
        return mqtt5.PublishPacket(
            topic=will.topic, payload=will.payload, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=True
        )

    async def _subscribe(self) -> None:
        if not self._subscriptions:
            return
        wanted = [mqtt5.Subscription(topic, mqtt5.QoS.AT_LEAST_ONCE) for topic in self._subscriptions]
        try:
            told = await asyncio.wrap_future(self._client.subscribe(mqtt5.SubscribePacket(wanted)))
        except AwsCrtError as error:
            raise UnreachableError(f"subscribing failed: {error.name}") from error
        refused = [
            f"{topic}: {_name(code)}"
            for topic, code in zip(self._subscriptions, told.reason_codes, strict=False)
            if code >= _FIRST_FAILURE
        ]
        if refused:
            raise RefusedError(f"AWS IoT Core refused to subscribe {'; '.join(refused)}")

    # From the client's thread to the loop

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            self._loop.call_soon_threadsafe(function, *arguments)

    def _on_publish_received(self, received: mqtt5.PublishReceivedData) -> None:
        packet = received.publish_packet
        self._call(self._deliver_message, packet.topic, bytes(packet.payload or b""))

    def _on_failure(self, told: mqtt5.LifecycleConnectFailureData) -> None:
        self._client.stop()  # the next attempt is a new client's
        error: UplinkError
        if told.connack_packet is not None:
            reason = _name(told.connack_packet.reason_code)
            error = RefusedError(f"{self._thing.endpoint} refused {self._thing.name}: {reason}")
        else:
            reason = getattr(told.exception, "name", str(told.exception))
            error = UnreachableError(f"{self._thing.endpoint}:{self._thing.port} cannot be reached: {reason}")
        self._call(fail, self._opened, error)

    def _on_disconnection(self, told: mqtt5.LifecycleDisconnectData) -> None:
        self._client.stop()
        name = getattr(told.exception, "name", str(told.exception))
        packet = told.disconnect_packet
        reason = (
            f"the broker says: {_name(packet.reason_code)}" if packet else f"the connection broke: {name}"
        )
        taken_over = packet is not None and packet.reason_code == TAKEN_OVER
        self._call(self._finish, End(reason, silent="TIMEOUT" in name, is_taken_over=taken_over))

    # In the loop

    def _deliver_message(self, topic: str, payload: bytes) -> None:
        self._deliver(topic, payload)

    def _on_success(self, told: mqtt5.LifecycleConnectSuccessData) -> None:
        if not self._opened.done():
            negotiated = told.negotiated_settings
            limits = narrowed(
                self._thing.limits,
                packet_bytes=negotiated.maximum_packet_size_to_server or None,
                receive_maximum=negotiated.receive_maximum_from_server or None,
            )
            self._opened.set_result(limits)

    def _on_stopped(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(None)

    def _told(self, number: int, done: ThreadFuture[mqtt5.PublishCompletionData]) -> None:
        """Take what became of one message.

        One that fails without an answer fails with its session, whose end is told after it: that answers it.
        """
        if done.exception() is not None:
            return
        code = done.result().puback.reason_code
        is_refused = code is not None and code >= _FIRST_FAILURE
        refused = PublishRefusedError(_name(code), transient=code in TRANSIENT)
        self._answered(number, refused if is_refused else None)


def _tls(thing: Thing) -> io.ClientTlsContext:
    """Read the thing's certificate and key; raise RefusedError when they are unusable."""
    try:
        options = io.TlsContextOptions.create_client_with_mtls_from_path(
            str(thing.certificate_file), str(thing.private_key_file)
        )
        if thing.ca_file is not None:
            options.override_default_trust_store_from_path(None, str(thing.ca_file))
        if thing.alpn:
            options.alpn_list = [ALPN_PROTOCOL]
        return io.ClientTlsContext(options)
    except (OSError, AwsCrtError) as error:
        raise RefusedError(f"the TLS certificates cannot be used: {error}") from error


def _name(code: int) -> str:
    """Return a reason code's name in words."""
    return str(getattr(code, "name", code)).replace("_", " ").lower()
