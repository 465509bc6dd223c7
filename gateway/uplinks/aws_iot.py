"""An uplink to AWS IoT Core by AWS's own client: mutual TLS, port 443 by ALPN, persistent session."""

import asyncio
import contextlib
import random
from asyncio import Future
from collections.abc import Callable, Sequence
from concurrent.futures import Future as ThreadFuture
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from awscrt import io, mqtt5
from awscrt.exceptions import AwsCrtError

from gateway import config
from gateway.errors import (
    MessageTooLargeError,
    PublishRefusedError,
    RefusedError,
    UnreachableError,
    UplinkError,
)
from gateway.uplinks.port import AWS_MAX_MESSAGE_BYTES, Limits, Will
from gateway.uplinks.sessions import End, SessionUplink, fail

ALPN_PORT: Final = 443
ALPN_PROTOCOL: Final = "x-amzn-mqtt-ca"
"""What asks for MQTT with client certificates on port 443."""

_TICK_SECS: Final = 1.0
_GOODBYE_SECS: Final = 0.5
_PACKET_OVERHEAD_BYTES: Final = 300
_FIRST_FAILURE: Final = 0x80
_TRANSIENT: Final = frozenset({0x80, 0x83, 0x87, 0x97})


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
    max_in_flight: int = 50
    max_message_bytes: int = AWS_MAX_MESSAGE_BYTES
    publishes_per_sec: float | None = 100.0
    bytes_per_sec: float | None = 500_000.0


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

        chance = randomness or random.Random()  # noqa: S311 - jitter, not a secret
        super().__init__(name, f"{thing.endpoint}:{thing.port}", begin, chance)

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
            max_in_flight=settings.in_flight,
            max_message_bytes=settings.max_message_bytes,
            publishes_per_sec=settings.publishes_per_sec,
            bytes_per_sec=settings.bytes_per_sec,
        )
        return cls(settings.name, thing, subscriptions=subscriptions, will=will)


class _Session:
    """One connection of one awscrt client; its callbacks, of a thread of its own, are passed to the loop."""

    def __init__(
        self,
        thing: Thing,
        bootstrap: io.ClientBootstrap,
        subscriptions: Sequence[str],
        will: Callable[[], Will] | None,
    ) -> None:
        self._thing = thing
        self._subscriptions = subscriptions
        self._will = will
        self._loop = asyncio.get_running_loop()
        self._deliver: Callable[[str, bytes], None] = lambda _topic, _payload: None
        self._opened: Future[Limits] = self._loop.create_future()
        self._end: Future[End] = self._loop.create_future()
        self._stopped: Future[None] = self._loop.create_future()
        self._pending: dict[Future[None], float] = {}
        self._limits = Limits()
        self._client = mqtt5.Client(self._options(bootstrap))

    async def open(self, on_message: Callable[[str, bytes], None]) -> Limits:
        """Connect, subscribe and return what AWS allows; raise UplinkError."""
        self._deliver = on_message
        try:
            async with asyncio.timeout(self._thing.connect_timeout_secs):
                self._client.start()
                self._limits = await self._opened
                await self._subscribe()
        except TimeoutError as error:
            self.close("no answer")
            # awscrt keeps a failed handshake to itself for half a minute, so that the two look the same.
            raise UnreachableError(
                f"{self._thing.endpoint}:{self._thing.port} did not answer, or its certificate is not trusted"
            ) from error
        except BaseException:
            self.close("not opened")
            raise
        return self._limits

    async def ended(self) -> End:
        """Wait for the end; notice an endpoint that keeps the connection and answers nothing."""
        patience_secs = 2 * self._thing.keepalive_secs
        while not self._end.done():
            await asyncio.wait([self._end], timeout=_TICK_SECS)
            oldest = next(iter(self._pending.values()), None)
            if oldest is not None and self._loop.time() - oldest > patience_secs:
                self._finish(End(f"no PUBACK for {patience_secs} s", silent=True))
        return self._end.result()

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> Future[None]:
        """Send one message; see `Uplink.publish`."""
        if self._end.done():
            raise UnreachableError(self._end.result().reason)
        if len(payload) > self._limits.max_message_bytes:
            raise MessageTooLargeError(len(payload), self._limits.max_message_bytes)
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE, retain=retain)
        answer: Future[None] = self._loop.create_future()
        self._pending[answer] = self._loop.time()
        self._client.publish(packet).add_done_callback(lambda done: self._call(self._answered, answer, done))
        return answer

    async def goodbye(self) -> None:
        """Say the will ourselves and leave in good order, as far as the endpoint lets us quickly."""
        with contextlib.suppress(UplinkError, TimeoutError):
            if self._will is not None:
                will = self._will()
                async with asyncio.timeout(_GOODBYE_SECS):
                    await self.publish(will.topic, will.payload, retain=True)
        self._client.stop(mqtt5.DisconnectPacket())
        await asyncio.wait([self._stopped], timeout=_GOODBYE_SECS)

    def close(self, reason: str) -> None:
        """Stop the client; each publish without an answer has failed."""
        self._finish(End(reason, silent=False))
        self._client.stop()
        for answer in self._pending:
            fail(answer, UnreachableError(reason))
        self._pending.clear()

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
        self._call(self._finish, End(reason, silent="TIMEOUT" in name))

    # In the loop

    def _deliver_message(self, topic: str, payload: bytes) -> None:
        self._deliver(topic, payload)

    def _on_success(self, told: mqtt5.LifecycleConnectSuccessData) -> None:
        if not self._opened.done():
            self._opened.set_result(_limits(self._thing, told.negotiated_settings))

    def _on_stopped(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(None)

    def _answered(self, answer: Future[None], done: ThreadFuture[mqtt5.PublishCompletionData]) -> None:
        if self._pending.pop(answer, None) is None or answer.done():
            return
        error = done.exception()
        if error is not None:
            fail(answer, UnreachableError(f"the message was not answered: {getattr(error, 'name', error)}"))
            return
        code = done.result().puback.reason_code
        if code is not None and code >= _FIRST_FAILURE:
            fail(answer, PublishRefusedError(_name(code), transient=code in _TRANSIENT))
        else:
            answer.set_result(None)

    def _finish(self, end: End) -> None:
        if not self._end.done():
            self._end.set_result(end)
        fail(self._opened, UnreachableError(end.reason))


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


def _limits(thing: Thing, negotiated: mqtt5.NegotiatedSettings) -> Limits:
    """Return the narrower of what we and AWS allow."""
    packet_bytes = negotiated.maximum_packet_size_to_server or AWS_MAX_MESSAGE_BYTES + _PACKET_OVERHEAD_BYTES
    receive_maximum = negotiated.receive_maximum_from_server or 65_535
    return Limits(
        max_message_bytes=min(thing.max_message_bytes, packet_bytes - _PACKET_OVERHEAD_BYTES),
        max_in_flight=max(1, min(thing.max_in_flight, receive_maximum - 2)),
        publishes_per_sec=thing.publishes_per_sec,
        bytes_per_sec=thing.bytes_per_sec,
    )


def _name(code: int) -> str:
    """Return a reason code's name in words."""
    return str(getattr(code, "name", code)).replace("_", " ").lower()
