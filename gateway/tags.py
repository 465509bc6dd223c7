"""Tag values of a machine become fields of its telemetry. Pure."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from functools import cache, partial
from typing import Any, Final, NamedTuple

from contract.machine_key import MachineKey
from contract.states import MachineState
from contract.strict import MAX_INTEGER
from contract.telemetry import DataQuality
from gateway.config import Connection, CounterTag, Machine, NumberTag, StateTag
from gateway.errors import ExpressionError
from gateway.expressions import Expression
from gateway.sources.port import BAD, GOOD, UNCERTAIN, severity

MAX_TEXT: Final = 256
WAITING: Final = 0x80320000
"""OPC UA's BadWaitingForInitialData: the tag has not been heard yet."""
_TYPE_MISMATCH: Final = 0x80740000
_OUT_OF_RANGE: Final = 0x803C0000
QUALITY: Final[tuple[DataQuality, ...]] = ("good", "uncertain", "bad")
_WORD: Final = (1 << 64) - 1


class Role(IntEnum):
    """What a tag is good for, and so how its changes are treated."""

    FACT = 0
    """State, reason, product, order, operator: a change is never coalesced away."""
    COUNT = 1
    """A cumulative counter: the newest value of an interval says all."""
    ANALOGUE = 2
    """Rate and further tags: the first to go when room is short."""


class Binding(NamedTuple):
    """One tag to be read: where it is, how, and where its values go.

    handle: position in the connection's bindings plus one
    machine, slot: position of the machine in the connection, of the tag in the machine
    name: key path in the machine's table, for people
    deadband: changes smaller than this are not sent, in the tag's raw unit; 0 for all
    """

    handle: int
    machine: int
    slot: int
    role: Role
    name: str
    node: str
    sampling_interval_secs: float
    queue_size: int
    deadband: float


class Fields(NamedTuple):
    """What a machine's tags say at one moment; None where it does not have the field."""

    state: MachineState
    reason_code: int | str | None
    product: str | None
    order: str | None
    operator: str | None
    data_quality: DataQuality
    status: str | None
    total_units: int | None
    off_quality_units: int | None
    good_units: int | None
    ideal_run_rate: float | None
    tags: dict[str, Any] | None

    @property
    def facts(self) -> tuple[Any, ...]:
        """Return the fields whose change must not be coalesced away."""
        return self[:7]


_PLACE: Final = {name: place for place, name in enumerate(Fields._fields)}
_FIELDS: Final = len(_PLACE)
_STATE, _QUALITY, _STATUS = _PLACE["state"], _PLACE["data_quality"], _PLACE["status"]
_TOTAL, _OFF_QUALITY, _GOOD = _PLACE["total_units"], _PLACE["off_quality_units"], _PLACE["good_units"]
_TAGS: Final = _PLACE["tags"]
_COMMON_STATES: Final = 256
_FURTHER: Final = 0
"""The place of what is a further tag: no reader makes the state, which is there."""


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str
    node: str
    role: Role
    sampling_interval_secs: float | None
    queue_size: int | None
    deadband: float = 0.0


class _Reader(NamedTuple):
    """A tag's way to its field: `read` returns the field's value, and 0 or the status of why it has none.

    place: of the field in Fields, or _FURTHER
    """

    name: str
    slot: int
    read: Callable[[object], tuple[Any, int]]
    place: int


