"""Records as rows of fixed width: what the store writes, reads and hands to the live figures.

Names (machines, gateways, reasons, products, orders) stand as small integers; `Names` tells which.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from cloud.oee.columns import by_machine_and_time
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

_COUNTERS: Final = ("total_units", "off_quality_units", "good_units")
Rows = NDArray[np.void]
Rest = dict[str, Any]
"""What a record holds beyond its columns: operator, status, tags, unknown keys; a gap's end and cause."""
Source = tuple[str, str, str, str, str]
"""(site, area, line, machine, gateway) that a record is from."""


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


class Draft(NamedTuple):
    """Records as rows whose names are not the store's integers yet, but places in the lists beside them."""

    rows: Rows
    """Their machine and gateway are places in `sources`, their reason, product and order in `texts`."""
    sources: list[Source]
    texts: list[str]
    rest: dict[tuple[int, int], Rest]
    """By (place of the source, sequence)."""
    keys: NDArray[np.int16]
    """By row: how many keys its JSON has, when each stands once and no default is spelled out."""

    def take(self, wanted: NDArray[np.bool_]) -> "Draft":
        """Return the rows that a mask names."""
        return self._replace(rows=self.rows[wanted], keys=self.keys[wanted])


_source_of = attrgetter("site", "area", "line", "machine", "gateway")
_CODE_BY_ID: Final = {id(state): code for state, code in STATE_CODES.items()}
"""By identity, since the members of an enumeration are hashed in Python, which is slow."""
_REQUIRED_KEYS: Final = sum(field.required for field in msgspec.structs.fields(Telemetry))


def draft(records: Sequence[Telemetry]) -> Draft:
    """Turn records into rows, in the order given."""
    rows = np.empty(len(records), dtype=ROW)
    keys = np.full(len(records), _REQUIRED_KEYS, dtype=np.int16)
    sources, rows["machine"] = _places(map(_source_of, records))
    rows["gateway"] = rows["machine"]
    rows["time_us"] = np.rint(np.array([record.epochtime for record in records]) * 1e6)
    rows["sequence"] = [record.sequence for record in records]
    for name, values in (
        ("total_units", [record.total_units for record in records]),
        ("off_quality_units", [record.off_quality_units for record in records]),
        ("good_units", [record.good_units for record in records]),
        ("ideal_run_rate", [record.ideal_run_rate for record in records]),
    ):
        absent = np.nan if name == "ideal_run_rate" else ABSENT
        if _is_all(values, UNSET):
            rows[name] = absent
        else:
            rows[name] = [absent if value is UNSET else value for value in values]
            keys += np.array([value is not UNSET for value in values])
    texts: list[str] = []
    for name, said in (
        ("reason", [record.reason_code for record in records]),
        ("product", [record.product for record in records]),
        ("order", [record.order for record in records]),
    ):
        rows[name] = ABSENT
        if not _is_all(said, UNSET):
            spoken = np.array([value is not UNSET for value in said])
            keys += spoken
            name_of = _reason_name if name == "reason" else str
            found, places = _places(name_of(value) for value in said if value is not UNSET)
            rows[name][spoken] = places + len(texts)
            texts += found
    rows["state"] = [_CODE_BY_ID[id(record.state)] for record in records]
    qualities = [record.data_quality for record in records]
    rows["quality"] = 0 if _is_all(qualities, "good") else [QUALITY_CODES[quality] for quality in qualities]
    keys += rows["quality"] != 0
    rows["is_gap"] = rows["padding"] = 0
    rest: dict[tuple[int, int], Rest] = {}
    for index in _with_rest(records):
        record = records[index]
        found_rest = _rest(record)
        rest[int(rows["machine"][index]), record.sequence] = found_rest
        keys[index] += len(found_rest.keys() - {"extras"}) + len(found_rest.get("tags", ()))
    return Draft(rows, sources, texts, rest, keys)


def placed(drafted: Draft, names: Names) -> Table:
    """Turn a draft's names into the store's integers; only names that its rows use are given any."""
    rows = drafted.rows.copy()
    machines = _ids(rows["machine"], drafted.sources, lambda source: names.id("machine", source[:4]))
    gateways = _ids(
        rows["gateway"], drafted.sources, lambda source: names.id("gateway", (source[0], source[4]))
    )
    for name in ("reason", "product", "order"):
        if drafted.texts:
            rows[name] = _ids(rows[name], drafted.texts, lambda text: names.id("text", text))[rows[name]]
    rest = {(int(gateways[source]), sequence): more for (source, sequence), more in drafted.rest.items()}
    rows["machine"], rows["gateway"] = machines[rows["machine"]], gateways[rows["gateway"]]
    return Table(rows, rest)


def from_telemetry(records: Sequence[Telemetry], names: Names) -> Table:
    """Turn records into rows of the store, in the order given."""
    return placed(draft(records), names)


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
    order = by_machine_and_time(rows["machine"], rows["time_us"])
    if order is None:
        order = np.lexsort((rows["sequence"], rows["gateway"], rows["time_us"], rows["machine"]))
    return rows[order]


def counted(rows: Rows) -> list[NDArray[np.intp]]:
    """Return for each counter that rows tell where they do; what is of bad quality tells none."""
    believed = rows["quality"] != QUALITY_CODES["bad"]
    told = (np.flatnonzero(believed & (rows[name] >= 0)) for name in _COUNTERS)
    return [places for places in told if len(places)]


def _places(names: Iterable[Any]) -> tuple[list[Any], NDArray[np.int32]]:
    """Return the distinct names in the order of their first mention, and each name's place among them."""
    known: dict[Any, int] = {}
    places = [known.setdefault(name, len(known)) for name in names]
    return list(known), np.array(places, dtype=np.int32)


def _ids(places: NDArray[np.int32], named: Sequence[Any], id_of: Callable[[Any], int]) -> NDArray[np.int32]:
    """Return by place the integer of its name, ABSENT where no row has the place; and ABSENT for ABSENT."""
    ids = np.full(len(named) + 1, ABSENT, dtype=np.int32)
    for place in (np.flatnonzero(np.bincount(places + 1)) - 1).tolist():
        if place != ABSENT:
            ids[place] = id_of(named[place])
    return ids


def _is_all(values: list[Any], value: object) -> bool:
    """Tell whether values are all the same: in one quick pass where they are the same object."""
    return values.count(value) == len(values)


def _with_rest(records: Sequence[Telemetry]) -> list[int]:
    """Return the places of records that hold more than columns."""
    if set(map(type, records)) <= {Telemetry} and all(
        _is_all(values, UNSET)
        for values in (
            [record.tags for record in records],
            [record.operator for record in records],
            [record.status for record in records],
        )
    ):
        return []
    return [
        index
        for index, record in enumerate(records)
        if record.tags is not UNSET
        or record.operator is not UNSET
        or record.status is not UNSET
        or type(record) is ExtendedTelemetry
    ]


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
