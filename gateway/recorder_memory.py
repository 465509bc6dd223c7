"""What must be known of machines after a crash, so that nothing is told twice or not at all. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from gateway.outbox.port import Kind
from gateway.sampled_machine import NEVER, SampledMachine, checksum
from gateway.tags import MachineTags

WAITING_VALUES: Final = "waiting"
_TOLD_SAVED: Final = 20

_Kept = TypeVar("_Kept")


class Saved(Struct, frozen=True, array_like=True):
    """What must be known of a machine after a crash, so that the same values are not told twice.

    It is written with each record, and so short: what says the same in fewer bytes stands for more.

    addresses: checksum of those that the values are of; they themselves in what an earlier version kept
    pending_us, pending_kind: only in what an earlier version kept, which had no WAITING_VALUES
    told: only in what an earlier version kept, which had no told_before_us
    told_before_us: [us] how long before the last record the newest were, should they have to be withdrawn
    watched: silence since the last record meant that nothing had changed
    came_before_us: [us] how long before the last record each value was at the source; None where unknown
    """

    last_us: int
    addresses: int | list[str]
    values: list[Any]
    statuses: list[int]
    pending_us: int = 0
    pending_kind: Kind = "analogue"
    told: list[int] = []
    told_before_us: list[int] = []
    watched: bool = False
    came_before_us: list[int | None] = []

    def is_of(self, tags: MachineTags) -> bool:
        """Tell whether the values are of these tags."""
        return self.addresses in (checksum(tags.addresses), tags.addresses)

    @property
    def records_us(self) -> list[int]:
        """Return the moments of its newest records [us, source time]."""
        return [self.last_us - before for before in self.told_before_us] or self.told or [self.last_us]


class Waiting(Struct, frozen=True, array_like=True):
    """What must be known after a crash of values that wait for the end of their interval.

    came_before_us: [us] how long before the newest of them each value was at the source; None where unknown
    """

    position: int
    pending_us: int
    kind: Kind
    values: list[Any]
    statuses: list[int]
    came_before_us: list[int | None] = []


class Memory:
    """What of machines has changed that must be on disk, and how they stand again after it was read.

    machines: in their order
    values, statuses: by handle, the newest of each tag; shared with who takes them in
    """

    def __init__(self, machines: Sequence[SampledMachine], values: list[Any], statuses: list[int]) -> None:
        self._machines = machines
        self._values = values
        self._statuses = statuses
        self._unsaved: set[int] = set()
        self.waiting: set[int] = set()
        """Positions of machines with values that wait for the end of their interval."""
        self.is_waiting_unsaved = False

    def told(self, position: int) -> None:
        """Take note that a machine has a new record, with all that waited to be one."""
        self._unsaved.add(position)
        if position in self.waiting:
            self.waiting.discard(position)
            self.is_waiting_unsaved = True

    def waits(self, position: int) -> None:
        """Take note that a value of a machine waits for the end of its interval."""
        self.waiting.add(position)
        self.is_waiting_unsaved = True

    def differs(self, machine: SampledMachine) -> None:
        """Take note that a value of a machine is another one, whether it waits or not."""
        machine.waits_as = None
        if machine.pending_us:
            self.is_waiting_unsaved = True

    @property
    def has_unsaved(self) -> bool:
        """Tell whether `unsaved` would yield anything."""
        return bool(self._unsaved) or self.is_waiting_unsaved

    def unsaved(self, source_us: Sequence[int]) -> Iterator[tuple[str, bytes]]:
        """Yield, once, under the same keys as ever, what has changed of what must be known after a crash.

        That is each machine with a new record, by its position; and under WAITING_VALUES all values that wait
        to be one: they were acknowledged to the server, so that they too have to be on disk.

        source_us: by handle, the source time of each tag's newest value [us since 1970]; 0 for none
        """
        positions, self._unsaved = self._unsaved, set()
        for position in positions:
            machine = self._machines[position]
            values, statuses = self._newest(machine)
            last_us = machine.last_us
            told = [last_us - at_us for at_us in islice(reversed(machine.told), _TOLD_SAVED)][::-1]
            watched = machine.watched_us <= last_us
            came = _came_before(machine, last_us, source_us)
            saved = Saved(
                last_us,
                machine.checksum,
                values,
                statuses,
                told_before_us=told,
                watched=watched,
                came_before_us=came,
            )
            yield str(position), msgspec.msgpack.encode(saved)
        if self.is_waiting_unsaved:
            self.is_waiting_unsaved = False
            waiting = [self._waits_as(self._machines[position], source_us) for position in self.waiting]
            yield WAITING_VALUES, msgspec.msgpack.encode(waiting)

    def _waits_as(self, machine: SampledMachine, source_us: Sequence[int]) -> Raw:
        """Return what is kept of a machine's waiting values; made anew only where one has come since."""
        if machine.waits_as is None:
            pending_us = machine.pending_us
            waiting = Waiting(
                machine.position,
                pending_us,
                machine.pending_kind,
                *self._newest(machine),
                _came_before(machine, pending_us, source_us),
            )
            machine.waits_as = Raw(msgspec.msgpack.encode(waiting))
        return machine.waits_as

    def unsaved_again(self, keys: Iterable[str]) -> None:
        """Have `unsaved` yield these again: what it gave did not reach the disk."""
        for key in keys:
            if key == WAITING_VALUES:
                self.is_waiting_unsaved = True
            else:
                self._unsaved.add(int(key))

    def restored(
        self, saved: Mapping[str, bytes], cause: str, source_us: dict[int, int]
    ) -> Iterator[tuple[SampledMachine, int, Kind]]:
        """Go on from what `unsaved` gave before the crash; what does not fit any more is left out.

        Yields machines with values that waited, as these were, for a record as of a moment [us, source time].

        cause: why nothing was read meanwhile
        source_us: gets the source times of the values that are known again, by handle [us since 1970]
        """
        fitting: set[int] = set()
        for machine in self._machines:
            known = _decoded(saved.get(str(machine.position)), Saved)
            if known is None:
                continue
            machine.last_us = machine.newest_us = known.last_us
            machine.cause = cause
            machine.told.extend(known.records_us)
            machine.watched_us = known.last_us if known.watched else NEVER
            if known.is_of(machine.tags) and self._restore_values(machine, known.values, known.statuses):
                fitting.add(machine.position)
                source_us |= _came(machine, known.last_us, known.came_before_us)
                machine.facts = machine.tags.compose(known.values, known.statuses).facts
                if known.pending_us:
                    yield machine, known.pending_us, known.pending_kind
        for one in _decoded(saved.get(WAITING_VALUES), list[Waiting]) or ():
            if one.position not in fitting:
                continue
            machine = self._machines[one.position]
            if self._restore_values(machine, one.values, one.statuses):
                yield machine, one.pending_us, one.kind
                for handle in machine.handles:
                    source_us.pop(handle, None)
                source_us |= _came(machine, one.pending_us, one.came_before_us)
        for machine in self._machines:
            machine.newest_us = machine.lost_us = machine.last_us

    def _newest(self, machine: SampledMachine) -> tuple[list[Any], list[int]]:
        return self._values[machine.where], self._statuses[machine.where]

    def _restore_values(
        self, machine: SampledMachine, values: Sequence[Any], statuses: Sequence[int]
    ) -> bool:
        if not len(values) == len(statuses) == len(machine.handles):
            return False
        self._values[machine.where], self._statuses[machine.where] = values, statuses
        return True


def _came_before(machine: SampledMachine, moment_us: int, source_us: Sequence[int]) -> list[int | None]:
    """Return how long before a moment each of a machine's values was at the source [us]."""
    return [moment_us - at_us if at_us else None for at_us in source_us[machine.where]]


def _came(machine: SampledMachine, moment_us: int, came_before_us: Sequence[int | None]) -> dict[int, int]:
    """Return, by handle, what `_came_before` was made of."""
    pairs = zip(machine.handles, came_before_us, strict=False)  # an earlier version kept none
    return {handle: moment_us - before_us for handle, before_us in pairs if before_us is not None}


def _decoded(saved: bytes | None, kind: type[_Kept]) -> _Kept | None:
    if saved is None:
        return None
    try:
        return msgspec.msgpack.decode(saved, type=kind)
    except msgspec.DecodeError:
        return None
