"""The columns of the history's Parquet files, to and from rows of the store and records of the figures.

docs/history.md describes them for readers that are not ours. Within version 1 a column may be added, never
renamed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cloud.oee import records as record_format
from cloud.oee.columns import Codes, Floats, Indexes, Ints, firsts
from cloud.oee.records import NO_RATE, Records, ordered
from cloud.store import rows as row_format
from cloud.store.rows import ABSENT, QUALITIES, QUALITY_CODES, Rest, Rows, Table
from contract.machine_key import MachineKey
from contract.states import STATE_CODES, STATES_BY_CODE, MachineState

VERSION: Final = 1
_TEXT: Final = pa.dictionary(pa.int32(), pa.string())
_MOMENT: Final = pa.timestamp("us", "UTC")
_BAD: Final = QUALITY_CODES["bad"]

SCHEMA: Final = pa.schema(
    [
        pa.field("area", _TEXT, nullable=False),
        pa.field("line", _TEXT, nullable=False),
        pa.field("machine", _TEXT, nullable=False),
        pa.field("time", _MOMENT, nullable=False),
        pa.field("state", _TEXT, nullable=False),
        pa.field("total_units", pa.int64()),
        pa.field("off_quality_units", pa.int64()),
        pa.field("good_units", pa.int64()),
        pa.field("reason_code", _TEXT),
        pa.field("product", _TEXT),
        pa.field("order", _TEXT),
        pa.field("ideal_run_rate", pa.float64()),
        pa.field("data_quality", _TEXT, nullable=False),
        pa.field("gateway", _TEXT, nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("reason_is_number", pa.bool_()),
        pa.field("operator", _TEXT),
        pa.field("status", _TEXT),
        pa.field("tags", pa.string()),
        pa.field("extras", pa.string()),
        pa.field("gap_until", _MOMENT),
        pa.field("gap_cause", _TEXT),
    ],
    metadata={"oee_history_version": str(VERSION)},
)
TEXTS: Final = tuple(field.name for field in SCHEMA if field.type == _TEXT)
COUNTED: Final = ("time", "total_units", "off_quality_units", "good_units", "sequence")
"""Columns whose neighbours differ little, which their encoding makes use of."""
IDENTITY: Final = ("gateway", "sequence")
FOR_FIGURES: Final = (
    "area",
    "line",
    "machine",
    "time",
    "state",
    "total_units",
    "off_quality_units",
    "good_units",
    "reason_code",
    "product",
    "order",
    "ideal_run_rate",
    "data_quality",
)
"""What figures are made of, where no record stands twice."""
USUAL: Final = {"data_quality": "good"}
"""What a record means where the column is not there."""


# From rows of the store


def table_of(found: Table, names: row_format.Names) -> pa.Table:
    """Return rows, of one site, as a table of SCHEMA in the order given."""
    rows = found.rows
    machines = names.all("machine")
    gateways = names.all("gateway")
    texts = names.all("text")
    columns: dict[str, pa.Array] = {
        level: _dictionary(rows["machine"], [key[place] for key in machines])
        for place, level in ((1, "area"), (2, "line"), (3, "machine"))
    }
    columns["time"] = pa.array(rows["time_us"], pa.int64()).cast(_MOMENT)
    columns["state"] = _dictionary(rows["state"], [str(state) for state in STATES_BY_CODE])
    for name in ("total_units", "off_quality_units", "good_units"):
        columns[name] = pa.array(rows[name], pa.int64(), mask=rows[name] == ABSENT)
    numbered, reasons = _reasons(texts)
    columns["reason_code"] = _dictionary(rows["reason"], reasons)
    columns["product"] = _dictionary(rows["product"], texts)
    columns["order"] = _dictionary(rows["order"], texts)
    columns["ideal_run_rate"] = pa.array(rows["ideal_run_rate"], mask=np.isnan(rows["ideal_run_rate"]))
    columns["data_quality"] = _dictionary(rows["quality"], list(QUALITIES))
    columns["gateway"] = _dictionary(rows["gateway"], [gateway for _, gateway in gateways])
    columns["sequence"] = pa.array(rows["sequence"], pa.int64())
    columns["reason_is_number"] = pa.array(numbered[rows["reason"]], mask=rows["reason"] == ABSENT)
    return pa.table({**columns, **_rest_columns(found)}, schema=SCHEMA)


def _dictionary(indexes: npt.NDArray[Any], values: Sequence[str]) -> pa.DictionaryArray:
    """Return texts by index, null for ABSENT, with a dictionary of what is used."""
    used, inverse = np.unique(indexes, return_inverse=True)
    absent = int(len(used) > 0 and used[0] == ABSENT)
    places = pa.array((inverse - absent).astype(np.int32), mask=inverse < absent)
    return pa.DictionaryArray.from_arrays(
        places, pa.array([values[index] for index in used[absent:]], pa.string())
    )


def _reasons(names: Sequence[str]) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Return which texts of the store name a number, one more for ABSENT, and the codes as texts."""
    numbered = np.array([*(name.startswith("#") for name in names), False], dtype=np.bool_)
    return numbered, [name[1:] for name in names]


