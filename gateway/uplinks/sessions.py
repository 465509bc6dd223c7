"""The life of an uplink: session after session, with jitter between; the same for every client library."""

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Final

import structlog

from gateway.errors import MessageTooLargeError, UnreachableError, UplinkError
from gateway.uplinks.port import Answered, Limits, Listener, Will, backoff_secs

_TICK_SECS: Final = 1.0
TAKEN_OVER: Final = 0x8E
STEADY_SECS: Final = 5.0
OFTEN: Final = 4
"""After so many sessions in a row that broke before they were steady, somebody else may be using our name."""
GOODBYE_SECS: Final = 0.5
PACKET_OVERHEAD_BYTES: Final = 300
"""More than a PUBLISH needs beside its payload: header, topic, properties."""
TRANSIENT: Final = frozenset({0x80, 0x83, 0x87, 0x97})
"""Unspecified, implementation specific, not authorised, quota: the broker may think otherwise later."""


_ADVICE: Final = (
    "each client of a broker needs one of its own: look for a second gateway with this configuration"
)


@dataclass(frozen=True, slots=True)
class End:
    """Why a session ended.

    silent: noticed by a time-out, not told by the broker
    is_taken_over: the broker says that another client of our name has come
    """

    reason: str
    silent: bool
    is_taken_over: bool = False


