"""From timelines to sums of whole microseconds and units, per machine and window.

Totals add: those of a day are the sum of its shifts', those of a line the sum of its machines'. Units are
kept by their exact ideal cycle time, so that ideal time is exact too, and every ratio is made at the end.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from operator import add
from typing import Final, Literal, NamedTuple

import numpy as np

from cloud.oee import calendar, losses
from cloud.oee.columns import Flags, Indexes, Ints
from cloud.oee.corrections import (
    Correction,
    classified,
    counts_classified,
    counts_planned,
    with_off_quality,
    with_orders,
)
from cloud.oee.frame import NO_WINDOW, By, Frame, Window
from cloud.oee.losses import AVAILABILITY, BUCKETS, EXCLUDED, NO_DATA, PRODUCING, RUN, Cells, Policies
from cloud.oee.pieces import NEVER, Counts, Piece, Rules
from cloud.oee.records import NO_RATE, Names
from cloud.oee.timeline import close
from cloud.plant import Plant
from contract.machine_key import MachineKey

_Times = tuple[tuple[int, ...], int, int, int, int, int, int, int]
Split = Literal["none", "product", "order"]
_US_PER_MINUTE: Final = 60_000_000
_OPEN_END_US: Final = 2**62


class Units(NamedTuple):
    """[units] made at one ideal cycle time."""

    total: int = 0
    off: int = 0
    startup_off: int = 0
    """Off quality among `off` that was made in a start-up."""
    sure_total: int = 0
    """Made in the window for certain: not across unknown time that reaches beyond it."""
    sure_off: int = 0

    def plus(self, other: "Units") -> "Units":
        """Return the sums."""
        return Units(*map(add, self, other))


class Stops(NamedTuple):
    """Stops of one kind and reason."""

    time_us: int = 0
    times: int = 0

    def plus(self, other: "Stops") -> "Stops":
        """Return the sums."""
        return Stops(self.time_us + other.time_us, self.times + other.times)


@dataclass(frozen=True)
class Totals:
    """Sums that can be added: [us] of every bucket, [units] of every ideal cycle time."""

    buckets_us: tuple[int, ...] = (0,) * len(BUCKETS)
    """In the order of losses.BUCKETS; together the calendar time."""
    planned_us: int = 0
    """Planned production time."""
    run_us: int = 0
    """Its part that is no availability loss."""
    unknown_us: int = 0
    """Its part of which nothing is known."""
    last_unknown_us: int = 0
    """The part of unknown_us after which the first reading lies outside its window's planned time."""
    believed_us: int = 0
    """How long, before that part, the last state may have been believed after the last reading."""
    unplanned_running_us: int = 0
    failures: int = 0
    units: Mapping[Fraction, Units] = field(default_factory=dict)
    """By ideal cycle time [us/unit]."""
    unplanned_total: int = 0
    unplanned_off: int = 0
    stops: Mapping[tuple[str, str | None], Stops] = field(default_factory=dict)
    """By bucket and reason; no reason is None."""

    def __add__(self, other: "Totals") -> "Totals":
        return summed([self, other])

    @cached_property
    def calendar_us(self) -> int:
        """Return all time."""
        return sum(self.buckets_us)

    @cached_property
    def made(self) -> Units:
        """Return the units of all cycle times."""
        return _sum_of_units(self.units.values())

    @property
    def running_us(self) -> int:
        """Return the time in state running that counts."""
        return self.buckets_us[PRODUCING]