def _rest_columns(found: Table) -> dict[str, pa.Array]:
    keys = ("operator", "status", "tags", "extras", "to_epochtime", "cause")
    values: dict[str, list[Any]] = {key: [None] * len(found.rows) for key in keys}
    if found.rest:
        for place, identity in enumerate(zip(found.rows["gateway"], found.rows["sequence"], strict=True)):
            for key, value in found.rest.get((int(identity[0]), int(identity[1])), {}).items():
                values[key][place] = value
    as_json = {
        key: pa.array([None if value is None else json.dumps(value) for value in values[key]], pa.string())
        for key in ("tags", "extras")
    }
    until = [None if value is None else round(value * 1e6) for value in values["to_epochtime"]]
    return {
        "operator": pa.array(values["operator"], pa.string()).dictionary_encode(),
        "status": pa.array(values["status"], pa.string()).dictionary_encode(),
        **as_json,
        "gap_until": pa.array(until, pa.int64()).cast(_MOMENT),
        "gap_cause": pa.array(values["cause"], pa.string()).dictionary_encode(),
    }


# To rows of the store


def rows_of(table: pa.Table, site: str, names: row_format.Names) -> Table:
    """Return a table of SCHEMA as rows, in the order given."""
    rows = np.empty(len(table), dtype=row_format.ROW)
    rows["time_us"] = _ints(table, "time")
    rows["sequence"] = _ints(table, "sequence")
    for name in ("total_units", "off_quality_units", "good_units"):
        rows[name] = _ints(table, name)
    rows["ideal_run_rate"] = _floats(table, "ideal_run_rate", np.nan)
    rows["machine"] = _machines(table, lambda key: names.id("machine", (site, *key)))
    rows["gateway"] = _mapped(table, "gateway", lambda name: names.id("gateway", (site, name)))
    rows["product"] = _mapped(table, "product", lambda text: names.id("text", text))
    rows["order"] = _mapped(table, "order", lambda text: names.id("text", text))
    rows["reason"] = _reason_ids(table, names)
    rows["state"] = _mapped(table, "state", lambda text: STATE_CODES[MachineState(text)])
    rows["quality"] = _mapped(table, "data_quality", QUALITY_CODES.__getitem__)
    rows["is_gap"] = table["gap_until"].is_valid().to_numpy()
    rows["padding"] = 0
    return Table(rows, _rest_of(table, rows))