class MachineTags:
    """The tags of one machine and how their values become fields.

    key: the machine's place in the plant
    status_name: names an OPC UA status code
    """

    def __init__(self, key: MachineKey, machine: Machine, status_name: Callable[[int], str]) -> None:
        self.key = key
        self.slots: list[_Slot] = []
        self._status_name = status_name
        self._state_tag = machine.state
        self._state_slots = self._add_state(machine.state)
        self._texts = {
            name: self._add(name, getattr(machine, name), Role.FACT)
            for name in ("product", "order", "operator")
        }
        self._reason = machine.reason_code
        self._reason_slot = self._add("reason_code", machine.reason_code, Role.FACT)
        self._counters = {
            name: (self._add(name, getattr(machine, name), Role.COUNT), getattr(machine, name))
            for name in ("total_units", "off_quality_units", "good_units")
        }
        self._has_total = machine.total_units is not None
        self._rate = (
            self._add("ideal_run_rate", machine.ideal_run_rate, Role.ANALOGUE),
            machine.ideal_run_rate,
        )
        self._further = [
            (name, self._add(f"tags.{name}", tag, Role.ANALOGUE), tag) for name, tag in machine.tags.items()
        ]
        self.moving_slot = -1
        """The slot of the counter that tells the state by moving; -1 where the state has tags of its own."""
        self.moving_for_us = 0
        if machine.state.moving is not None:
            self.moving_slot = self._counters[machine.state.moving][0]
            self.moving_for_us = round(machine.state.moving_for_secs * 1_000_000)
            self._state_slots = (self.moving_slot,)
        self._state_of = _state_reader(machine.state)
        self._readers = list(self._made_readers())
        self.addresses = [slot.node for slot in self.slots]

    def _add(self, name: str, tag: Any, role: Role) -> int:
        if tag is None:
            return -1
        deadband = getattr(tag, "deadband", 0.0)
        self.slots.append(_Slot(name, tag.node, role, tag.sampling_interval_secs, tag.queue_size, deadband))
        return len(self.slots) - 1

    def _add_state(self, tag: StateTag) -> tuple[int, ...]:
        nodes = (
            {"state": tag.node} if tag.node is not None else {f"state.{n}": a for n, a in tag.nodes.items()}
        )
        for name, node in nodes.items():
            self.slots.append(_Slot(name, node, Role.FACT, tag.sampling_interval_secs, tag.queue_size))
        return tuple(range(len(self.slots)))

    def compose(
        self,
        values: Sequence[object],
        statuses: Sequence[int],
        *,
        moving: bool | None = None,
        note: str | None = None,
    ) -> Fields:
        """Return the fields that the newest values make.

        values, statuses: newest of each slot; a slot that was never heard has the status WAITING
        moving: whether the watched counter moves; None when that is not known yet
        note: why the record is uncertain though its values are good, such as a foreign timestamp

        A bad state makes the whole record bad and its state unknown. Another tag that is bad, or whose
        value cannot be what the tag means, is left out and makes the record uncertain; with the total, the
        other counters are left out, too.
        """
        worst, worst_status = GOOD, 0
        state, state_status = self._state(values, statuses, moving)
        if state_status:
            worst, worst_status = severity(state_status), state_status
        found: list[Any] = [None] * _FIELDS
        further: dict[str, Any] = {}
        for name, slot, read, place in self._readers:
            status = statuses[slot]
            if not status:
                value, status = read(values[slot])
            elif status >> 30 < BAD:
                value, fault = read(values[slot])
                status = status if status >> 30 else fault
            else:
                value = None
            if value is not None:
                if place:
                    found[place] = value
                else:
                    further[name] = value
            if status and status >> 30 and worst == GOOD:
                worst, worst_status = UNCERTAIN, status
        if self._has_total and found[_TOTAL] is None:
            # A reader takes a record without a total for one of a machine that counts none, and would add
            # these units to it; the next total holds them anyway.
            found[_OFF_QUALITY] = found[_GOOD] = None
        said = self._status_name(worst_status) if worst else None
        if note is not None and worst == GOOD:
            worst, said = UNCERTAIN, note
        found[_STATE], found[_QUALITY], found[_STATUS] = state, QUALITY[worst], said
        found[_TAGS] = further or None
        return tuple.__new__(Fields, found)

    def takes(self, slot: int, value: object) -> bool:
        """Tell whether a good value can be what the tag means; a state's values all can."""
        for _, place, read, _ in self._readers:
            if place == slot:
                _, fault = read(value)
                return not fault
        return True

    def _made_readers(self) -> Iterator["_Reader"]:
        for name, slot in self._texts.items():
            if slot >= 0:
                yield _Reader(name, slot, _as_text, _PLACE[name])
        if self._reason_slot >= 0:
            yield _Reader("reason_code", self._reason_slot, self._as_reason, _PLACE["reason_code"])
        for name, (slot, tag) in self._counters.items():
            if slot >= 0:
                yield _Reader(name, slot, _count_reader(tag), _PLACE[name])
        rate_slot, rate = self._rate
        if rate is not None:
            yield _Reader(
                "ideal_run_rate", rate_slot, lambda value: _as_rate(value, rate), _PLACE["ideal_run_rate"]
            )
        for name, slot, tag in self._further:
            yield _Reader(name, slot, _further_reader(tag), _FURTHER)

    def _as_reason(self, value: object) -> tuple[int | str | None, int]:
        if self._reason is not None and not isinstance(value, bool | float) and value in self._reason.none:
            return None, 0
        if isinstance(value, int) and not isinstance(value, bool):
            return (value, 0) if abs(value) <= MAX_INTEGER else (None, _OUT_OF_RANGE)
        return _as_text(value)

    def _state(
        self,
        values: Sequence[object],
        statuses: Sequence[int],
        moving: bool | None,  # noqa: FBT001
    ) -> tuple[MachineState, int]:
        """Return the state and the status that lowers the record's quality; 0 for none."""
        worst = 0
        for slot in self._state_slots:
            if statuses[slot] and statuses[slot] >> 30 > worst >> 30:
                worst = statuses[slot]
        if worst >> 30 >= BAD:
            return MachineState.UNKNOWN, worst
        if self.moving_slot >= 0:
            if moving is None:
                return MachineState.UNKNOWN, worst
            return (MachineState.RUNNING if moving else self._when_still), worst
        try:
            return self._state_of([values[slot] for slot in self._state_slots]), worst
        except ExpressionError:
            return MachineState.UNKNOWN, _TYPE_MISMATCH

    @property
    def _when_still(self) -> MachineState:
        """Return what a machine does whose counter stands: `otherwise`, or stopped."""
        otherwise = self._state_tag.otherwise
        return MachineState.STOPPED if otherwise is MachineState.UNKNOWN else otherwise


