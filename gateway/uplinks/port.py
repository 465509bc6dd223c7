"""What an uplink promises: a live session with a broker, for ever, and an honest answer for each message."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from gateway import config
from gateway.errors import UplinkError

AWS_MAX_MESSAGE_BYTES: Final = 128 * 1024

Answered = Callable[[UplinkError | None], None]
"""Takes the broker's answer to one message, once and in the event loop: None where it took it.

A function, for it is called for each record: a future costs several times as much as all that it tells.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one session allows.

    max_message_bytes: payload of one publish
    max_in_flight: publishes without a PUBACK
    publishes_per_sec, bytes_per_sec: None where there is no limit
    """

    max_message_bytes: int = AWS_MAX_MESSAGE_BYTES
    max_in_flight: int = 50
    publishes_per_sec: float | None = None
    bytes_per_sec: float | None = None


UNBOUNDED: Final = Limits()


def limits_of(settings: config.MqttUplink | config.AwsIotUplink) -> Limits:
    """Return what the configuration allows, before the broker has been asked."""
    return Limits(
        max_message_bytes=settings.max_message_bytes,
        max_in_flight=settings.in_flight,
        publishes_per_sec=settings.publishes_per_sec,
        bytes_per_sec=settings.bytes_per_sec,
    )


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when the session ends without a goodbye."""

    topic: str
    payload: bytes


class Listener(Protocol):
    """Who uses an uplink. All calls come in the event loop, and none may raise."""

    def on_connected(self, limits: Limits) -> None:
        """Take note that a session began; subscriptions stand."""
        ...

    def on_lost(self, reason: str, *, silent: bool) -> None:
        """Take note that the session ended: every message without an answer has failed.

        silent: noticed by a time-out, not told by the broker
        """
        ...

    def on_message(self, topic: str, payload: bytes) -> None:
        """Take a message of a subscribed topic."""
        ...


class Uplink(Protocol):
    """A broker, reached by one client library."""

    @property
    def name(self) -> str:
        """Return the name it has in the configuration."""
        ...

    @property
    def connected(self) -> bool:
        """Tell whether a session lives."""
        ...

    @property
    def reconnects(self) -> int:
        """Return how many sessions began after the first."""
        ...

    @property
    def last_error(self) -> str | None:
        """Return why there is no session; None while there is one."""
        ...

    async def run(self, listener: Listener) -> None:
        """Keep a session for ever; returns only by cancellation, after a proper goodbye."""
        ...

    def publish(self, topic: str, payload: bytes, answered: Answered, *, retain: bool = False) -> None:
        """Send one message with QoS 1.

        `answered` is told None at the PUBACK, else PublishRefusedError or, for a session that ended,
        UnreachableError: after the listener's on_lost. What cannot be sent at all, the call itself raises:
        MessageTooLargeError or UnreachableError; then there is no answer.
        """
        ...


def backoff_secs(attempt: int, randomness: float, *, first_secs: float = 0.2, cap_secs: float = 2.0) -> float:
    """Return how long to wait before the next attempt: doubling up to a cap, with jitter.

    attempt: how many failed before, from 0
    randomness: [0, 1) the share of jitter; the wait is between half and all of the step
    """
    step_secs = min(cap_secs, first_secs * 2.0 ** min(attempt, 16))
    return step_secs * (0.5 + randomness / 2)