class Session(ABC):
    """One connection, from connect to its end. After `open` has failed or `close`, it is done with.

    place: where the broker is, for people
    will: what is published, retained, when the session ends
    keepalive_secs: a broker that owes a PUBACK for twice this is given up
    """

    def __init__(self, place: str, will: Callable[[], Will] | None, keepalive_secs: int) -> None:
        self._place = place
        self._will = will
        self._patience_secs = 2 * keepalive_secs
        self._loop = asyncio.get_running_loop()
        self._end: Future[End] = self._loop.create_future()
        self._pending: dict[int, tuple[Answered, float]] = {}
        self._limits = Limits()

    async def open(self, on_message: Callable[[str, bytes], None], timeout_secs: float) -> Limits:
        """Connect, subscribe and return what the broker allows; raise UplinkError."""
        try:
            async with asyncio.timeout(timeout_secs):
                self._limits = await self._connect(on_message)
        except TimeoutError as error:
            self.close("no answer")
            raise UnreachableError(self._no_answer(timeout_secs)) from error
        except BaseException:
            self.close("not opened")
            raise
        return self._limits

    async def ended(self) -> End:
        """Tend the session until it ends; notice a broker that keeps the connection and answers nothing."""
        while not self._end.done():
            await asyncio.wait([self._end], timeout=_TICK_SECS)
            self._tend()
            oldest = next(iter(self._pending.values()), None)
            if oldest is not None and monotonic() - oldest[1] > self._patience_secs:
                self._finish(End(f"no PUBACK for {self._patience_secs} s", silent=True))
        return self._end.result()

    def publish(self, topic: str, payload: bytes, answered: Answered, *, retain: bool) -> None:
        """Send one message; see `Uplink.publish`."""
        if self._end.done():
            raise UnreachableError(self._end.result().reason)
        if len(payload) > self._limits.max_message_bytes:
            raise MessageTooLargeError(len(payload), self._limits.max_message_bytes)
        number = self._send(topic, payload, retain=retain)
        self._pending[number] = answered, monotonic()

    async def say(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Send one message and wait for its answer; raises UplinkError."""
        said: Future[None] = self._loop.create_future()

        def answered(error: UplinkError | None) -> None:
            if error is not None:
                fail(said, error)
            elif not said.done():
                said.set_result(None)

        self.publish(topic, payload, answered, retain=retain)
        await said

    async def goodbye(self) -> None:
        """Say the will ourselves and leave in good order, as far as the broker lets us quickly."""
        with contextlib.suppress(UplinkError, TimeoutError):
            if self._will is not None:
                will = self._will()
                async with asyncio.timeout(GOODBYE_SECS):
                    await self.say(will.topic, will.payload, retain=True)
        await self._leave()

    def close(self, reason: str) -> None:
        """Let go of everything; each publish without an answer has failed."""
        self._finish(End(reason, silent=False))
        self._let_go()
        pending, self._pending = self._pending, {}
        for answered, _ in pending.values():
            answered(UnreachableError(reason))

    def _answered(self, number: int, error: UplinkError | None) -> None:
        """Take the broker's answer to one message."""
        known = self._pending.pop(number, None)
        if known is not None:
            known[0](error)

    def _finish(self, end: End) -> None:
        """Have the session end; only the first reason counts."""
        if not self._end.done():
            self._end.set_result(end)
        self._fail_waiting(UnreachableError(end.reason))

    def _tend(self) -> None:  # noqa: B027 - most libraries need nothing
        """Do what the library needs about once a second."""

    def _no_answer(self, timeout_secs: float) -> str:
        return f"{self._place} did not answer within {timeout_secs:g} s"

    @abstractmethod
    async def _connect(self, on_message: Callable[[str, bytes], None]) -> Limits:
        """Connect, subscribe and return what the broker allows; raise UplinkError."""

    @abstractmethod
    def _send(self, topic: str, payload: bytes, *, retain: bool) -> int:
        """Hand a message to the library; return the number under which `_answered` will be called."""

    @abstractmethod
    async def _leave(self) -> None:
        """Disconnect in good order."""

    @abstractmethod
    def _let_go(self) -> None:
        """Drop the connection at once."""

    @abstractmethod
    def _fail_waiting(self, error: UplinkError) -> None:
        """Fail what `_connect` waits for."""


class SessionUplink:
    """Implements `gateway.uplinks.port.Uplink` over sessions.

    Each session is a new client of the library, so that nothing of a broken one is carried over; what it had
    not delivered, the outbox still has.

    name: in the configuration
    place: where the broker is, for people
    client_id: the name of our session there
    new_session: builds a session; may raise UplinkError
    connect_timeout_secs: how long a session may take to open
    """

    def __init__(
        self,
        name: str,
        place: str,
        client_id: str,
        new_session: Callable[[], Session],
        *,
        connect_timeout_secs: float,
        randomness: random.Random | None = None,
    ) -> None:
        self._name = name
        self._client_id = client_id
        self._new_session = new_session
        self._connect_timeout_secs = connect_timeout_secs
        self._random = randomness or random.Random()  # noqa: S311 - jitter, not a secret
        self._log = structlog.get_logger("uplink").bind(uplink=name, broker=place)
        self._session: Session | None = None
        self._sessions = 0
        self._brief_in_a_row = 0
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

    def publish(self, topic: str, payload: bytes, answered: Answered, *, retain: bool = False) -> None:
        """Send one message with QoS 1; see `Uplink`."""
        if self._session is None:
            raise UnreachableError("there is no session")
        self._session.publish(topic, payload, answered, retain=retain)

    async def try_once(self, said: tuple[str, bytes] | None = None) -> None:
        """Open one session and leave it in good order; raises UplinkError that says why it cannot be had.

        said: topic and payload of a message that is published in it
        """
        session = self._new_session()
        await session.open(lambda _topic, _payload: None, self._connect_timeout_secs)
        try:
            if said is not None:
                async with asyncio.timeout(self._connect_timeout_secs):
                    await session.say(*said, retain=False)
            await session.goodbye()
        except TimeoutError as error:
            raise UnreachableError("the broker answers no message, or hangs up on it") from error
        finally:
            session.close("it was only tried")

    async def run(self, listener: Listener) -> None:
        """Keep a session for ever; returns only by cancellation, after a proper goodbye."""
        said: type[UplinkError] | None = None
        attempt = 0
        while True:
            try:
                session = self._new_session()
                limits = await session.open(listener.on_message, self._connect_timeout_secs)
            except UplinkError as error:
                self._last_error = str(error)
                if said is not type(error):
                    self._log.warning("uplink unreachable", reason=str(error))
                    said = type(error)
                attempt += 1
            else:
                await self._live(session, limits, listener)
                said, attempt = UnreachableError, max(0, self._brief_in_a_row - 1)
            await asyncio.sleep(backoff_secs(attempt, self._random.random()))

    async def _live(self, session: Session, limits: Limits, listener: Listener) -> None:
        """Serve one session until it ends."""
        loop = asyncio.get_running_loop()
        began = self._session_began(session, limits)
        steady = loop.call_later(STEADY_SECS, self._note_steady)
        try:
            listener.on_connected(limits)
            end = await session.ended()
            self._session = None
            self._note_end(end, loop.time() - began)
            listener.on_lost(end.reason, silent=end.silent)
        except asyncio.CancelledError:
            await session.goodbye()
            raise
        finally:
            steady.cancel()
            self._session = None
            session.close("the session ended")

    def _session_began(self, session: Session, limits: Limits) -> float:
        """Return when by the loop's clock."""
        self._session = session
        self._sessions += 1
        if self._brief_in_a_row < OFTEN:
            self._last_error = None
            self._log.info("uplink connected", max_in_flight=limits.max_in_flight)
        return asyncio.get_running_loop().time()

    def _note_steady(self) -> None:
        """Take a session that has lasted for a sound one."""
        if self._brief_in_a_row >= OFTEN:
            self._log.info("the uplink's session holds again")
        self._brief_in_a_row = 0
        self._last_error = None

    def _note_end(self, end: End, lasted_secs: float) -> None:
        """Say why there is no session; of many that break soon, what may be behind it, once."""
        self._brief_in_a_row = self._brief_in_a_row + 1 if lasted_secs < STEADY_SECS else 0
        reason = end.reason
        if end.is_taken_over:
            reason = f"another client has taken our session over: {self._advice()}"
        elif self._brief_in_a_row >= OFTEN:
            reason += f", again and again; another client may be using our session: {self._advice()}"
        self._last_error = reason
        if self._brief_in_a_row <= OFTEN:
            self._log.warning("uplink lost", reason=reason)

    def _advice(self) -> str:
        return f"client_id is {self._client_id!r}, and {_ADVICE}"


def narrowed(wanted: Limits, *, packet_bytes: int | None, receive_maximum: int | None) -> Limits:
    """Return the narrower of what we and the broker's CONNACK allow; None where it says nothing."""
    room = wanted.max_message_bytes if not packet_bytes else packet_bytes - PACKET_OVERHEAD_BYTES
    return replace(
        wanted,
        max_message_bytes=min(wanted.max_message_bytes, room),
        max_in_flight=max(1, min(wanted.max_in_flight, (receive_maximum or 65_535) - 2)),
    )


def fail(waiting: Future[Any], error: UplinkError) -> None:
    """End a future with an error that nobody needs to ask for."""
    if not waiting.done():
        waiting.set_exception(error)
        waiting.exception()