def summed(many: Sequence[Totals]) -> Totals:
    """Return the sums of totals, those of nothing for none."""
    if len(many) == 1:
        return many[0]
    units: dict[Fraction, list[Units]] = {}
    stops: dict[tuple[str, str | None], Stops] = {}
    for each in many:
        for cycle, made in each.units.items():
            units.setdefault(cycle, []).append(made)
        for cause, stood in each.stops.items():
            stops[cause] = stops[cause].plus(stood) if cause in stops else stood
    return Totals(
        buckets_us=tuple(map(sum, zip(*(each.buckets_us for each in many), strict=True)))
        or Totals.buckets_us,
        planned_us=sum([each.planned_us for each in many]),
        run_us=sum([each.run_us for each in many]),
        unknown_us=sum([each.unknown_us for each in many]),
        last_unknown_us=sum([each.last_unknown_us for each in many]),
        believed_us=sum([each.believed_us for each in many]),
        unplanned_running_us=sum([each.unplanned_running_us for each in many]),
        failures=sum([each.failures for each in many]),
        units={cycle: _sum_of_units(made) for cycle, made in units.items()},
        unplanned_total=sum([each.unplanned_total for each in many]),
        unplanned_off=sum([each.unplanned_off for each in many]),
        stops=stops,
    )


def _sum_of_units(many: Collection[Units]) -> Units:
    if len(many) == 1:
        return next(iter(many))
    return Units(*map(sum, zip(*many, strict=True)))


class Group(NamedTuple):
    """What one row of figures is of."""

    machine: MachineKey
    window: Window
    product: str | None = None
    order: str | None = None


@dataclass(frozen=True, eq=False)
class Timeline:
    """Everything known of machines over a range, ready to be summed over any windows of its frame."""

    cells: Cells
    counts: Counts
    frame: Frame
    policies: Policies


def timeline(
    piece: Piece,
    frame: Frame,
    plant: Plant,
    names: Names,
    *,
    until_us: int | None = None,
    rules: Rules | None = None,
    policies: Policies | None = None,
    corrections: Sequence[Correction] = (),
) -> Timeline:
    """Return the judged timeline of the frame's machines.

    piece: everything known of them, also before and after the frame: stops are judged by their whole length
    until_us: now, where the frame reaches into the future; time after it is in no figure
    rules, policies: those of the plant and names as they are now, where the caller has them already
    corrections: those in force, whose cuts and planned stops the frame has
    """
    rules = Rules.of(plant, names) if rules is None else rules
    policies = Policies.of(plant, names) if policies is None else policies
    from_us = int(piece.head.time_us.min(initial=frame.from_us))
    if until_us is None:
        until_us = int(piece.tail.time_us.max(initial=frame.to_us))
    segments, counts = close(piece, frame.machines, from_us, until_us, rules, frame.cuts)
    segments = losses.with_rules(segments, plant, names)
    if corrections:
        segments = with_orders(classified(segments, corrections, names), corrections, names)
        counts = counts_planned(counts_classified(counts, corrections, names), corrections, names)
        planned = losses.is_planned(counts, frame, policies)
        counts = with_off_quality(counts, planned, segments, corrections, names)
    judged = losses.judge(segments, policies)
    silent = (judged.unknown_until_us >= until_us) & (_heard_us(piece, names)[judged.machine] < until_us)
    judged = replace(judged, unknown_until_us=np.where(silent, _OPEN_END_US, judged.unknown_until_us))
    return Timeline(
        cells=losses.lay(judged, frame, policies),
        counts=counts,
        frame=frame,
        policies=policies,
    )


def _heard_us(piece: Piece, names: Names) -> Ints:
    """Return by machine when it was last heard, or NEVER."""
    heard = np.full(len(names.machines), NEVER, dtype=np.int64)
    for ends in (piece.head, piece.tail):
        np.maximum.at(heard, ends.machine, ends.time_us)
    return heard


