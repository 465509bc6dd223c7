"""What an outbox promises: records stand on disk, numbered, before they are sent, until they have arrived."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from contract import topics
from contract.delivery import Gap
from contract.machine_key import MachineKey
from gateway.outbox.ranges import Range, Ranges

Kind = Literal["analogue", "counter", "state", "gap"]
KINDS: Final[tuple[Kind, ...]] = ("analogue", "counter", "state", "gap")
"""What a record is about. A full outbox drops analogue first, then states and counters, then gaps."""

DropCause = Literal["full", "age", "refused"]
_US_PER_SEC: Final = 1_000_000


class Draft(Protocol):
    """A record that has no sequence yet."""

    @property
    def topic(self) -> str:
        """Return where it will be published."""
        ...

    @property
    def kind(self) -> Kind:
        """Return what it is about."""
        ...

    @property
    def epoch_us(self) -> int:
        """Return its moment at the machine [us since 1970]."""
        ...

    def encode(self, sequence: int) -> bytes:
        """Return the JSON object with its sequence."""
        ...


@dataclass(frozen=True, slots=True)
class GapDraft:
    """Time for which a machine could not be read, or its records could not be kept."""

    machine: MachineKey
    gateway: str
    from_us: int
    to_us: int
    cause: str

    @property
    def topic(self) -> str:
        """Return the gateway's gap topic."""
        return topics.gateway_topic(self.machine.site, self.gateway, "gap")

    @property
    def kind(self) -> Kind:
        """Return that this is a gap."""
        return "gap"

    @property
    def epoch_us(self) -> int:
        """Return when the gap began [us since 1970]."""
        return self.from_us

    def encode(self, sequence: int) -> bytes:
        """Return the contract's Gap as JSON."""
        return msgspec.json.encode(
            Gap(
                **self.machine._asdict(),
                gateway=self.gateway,
                sequence=sequence,
                from_epochtime=self.from_us / _US_PER_SEC,
                to_epochtime=self.to_us / _US_PER_SEC,
                cause=self.cause[:256],
            )
        )


class Stored(NamedTuple):
    """One record as it stands on disk."""

    sequence: int
    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class OutboxStatistics:
    """What an outbox holds and what it had to give up since it was begun.

    records, bytes: what waits for at least one uplink
    oldest_us: [us since 1970] moment of the oldest of them; None when there is none
    first_sequence: no record below it will ever be sent again
    dropped: records given up, by cause
    quarantined: records that an uplink would not take, kept aside
    damaged_files: earlier outboxes, and packs of them, that lie aside because they were damaged
    appended: records put on disk since it was opened
    alarm: what is wrong now, one sentence; None when all is well
    """

    records: int
    bytes: int
    oldest_us: int | None
    first_sequence: int
    next_sequence: int
    dropped: Mapping[DropCause, int] = field(default_factory=dict)
    quarantined: int = 0
    damaged_files: int = 0
    appended: int = 0
    alarm: str | None = None


class Outbox(Protocol):
    """Store and forward. Each uplink has its own place; a record leaves when all have acknowledged it."""

    @property
    def next_sequence(self) -> int:
        """Return the sequence that the next record will get."""
        ...

    @property
    def first_sequence(self) -> int:
        """Return a sequence below which no record will ever be sent again; often the oldest that waits."""
        ...

    def append(self, drafts: Sequence[Draft], checkpoints: Mapping[str, bytes] | None = None) -> int:
        """Put all on disk in one transaction and return the last sequence given.

        checkpoints: by source, where reading it goes on after a crash; replaced in the same transaction,
        also when there are no drafts

        Raises OutboxError when that cannot be promised; then none is on disk.
        """
        ...

    def checkpoint(self, source: str) -> bytes | None:
        """Return the last checkpoint that was appended for a source."""
        ...

    def subscribe(self, appended: Callable[[], None]) -> None:
        """Have `appended()` called after each append."""
        ...

    def unsubscribe(self, appended: Callable[[], None]) -> None:
        """Call it no more."""
        ...

    def use_uplinks(self, uplinks: Sequence[str]) -> None:
        """Serve these from now on: new ones from the oldest record, the places of others forgotten."""
        ...

    def read(self, first: int, last: int, *, max_records: int, max_bytes: int) -> list[Stored]:
        """Return records with first <= sequence <= last, ascending, at least one where there is one."""
        ...

    def acknowledged(self, uplink: str) -> Ranges:
        """Return what an uplink has acknowledged, as far as it still matters."""
        ...

    def acknowledge(self, uplink: str, ranges: Sequence[Range]) -> None:
        """Note that an uplink has delivered these; written with the next flush or append."""
        ...

    def quarantine(self, uplink: str, sequence: int, reason: str) -> None:
        """Set aside, whole, a record that this uplink can never deliver; it counts as acknowledged."""
        ...

    def skip_past(self, sequence: int) -> None:
        """Never give out this sequence nor one below it."""
        ...

    def flush(self) -> bool:
        """Write down acknowledgements, remove what all uplinks have; return whether more is left to do."""
        ...

    def statistics(self) -> OutboxStatistics:
        """Return what is held and what was given up; cheap."""
        ...

    def pending(self, uplink: str) -> int:
        """Return how many records the uplink has not acknowledged."""
        ...

    def close(self) -> None:
        """Flush and let go of the file."""
        ...
