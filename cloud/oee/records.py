"""Telemetry as columns: one row per machine and moment, in the one order that every calculation uses."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from msgspec import UNSET

from cloud.oee.columns import Codes, Columns, Floats, Indexes, Ints, by_machine_and_time
from contract.delivery import Gap
from contract.machine_key import MachineKey
from contract.states import STATE_CODES, MachineState
from contract.telemetry import Telemetry, epoch_us

ABSENT: Final = -1
"""In a column of counters or indexes: the record does not say."""
NO_RATE: Final = 0.0

RUNNING: Final = STATE_CODES[MachineState.RUNNING]
IDLE: Final = STATE_CODES[MachineState.IDLE]
STOPPED: Final = STATE_CODES[MachineState.STOPPED]
FAULTED: Final = STATE_CODES[MachineState.FAULTED]
CHANGEOVER: Final = STATE_CODES[MachineState.CHANGEOVER]
PLANNED_STOP: Final = STATE_CODES[MachineState.PLANNED_STOP]
UNKNOWN: Final = STATE_CODES[MachineState.UNKNOWN]


@dataclass(eq=False)
class Names:
    """Machines and texts by index. Only ever appended to, so that an index once given stays valid."""

    machines: list[MachineKey] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """Reasons, products, orders and gateways."""
    _machine_index: dict[MachineKey, int] = field(default_factory=dict, repr=False)
    _text_index: dict[str, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._machine_index.update((key, index) for index, key in enumerate(self.machines))
        self._text_index.update((text, index) for index, text in enumerate(self.texts))

    def machine(self, key: MachineKey) -> int:
        """Return the machine's index, a new one at its first mention."""
        index = self._machine_index.setdefault(key, len(self.machines))
        if index == len(self.machines):
            self.machines.append(key)
        return index

    def text(self, text: str) -> int:
        """Return the text's index, a new one at its first mention."""
        index = self._text_index.setdefault(text, len(self.texts))
        if index == len(self.texts):
            self.texts.append(text)
        return index

    def text_or_none(self, index: int) -> str | None:
        """Return the text at an index, None for ABSENT."""
        return None if index == ABSENT else self.texts[index]


@dataclass(frozen=True, eq=False)
class Records(Columns):
    """Records sorted by (machine, time, gateway, sequence), each (gateway, sequence) once."""

    machine: Indexes
    time_us: Ints
    state: Codes
    """What the machine does from this moment on, as in contract.states; unknown where the reading was bad."""
    total: Ints
    """Cumulative counter, ABSENT where the record has none; so are off and good."""
    off: Ints
    good: Ints
    reason: Indexes
    """Index of the PLC's reason code as text, or ABSENT; so are product and order."""
    product: Indexes
    order: Indexes
    rate: Floats
    """[units/min] ideal run rate that the record tells, or NO_RATE."""
    gateway: Indexes
    """Index of `site/gateway`."""
    sequence: Ints


def empty() -> Records:
    """Return no records."""
    return from_telemetry([], Names())


def from_telemetry(items: Sequence[Telemetry | Gap], names: Names) -> Records:
    """Return the records of telemetry and gaps in any order, repeated or not."""
    return ordered(unordered(items, names), names)


