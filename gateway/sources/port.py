"""What a source promises: the tag values of one PLC, in order, each batch safe before it is acknowledged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from contract.delivery import ConnectionStatus

GOOD, UNCERTAIN, BAD = 0, 1, 2
"""The top two bits of an OPC UA status code."""


def severity(status: int) -> int:
    """Return GOOD, UNCERTAIN or BAD for an OPC UA status code."""
    return min(status >> 30, BAD)


@dataclass(frozen=True, slots=True)
class TagBatch:
    """Values of one connection, in columns of equal length, in the order in which the server sent them.

    handles: which tag, as `gateway.tags.Binding.handle` numbers them
    values: bool, int, float or str; None where the server sent none; anything else is a type we do not map
    statuses: OPC UA status codes
    source_us: [us since 1970] the source's timestamp, else the server's, else `received_us`
    received_us: [us since 1970] our clock when the batch arrived
    unstamped: positions whose time is our own clock because the server gave none
    overflowed: positions before which the server threw away values of the same tag
    is_past: whether it was told by a history, and so says nothing of what time it is there
    checkpoint: what the source wants back after a crash once this batch is on disk; None for nothing new
    """

    handles: Sequence[int]
    values: Sequence[object]
    statuses: Sequence[int]
    source_us: Sequence[int]
    received_us: int
    unstamped: frozenset[int] = frozenset()
    overflowed: frozenset[int] = frozenset()
    is_past: bool = False
    checkpoint: bytes | None = None


class SourceCounters(Struct, kw_only=True):
    """What a source has counted since it was made, over all its sessions.

    keepalives: messages that say that nothing has changed
    overflows: values before which the PLC's queue for a tag ran over
    missed_notifications: were lost, and could not be had again
    republished: were lost, and were had again
    slow_decodes: messages that the fast decoder passed on, as a whole or in part
    damaged_messages: could not be decoded; what they held shows as missing
    unasked_values: of tags that nobody asked for; left out
    queues_cut: tags for which the PLC keeps fewer values than it was asked to
    """

    values: int = 0
    notifications: int = 0
    keepalives: int = 0
    reconnects: int = 0
    overflows: int = 0
    missed_notifications: int = 0
    republished: int = 0
    history_values: int = 0
    gaps: int = 0
    slow_decodes: int = 0
    damaged_messages: int = 0
    unasked_values: int = 0
    queues_cut: int = 0


class Receiver(Protocol):
    """Who takes a connection's values. All calls come in the event loop."""

    def on_batch(self, batch: TagBatch) -> None:
        """Put a batch in a safe place; raises GatewayError when that cannot be promised.

        The source acknowledges the batch only after this has returned.
        """
        ...

    def on_alive(self, received_us: int) -> None:
        """Take note that the server has said at this moment [us, our clock] that nothing else has changed."""
        ...

    def on_checkpoint(self, checkpoint: bytes) -> None:
        """Put in a safe place what the source wants back after a crash."""
        ...

    def on_subscribed(self, handles: Sequence[int], *, resumed: bool) -> None:
        """Take note that these tags are read from now on; their first values come next.

        resumed: the server kept all values since we were last connected, so that nothing is missing
        """
        ...

    def on_unreadable(self, handles: Sequence[int], status: int) -> None:
        """Take note that these tags cannot be read now, with the OPC UA status code that says why."""
        ...

    def on_lost(self, lost_us: int, cause: str) -> None:
        """Take note that nothing has been heard since this moment [us, our clock]."""
        ...

    def on_gap(self, handles: Sequence[int], from_us: int, to_us: int, cause: str) -> None:
        """Take note that values of these tags between two source times are missing for ever."""
        ...

    def on_died(self, handles: Sequence[int], since_us: int, cause: str) -> None:
        """Take note that tags had gone quiet unnoticed, at the earliest at this moment [us, our clock].

        What has been told of their machines since then is to be withdrawn. Their values of now come next.
        since_us: 0 where nobody knows when they last were alive
        """
        ...

    def known(self, handle: int) -> tuple[object, int] | None:
        """Return value and status that were last delivered of a tag; None while there is none."""
        ...

    def on_connection(self, status: ConnectionStatus) -> None:
        """Take note of the connection's state."""
        ...


class Source(Protocol):
    """One PLC, read for ever."""

    @property
    def name(self) -> str:
        """Return the connection's name in the configuration."""
        ...

    @property
    def status(self) -> ConnectionStatus:
        """Return the connection's state as of now."""
        ...

    @property
    def counters(self) -> SourceCounters:
        """Return what is counted; it goes on counting."""
        ...

    def leave(self) -> None:
        """Have the coming end of `run` be for good: the PLC need not keep anything for us."""
        ...

    async def run(self) -> None:
        """Read for ever; returns only by cancellation, after the session is closed."""
        ...
