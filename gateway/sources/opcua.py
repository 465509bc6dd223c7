"""One PLC over OPC UA, for ever: connect, serve, notice the loss, connect anew."""

import asyncio
import contextlib
import datetime as dt
import logging
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import UNSET

from contract.delivery import ConnectionStatus
from gateway.config import Configuration, Connection
from gateway.errors import CertificateError, GatewayError, SourceError
from gateway.source_clock import ServerClock
from gateway.sources.bridge import server_time_us
from gateway.sources.certificates import CertificateStore
from gateway.sources.errors import ServiceError
from gateway.sources.port import Receiver, SourceCounters
from gateway.sources.publish_requests import SilentError, SubscriptionLostError
from gateway.sources.reconciler import told
from gateway.sources.session import Identity, Session, open_session
from gateway.sources.subscription import Saved, Subscription, fingerprint
from gateway.tags import Binding

_log = logging.getLogger(__name__)

_US: Final = 1_000_000
_FIRST_DELAY_SECS: Final = 0.1
_STEADY_SECS: Final = 10.0
"""A session that has lived this long starts the delays anew."""


def identity(configuration: Configuration) -> Identity:
    """Return who the gateway is to OPC UA servers."""
    return Identity(
        configuration.application_uri, CertificateStore(configuration.pki_dir), configuration.certificates
    )


def backoff_secs(failures: int, cap_secs: float, chance: float) -> float:
    """Return how long to wait [s] before the next try: doubling, capped, spread by chance in [0, 1)."""
    ceiling = min(cap_secs, _FIRST_DELAY_SECS * 2 ** min(failures, 30))
    return float(ceiling * (0.5 + 0.5 * chance))