def totals(
    whole: Timeline, plant: Plant, names: Names, *, by: By = "shift", split: Split = "none"
) -> dict[Group, Totals]:
    """Return the sums per machine and window, sorted; only of windows that any time is known of."""
    windows, window_of = whole.frame.windows(by)
    cells = whole.cells.take(window_of[whole.cells.interval] != NO_WINDOW)
    interval = whole.frame.intervals(whole.counts.machine, whole.counts.at_us)
    inside = (interval >= 0) & (window_of[interval] != NO_WINDOW)
    counts, interval = whole.counts.take(inside), interval[inside]
    keys = _Keys(len(windows), len(names.texts) + 1, split)
    cell_key = keys.of(cells.machine, window_of[cells.interval], cells.product, cells.order)
    count_key = keys.of(counts.machine, window_of[interval], counts.product, counts.order)
    groups = np.unique(np.concatenate([cell_key, count_key]))
    times = _times(cells, np.searchsorted(groups, cell_key), len(groups), whole, window_of)
    made, unplanned = _made(
        counts, interval, np.searchsorted(groups, count_key), whole, windows, window_of, plant, names
    )
    stops = _stops(cells, np.searchsorted(groups, cell_key), names)
    found = {}
    for row, (machine, window, product, order) in enumerate(zip(*keys.parts(groups), strict=True)):
        group = Group(
            names.machines[machine],
            windows[window],
            names.text_or_none(product) if split == "product" else None,
            names.text_or_none(order) if split == "order" else None,
        )
        found[group] = Totals(
            *times[row],
            made.get(row, {}),
            *unplanned.get(row, (0, 0)),
            stops.get(row, {}),
        )
    return found


class _Keys(NamedTuple):
    """Groups as single numbers."""

    windows: int
    texts: int
    split: Split

    def of(self, machine: Indexes, window: Indexes, product: Indexes, order: Indexes) -> Ints:
        text = {"none": np.zeros_like(product), "product": product + 1, "order": order + 1}[self.split]
        return (machine.astype(np.int64) * self.windows + window) * self.texts + text

    def parts(self, key: Ints) -> tuple[list[int], list[int], list[int], list[int]]:
        rest, text = np.divmod(key, self.texts)
        machine, window = np.divmod(rest, max(self.windows, 1))
        return machine.tolist(), window.tolist(), (text - 1).tolist(), (text - 1).tolist()


def _times(cells: Cells, group: Ints, groups: int, whole: Timeline, window_of: Indexes) -> list[_Times]:
    """Return by group the sums of time, in the order of the fields of Totals."""
    length = cells.end_us - cells.start_us

    def summed(mask: Flags) -> list[int]:
        return list(map(int, _sums(group[mask], length[mask], groups)))

    buckets = _sums(group * len(BUCKETS) + cells.kind, length, groups * len(BUCKETS)).reshape(
        groups, len(BUCKETS)
    )
    unknown = (cells.kind == NO_DATA) & (cells.role == AVAILABILITY)
    shows = whole.frame.intervals(cells.machine[unknown], cells.unknown_until_us[unknown] - 1)
    beyond = unknown.copy()
    beyond[unknown] = (
        (shows < 0)
        | (window_of[shows] != window_of[cells.interval[unknown]])
        | (whole.frame.category[shows] != calendar.PRODUCTION)
    )
    believed = np.zeros(groups, dtype=np.int64)
    believed[group[beyond]] = whole.policies.max_gap_us[cells.machine[beyond]]
    failures = np.bincount(group[cells.begins_failure & (cells.kind == losses.BREAKDOWN)], minlength=groups)
    columns = zip(
        buckets.tolist(),
        summed(cells.role != EXCLUDED),
        summed(cells.role == RUN),
        summed(unknown),
        summed(beyond),
        believed.tolist(),
        summed(cells.unplanned),
        failures.tolist(),
        strict=True,
    )
    return [
        (tuple(bucket), planned, run, dark, last, believed_us, unplanned, failed)
        for bucket, planned, run, dark, last, believed_us, unplanned, failed in columns
    ]


def _stops(cells: Cells, group: Ints, names: Names) -> dict[int, dict[tuple[str, str | None], Stops]]:
    """Return by group what stood why, for how long and how often."""
    lost = (cells.kind >= losses.PLANNED) & (cells.kind < NO_DATA)
    texts = len(names.texts) + 1
    key = (group * len(BUCKETS) + cells.kind) * texts + cells.reason + 1
    found, inverse = np.unique(key[lost], return_inverse=True)
    time_us = _sums(inverse, (cells.end_us - cells.start_us)[lost], len(found))
    count = np.bincount(inverse[cells.begins_stop[lost]], minlength=len(found))
    result: dict[int, dict[tuple[str, str | None], Stops]] = {}
    for number, stood_us, stood in zip(found.tolist(), time_us.tolist(), count.tolist(), strict=True):
        rest, text = divmod(number, texts)
        row, kind = divmod(rest, len(BUCKETS))
        reason = names.text_or_none(text - 1)
        result.setdefault(row, {})[BUCKETS[kind], reason] = Stops(stood_us, stood)
    return result


