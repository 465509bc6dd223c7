"""Records as rows of fixed width: what the store writes, reads and hands to the live figures.

Names (machines, gateways, reasons, products, orders) stand as small integers; `Names` tells which.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from contract.delivery import Gap
from contract.machine_key import MachineKey
from contract.states import STATE_CODES, STATES_BY_CODE, MachineState
from contract.telemetry import ExtendedTelemetry, Telemetry, extras_of

US_PER_HOUR: Final = 3_600_000_000
ABSENT: Final = -1
QUALITIES: Final = ("good", "uncertain", "bad")
QUALITY_CODES: Final = {quality: code for code, quality in enumerate(QUALITIES)}

ROW: Final = np.dtype(
    [
        ("time_us", "<i8"),
        ("sequence", "<i8"),
        ("total_units", "<i8"),  # this and the next two: -1 when absent
        ("off_quality_units", "<i8"),
        ("good_units", "<i8"),
        ("ideal_run_rate", "<f8"),  # [units/min], nan when absent
        ("machine", "<i4"),
        ("gateway", "<i4"),
        ("reason", "<i4"),  # this and the next two: -1 when absent
        ("product", "<i4"),
        ("order", "<i4"),
        ("state", "i1"),  # contract.states.STATE_CODES
        ("quality", "i1"),  # QUALITY_CODES
        ("is_gap", "i1"),
        ("padding", "i1"),
    ]
)
"""The columns of one record, 72 bytes. The layout is the file format of the store: append only."""

Number = TypeVar("Number", int, float)
Rows = NDArray[np.void]
Rest = dict[str, Any]
"""What a record holds beyond its columns: operator, status, tags, unknown keys; a gap's end and cause."""


class Names:
    """Integers for names, handed out in order; the store keeps them for good.

    A machine is named by its MachineKey, a gateway by (site, gateway), a text by itself, and a reason code by
    itself, so that 17 and "17" stay two reasons.
    """

    def __init__(self, kinds: Iterable[str] = ("machine", "gateway", "text")) -> None:
        self._ids: dict[str, dict[Any, int]] = {kind: {} for kind in kinds}
        self._names: dict[str, list[Any]] = {kind: [] for kind in kinds}
        self.unsaved: list[tuple[str, int, Any]] = []
        """Names that were given out since the store last saved them: (kind, integer, name)."""

    def id(self, kind: str, name: Any) -> int:
        """Return the integer of a name, a new one when it has none yet."""
        ids = self._ids[kind]
        if (known := ids.get(name)) is not None:
            return known
        number = len(ids)
        ids[name] = number
        self._names[kind].append(name)
        self.unsaved.append((kind, number, name))
        return number

    def find(self, kind: str, name: Any) -> int:
        """Return the integer of a name, -1 when it has none."""
        return self._ids[kind].get(name, ABSENT)

    def name(self, kind: str, number: int) -> Any:
        """Return the name of an integer."""
        return self._names[kind][number]

    def all(self, kind: str) -> list[Any]:
        """Return all names of a kind; the place in the list is the integer."""
        return list(self._names[kind])

    def forget_unsaved(self) -> None:
        """Take back the integers that were given out since the last save."""
        for kind, _, name in reversed(self.unsaved):
            del self._ids[kind][name]
            self._names[kind].pop()
        self.unsaved.clear()

    def load(self, kind: str, number: int, name: Any) -> None:
        """Take in a name that the store has, in the order of the integers."""
        assert number == len(self._names[kind])
        self._ids[kind][name] = number
        self._names[kind].append(name)


class Table(NamedTuple):
    """Rows and, by (gateway, sequence) of the few that have one, their rest."""

    rows: Rows
    rest: dict[tuple[int, int], Rest]


def empty() -> Rows:
    """Return no rows."""
    return np.empty(0, dtype=ROW)


_machine_of = attrgetter("site", "area", "line", "machine")
_gateway_of = attrgetter("site", "gateway")
_reason_of = attrgetter("reason_code")
_product_of = attrgetter("product")
_order_of = attrgetter("order")
_rate_of = attrgetter("ideal_run_rate")
_quality_of = attrgetter("data_quality")
_CODE_BY_ID: Final = {id(state): code for state, code in STATE_CODES.items()}
"""By identity, since the members of an enumeration are hashed in Python, which is slow."""


