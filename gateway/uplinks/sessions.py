"""The life of an uplink: session after session, with jitter between; the same for every client library."""

import asyncio
import random
from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from gateway.errors import UnreachableError, UplinkError
from gateway.uplinks.port import Limits, Listener, backoff_secs


@dataclass(frozen=True, slots=True)
class End:
    """Why a session ended.

    silent: noticed by a time-out, not told by the broker
    """

    reason: str
    silent: bool


class Session(Protocol):
    """One connection, from connect to its end. After `open` has failed or `close`, it is done with."""

    async def open(self, on_message: Callable[[str, bytes], None]) -> Limits:
        """Connect, subscribe and return what the broker allows; raise UplinkError."""
        ...

    async def ended(self) -> End:
        """Tend the session until it ends."""
        ...

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> Future[None]:
        """Send one message; see `Uplink.publish`."""
        ...

    async def goodbye(self) -> None:
        """Say the will ourselves and leave in good order, as far as the broker lets us quickly."""
        ...

    def close(self, reason: str) -> None:
        """Let go of everything; each publish without an answer has failed."""
        ...


class SessionUplink:
    """Implements `gateway.uplinks.port.Uplink` over sessions.

    Each session is a new client of the library, so that nothing of a broken one is carried over; what it had
    not delivered, the outbox still has.

    name: in the configuration
    place: where the broker is, for people
    new_session: builds a session; may raise UplinkError
    """

    def __init__(
        self, name: str, place: str, new_session: Callable[[], Session], randomness: random.Random
    ) -> None:
        self._name = name
        self._new_session = new_session
        self._random = randomness
        self._log = structlog.get_logger("uplink").bind(uplink=name, broker=place)
        self._session: Session | None = None
        self._sessions = 0
        self._last_error: str | None = "not connected yet"

    @property
    def name(self) -> str:
        """Return the name it has in the configuration."""
        return self._name

    @property
    def connected(self) -> bool:
        """Tell whether a session lives."""
        return self._session is not None

    @property
    def reconnects(self) -> int:
        """Return how many sessions began after the first."""
        return max(0, self._sessions - 1)

    @property
    def last_error(self) -> str | None:
        """Return why there is no session; None while there is one."""
        return self._last_error

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> Future[None]:
        """Send one message with QoS 1; the future ends with the PUBACK."""
        if self._session is None:
            raise UnreachableError("there is no session")
        return self._session.publish(topic, payload, retain=retain)

    async def run(self, listener: Listener) -> None:
        """Keep a session for ever; returns only by cancellation, after a proper goodbye."""
        said: type[UplinkError] | None = None
        attempt = 0
        while True:
            try:
                session = self._new_session()
                limits = await session.open(listener.on_message)
            except UplinkError as error:
                self._last_error = str(error)
                if said is not type(error):
                    self._log.warning("uplink unreachable", reason=str(error))
                    said = type(error)
                attempt += 1
            else:
                await self._live(session, limits, listener)
                said, attempt = UnreachableError, 0
            await asyncio.sleep(backoff_secs(attempt, self._random.random()))

    async def _live(self, session: Session, limits: Limits, listener: Listener) -> None:
        """Serve one session until it ends."""
        self._session = session
        self._sessions += 1
        self._last_error = None
        self._log.info("uplink connected", max_in_flight=limits.max_in_flight)
        try:
            listener.on_connected(limits)
            end = await session.ended()
        except asyncio.CancelledError:
            await session.goodbye()
            raise
        finally:
            self._session = None
            session.close("the session ended")
        self._last_error = end.reason
        self._log.warning("uplink lost", reason=end.reason)
        listener.on_lost(end.reason, silent=end.silent)


def fail(waiting: Future[Any], error: UplinkError) -> None:
    """End a future with an error that nobody needs to ask for."""
    if not waiting.done():
        waiting.set_exception(error)
        waiting.exception()
