"""How one machine stands while its tags are read: what was told of it last, and what is due when. Pure."""

import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import Raw

from contract import topics
from gateway.outbox.port import Kind
from gateway.tags import Binding, Fields, MachineTags

NEVER: Final = 1 << 62
_TOLD_KEPT: Final = 100


@dataclass(slots=True, eq=False)
class SampledMachine:
    """How one machine stands.

    handles: of its tags, slot by slot
    awaiting: handles of which nothing has been heard since they are read
    notes: by handle, why its time is not the source's own
    subscribed_us: [us, our clock] since when it is read and has had no record; NEVER when neither
    newest_us, last_us: [us, source time] of its newest value, and of its last record
    lost_us: [us, source time] up to where it was known before it could not be read
    pending_us: [us, source time] of the newest value that waits for its interval's end; 0 for none
    waits_as: what is kept on disk of the values that wait; None where one has come since it was made
    waiting: values and statuses as they wait, where facts have changed since, in the instant in hand
    watched_us: [us, source time] since when silence means that nothing changed; NEVER while it does not
    flush_us, beat_us, still_us: [us, source time] when that end, a heartbeat, a counter's standstill is due
    told: [us, source time] of its newest records, should they have to be withdrawn
    said: what its last record says, as long as no gap follows that
    """

    position: int
    tags: MachineTags
    handles: range
    topic: str
    awaiting: set[int]
    notes: dict[int, str] = field(default_factory=dict)
    subscribed_us: int = NEVER
    ready: bool = False
    newest_us: int = 0
    last_us: int = 0
    lost_us: int = 0
    cause: str = ""
    facts: tuple[Any, ...] = ()
    pending_us: int = 0
    pending_kind: Kind = "analogue"
    waits_as: Raw | None = None
    waiting: tuple[list[Any], list[int]] | None = None
    watched_us: int = NEVER
    flush_us: int = NEVER
    beat_us: int = NEVER
    moving: bool | None = None
    still_us: int = NEVER
    changed: bool = False
    fell: bool = False
    told: deque[int] = field(default_factory=lambda: deque(maxlen=_TOLD_KEPT))
    said: Fields | None = None
    where: slice = field(init=False)
    checksum: int = field(init=False)

    def __post_init__(self) -> None:
        """Know where its values stand, and by what its tags are told from others in the fewest bytes."""
        self.where = slice(self.handles.start, self.handles.stop)
        self.checksum = checksum(self.tags.addresses)


def checksum(addresses: Sequence[str]) -> int:
    """Return what stands for addresses on disk; for others it is the same once in four thousand million."""
    return zlib.crc32("\n".join(addresses).encode("utf-8", "surrogatepass"))


def sampled_machines(machines: Sequence[MachineTags], bindings: Sequence[Binding]) -> list[SampledMachine]:
    """Return machines as `gateway.tags.bindings` made them, of which nothing has been heard."""
    made = []
    first = {binding.machine: binding.handle for binding in bindings if binding.slot == 0}
    for position, tags in enumerate(machines):
        handles = range(first[position], first[position] + len(tags.slots))
        topic = topics.machine_topic(tags.key, "telemetry")
        made.append(SampledMachine(position, tags, handles, topic, awaiting=set(handles)))
    return made
