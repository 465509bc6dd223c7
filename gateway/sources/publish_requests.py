"""Publish requests that wait at a server, what has come of them, and what its silence means."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from asyncua import ua
from asyncua.client.ua_client import UASocketProtocol
from asyncua.ua.ua_binary import nodeid_to_binary

from gateway.config import Connection
from gateway.errors import SourceError
from gateway.sources.errors import mapped
from gateway.sources.publish_bytes import PUBLISH_RESPONSE, publish_request
from gateway.sources.session import Session, standard_node
from gateway.turns import let_in

_KEEPALIVE_SHARE: Final = 0.35
"""Of the silence that we bear, how often a quiet server has to speak."""
_LISTEN_SHARE: Final = 0.6
"""Of the silence that we bear, what passes before we ask; the rest is for what comes then."""


class SubscriptionLostError(SourceError):
    """The server has no such subscription any more; what came in between is lost."""


class SilentError(SourceError):
    """The server has said nothing for too long."""


class PublishRequests:
    """One session's publish requests, several at a time.

    clock_us: [us since 1970] our clock
    fast: write them without the library's objects, and without a task for each; else the library's way
    speaks_secs: [s] how often the server says something although nothing has changed
    """

    def __init__(
        self, session: Session, connection: Connection, clock_us: Callable[[], int], *, fast: bool
    ) -> None:
        self._session = session
        self._name = connection.name
        self._clock_us = clock_us
        self._ask = self._ask_fast if fast else self._ask_stock
        self._bear_secs = self._silence_secs = connection.silence_secs
        self.speaks_secs = connection.silence_secs * _KEEPALIVE_SHARE
        self._heard_at = 0.0
        self._token: ua.NodeId | None = None
        self._token_bytes = b""
        self._arrived: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._waiting: set[asyncio.Future[Any]] = set()

    def __len__(self) -> int:
        """Return how many wait at the server."""
        return len(self._waiting)

    @property
    def have_come(self) -> bool:
        """Tell whether an answer is there that nobody has taken yet."""
        return bool(self._arrived)

    def keepalive_count(self, interval_secs: float) -> int:
        """Return after how many publishing intervals a quiet server is to speak."""
        return max(1, math.floor(self._bear_secs * _KEEPALIVE_SHARE / interval_secs))

    def speaks(self, every_secs: float) -> None:
        """Bear with a server that cannot speak as often as it was asked to."""
        self.speaks_secs = every_secs
        self._silence_secs = max(self._bear_secs, 1.5 * every_secs / _LISTEN_SHARE)

    def heard(self) -> None:
        """Take note that silence begins now."""
        self._heard_at = asyncio.get_running_loop().time()

    def send(self, subscription: int, acks: Sequence[int], count: int = 1) -> None:
        """Have more requests wait at the server, the first with acknowledgements of what is safe."""
        try:
            with mapped("Publish"):
                protocol = self._session.client.uaclient.protocol
                if protocol is None:
                    raise ConnectionError("not connected")
                answers = self._ask(protocol, subscription, [acks, *[()] * (count - 1)])
        except SourceError as error:
            self._has_arrived(error)
            return
        for answer in answers:
            self._waiting.add(answer)
            answer.add_done_callback(self._answered)

    async def answer(self) -> Any:
        """Return the next answer, its body or the error; raises SourceError where the server is silent."""
        while not self._arrived:
            if not await self._has_come(self._heard_at + self._silence_secs * _LISTEN_SHARE):
                await self._ask_why_silent()
        answer = self._arrived.popleft()
        if not isinstance(answer, SourceError):
            self.heard()
        return answer

    async def cancel(self) -> None:
        """Wait for none of them any more."""
        waiting = list(self._waiting)
        for answer in waiting:
            answer.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    def _ask_stock(
        self, protocol: UASocketProtocol, subscription: int, acks_of_each: Sequence[Sequence[int]]
    ) -> list[asyncio.Future[Any]]:
        answers: list[asyncio.Future[Any]] = []
        for acks in acks_of_each:
            request = ua.PublishRequest()
            request.Parameters.SubscriptionAcknowledgements = [
                ua.SubscriptionAcknowledgement(ua.UInt32(subscription), ua.UInt32(sequence))
                for sequence in acks
            ]
            sent = protocol.send_request(request, timeout=0)
            answers.append(asyncio.create_task(sent, name=f"publish[{self._name}]"))
        return answers

    def _ask_fast(
        self, protocol: UASocketProtocol, subscription: int, acks_of_each: Sequence[Sequence[int]]
    ) -> list[asyncio.Future[Any]]:
        """Do what the library's send_request does, tried by `stock.assumptions_hold`; all in one write."""
        if protocol.transport is None:
            raise ConnectionError("not connected")
        if self._token is not protocol.authentication_token:
            self._token = protocol.authentication_token
            self._token_bytes = nodeid_to_binary(self._token)
        protocol.revolve_security_token()
        loop = asyncio.get_running_loop()
        now_us = self._clock_us()
        answers: list[asyncio.Future[Any]] = []
        messages: list[bytes] = []
        for acks in acks_of_each:
            protocol._request_handle += 1  # noqa: SLF001
            protocol._request_id += 1  # noqa: SLF001
            handle, number = protocol._request_handle, protocol._request_id  # noqa: SLF001
            request = publish_request(self._token_bytes, handle, now_us, subscription, acks)
            messages.append(protocol._connection.message_to_binary(request, request_id=number))  # noqa: SLF001
            protocol._callbackmap[number] = answer = loop.create_future()  # noqa: SLF001
            answers.append(answer)
        protocol.transport.write(b"".join(messages))
        return answers

    def _answered(self, answer: asyncio.Future[Any]) -> None:
        self._waiting.discard(answer)
        if answer.cancelled():
            return
        if answer.exception() is None:
            body = answer.result()
            at = body._cur_pos  # noqa: SLF001 - checked by stock.assumptions_hold
            if body._data[at : at + 4] == PUBLISH_RESPONSE:  # noqa: SLF001
                self._has_arrived(body)
                return
        try:
            with mapped("Publish"):
                body = answer.result()
                UASocketProtocol().check_answer(body, " in response to PublishRequest")
        except SourceError as error:
            self._has_arrived(error)
        else:
            self._has_arrived(body)

    def _has_arrived(self, answer: Any) -> None:
        self._arrived.append(answer)
        _wake(self._waiter)

    async def _has_come(self, until: float) -> bool:
        """Wait for answers, until a moment of the loop's clock; tell whether any came."""
        if not self._arrived:
            # once for nearly every message: a future and a timer cost half of an Event and a time-out
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_at(until, _wake, self._waiter)
            try:
                await self._waiter
            finally:
                timer.cancel()
        await let_in(lambda: bool(self._arrived))
        return bool(self._arrived)

    async def _ask_why_silent(self) -> None:
        """Ask a silent server for its state; raises SilentError where it does not answer.

        One that answers and still publishes nothing in the time in which a quiet server has to speak has lost
        our subscription: raises SubscriptionLostError. One that had no processor for a while answers first,
        and then publishes what it still had to.
        """
        loop = asyncio.get_running_loop()
        request = ua.ReadRequest()
        request.Parameters.NodesToRead = [
            ua.ReadValueId(standard_node(ua.ObjectIds.Server_ServerStatus_State), ua.AttributeIds.Value)
        ]
        patience_secs = max(0.5, self._silence_secs * (1 - _LISTEN_SHARE))
        try:
            await self._session.call(request, ua.ReadResponse, patience_secs)
        except SourceError as error:
            if await self._has_come(loop.time()):
                return
            silent_secs = loop.time() - self._heard_at
            raise SilentError(f"silent for {silent_secs:.1f} s and does not answer a read") from error
        if not await self._has_come(loop.time() + self.speaks_secs):
            silent_secs = loop.time() - self._heard_at
            raise SubscriptionLostError(f"answers, but has published nothing for {silent_secs:.1f} s")


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