def _made(
    counts: Counts,
    interval: Ints,
    group: Ints,
    whole: Timeline,
    windows: Sequence[Window],
    window_of: Indexes,
    plant: Plant,
    names: Names,
) -> tuple[dict[int, dict[Fraction, Units]], dict[int, tuple[int, int]]]:
    """Return by group the planned units of each cycle time, and the unplanned (total, off quality)."""
    planned = losses.is_planned(counts, whole.frame, whole.policies)
    window = window_of[interval]
    starts = np.array([window.start_us for window in windows], dtype=np.int64)[window]
    ends = np.array([window.end_us for window in windows], dtype=np.int64)[window]
    sure = (counts.since_us == NEVER) | (
        (counts.since_us >= starts)
        & (counts.until_us <= ends)
        & _is_production_throughout(counts, whole.frame)
    )
    startup_off = np.where(counts.startup, counts.off, 0)
    # One number per group, which is of one machine, and circumstances that decide the cycle time.
    rate, rate_index = np.unique(counts.rate, return_inverse=True)
    texts = len(names.texts) + 1
    key = ((group * texts + counts.product + 1) * len(rate) + rate_index)[planned]
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    columns = [
        column[planned][first].tolist() for column in (group, counts.machine, counts.product, rate_index)
    ]
    columns += [
        _sums(inverse, column[planned], len(first)).tolist()
        for column in (
            counts.total,
            counts.off,
            startup_off,
            np.where(sure, counts.total, 0),
            np.where(sure, counts.off, 0),
        )
    ]
    cycles: dict[tuple[int, int, int], Fraction] = {}
    made: dict[int, dict[Fraction, Units]] = {}
    for row, machine, product, told, *units in zip(*columns, strict=True):
        case = (machine, product, told)
        if case not in cycles:
            cycles[case] = _cycle_us(plant, names, machine, product, float(rate[told]))
        cycle, of_group = cycles[case], made.setdefault(row, {})
        before = of_group.get(cycle)
        of_group[cycle] = Units(*units) if before is None else before.plus(Units(*units))
    rows, place = np.unique(group[~planned], return_inverse=True)
    total = _sums(place, counts.total[~planned], len(rows)).tolist()
    off = _sums(place, counts.off[~planned], len(rows)).tolist()
    return made, dict(zip(rows.tolist(), zip(total, off, strict=True), strict=True))


def _is_production_throughout(counts: Counts, frame: Frame) -> Flags:
    """Return for which rows nothing but production is planned from the earlier reading to the later one."""
    unplanned = frame.category != calendar.PRODUCTION
    before = np.append(0, np.cumsum(unplanned))
    first = frame.intervals(counts.machine, counts.since_us)
    last = frame.intervals(counts.machine, counts.until_us - 1)
    throughout: Flags = (first >= 0) & (last >= 0) & (before[last + 1] == before[first])
    return throughout


def _cycle_us(plant: Plant, names: Names, machine: int, product: int, rate: float) -> Fraction:
    """Return the ideal cycle time [us/unit]: of the telemetry, else of the product, else of the machine."""
    found = plant.machines[names.machines[machine]]
    if rate != NO_RATE and found.definitions.ideal_rate == "telemetry":
        return _US_PER_MINUTE / Fraction(repr(rate))
    return found.cycle_us(names.text_or_none(product))


def _sums(group: Ints, values: Ints, groups: int) -> Ints:
    found = np.zeros(groups, dtype=np.int64)
    np.add.at(found, group, values)
    return found
