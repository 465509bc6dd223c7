"""What edge and cloud tell each other about the telemetry: receipt, gap, status, result, alert."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from contract.machine_key import MachineKey
from contract.telemetry import Count, Level, Text

Seconds = float
Epoch = Annotated[float, Meta(gt=0, lt=1e11)]


class Receipt(Struct, frozen=True, kw_only=True):
    """What the cloud side has on disk of one gateway. Retained.

    `stored_through`: every sequence up to here. `stored_beyond`: closed ranges [from, to] above it, ascending.
    """

    stored_through: Count
    stored_beyond: list[tuple[Count, Count]] = []


class Gap(Struct, frozen=True, kw_only=True):
    """Time for which the edge knows that it could not read a machine; a record like telemetry, sequence and all.

    From `from_epochtime` on the machine's state is unknown until its next telemetry.
    """

    site: Level
    area: Level
    line: Level
    machine: Level
    gateway: Level
    sequence: Count
    from_epochtime: Epoch
    to_epochtime: Epoch
    cause: Text

    @property
    def machine_key(self) -> MachineKey:
        """Return the machine that could not be read."""
        return MachineKey(self.site, self.area, self.line, self.machine)


class ConnectionStatus(Struct, frozen=True, kw_only=True):
    """One PLC connection as the gateway sees it."""

    name: Text
    endpoint: Text
    state: Literal["connecting", "connected", "silent", "failed", "stopped"]
    since_epochtime: Epoch
    items_wanted: Count = 0
    items_live: Count = 0
    last_error: Text | UnsetType = UNSET


class Status(Struct, frozen=True, kw_only=True):
    """A gateway's own state. Retained; the last will says offline."""

    gateway: Level
    site: Level
    online: bool
    epochtime: Epoch
    version: Text = ""
    first_sequence: Annotated[
        Count | UnsetType,
        Meta(description="No record below this sequence will ever come: the outbox began there."),
    ] = UNSET
    connections: list[ConnectionStatus] = []
    backlog_records: Count = 0
    backlog_bytes: Count = 0
    oldest_epochtime: Epoch | UnsetType = UNSET
    dropped_records: Count = 0
    last_error: Text | UnsetType = UNSET


class Result(Struct, frozen=True, kw_only=True):
    """Figures of one machine, line or site, republished so that any process can use them. Retained.

    `current` and `closed` hold the same flat object that `oee compute --format json` prints.
    """

    epochtime: Epoch
    current: dict[str, Any] | None = None
    closed: dict[str, Any] | None = None


class Alert(Struct, frozen=True, kw_only=True):
    """One change in the life of an alert."""

    id: Text
    event: Literal["raised", "escalated", "acknowledged", "cleared"]
    rule: Text
    site: Level
    area: Level
    line: Level
    machine: Level
    epochtime: Epoch
    since_epochtime: Annotated[Epoch, Meta(description="When the condition began.")]
    message: Annotated[str, Meta(max_length=1024)]
    level: Annotated[int, Meta(ge=1, le=9)] = 1
    by: Text | UnsetType = UNSET
    note: Annotated[str, Meta(max_length=1024)] | UnsetType = UNSET