class OpcUaSource:
    """One PLC.

    identity: who we are to it
    bindings: the tags to be read
    receiver: takes their values
    saved: the checkpoint of an earlier process; None for none
    told_us: by handle, the time of each tag's last value that it has put on disk [us since 1970]
    clock_us: [us since 1970] our clock
    chance: returns random numbers in [0, 1)
    """

    def __init__(
        self,
        connection: Connection,
        *,
        identity: Identity,
        bindings: Sequence[Binding],
        receiver: Receiver,
        clock_us: Callable[[], int],
        saved: bytes | None = None,
        told_us: Mapping[int, int] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._connection = connection
        self._identity = identity
        self._bindings = bindings
        self._receiver = receiver
        self._clock_us = clock_us
        self._chance = chance
        self._tally = SourceCounters()
        self._saved, self._next_sequence = _parse(saved)
        self._as_of_us = 0
        self._server_clock = ServerClock()
        self._stamps = self._stamps_of(told_us or {})
        self._leaving = False
        self._proofs = _proofs(self._saved, clock_us())
        self._subscription: Subscription | None = None
        self._status = ConnectionStatus(
            name=connection.name,
            endpoint=connection.endpoint,
            state="connecting",
            since_epochtime=clock_us() / _US,
            items_wanted=len(bindings),
        )

    @property
    def name(self) -> str:
        """Return the connection's name in the configuration."""
        return self._connection.name

    @property
    def status(self) -> ConnectionStatus:
        """Return the connection's state as of now."""
        return self._status

    @property
    def counters(self) -> SourceCounters:
        """Return what is counted; it goes on counting."""
        return self._tally

    def leave(self) -> None:
        """Have the coming end of `run` be for good: the PLC need not keep anything for us."""
        self._leaving = True

    async def run(self) -> None:
        """Read for ever; returns only by cancellation, after the session is closed."""
        if self._connection.security == "None":
            _log.warning(
                "%s: is read without any protection, as allow_insecure says: whoever is on the network can "
                "read and forge its values%s",
                self.name,
                ", and may learn the password" if self._connection.username else "",
            )
        loop = asyncio.get_running_loop()
        failures = 0
        told = False
        try:
            while True:
                began = loop.time()
                try:
                    await self._once()
                except GatewayError as error:
                    cause = error
                except Exception as error:  # noqa: BLE001 - the supervisor: no fault of one PLC may end the reading of it
                    _log.exception("%s: an unforeseen fault; connecting anew", self.name)
                    cause = SourceError(f"unforeseen: {type(error).__name__}: {error}")
                if self._subscription is not None:
                    self._lost(cause)
                    told = False
                failures = 0 if loop.time() - began > _STEADY_SECS else failures + 1
                if not told:
                    _log.error("%s: %s; trying again", self.name, cause)
                    told = True
                self._tell("failed" if isinstance(cause, CertificateError) else "connecting", str(cause))
                await asyncio.sleep(
                    backoff_secs(failures, self._connection.reconnect_max_secs, self._chance())
                )
        finally:
            self._tell("stopped")

    async def _once(self) -> None:
        """Connect and read until it ends; raises what ended it, and is cancelled only with us.

        In a task of its own: where the library cancels what is waited for, as it may with the requests of a
        connection that is lost, that must not be taken for somebody's wish that the reading ends.
        """
        reading = asyncio.create_task(self._connect_and_serve(), name=f"source[{self.name}].session")
        try:
            await asyncio.wait({reading})
        finally:
            await _end({reading})
        raise _ending([reading])

    async def _connect_and_serve(self) -> None:
        """Open a session, read until it is lost, and leave nothing of it behind."""
        session = await open_session(
            self._connection,
            self._identity,
            now=dt.datetime.fromtimestamp(self._clock_us() / _US, dt.UTC),
            resume=self._saved.session if self._saved else None,
        )
        politely, keep = True, True
        try:
            await self._serve(session)
        except SubscriptionLostError:
            self._saved, keep = None, False
            raise
        except SilentError:
            politely = False
            raise
        except asyncio.CancelledError:
            keep = not self._leaving
            raise
        finally:
            await asyncio.shield(session.close(keep_subscriptions=keep, politely=politely))

    async def _ask_the_time(self, session: Session) -> None:
        """Learn how the server's clock stands to ours; one that does not tell shows it by its messages."""
        sent_us = self._clock_us()
        with contextlib.suppress(ServiceError):
            if told_us := await server_time_us(session):
                self._server_clock.asked(told_us, sent_us)

    async def _serve(self, session: Session) -> None:
        await self._ask_the_time(session)
        subscription = Subscription(
            session,
            self._connection,
            self._bindings,
            self._receiver,
            self._clock_us,
            self._tally,
            self._stamps,
            self._server_clock,
        )
        resumed = self._saved is not None and await subscription.take_over(self._saved, self._next_sequence)
        if not resumed:
            await subscription.create()
            if self._as_of_us:
                await subscription.go_on(self._clock_us() - self._as_of_us)
            elif self._saved is not None and subscription.is_of(self._saved):
                await subscription.go_on(0)
        else:
            # What came in between is still on its way: nothing newer has been heard than before.
            subscription.as_of_us = self._as_of_us
            subscription.take_over_proofs(self._proofs)
            self._announce(subscription)
        self._subscription = subscription
        subscription.on_change = lambda: self._tell_items(subscription)
        _log.info(
            "%s: %s %s",
            self.name,
            "goes on at" if resumed else "connected to",
            session.client.server_url.geturl(),
        )
        self._tell_items(subscription)
        try:
            raise await self._first_end(session, subscription)
        finally:
            self._saved = subscription.saved
            self._next_sequence = subscription.next_sequence
            self._proofs = subscription.proofs

    async def _first_end(self, session: Session, subscription: Subscription) -> Exception:
        """Do what a session needs, side by side; return what ended the first of it, once all has ended.

        No TaskGroup: it goes on without a task that was cancelled, which here may be the library's doing.
        """
        tasks = {
            asyncio.create_task(work, name=f"source[{self.name}].{what}")
            for what, work in (
                ("publish", subscription.publish()),
                ("reconcile", subscription.reconciler.reconcile()),
                ("renew", session.renew_channel()),
            )
        }
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(tasks)
        return _ending(ended)

    def _stamps_of(self, told_us: Mapping[int, int]) -> dict[int, int]:
        """Return the source's own times, of what an earlier process has kept of the same tags."""
        if self._saved is None or self._saved.fingerprint != fingerprint(self._connection, self._bindings):
            return {}
        offset_us = round(self._connection.source_clock_offset_secs * _US)
        return {handle: at_us - offset_us for handle, at_us in told_us.items()}

    def _announce(self, subscription: Subscription) -> None:
        handles = [handle for handle, item in subscription.items.items() if item.item_id is not None]
        told(lambda: self._receiver.on_subscribed(handles, resumed=True))

    def _lost(self, cause: Exception) -> None:
        """Tell the receiver that nothing is heard any more."""
        subscription, self._subscription = self._subscription, None
        self._tally.reconnects += 1
        if subscription is not None:
            self._as_of_us = subscription.as_of_us
            told(lambda: self._receiver.on_lost(subscription.as_of_us, str(cause)))

    def _tell_items(self, subscription: Subscription) -> None:
        faults = [item for item in subscription.items.values() if item.item_id is None and item.reason]
        first = f"{faults[0].binding.name}: {faults[0].reason}" if faults else ""
        self._tell("connected", first, items_live=subscription.live)

    def _tell(self, state: str, error: str = "", *, items_live: int = 0) -> None:
        """Tell the connection's state when it has changed."""
        before = self._status
        same = before.state == state
        status = msgspec.structs.replace(
            before,
            state=state,
            since_epochtime=before.since_epochtime if same else self._clock_us() / _US,
            items_live=items_live,
            last_error=error[:256] if error else UNSET,
        )
        if status != before:
            self._status = status
            self._receiver.on_connection(status)


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Have tasks end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _ending(tasks: Iterable[asyncio.Task[None]]) -> Exception:
    """Return why tasks that go on for ever have ended; what nobody foresaw comes first."""
    errors = [_error_of(task) for task in tasks]
    return next((error for error in errors if not isinstance(error, GatewayError)), errors[0])


def _error_of(task: asyncio.Task[None]) -> Exception:
    error = None if task.cancelled() else task.exception()
    return error if isinstance(error, Exception) else SourceError("what was asked of the PLC was given up")


def _proofs(saved: Saved | None, now_us: int) -> dict[int, int]:
    """Return, by handle, when each tag had certainly told everything to a process before [us, our clock].

    None where that seems to be still to come: our clock was wrong, then or now.
    """
    if saved is None or not 0 < saved.proven_us <= now_us:
        return {}
    return {handle: saved.proven_us for handle, _ in saved.items}


def _parse(saved: bytes | None) -> tuple[Saved | None, int]:
    """Read a checkpoint; what cannot be read is as if there were none."""
    if not saved:
        return None, 1
    try:
        return msgspec.msgpack.decode(saved[4:], type=Saved), int.from_bytes(saved[:4], "big")
    except msgspec.DecodeError:
        return None, 1
