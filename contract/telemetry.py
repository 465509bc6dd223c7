"""Telemetry: one machine at one moment, as it crosses from edge to cloud."""

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from contract import strict, topics
from contract.machine_key import LEVEL_PATTERN, MachineKey, is_level, whole_text
from contract.states import MachineState
from contract.strict import MAX_INTEGER

MAX_MESSAGE_BYTES: Final = 128 * 1024
MAX_BACKLOG_BYTES: Final = 100_000
DEFAULT_MAX_FUTURE_SECS: Final = 300.0
_US_PER_SEC: Final = 1_000_000

Level = Annotated[str, Meta(pattern=whole_text(LEVEL_PATTERN))]
_Level = Annotated[str, Meta(extra_json_schema={"pattern": LEVEL_PATTERN})]
"""A level whose pattern `_well_named` checks: five regular expressions a record cost more than all else."""
Count = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Text = Annotated[str, Meta(max_length=256)]
ReasonCode = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)] | Text
TagScalar = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)] | float | bool | Text
DataQuality = Literal["good", "uncertain", "bad"]


class Telemetry(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One machine at one moment. Fields and meanings are public: within version 1 added to, never renamed."""

    epochtime: Annotated[
        float,
        Meta(gt=0, lt=1e11, description="Unix seconds UTC at the machine: the PLC's source timestamp."),
    ]
    site: _Level
    area: _Level
    line: _Level
    machine: _Level
    state: Annotated[MachineState, Meta(description="What the machine does from this moment on.")]
    gateway: Annotated[_Level, Meta(description="Who read it.")]
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


class ExtendedTelemetry(Telemetry, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Telemetry with keys that this version does not know: kept, and written out flat again."""

    extras: dict[str, Any]


class Refusal(Struct, frozen=True):
    """A payload, or one member of a backlog, that may not be stored; kept whole with the reason."""

    reason: str
    payload: bytes


KNOWN_FIELDS: Final = frozenset(Telemetry.__struct_fields__)
_LEVELS: Final = ("site", "area", "line", "machine", "gateway")
_MANY = msgspec.json.Decoder(list[Telemetry])
_RAW_MANY = msgspec.json.Decoder(list[msgspec.Raw])
_PLAIN = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder()


def epoch_us(epochtime: float) -> int:
    """Turn Unix seconds into whole microseconds (exact for every microsecond until the year 2255)."""
    return round(epochtime * _US_PER_SEC)


def encode(record: Telemetry) -> bytes:
    """Write one record as a flat JSON object, unknown keys included."""
    if isinstance(record, ExtendedTelemetry):
        flat = msgspec.to_builtins(record)
        return _ENCODER.encode(flat | flat.pop("extras"))
    return _ENCODER.encode(record)


def extras_of(record: Telemetry) -> dict[str, Any]:
    """Return the keys of a record that this version does not know, with their values."""
    return record.extras if isinstance(record, ExtendedTelemetry) else {}


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
        place = topics.parse(topic)
    except ValueError as error:
        return [Refusal(str(error), payload)]
    if len(payload) > MAX_MESSAGE_BYTES:
        return [Refusal(f"{len(payload)} bytes; at most {MAX_MESSAGE_BYTES} are allowed", payload)]
    latest_epochtime = now_us / _US_PER_SEC + max_future_secs
    match place:
        case topics.MachineTopic(machine, "telemetry"):
            record = decode_one(payload)
            if isinstance(record, Telemetry):
                if record.machine_key != machine:
                    return [Refusal(f"the body is of {record.machine_key}, the topic of {machine}", payload)]
                if record.epochtime > latest_epochtime:
                    return [_too_early(record, latest_epochtime, payload)]
            return [record]
        case topics.GatewayTopic(site, gateway, "backlog"):
            if (records := _decode_plain(payload)) is not None and _all_placed(
                records, site, gateway, latest_epochtime
            ):
                return list(records)
            return [
                item
                if isinstance(item, Refusal) or _all_placed([item], site, gateway, latest_epochtime)
                else _misplaced(item, place, latest_epochtime)
                for item in decode_many(payload)
            ]
    return [Refusal(f"no telemetry is read from the topic {topic}", payload)]


def decode_one(payload: bytes) -> Telemetry | Refusal:
    """Read one JSON object, as strictly as the contract asks."""
    array = b"[" + payload + b"]"
    if (records := _decode_plain(array)) is not None and len(records) == 1:
        return records[0]
    items = _decode_singly(array, whole=payload)
    return items[0] if len(items) == 1 else Refusal("not one JSON object", payload)


def decode_many(payload: bytes) -> Sequence[Telemetry | Refusal]:
    """Read a JSON array of objects; a bad member is refused alone."""
    records = _decode_plain(payload)
    return _decode_singly(payload, whole=payload) if records is None else records


def _decode_plain(array: bytes) -> list[Telemetry] | None:
    """Read all members at once; None when something is odd, which `_decode_singly` then names."""
    try:
        records = _MANY.decode(array)
        if (_comes_back(array, records) or _is_plain(array, records)) and _well_named(records):
            return records
    except (ValueError, RecursionError):
        pass
    return None


def _decode_singly(array: bytes, whole: bytes) -> list[Telemetry | Refusal]:
    """Read member by member; `whole` is what is kept when the text cannot be taken apart."""
    try:
        members = [bytes(member) for member in _RAW_MANY.decode(array)]
    except (ValueError, RecursionError) as error:
        # One member that no reader can read must not take its neighbours with it.
        members = strict.split(array)
        if not members:
            return [Refusal(strict.reason(error), whole)]
    return [_decode_member(member) for member in members]


def _comes_back(array: bytes, records: list[Telemetry]) -> bool:
    """Tell whether nothing of the text was dropped in reading, by counting the colons of what was read.

    A repeated or unknown key takes a colon with it that does not come back. A default that was spelled out
    does too: such text is looked at again by `_is_plain`. An escaped colon would hide a lost one.
    """
    return b"\\" not in array and array.count(b":") == _ENCODER.encode(records).count(b":")


def _is_plain(array: bytes, records: list[Telemetry]) -> bool:
    """Tell whether every key stands once and is known.

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


_names_of = attrgetter("site", "area", "line", "machine", "gateway")
_names_seen: set[tuple[str, ...]] = set()
_MAX_NAMES_SEEN: Final = 20_000


def _well_named(records: Iterable[Telemetry]) -> bool:
    """Tell whether all levels fit the pattern; names come again and again, so those seen are remembered."""
    for names in set(map(_names_of, records)) - _names_seen:
        if not all(map(is_level, names)):
            return False
        if len(_names_seen) >= _MAX_NAMES_SEEN:
            _names_seen.clear()
        _names_seen.add(names)
    return True


def _decode_member(raw: bytes) -> Telemetry | Refusal:
    try:
        flat = strict.loads(raw)
        record = msgspec.json.decode(raw, type=Telemetry)
    except ValueError as error:
        return Refusal(strict.reason(error), raw)
    if not _well_named([record]):
        odd = next(name for name in _LEVELS if not is_level(getattr(record, name)))
        return Refusal(f"{odd} {getattr(record, odd)[:64]!r} is not 1 to 64 of A-Z a-z 0-9 _ . -", raw)
    extras = {key: value for key, value in flat.items() if key not in KNOWN_FIELDS}
    if not extras:
        return record
    return ExtendedTelemetry(**{name: getattr(record, name) for name in KNOWN_FIELDS}, extras=extras)


_gateway_of = attrgetter("site", "gateway")
_epochtime_of = attrgetter("epochtime")


def _all_placed(records: Sequence[Telemetry], site: str, gateway: str, latest_epochtime: float) -> bool:
    """Tell whether records may come from this gateway's topic at this moment."""
    return set(map(_gateway_of, records)) <= {(site, gateway)} and (
        max(map(_epochtime_of, records), default=0.0) <= latest_epochtime
    )


def _misplaced(record: Telemetry, place: topics.GatewayTopic, latest_epochtime: float) -> Refusal:
    """Say why a member of a backlog may not come from this topic or this moment."""
    if (record.site, record.gateway) == (place.site, place.gateway):
        return _too_early(record, latest_epochtime, encode(record))
    return Refusal(
        f"the body is of gateway {record.site}/{record.gateway}, the topic of {place.site}/{place.gateway}",
        encode(record),
    )


def _too_early(record: Telemetry, latest_epochtime: float, raw: bytes) -> Refusal:
    ahead_secs = record.epochtime - latest_epochtime
    return Refusal(f"epochtime {record.epochtime} is {ahead_secs:.0f} s further ahead than allowed", raw)