def bindings(connection: Connection, machines: Sequence[MachineTags]) -> list[Binding]:
    """Return every tag of a connection to be read, numbered as its values will be."""
    found: list[Binding] = []
    for index, machine in enumerate(machines):
        for position, slot in enumerate(machine.slots):
            sampling = slot.sampling_interval_secs
            found.append(
                Binding(
                    handle=len(found) + 1,
                    machine=index,
                    slot=position,
                    role=slot.role,
                    name=f"{machine.key.line}/{machine.key.machine} {slot.name}",
                    node=slot.node,
                    sampling_interval_secs=connection.sampling_interval_secs
                    if sampling is None
                    else sampling,
                    queue_size=slot.queue_size or connection.queue_size,
                    deadband=slot.deadband,
                )
            )
    return found


def as_count(value: object, tag: CounterTag) -> tuple[int | None, int]:
    """Return a counter's units, and 0 or the status that says why there are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, _TYPE_MISMATCH
    if isinstance(value, float) and not math.isfinite(value):
        return None, _OUT_OF_RANGE
    raw = int(value)
    if raw < 0:
        if isinstance(value, float) or raw < -(1 << (tag.bits - 1)):
            return None, _OUT_OF_RANGE
        raw += 1 << tag.bits  # the PLC shows its unsigned counter as a signed word
    units = raw if tag.scale == 1.0 else raw * _ratio(tag.scale)[0] // _ratio(tag.scale)[1]
    return (units, 0) if units <= MAX_INTEGER else (None, _OUT_OF_RANGE)


def _count_reader(tag: CounterTag) -> Callable[[object], tuple[int | None, int]]:
    """Return how a counter is read; made once, because nearly all say their units as they are."""
    if tag.scale != 1.0:
        return partial(as_count, tag=tag)

    def read(value: object) -> tuple[int | None, int]:
        if type(value) is int and 0 <= value <= MAX_INTEGER:
            return value, 0
        return as_count(value, tag)

    return read


@cache
def _ratio(scale: float) -> tuple[int, int]:
    """Return a scale as it is written, exactly: as a float, 100 counts of 0.29 are not quite 29 units."""
    return Fraction(repr(scale)).as_integer_ratio()


def _as_text(value: object) -> tuple[str | None, int]:
    if isinstance(value, str):
        text = value[:MAX_TEXT]
        return text if text.isascii() else text.encode("utf-8", "replace").decode(), 0
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, 0 if value is None else _TYPE_MISMATCH
    return f"{value:.15g}" if isinstance(value, float) else str(value), 0


def _number(value: object, tag: NumberTag) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    plain = tag.scale == 1.0 and tag.offset == 0.0
    scaled = value if plain else value * tag.scale + tag.offset
    if isinstance(scaled, float):
        return scaled if math.isfinite(scaled) else None
    return scaled if abs(scaled) <= MAX_INTEGER else None


def _as_rate(value: object, tag: NumberTag) -> tuple[float | None, int]:
    rate = _number(value, tag)
    if rate is None:
        return None, _TYPE_MISMATCH
    return (float(rate), 0) if 0 < rate < 1e9 else (None, 0)  # a rate of zero means that none is set


def _further_reader(tag: NumberTag) -> Callable[[object], tuple[Any, int]]:
    """Return how a further tag is read; made once, because nearly all are numbers as they come."""
    if tag.scale == 1.0 and tag.offset == 0.0:
        isfinite = math.isfinite

        def read(value: object) -> tuple[Any, int]:
            kind = type(value)
            if kind is bool or (kind is float and isfinite(value)):  # type: ignore[arg-type]
                return value, 0
            if kind is str:
                return _as_text(value)
            if kind is int and -MAX_INTEGER <= value <= MAX_INTEGER:  # type: ignore[operator]
                return value, 0
            return _as_further(value, tag)

        return read
    return lambda value: _as_further(value, tag)


def _as_further(value: object, tag: NumberTag) -> tuple[Any, int]:
    if isinstance(value, bool):
        return value, 0
    if isinstance(value, str):
        return _as_text(value)
    number = _number(value, tag)
    return number, 0 if number is not None else _TYPE_MISMATCH


def _state_reader(tag: StateTag) -> Callable[[list[object]], MachineState]:
    """Return the function from the state's raw values to the state, made once per machine."""
    otherwise = tag.otherwise
    if tag.map is not None:
        table: dict[str, MachineState] = {**tag.map}
        for truth, number in (("true", "1"), ("false", "0")):  # a truth value is found by either spelling
            if truth not in table and number in table:
                table[truth] = table[number]
        numbers = {number: table[str(number)] for number in range(_COMMON_STATES) if str(number) in table}

        def by_map(raw: list[object]) -> MachineState:
            value = raw[0]
            if type(value) is int and value in numbers:
                return numbers[value]  # what nearly all PLCs say costs no spelling
            return table.get(_spelled(value), otherwise)

        return by_map
    if tag.bits is not None:
        bits = [(1 << int(bit), state) for bit, state in tag.bits.items()]
        return lambda raw: _by_bits(raw[0], bits, otherwise)
    names = list(tag.nodes)
    rules = [(Expression(rule.when), rule.then) for rule in tag.rules]

    def by_rules(raw: list[object]) -> MachineState:
        if any(value != value for value in raw):  # noqa: PLR0124 - NaN alone differs from itself
            raise ExpressionError("NaN says nothing: every comparison with it is false")
        named = dict(zip(names, raw, strict=True))
        return next((then for when, then in rules if when(named)), otherwise)

    return by_rules


def _spelled(value: object) -> str:
    """Return a value as the keys of a state map spell it: 1, true, Running."""
    if type(value) is int:
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _by_bits(value: object, bits: list[tuple[int, MachineState]], otherwise: MachineState) -> MachineState:
    if not isinstance(value, int):
        raise ExpressionError("bits are those of an integer")
    word = int(value) & _WORD
    return next((state for mask, state in bits if word & mask), otherwise)
