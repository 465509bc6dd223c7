"""What a timeline is made of, and the rules by which records are read into it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeVar, get_type_hints

import numpy as np
import numpy.typing as npt

from cloud.oee.columns import Codes, Columns, Flags, Floats, Indexes, Ints, firsts
from cloud.oee.records import Names
from cloud.plant import Machine, Plant

NEVER: Final = -1
"""In a column of instants: no such moment."""
EVERY: Final = -1
"""The role of a record that was not taken apart yet."""
STATE, TOTAL, OFF, GOOD, TOTAL_AND_GOOD = range(5)
"""The roles of a record: what it tells of the state, and of each counter or pair of them."""
Table = TypeVar("Table", bound=Columns)


@dataclass(frozen=True, eq=False)
class Segments(Columns):
    """Stretches [start_us, end_us) of equal state, sorted by (machine, start_us), without overlaps."""

    machine: Indexes
    start_us: Ints
    end_us: Ints
    state: Codes
    reason: Indexes
    product: Indexes
    order: Indexes


@dataclass(frozen=True, eq=False)
class Counts(Columns):
    """What was made, one row per machine, interval between edges and circumstances; sorted by machine."""

    machine: Indexes
    at_us: Ints
    """The edge at which the interval begins."""
    state: Codes
    """What the machine did meanwhile; unknown when part of the time was."""
    reason: Indexes
    product: Indexes
    order: Indexes
    rate: Floats
    startup: Flags
    """Whether it was made within startup_us of a start-up, or in a changeover."""
    since_us: Ints
    """The earlier reading, where part of the time was unknown or the row is to be spread; else NEVER."""
    until_us: Ints
    """The later reading, where there is an earlier one; else NEVER."""
    spread: Flags
    """Whether it is still to be spread over the intervals between the two readings."""
    total: Ints
    off: Ints
    """[units] off quality among the total."""


@dataclass(frozen=True, eq=False)
class Anchors(Columns):
    """The ends of a piece: records in the roles in which they matter to its neighbours, sorted by machine.

    Roles are the machine's state and each of its counters; they have ends of their own, because a record need
    not tell all counters.
    """

    machine: Indexes
    time_us: Ints
    state: Codes
    total: Ints
    off: Ints
    good: Ints
    reason: Indexes
    product: Indexes
    order: Indexes
    rate: Floats
    role: Codes
    """The role of the row; `EVERY` of a plain record."""
    known: Flags
    """Whether everything before it in its role is taken into account: so in a tail, not in a head."""
    raw: Flags
    """Whether its state is as told, and may yet be changed by what came before."""
    bridged: Flags
    """Whether records were left out between this row and the next that only repeat this one."""
    dark: Ints
    """How many stretches of unknown time lie between the piece's end in the role of the state and this row,
    negative where it is before; in the tail's row of the state: how many there are in the piece's body."""
    stop_since_us: Ints
    """In a tail's row of the state: when the known stop began that still goes on, or NEVER."""
    started_us: Ints
    """When the machine last started up at or before this row, or NEVER."""


@dataclass(frozen=True, eq=False)
class Rules:
    """How records are read, by machine index."""

    max_gap_us: Ints
    hold: Flags
    jitter: Ints
    modulus: Ints
    proportional: Flags
    startup_us: Ints
    startup_stop_us: Ints
    """How long a stop is at least that a start-up follows."""

    @classmethod
    def of(cls, plant: Plant, names: Names) -> "Rules":
        """Return the rules of every machine of the names; one that is not in the plant has the defaults."""
        machines = [plant.machines.get(key) for key in names.machines]

        def ints(default: int, of: Callable[[Machine], int]) -> Ints:
            return np.array([default if item is None else of(item) for item in machines], dtype=np.int64)

        return cls(
            max_gap_us=ints(30_000_000, lambda item: item.definitions.max_gap_us),
            hold=ints(0, lambda item: item.definitions.unknown_time == "hold").astype(np.bool_),
            jitter=ints(0, lambda item: item.counter_jitter),
            modulus=ints(2**32, lambda item: 2**item.counter_bits if item.counter_bits < 63 else 0),
            proportional=ints(
                0, lambda item: item.definitions.counts_between_samples == "proportional"
            ).astype(np.bool_),
            startup_us=ints(0, lambda item: item.definitions.startup_us),
            startup_stop_us=ints(0, lambda item: item.definitions.small_stop_us),
        )