def unordered(items: Sequence[Telemetry | Gap], names: Names) -> Records:
    """Return rows as they come, for `merged` to put in order.

    A gap is a moment from which on the state is unknown. So is telemetry of bad quality, whose counters are
    not believed.
    """
    said = [item for item in items if isinstance(item, Telemetry)]
    gaps = [item for item in items if isinstance(item, Gap)]
    quiet = len(gaps)
    state = np.array([STATE_CODES[item.state] for item in said] + [UNKNOWN] * quiet, dtype=np.int8)
    bad = np.array([item.data_quality == "bad" for item in said] + [True] * quiet, dtype=np.bool_)
    total = _counter([item.total_units for item in said], quiet)
    off = _counter([item.off_quality_units for item in said], quiet)
    good = _counter([item.good_units for item in said], quiet)
    for counter in (total, off, good):
        counter[bad] = ABSENT
    reason = _texts([item.reason_code for item in said], quiet, names)
    reason[bad] = ABSENT
    every: list[Telemetry | Gap] = [*said, *gaps]
    return Records(
        machine=np.array([names.machine(item.machine_key) for item in every], dtype=np.int32),
        time_us=np.array(
            [item.epoch_us for item in said] + [epoch_us(item.from_epochtime) for item in gaps],
            dtype=np.int64,
        ),
        state=np.where(bad, np.int8(UNKNOWN), state),
        total=total,
        off=off,
        good=good,
        reason=reason,
        product=_texts([item.product for item in said], quiet, names),
        order=_texts([item.order for item in said], quiet, names),
        rate=np.array(
            [NO_RATE if item.ideal_run_rate is UNSET else item.ideal_run_rate for item in said]
            + [NO_RATE] * quiet,
            dtype=np.float64,
        ),
        gateway=np.array([names.text(f"{item.site}/{item.gateway}") for item in every], dtype=np.int32),
        sequence=np.array([item.sequence for item in every], dtype=np.int64),
    )


def ordered(records: Records, names: Names, *, unique: bool = False) -> Records:
    """Return the records in their order, each once.

    unique: whether the caller knows that no (gateway, sequence) stands twice
    """
    if unique and (order := by_machine_and_time(records.machine, records.time_us)) is not None:
        return records.take(order)
    rank = _ranks(names, records.gateway)
    if not unique:
        keep = _once(records, rank, names)
        records, rank = records.take(keep), rank[keep]
    return records.take(np.lexsort((records.sequence, rank, records.time_us, records.machine)))


def merged(parts: Sequence[Records], names: Names) -> Records:
    """Return the rows of several tables as records."""
    return ordered(Records.concatenate(parts), names) if parts else empty()


def _counter(values: Iterable[object], quiet: int) -> Ints:
    return np.array(
        [ABSENT if value is UNSET else value for value in values] + [ABSENT] * quiet, dtype=np.int64
    )


def _texts(values: Iterable[object], quiet: int, names: Names) -> Indexes:
    return np.array(
        [ABSENT if value is UNSET else names.text(str(value)) for value in values] + [ABSENT] * quiet,
        dtype=np.int32,
    )


def _ranks(names: Names, indexes: Indexes) -> Ints:
    """Return what sorts the texts as texts: indexes depend on the order of arrival, and so may no figure."""
    used, inverse = np.unique(indexes, return_inverse=True)
    by_text = sorted(range(len(used)), key=lambda place: names.texts[used[place]])
    rank = np.empty(len(used), dtype=np.int64)
    rank[by_text] = np.arange(len(used))
    return rank[inverse]


def _once(records: Records, rank: Ints, names: Names) -> Ints:
    """Return the positions of the records to keep: of repeated ones, whichever is least by its content."""
    order = np.lexsort((records.sequence, rank))
    same = np.zeros(len(order), dtype=np.bool_)
    same[1:] = (np.diff(rank[order]) == 0) & (np.diff(records.sequence[order]) == 0)
    if not same.any():
        return order
    differs = np.zeros(len(order), dtype=np.bool_)
    for _, column in records.columns():
        sorted_column = column[order]
        differs[1:] |= same[1:] & (sorted_column[1:] != sorted_column[:-1])
    group = np.cumsum(~same) - 1
    keep = order[~same]
    for number in np.unique(group[differs]):
        rivals = order[group == number]
        keep[number] = min(rivals, key=lambda row: _content(records, int(row), names))
    return keep


def _content(records: Records, row: int, names: Names) -> tuple[object, ...]:
    texts = {"reason", "product", "order", "gateway"}
    return tuple(
        names.machines[column[row]]
        if name == "machine"
        else (names.text_or_none(int(column[row])) or "")
        if name in texts
        else column[row].item()
        for name, column in records.columns()
    )
