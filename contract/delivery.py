"""What edge and cloud tell each other about the telemetry: receipt, gap, status, command, result, alert."""

from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from contract import strict, topics
from contract.machine_key import MachineKey, whole_text
from contract.telemetry import (
    DEFAULT_MAX_FUTURE_SECS,
    MAX_MESSAGE_BYTES,
    Count,
    DataQuality,
    Level,
    Refusal,
    TagScalar,
    Text,
    epoch_us,
)

Epoch = Annotated[float, Meta(gt=0, lt=1e11)]
Line = Annotated[
    str,
    Meta(min_length=1, max_length=128, pattern=whole_text(r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")),
]
"""Text that may stand in a log: of one line, not empty."""
PerSec = Annotated[float, Meta(ge=0)]
MAX_COMMAND_SECS: Final = 3600.0
"""How long a command may wait to be carried out."""


class Receipt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the cloud side has on disk of one gateway. Retained.

    `stored_through`: every sequence up to here. `stored_beyond`: closed ranges [from, to] above,
    ascending.
    """

    stored_through: Count
    stored_beyond: list[tuple[Count, Count]] = []


class Gap(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Time for which the edge knows that it could not read a machine; a record with a sequence, as telemetry.

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

    @property
    def from_us(self) -> int:
        """Return `from_epochtime` as whole microseconds."""
        return epoch_us(self.from_epochtime)


class ConnectionStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One PLC connection as the gateway sees it."""

    name: Text
    endpoint: Text
    state: Literal["connecting", "connected", "silent", "failed", "stopped"]
    since_epochtime: Epoch
    items_wanted: Count = 0
    items_live: Count = 0
    messages_per_sec: Annotated[
        PerSec, Meta(description="Answers of the PLC, also those that nothing has changed; of the last 10 s.")
    ] = 0.0
    values_per_sec: Annotated[PerSec, Meta(description="Tag values; of the last 10 s.")] = 0.0
    last_value_epochtime: Annotated[
        Epoch | UnsetType, Meta(description="When a value last came, by the gateway's clock.")
    ] = UNSET
    stopped_by: Annotated[
        Text | UnsetType, Meta(description="Who asked for the stop; `since_epochtime` says when it was made.")
    ] = UNSET
    last_error: Text | UnsetType = UNSET


class ConnectionFault(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a connection or a tag of it could not be read, and when."""

    connection: Text
    epochtime: Epoch
    text: Text


class LiveValue(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The last value of one tag, as the PLC gave it. Its age is the present less `epochtime`."""

    connection: Text
    tag: Annotated[Text, Meta(description="AREA/LINE/MACHINE and the tag's name in gateway.toml.")]
    epochtime: Annotated[Epoch, Meta(description="When it was so, by the PLC's clock.")]
    value: Annotated[TagScalar | None, Meta(description="Integers beyond 2^53 are told as text.")] = None
    data_quality: DataQuality = "good"
    status: Annotated[Text | UnsetType, Meta(description="OPC UA status name where quality is not good.")] = (
        UNSET
    )


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one command."""

    id: Line
    epochtime: Epoch
    done: bool
    reason: Annotated[Text | UnsetType, Meta(description="Why it was not done.")] = UNSET


class Status(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A gateway's own state. Retained; the last will says offline."""

    gateway: Level
    site: Level
    online: bool
    epochtime: Epoch
    version: Text = ""
    first_sequence: Annotated[
        Count | UnsetType,
        Meta(description="No record below this sequence will be sent again: it was delivered, or given up."),
    ] = UNSET
    connections: list[ConnectionStatus] = []
    backlog_records: Count = 0
    backlog_bytes: Count = 0
    oldest_epochtime: Epoch | UnsetType = UNSET
    dropped_records: Count = 0
    backlog_limit_bytes: Annotated[
        Count | UnsetType, Meta(description="How large the backlog may grow before the oldest is dropped.")
    ] = UNSET
    disk_free_bytes: Annotated[
        Count | UnsetType, Meta(description="Free space where the backlog is kept.")
    ] = UNSET
    disk_total_bytes: Count | UnsetType = UNSET
    last_error: Text | UnsetType = UNSET
    accepts_commands: Annotated[bool, Meta(description="Whether connections may be started and stopped.")] = (
        False
    )
    answers: Annotated[list[Answer], Meta(description="To the last commands, newest last.")] = []
    faults: Annotated[list[ConnectionFault], Meta(description="The last ones, newest last.")] = []
    values: Annotated[
        list[LiveValue], Meta(description="Of the first tags of each connection, as far as there is room.")
    ] = []


class Command(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Asks a gateway to start or stop the reading of one PLC. Not retained.

    A gateway that does not accept commands (the default) does not subscribe to them. The answer stands under
    the same `id` in the status. A command is carried out once, before it expires, and not after a newer one
    for the same connection.
    """

    id: Annotated[Line, Meta(description="Made up by who asks; never used twice.")]
    site: Level
    gateway: Level
    connection: Level
    action: Literal["start", "stop"]
    requested_by: Line
    epochtime: Annotated[Epoch, Meta(description="When it was asked for.")]
    expires_epochtime: Annotated[Epoch, Meta(description="At most an hour later.")]


class Result(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Figures of one machine, line or site, republished so that any process can use them. Retained.

    `current` and `closed` hold the same flat object that `oee compute --format json` prints.
    """

    epochtime: Epoch
    current: dict[str, Any] | None = None
    closed: dict[str, Any] | None = None


class Shift(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One revision of the figures of one closed shift of a machine or a line, however long ago it was.

    They come in the order in which they were made, at least once each. `figures` is the same flat object that
    `oee compute --format json` prints; a shift is known by its place, machine or line, and its `start`.
    """

    epochtime: Annotated[Epoch, Meta(description="When the revision was made.")]
    revision: Annotated[
        int, Meta(ge=1, description="1 when the shift was closed; each later one replaces it.")
    ]
    why: Annotated[Text, Meta(description="Such as `shift ended`, `late data`, `classify by Ana`.")]
    figures: dict[str, Any]


class Alert(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change in the life of an alert.

    What it is of stands in its levels: a machine has area, line and machine; a line has area and line; a
    gateway has `gateway`, a PLC connection `gateway` and `connection`; the service itself has its site alone.
    """

    id: Text
    event: Literal["raised", "escalated", "acknowledged", "cleared"]
    rule: Annotated[Text, Meta(description="The rule's name, as alerts.toml has it.")]
    site: Level
    area: Level | UnsetType = UNSET
    line: Level | UnsetType = UNSET
    machine: Level | UnsetType = UNSET
    gateway: Level | UnsetType = UNSET
    connection: Text | UnsetType = UNSET
    epochtime: Epoch
    since_epochtime: Annotated[Epoch, Meta(description="When the condition began.")]
    message: Annotated[str, Meta(max_length=1024)]
    kind: Annotated[
        Text | UnsetType, Meta(description="What the rule watches, such as `idle` or `gateway`.")
    ] = UNSET
    level: Annotated[int, Meta(ge=1, le=9, description="How urgent; it rises when nobody answers.")] = 1
    advice: Annotated[
        Annotated[str, Meta(max_length=1024)] | UnsetType,
        Meta(description="What to do, as alerts.toml says for the rule."),
    ] = UNSET
    by: Text | UnsetType = UNSET
    note: Annotated[str, Meta(max_length=1024)] | UnsetType = UNSET

    @property
    def place(self) -> str:
        """Return the path from the site down to what the alert is of."""
        of_gateway = ("gateways", self.gateway, self.connection)
        of_machine = (self.area, self.line, self.machine)
        rest = of_machine if self.gateway is UNSET else of_gateway
        return "/".join((self.site, *(level for level in rest if isinstance(level, str))))


Message = TypeVar("Message", bound=Struct)
OfGateway = TypeVar("OfGateway", Gap, Command, Status)


def decode(payload: bytes, message: type[Message]) -> Message:
    """Read one message as strictly as telemetry is read; raise ValueError with what is wrong."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise ValueError(f"{len(payload)} bytes; at most {MAX_MESSAGE_BYTES} are allowed")
    strict.loads(payload)
    return msgspec.json.decode(payload, type=message)


def decode_gap(
    topic: str, payload: bytes, *, now_us: int, max_future_secs: float = DEFAULT_MAX_FUTURE_SECS
) -> Gap | Refusal:
    """Read what arrived on a gap topic; never raises for anything that a network could bring."""
    gap = _decoded(topic, payload, Gap, "gap")
    if isinstance(gap, Refusal):
        return gap
    if gap.to_epochtime < gap.from_epochtime:
        return Refusal(f"the gap ends at {gap.to_epochtime}, before it begins", payload)
    if gap.to_epochtime > now_us / 1e6 + max_future_secs:
        return Refusal(f"to_epochtime {gap.to_epochtime} is further ahead than allowed", payload)
    return gap


def decode_command(topic: str, payload: bytes) -> Command | Refusal:
    """Read what arrived on a command topic; never raises for anything that a network could bring."""
    command = _decoded(topic, payload, Command, "command")
    if isinstance(command, Refusal):
        return command
    if not 0 < command.expires_epochtime - command.epochtime <= MAX_COMMAND_SECS:
        return Refusal(f"it has to expire within {MAX_COMMAND_SECS:g} s of when it was asked for", payload)
    return command


def decode_status(topic: str, payload: bytes) -> Status | Refusal:
    """Read what arrived on a status topic; never raises for anything that a network could bring."""
    return _decoded(topic, payload, Status, "status")


def _decoded(
    topic: str, payload: bytes, message: type[OfGateway], channel: topics.GatewayChannel
) -> OfGateway | Refusal:
    """Read what arrived on a topic of a gateway, and see that it is of that gateway."""
    try:
        place = topics.parse(topic)
        found = decode(payload, message)
    except ValueError as error:
        return Refusal(strict.reason(error), payload)
    if place != topics.GatewayTopic(found.site, found.gateway, channel):
        return Refusal(f"the body is of gateway {found.site}/{found.gateway}, the topic is {topic}", payload)
    return found