@dataclass(frozen=True, eq=False)
class Cuts:
    """Where counts are cut, by machine index: machines with the same edges share them."""

    edges: tuple[Ints, ...]
    of_machine: Indexes
    """Index into edges."""

    @classmethod
    def same(cls, edges: Ints, machines: int) -> "Cuts":
        """Return the same edges for a number of machines."""
        return cls((edges,), np.zeros(machines, dtype=np.int32))


@dataclass(frozen=True, eq=False)
class Piece:
    """The timeline of a stretch of records of any machines."""

    head: Anchors
    """For each role, the first records until nothing before them can change what follows: normally one."""
    segments: Segments
    """From the last record of the state's head to the last record."""
    counts: Counts
    """What was made after the last reading of each counter's head."""
    tail: Anchors
    """The last record in each role; none where what came before the piece still matters at its end."""


def merged_segments(parts: Sequence[Segments]) -> Segments:
    """Return the segments of parts that do not overlap, sorted, neighbours of equal state made one."""
    whole = stacked(parts)
    whole = whole.take(whole.end_us > whole.start_us)
    if not len(whole):
        return whole
    new = firsts(whole.machine)
    if not (new[1:] | (whole.start_us[1:] > whole.start_us[:-1])).all():
        whole = whole.take(np.lexsort((whole.start_us, whole.machine)))
        new = firsts(whole.machine)
    for column in (whole.state, whole.reason, whole.product, whole.order):
        new[1:] |= column[1:] != column[:-1]
    new[1:] |= whole.start_us[1:] != whole.end_us[:-1]
    begin = np.flatnonzero(new)
    return replace(whole.take(begin), end_us=whole.end_us[np.append(begin[1:], len(whole)) - 1])


def merged_counts(parts: Sequence[Counts]) -> Counts:
    """Return the sums of rows of equal circumstances, sorted by machine."""
    whole = stacked(parts)
    if not len(whole):
        return whole
    keys = [column for name, column in whole.columns() if name not in ("total", "off")]
    order = np.lexsort((_fingerprint(keys), whole.machine))
    new = np.zeros(len(whole), dtype=np.bool_)
    new[0] = True
    for key in keys:
        column = key[order]
        new[1:] |= column[1:] != column[:-1]
    begin = np.flatnonzero(new)
    return replace(
        whole.take(order[begin]),
        total=np.add.reduceat(whole.total[order], begin),
        off=np.add.reduceat(whole.off[order], begin),
    )


def _fingerprint(columns: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.uint64]:
    """Return a number per row that is equal for equal rows; should others share it, they are kept apart."""
    mixed = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        bits = column.view(np.uint64) if column.dtype == np.float64 else column.astype(np.uint64)
        mixed ^= bits
        mixed *= _ODD
        mixed ^= mixed >> np.uint64(29)
    return mixed


def stacked(tables: Sequence[Table]) -> Table:
    """Return the rows of all tables, sorted by machine; a machine's rows stay in the order of the tables."""
    filled = [table for table in tables if len(table)] or tables[:1]
    whole = type(filled[0]).concatenate(filled)
    machine: Indexes = dict(whole.columns())["machine"]
    if len(filled) == 1 or (machine[1:] >= machine[:-1]).all():
        return whole
    return whole.take(np.argsort(machine, kind="stable"))


def _no_rows(table: type[Table]) -> Table:
    types = get_type_hints(table)
    kinds = {Indexes: np.int32, Ints: np.int64, Codes: np.int8, Flags: np.bool_, Floats: np.float64}
    return table(**{field.name: np.empty(0, dtype=kinds[types[field.name]]) for field in fields(table)})


_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
"""Spreads bits: 2^64 divided by the golden ratio."""
NOTHING: Final = Piece(_no_rows(Anchors), _no_rows(Segments), _no_rows(Counts), _no_rows(Anchors))
"""The piece of no records."""