def from_telemetry(records: Sequence[Telemetry], names: Names) -> Table:
    """Turn records into rows, in the order given."""
    rows = np.empty(len(records), dtype=ROW)
    rows["time_us"] = np.rint(np.array([record.epochtime for record in records]) * 1e6)
    rows["sequence"] = [record.sequence for record in records]
    rows["total_units"] = [-1 if (n := record.total_units) is UNSET else n for record in records]
    rows["off_quality_units"] = [-1 if (n := record.off_quality_units) is UNSET else n for record in records]
    rows["good_units"] = [-1 if (n := record.good_units) is UNSET else n for record in records]
    rows["ideal_run_rate"] = _numbers(map(_rate_of, records), lambda rate: np.nan if rate is UNSET else rate)
    rows["machine"] = _numbers(map(_machine_of, records), lambda name: names.id("machine", name))
    rows["gateway"] = _numbers(map(_gateway_of, records), lambda name: names.id("gateway", name))
    rows["reason"] = _numbers(
        map(_reason_of, records),
        lambda code: ABSENT if code is UNSET else names.id("text", _reason_name(code)),
    )
    rows["product"] = _numbers(
        map(_product_of, records), lambda text: ABSENT if text is UNSET else names.id("text", text)
    )
    rows["order"] = _numbers(
        map(_order_of, records), lambda text: ABSENT if text is UNSET else names.id("text", text)
    )
    rows["state"] = [_CODE_BY_ID[id(record.state)] for record in records]
    rows["quality"] = _numbers(map(_quality_of, records), QUALITY_CODES.__getitem__)
    rows["is_gap"] = 0
    rows["padding"] = 0
    rest = {
        (int(rows["gateway"][index]), record.sequence): _rest(record)
        for index, record in enumerate(records)
        if record.tags is not UNSET
        or record.operator is not UNSET
        or record.status is not UNSET
        or type(record) is ExtendedTelemetry
    }
    return Table(rows, rest)


def from_gaps(gaps: Sequence[Gap], names: Names) -> Table:
    """Turn gaps into rows: from their beginning on, the machine's state is unknown."""
    rows = np.empty(len(gaps), dtype=ROW)
    rest: dict[tuple[int, int], Rest] = {}
    for index, gap in enumerate(gaps):
        gateway = names.id("gateway", (gap.site, gap.gateway))
        rows[index] = (
            gap.from_us,
            gap.sequence,
            *(ABSENT,) * 3,
            np.nan,
            names.id("machine", tuple(gap.machine_key)),
            gateway,
            *(ABSENT,) * 3,
            STATE_CODES[MachineState.UNKNOWN],
            QUALITY_CODES["bad"],
            1,
            0,
        )
        rest[gateway, gap.sequence] = {"to_epochtime": gap.to_epochtime, "cause": gap.cause}
    return Table(rows, rest)


def to_telemetry(table: Table, names: Names) -> list[Telemetry | Gap]:
    """Turn rows back into the records that they were made of, in the order given."""
    return [
        _restored(row, table.rest.get((int(row["gateway"]), int(row["sequence"])), {}), names)
        for row in table.rows
    ]


def in_order(rows: Rows) -> Rows:
    """Return rows by machine, time, gateway and sequence."""
    return rows[np.lexsort((rows["sequence"], rows["gateway"], rows["time_us"], rows["machine"]))]


def _numbers(values: Iterable[Any], number_of: Callable[[Any], Number]) -> Number | list[Number]:
    """Return the number of each value; a single one when all are alike."""
    values = list(values)
    distinct = {value: number_of(value) for value in set(values)}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    return list(map(distinct.__getitem__, values))


def _reason_name(code: int | str) -> str:
    """Tell a number from a text that looks like it."""
    return f"#{code}" if isinstance(code, int) else f"'{code}"


def reason_code(name: str) -> int | str:
    """Return the PLC's code from its name in `Names`."""
    return int(name[1:]) if name.startswith("#") else name[1:]


def _rest(record: Telemetry) -> Rest:
    rest: Rest = {}
    for key in ("operator", "status", "tags"):
        if (value := getattr(record, key)) is not UNSET:
            rest[key] = value
    if extras := extras_of(record):
        rest["extras"] = extras
    return rest


def _restored(row: np.void, rest: Rest, names: Names) -> Telemetry | Gap:
    machine = MachineKey(*names.name("machine", row["machine"]))
    gateway = names.name("gateway", row["gateway"])[1]
    sequence = int(row["sequence"])
    epochtime = int(row["time_us"]) / 1e6
    if row["is_gap"]:
        return Gap(**machine._asdict(), gateway=gateway, sequence=sequence, from_epochtime=epochtime, **rest)
    fields: dict[str, Any] = {
        key: int(row[key]) for key in ("total_units", "off_quality_units", "good_units") if row[key] != ABSENT
    }
    if not np.isnan(row["ideal_run_rate"]):
        fields["ideal_run_rate"] = float(row["ideal_run_rate"])
    if row["reason"] != ABSENT:
        fields["reason_code"] = reason_code(names.name("text", row["reason"]))
    for key in ("product", "order"):
        if row[key] != ABSENT:
            fields[key] = names.name("text", row[key])
    rest = dict(rest)
    extras = rest.pop("extras", None)
    fields |= machine._asdict() | rest
    fields |= {
        "epochtime": epochtime,
        "gateway": gateway,
        "sequence": sequence,
        "state": STATES_BY_CODE[row["state"]],
        "data_quality": QUALITIES[row["quality"]],
    }
    return Telemetry(**fields) if extras is None else ExtendedTelemetry(**fields, extras=extras)


_REST_ENCODER = msgspec.json.Encoder()
_REST_DECODER = msgspec.json.Decoder(list[tuple[int, int, Rest]])


def encode_rest(rest: Sequence[tuple[int, int, Rest]]) -> bytes:
    """Write (gateway, sequence, rest) of the rows of one chunk that have any."""
    return _REST_ENCODER.encode(rest)


def decode_rest(text: bytes) -> list[tuple[int, int, Rest]]:
    """Read what `encode_rest` wrote."""
    return _REST_DECODER.decode(text)