def _reason_ids(table: pa.Table, names: row_format.Names) -> Indexes:
    """Return the store's integers of reason codes, where a number is not the text that looks like it."""
    indexes, texts = _plain(table["reason_code"])
    numbered: npt.NDArray[np.bool_] = table["reason_is_number"].fill_null(False).to_numpy()
    used, inverse = np.unique(np.where(indexes < 0, ABSENT, indexes * 2 + numbered), return_inverse=True)
    ids = [
        ABSENT if code < 0 else names.id("text", ("#" if code % 2 else "'") + texts[code // 2])
        for code in used.tolist()
    ]
    return np.array(ids, dtype=np.int32)[inverse]


def _rest_of(table: pa.Table, rows: Rows) -> dict[tuple[int, int], Rest]:
    rest: dict[tuple[int, int], Rest] = {}
    columns: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
        ("operator", "operator", str),
        ("status", "status", str),
        ("tags", "tags", json.loads),
        ("extras", "extras", json.loads),
        ("gap_cause", "cause", str),
    )
    for name, key, read in columns:
        for place in np.flatnonzero(table[name].is_valid().to_numpy()):
            identity = (int(rows["gateway"][place]), int(rows["sequence"][place]))
            rest.setdefault(identity, {})[key] = read(table[name][int(place)].as_py())
    for place in np.flatnonzero(rows["is_gap"]):
        identity = (int(rows["gateway"][place]), int(rows["sequence"][place]))
        rest[identity]["to_epochtime"] = table["gap_until"][int(place)].value / 1e6
    return rest


# To records of the figures


def records_of(table: pa.Table, site: str, names: record_format.Names) -> Records:
    """Return a table with the columns FOR_FIGURES, sorted by machine and time, as records.

    A column that is not there tells nothing. Where the columns IDENTITY are missing, no record stands twice.
    """
    count = len(table)
    state: Codes = _mapped(table, "state", lambda text: STATE_CODES[MachineState(text)], kind=np.int8)
    known = "gateway" in table.column_names
    found = Records(
        machine=_machines(table, lambda key: names.machine(MachineKey(site, *key))),
        time_us=_ints(table, "time"),
        state=state,
        total=_ints(table, "total_units"),
        off=_ints(table, "off_quality_units"),
        good=_ints(table, "good_units"),
        reason=_mapped(table, "reason_code", names.text),
        product=_mapped(table, "product", names.text),
        order=_mapped(table, "order", names.text),
        rate=_floats(table, "ideal_run_rate", NO_RATE),
        gateway=_mapped(table, "gateway", lambda name: names.text(f"{site}/{name}"))
        if known
        else np.broadcast_to(np.int32(names.text(f"{site}/")), count),
        sequence=_ints(table, "sequence") if known else np.arange(count, dtype=np.int64),
    )
    quality: Codes = _mapped(table, "data_quality", QUALITY_CODES.__getitem__, kind=np.int8)
    if (bad := quality == _BAD).any():
        found = replace(
            found,
            state=np.where(bad, np.int8(record_format.UNKNOWN), found.state),
            **{
                name: np.where(bad, np.int64(ABSENT), getattr(found, name))
                for name in ("total", "off", "good")
            },
            reason=np.where(bad, np.int32(ABSENT), found.reason),
        )
    machine = found.machine
    if known and len(machine):
        return ordered(found, names, unique=True)
    return found if (machine[1:] >= machine[:-1]).all() else found.take(np.argsort(machine, kind="stable"))


# Columns as arrays


def _ints(table: pa.Table, name: str) -> Ints:
    """Return a column of whole numbers or moments, ABSENT for null."""
    column = _told(table, name)
    if column is None:
        return np.broadcast_to(np.int64(ABSENT), len(table))
    chunks = [
        chunk.view(pa.int64()).fill_null(ABSENT) if chunk.null_count else chunk.view(pa.int64())
        for chunk in column.chunks
    ]
    arrays: list[Ints] = [chunk.to_numpy(zero_copy_only=False) for chunk in chunks]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _told(table: pa.Table, name: str) -> pa.ChunkedArray | None:
    """Return a column, None where it is not there or tells nothing."""
    place = table.schema.get_field_index(name)
    if place < 0 or table.column(place).null_count == len(table):
        return None
    column = table.column(place)
    return column.dictionary_encode() if pa.types.is_string(column.type) else column


def _floats(table: pa.Table, name: str, missing: float) -> Floats:
    column = _told(table, name)
    if column is None:
        return np.broadcast_to(np.float64(missing), len(table))
    found: Floats = column.fill_null(missing).to_numpy()
    return found


def _mapped(
    table: pa.Table, name: str, of: Callable[[str], int], kind: type[np.signedinteger[Any]] = np.int32
) -> npt.NDArray[Any]:
    """Return what a function says of each text of a column, ABSENT for null."""
    column = _told(table, name)
    if column is None:
        return np.broadcast_to(kind(ABSENT), len(table))
    arrays: list[npt.NDArray[Any]] = []
    for chunk in column.chunks:
        values = [of(text) for text in chunk.dictionary.to_pylist()]
        if len(values) == 1 and not chunk.null_count:
            arrays.append(np.broadcast_to(kind(values[0]), len(chunk)))
        else:
            indexes = chunk.indices.fill_null(len(values)) if chunk.null_count else chunk.indices
            places = indexes.to_numpy(zero_copy_only=False)
            arrays.append(np.array([*values, ABSENT], dtype=kind).take(places))
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _machines(table: pa.Table, of: Callable[[tuple[str, str, str]], int]) -> Indexes:
    """Return the index of each row's machine; rows of one machine mostly stand together."""
    count = len(table)
    if not count:
        return np.empty(0, dtype=np.int32)
    columns = [_plain(table[level]) for level in ("area", "line", "machine")]
    new = np.zeros(count, dtype=np.bool_)
    for indexes, _ in columns:
        new |= firsts(indexes)
    begin = np.flatnonzero(new)
    keys = [tuple(texts[indexes[row]] for indexes, texts in columns) for row in begin]
    found: Mapping[Any, int] = {key: of(key) for key in dict.fromkeys(keys)}
    values = np.array([found[key] for key in keys], dtype=np.int32)
    return np.repeat(values, np.diff(np.append(begin, count)))


def _plain(column: pa.ChunkedArray) -> tuple[Indexes, list[str]]:
    """Return a column as indexes, ABSENT for null, into texts."""
    if pa.types.is_string(column.type):
        column = column.dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    indexes: Indexes = whole.indices.fill_null(ABSENT).to_numpy(zero_copy_only=False)
    return indexes, whole.dictionary.to_pylist()
