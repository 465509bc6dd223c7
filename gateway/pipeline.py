"""The way of a batch from a source to the outbox: tags, sampling, and one transaction."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

import msgspec
from msgspec import Struct

from contract.delivery import ConnectionFault, ConnectionStatus, LiveValue
from contract.strict import MAX_INTEGER
from gateway.config import Configuration, Connection
from gateway.errors import OutboxError
from gateway.outbox.port import Draft, Outbox
from gateway.recorder_memory import WAITING_VALUES
from gateway.sampling import ConnectionSampler
from gateway.sources.port import TagBatch, severity
from gateway.sources.statuses import status_name
from gateway.tags import MAX_TEXT, QUALITY, Binding, MachineTags, bindings

_US: Final = 1_000_000
_MARGIN_GRACE_US: Final = 100_000
MAX_HELD_DRAFTS: Final = 200_000
"""Drafts held in memory while the outbox takes none; beyond it, batches are refused."""
ABSENT: Final = "the gateway was not running"
"""Why a machine was not read between two processes."""
_FAULTS: Final = 5
_SHOWN_CHARACTERS: Final = 64

_log = logging.getLogger(__name__)


class _SavedConnection(Struct, frozen=True, array_like=True):
    lag_us: int | None
    source: bytes | None


class Lane:
    """One connection's way: the Receiver that its source speaks to.

    bindings: the tags that the source has to read
    saved: the source's checkpoint as it was before a crash or restart; None for none
    told_us: by handle, the source time of each tag's value that was on disk then [us since 1970]
    status: the connection's state as last told
    faults: why it could not be read, the last ones
    heard_us: [us, our clock] when a value last came; 0 for never
    """

    def __init__(
        self,
        configuration: Configuration,
        connection: Connection,
        outbox: Outbox,
        clock_us: Callable[[], int],
        absent: str = ABSENT,
    ) -> None:
        self.name = connection.name
        self.status: ConnectionStatus | None = None
        self.faults: deque[ConnectionFault] = deque(maxlen=_FAULTS)
        self.heard_us = 0
        self.machines = [
            MachineTags(configuration.key(machine), machine, status_name) for machine in connection.machine
        ]
        self.bindings: list[Binding] = bindings(connection, self.machines)
        self._source_us = [0] * (len(self.bindings) + 1)
        """By handle, the source time of each tag's newest value [us since 1970]; 0 for none."""
        self.told_us: dict[int, int] = {}
        self._clock_us = clock_us
        self._outbox = outbox
        self._held: list[Draft] = []
        self._taken: TagBatch | None = None
        self._source: bytes | None = None
        slowest_secs = max((b.sampling_interval_secs for b in self.bindings), default=0.0)
        self._sampler = ConnectionSampler(
            configuration.gateway.name,
            self.machines,
            self.bindings,
            publish_interval_us=round(configuration.gateway.publish_interval_secs * _US),
            heartbeat_us=round(configuration.gateway.heartbeat_secs * _US),
            margin_us=round((slowest_secs + connection.publishing_interval_secs) * _US) + _MARGIN_GRACE_US,
            ahead_max_us=round(connection.source_ahead_max_secs * _US),
            assume_live_after_us=round(connection.assume_live_after_secs * _US),
        )
        self.saved = self._restored(absent)

    def on_batch(self, batch: TagBatch) -> None:
        """Put on disk what a batch makes; see Receiver."""
        if len(self._held) > MAX_HELD_DRAFTS or batch is self._taken:
            self._write([])  # raises while the outbox still takes nothing
        if batch is self._taken:
            return
        self._taken = batch
        self.heard_us = batch.received_us
        source_us = self._source_us
        for handle, at_us in zip(batch.handles, batch.source_us, strict=True):
            source_us[handle] = at_us
        if batch.checkpoint is not None:
            self._source = batch.checkpoint
        self._write(self._sampler.apply(batch))

    def on_alive(self, received_us: int) -> None:
        """Take note that nothing else has changed; see Receiver."""
        self._sampler.alive(received_us)

    def on_checkpoint(self, checkpoint: bytes) -> None:
        """Put the source's checkpoint on disk now."""
        self._source = checkpoint
        self._write([], save=True)

    def on_subscribed(self, handles: Sequence[int], *, resumed: bool) -> None:
        """Take note that tags are read; see Receiver."""
        self._write(self._sampler.subscribed(handles, self._clock_us(), resumed=resumed))

    def on_unreadable(self, handles: Sequence[int], status: int) -> None:
        """Take note that tags cannot be read; see Receiver."""
        self._write(self._sampler.unreadable(handles, status, self._clock_us()))

    def on_lost(self, lost_us: int, cause: str) -> None:
        """Take note that nothing has been heard; see Receiver."""
        self._write(self._sampler.lost(lost_us, cause))

    def on_stopped(self, cause: str) -> None:
        """Take note that nobody wants to read this connection from now on."""
        self.saved = self._source = None
        self._write(self._sampler.stopped(self._clock_us(), cause), save=True)

    def on_gap(self, handles: Sequence[int], from_us: int, to_us: int, cause: str) -> None:
        """Record what is missing for ever; see Receiver."""
        self._write(self._sampler.gap(handles, from_us, to_us, cause))

    def on_died(self, handles: Sequence[int], since_us: int, cause: str) -> None:
        """Withdraw what was told while tags were dead; see Receiver."""
        self._write(self._sampler.died(handles, since_us, self._clock_us(), cause))

    def known(self, handle: int) -> tuple[object, int] | None:
        """Return what was last delivered of a tag; see Receiver."""
        return self._sampler.known(handle)

    def on_connection(self, status: ConnectionStatus) -> None:
        """Take note of the connection's state; see Receiver."""
        before = self.status.last_error if self.status is not None else None
        self.status = status
        if isinstance(status.last_error, str) and status.last_error != before:
            fault = ConnectionFault(
                connection=self.name, epochtime=self._clock_us() / _US, text=status.last_error
            )
            self.faults.append(fault)

    def live_values(self, most: int) -> Iterator[LiveValue]:
        """Yield the last value of each of the first tags that has one."""
        for binding in islice(self.bindings, most):
            known = self._sampler.known(binding.handle)
            at_us = self._source_us[binding.handle]
            if known is None or at_us <= 0:
                continue
            value, status = known
            key = self.machines[binding.machine].key
            yield LiveValue(
                connection=self.name,
                tag=f"{key.area}/{binding.name}"[:MAX_TEXT],
                epochtime=at_us / _US,
                value=_shown(value),
                data_quality=QUALITY[severity(status)],
                status=status_name(status) if status >> 30 else msgspec.UNSET,
            )

    def tick(self) -> None:
        """Do what is due by the passing of time; raises OutboxError when it cannot be put on disk."""
        self._write(self._sampler.tick(self._clock_us()))

    @property
    def held_drafts(self) -> int:
        """Return how many drafts wait in memory because the outbox takes none."""
        return len(self._held)

    def _write(self, drafts: list[Draft], *, save: bool = False) -> None:
        """Append drafts, those that could not be written before first."""
        if self._held:
            self._held += drafts
            drafts = self._held
        if not drafts and not save and not self._sampler.has_unsaved:
            return
        prefix = f"{self.name}/"
        checkpoints = {prefix + key: saved for key, saved in self._sampler.unsaved(self._source_us)}
        source = None if self._sampler.is_beginning else self._source
        saved = _SavedConnection(self._sampler.clock.lag_us, source)
        checkpoints[self.name] = msgspec.msgpack.encode(saved)
        try:
            self._outbox.append(drafts, checkpoints)
        except OutboxError:
            self._held = drafts
            self._sampler.unsaved_again(
                key.removeprefix(prefix) for key in checkpoints if key.startswith(prefix)
            )
            raise
        self._held = []

    def _restored(self, absent: str) -> bytes | None:
        """Take up what the outbox kept of the time before this process."""
        keys = [*map(str, range(len(self.machines))), WAITING_VALUES]
        kept = {key: self._outbox.checkpoint(f"{self.name}/{key}") for key in keys}
        known = {key: saved for key, saved in kept.items() if saved is not None}
        self.told_us = self._sampler.restore(known, absent)
        for handle, at_us in self.told_us.items():
            self._source_us[handle] = at_us
        connection = self._outbox.checkpoint(self.name)
        if connection is None:
            return None
        try:
            saved = msgspec.msgpack.decode(connection, type=_SavedConnection)
        except msgspec.DecodeError:
            return None
        self._sampler.clock.lag_us = saved.lag_us
        return saved.source


class Pipeline:
    """All connections' lanes into one outbox.

    clock_us: [us since 1970] our clock
    absent: why a connection was not read until now, where it was for another reason than ABSENT
    """

    def __init__(
        self,
        configuration: Configuration,
        outbox: Outbox,
        clock_us: Callable[[], int],
        absent: Mapping[str, str],
    ) -> None:
        self.lanes = {
            connection.name: Lane(
                configuration, connection, outbox, clock_us, absent.get(connection.name, ABSENT)
            )
            for connection in configuration.connection
        }

    def tick(self) -> None:
        """Do what is due by the passing of time; to be called a few times a second."""
        for lane in self.lanes.values():
            try:
                lane.tick()
            except OutboxError as error:
                _log.debug("the outbox takes no records: %s", error)

    def statuses(self) -> list[ConnectionStatus]:
        """Return the state of each connection that has told one."""
        return [lane.status for lane in self.lanes.values() if lane.status is not None]


def _shown(value: object) -> int | float | bool | str | None:
    """Return a value as JSON can carry it to any reader."""
    if isinstance(value, str):
        return value[:_SHOWN_CHARACTERS].encode("utf-8", "replace").decode()
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_INTEGER:
        return str(value)
    return value if isinstance(value, int | float) else None
