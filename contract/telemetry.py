"""Telemetry: one machine at one moment, as it crosses from edge to cloud."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from contract import topics
from contract.machine_key import LEVEL_PATTERN, MachineKey
from contract.states import MachineState

MAX_MESSAGE_BYTES: Final = 128 * 1024
MAX_BACKLOG_BYTES: Final = 100_000
MAX_DEPTH: Final = 4
MAX_INTEGER: Final = 2**53
DEFAULT_MAX_FUTURE_SECS: Final = 300.0
_US_PER_SEC: Final = 1_000_000

Level = Annotated[str, Meta(pattern=LEVEL_PATTERN)]
Count = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Text = Annotated[str, Meta(max_length=256)]
ReasonCode = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)] | Text
TagScalar = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)] | float | bool | Text
DataQuality = Literal["good", "uncertain", "bad"]


class Telemetry(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=False):
    """One machine at one moment. Fields and meanings are public: added to, never renamed, within version 1."""

    epochtime: Annotated[
        float,
        Meta(gt=0, lt=1e11, description="Unix seconds UTC at the machine: the PLC's source timestamp."),
    ]
    site: Level
    area: Level
    line: Level
    machine: Level
    state: Annotated[MachineState, Meta(description="What the machine does from this moment on.")]
    gateway: Annotated[Level, Meta(description="Who read it.")]
    sequence: Annotated[Count, Meta(description="Strictly increasing per gateway, never reused.")]
    total_units: Annotated[
        Count | UnsetType,
        Meta(description="Cumulative since the counter was last reset, as the PLC shows it."),
    ] = UNSET
    off_quality_units: Annotated[Count | UnsetType, Meta(description="Cumulative; good = total - off.")] = (
        UNSET
    )
    good_units: Annotated[
        Count | UnsetType, Meta(description="Cumulative, where the PLC counts good units instead.")
    ] = UNSET
    reason_code: Annotated[ReasonCode | UnsetType, Meta(description="Why the machine stands.")] = UNSET
    product: Text | UnsetType = UNSET
    order: Text | UnsetType = UNSET
    operator: Text | UnsetType = UNSET
    ideal_run_rate: Annotated[
        Annotated[float, Meta(gt=0, lt=1e9)] | UnsetType, Meta(description="Units per minute.")
    ] = UNSET
    data_quality: DataQuality = "good"
    status: Annotated[Text | UnsetType, Meta(description="OPC UA status name where quality is not good.")] = (
        UNSET
    )
    tags: Annotated[
        dict[Text, TagScalar] | UnsetType,
        Meta(description="Values of further tags by their configured name."),
    ] = UNSET

    @property
    def machine_key(self) -> MachineKey:
        """Return the machine that this record is of."""
        return MachineKey(self.site, self.area, self.line, self.machine)

    @property
    def epoch_us(self) -> int:
        """Return `epochtime` as whole microseconds, the unit of every calculation."""
        return epoch_us(self.epochtime)


class Refusal(Struct, frozen=True):
    """A payload, or one member of a backlog, that may not be stored; kept whole with the reason."""

    reason: str
    payload: bytes


KNOWN_FIELDS: Final = frozenset(Telemetry.__struct_fields__)
_MANY = msgspec.json.Decoder(list[Telemetry])
_RAW_MANY = msgspec.json.Decoder(list[msgspec.Raw])
_PLAIN = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder()


def epoch_us(epochtime: float) -> int:
    """Turn Unix seconds into whole microseconds (exact for every microsecond until the year 2255)."""
    return round(epochtime * _US_PER_SEC)


def encode(record: Telemetry) -> bytes:
    """Write one record as a flat JSON object."""
    return _ENCODER.encode(record)


def backlog_batches(encoded: Iterable[bytes], max_bytes: int = MAX_BACKLOG_BYTES) -> Iterator[list[bytes]]:
    """Group encoded records, in order, so that each group's JSON array is at most max_bytes.

    A record that is too large by itself travels alone, so that its uplink can refuse it by name.
    """
    batch: list[bytes] = []
    size = 2
    for record in encoded:
        if batch and size + len(record) + 1 > max_bytes:
            yield batch
            batch, size = [], 2
        batch.append(record)
        size += len(record) + 1
    if batch:
        yield batch


def encode_backlog(batch: Sequence[bytes]) -> bytes:
    """Write encoded records as one JSON array."""
    return b"[" + b",".join(batch) + b"]"


def decode_message(
    topic: str, payload: bytes, *, now_us: int, max_future_secs: float = DEFAULT_MAX_FUTURE_SECS
) -> list[Telemetry | Refusal]:
    """Read what arrived on a telemetry or backlog topic.

    Never raises for anything that a network could bring: each bad message, or bad member of a backlog,
    comes back as a Refusal, and its neighbours as Telemetry.

    topic: where it arrived; the body must be of the same machine (or, for a backlog, site and gateway)
    now_us: [us since 1970] the reader's clock; records further ahead than max_future_secs are refused
    """
    try:
        parsed = topics.parse(topic)
    except ValueError as error:
        return [Refusal(str(error), payload)]
    if len(payload) > MAX_MESSAGE_BYTES:
        return [Refusal(f"{len(payload)} bytes; at most {MAX_MESSAGE_BYTES} are allowed", payload)]
    if isinstance(parsed, topics.GatewayTopic):
        if parsed.channel != "backlog":
            return [Refusal(f"no telemetry is read from the topic {topic}", payload)]
    elif parsed.channel != "telemetry":
        return [Refusal(f"no telemetry is read from the topic {topic}", payload)]
    latest_us = now_us + round(max_future_secs * _US_PER_SEC)
    many = isinstance(parsed, topics.GatewayTopic)
    return [
        item if isinstance(item, Refusal) else _placed(item, parsed, latest_us, payload)
        for item in (decode_many(payload) if many else [decode_one(payload)])
    ]


def decode_one(payload: bytes) -> Telemetry | Refusal:
    """Read one JSON object, as strictly as the contract asks."""
    return _decode_array(b"[" + payload + b"]", lone=payload)[0]


def decode_many(payload: bytes) -> list[Telemetry | Refusal]:
    """Read a JSON array of objects; a bad member is refused alone."""
    return _decode_array(payload, lone=None)


def _decode_array(array: bytes, lone: bytes | None) -> list[Telemetry | Refusal]:
    """Read all members at once, and one by one only when something is odd."""
    try:
        records = _MANY.decode(array)
        if (len(records) == 1 or lone is None) and _is_plain(array, records):
            return list(records)
    except (ValueError, RecursionError):
        pass  # the slow way round says what is wrong with which member
    if (depth := _depth(array)) > MAX_DEPTH + 1:
        return [Refusal(f"nested {depth - 1} deep; {MAX_DEPTH} are allowed", lone or array)]
    try:
        members = _RAW_MANY.decode(array)
    except (ValueError, RecursionError) as error:
        return [Refusal(_reason(error), array if lone is None else lone)]
    if lone is not None and len(members) != 1:
        return [Refusal("not one JSON object", lone)]
    return [_decode_member(bytes(member)) for member in members]


def _is_plain(array: bytes, records: list[Telemetry]) -> bool:
    """Tell whether every key stands once and is known, without a second look at the text.

    A colon outside a string follows each key, so as many colons as distinct keys leaves no room for a
    repeated one; more (a colon inside a string) only sends us the slow way round.
    """
    objects: list[dict[str, Any]] = _PLAIN.decode(array)
    keys = 0
    for item, record in zip(objects, records, strict=True):
        keys += len(item)
        if record.tags is not UNSET:
            keys += len(record.tags)
        if not item.keys() <= KNOWN_FIELDS:
            return False
    return array.count(b":") == keys


def _decode_member(raw: bytes) -> Telemetry | Refusal:
    try:
        strict = json.loads(raw, object_pairs_hook=_once, parse_constant=_no_constant)
        if (fault := _impossible_number(strict)) is not None:
            return Refusal(fault, raw)
        return msgspec.json.decode(raw, type=Telemetry)
    except (ValueError, RecursionError, OverflowError) as error:
        return Refusal(_reason(error), raw)


def _placed(
    record: Telemetry, topic: topics.MachineTopic | topics.GatewayTopic, latest_us: int, payload: bytes
) -> Telemetry | Refusal:
    """Return the record, or why it may not come from this topic or this moment."""
    raw = payload if isinstance(topic, topics.MachineTopic) else encode(record)
    if isinstance(topic, topics.MachineTopic):
        if record.machine_key != topic.machine:
            return Refusal(f"the body is of {record.machine_key}, the topic of {topic.machine}", raw)
    elif (record.site, record.gateway) != (topic.site, topic.gateway):
        return Refusal(
            f"the body is of gateway {record.site}/{record.gateway}, the topic of {topic.site}/{topic.gateway}",
            raw,
        )
    if record.epoch_us > latest_us:
        ahead_secs = (record.epoch_us - latest_us) / _US_PER_SEC
        return Refusal(f"epochtime {record.epochtime} is {ahead_secs:.0f} s further ahead than allowed", raw)
    return record


def _depth(text: bytes) -> int:
    """Return how deep arrays and objects nest, brackets inside strings left out; an upper bound where few stand."""
    opening = text.count(b"[") + text.count(b"{")
    if opening <= MAX_DEPTH + 1:
        return opening
    depth = deepest = 0
    inside = False
    for byte in _ESCAPE.sub(b"", text).translate(None, _NOT_STRUCTURE):
        if byte == 0x22:
            inside = not inside
        elif inside:
            continue
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'[]{}"'))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key {twice[:64]!r} stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def _impossible_number(value: Any) -> str | None:
    match value:
        case dict():
            return next((fault for item in value.values() if (fault := _impossible_number(item))), None)
        case list():
            return next((fault for item in value if (fault := _impossible_number(item))), None)
        case bool():
            return None
        case int() if abs(value) > MAX_INTEGER:
            return "an integer beyond 2^53"
        case float() if value in (float("inf"), float("-inf")):
            return "a number too large for JSON readers"
    return None


def _reason(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200] or type(error).__name__
