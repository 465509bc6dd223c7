"""Every stretch of time in exactly one bucket of the time-loss tree.

A segment is first judged by itself and its whole length (what kind of loss it is, which factor it counts in),
wherever the calendar's windows begin and end; then it is laid over the calendar, which has the last word
outside planned production time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cloud.oee import calendar
from cloud.oee.columns import Codes, Columns, Flags, Indexes, Ints, firsts
from cloud.oee.frame import Frame
from cloud.oee.pieces import Counts, Segments
from cloud.oee.records import (
    ABSENT,
    CHANGEOVER,
    FAULTED,
    IDLE,
    PLANNED_STOP,
    RUNNING,
    STOPPED,
    UNKNOWN,
    Names,
)
from cloud.plant import Definitions, Machine, Plant, Reason
from cloud.plant_tables import microseconds
from contract.states import STATES_BY_CODE

BUCKETS: Final = (
    "not_scheduled",
    "break",
    "planned_stop",
    "changeover",
    "breakdown",
    "other_stop",
    "idle",
    "small_stops",
    "no_data",
    "running",
)
"""Kinds of time by their code. `running` is split further by what was made in it."""
(
    NOT_SCHEDULED,
    BREAK,
    PLANNED,
    CHANGING_OVER,
    BREAKDOWN,
    OTHER_STOP,
    IDLING,
    SMALL_STOPS,
    NO_DATA,
    PRODUCING,
) = range(len(BUCKETS))

EXCLUDED: Final = 0
"""Outside planned production time."""
AVAILABILITY: Final = 1
"""In planned production time, not in run time."""
RUN: Final = 2
"""In run time."""

_LEAST_REACH_US: Final = 3_600_000_000
_NO_KIND: Final = -1
_NO_ROLE: Final = -1
_KIND_OF_STATE: Final = {
    RUNNING: PRODUCING,
    IDLE: IDLING,
    STOPPED: OTHER_STOP,
    FAULTED: BREAKDOWN,
    CHANGEOVER: CHANGING_OVER,
    PLANNED_STOP: PLANNED,
    UNKNOWN: NO_DATA,
}
_KIND_OF_CATEGORY: Final = {
    "breakdown": BREAKDOWN,
    "changeover": CHANGING_OVER,
    "planned": PLANNED,
    "idle": IDLING,
    "small_stop": SMALL_STOPS,
    "other_stop": OTHER_STOP,
}
_ROLES: Final = {"excluded": EXCLUDED, "availability": AVAILABILITY, "performance": RUN}
_MAY_BE_SMALL: Final = (BREAKDOWN, OTHER_STOP, IDLING)


@dataclass(frozen=True, eq=False)
class Policies:
    """What the definitions say of every kind of time, by machine index."""

    role: npt.NDArray[np.int8]
    """[machine, kind] which factor the kind counts in."""
    small_stop_us: Ints
    max_gap_us: Ints
    breaks_are_loss: Flags
    unplanned_included: Flags
    reason_kind: npt.NDArray[np.int8]
    """[site, text] the kind that a reason makes of a stop, or -1; likewise its role."""
    reason_role: npt.NDArray[np.int8]
    reason_text: npt.NDArray[np.int32]
    """[site, text] the index of the reason's key for every code that means it; else of the text itself."""
    site: Indexes

    @classmethod
    def of(cls, plant: Plant, names: Names) -> "Policies":
        """Return the policies of all machines of the names; one that is not in the plant has the defaults."""
        machines = [plant.machines.get(key) for key in names.machines]
        standard = Definitions()

        def each(of: Callable[[Definitions], int]) -> Ints:
            return np.array(
                [of(standard if item is None else item.definitions) for item in machines], dtype=np.int64
            )

        sites = list(plant.sites)
        for site in plant.sites.values():
            for key in site.reasons:
                names.text(key)
        kind = np.full((len(sites) + 1, len(names.texts)), _NO_KIND, dtype=np.int8)
        role = np.full(kind.shape, _NO_ROLE, dtype=np.int8)
        text = np.tile(np.arange(len(names.texts), dtype=np.int32), (len(sites) + 1, 1))
        for row, site in enumerate(plant.sites.values()):
            for column, reason in _reasons_of_texts(site.reasons_by_code, names.texts):
                kind[row, column] = _KIND_OF_CATEGORY[reason.category]
                text[row, column] = names.text(reason.key)
                if reason.counts_in is not None:
                    role[row, column] = _ROLES[reason.counts_in]
        return cls(
            role=np.array(
                [_roles(standard if item is None else item.definitions) for item in machines], dtype=np.int8
            ).reshape(len(machines), len(BUCKETS)),
            small_stop_us=each(lambda definitions: definitions.small_stop_us),
            max_gap_us=each(lambda definitions: definitions.max_gap_us),
            breaks_are_loss=each(lambda definitions: definitions.breaks == "loss").astype(np.bool_),
            unplanned_included=each(
                lambda definitions: definitions.unplanned_production == "included"
            ).astype(np.bool_),
            reason_kind=kind,
            reason_role=role,
            reason_text=text,
            site=np.array(
                [sites.index(key.site) if key.site in plant.sites else len(sites) for key in names.machines],
                dtype=np.int32,
            ),
        )


@dataclass(frozen=True, eq=False)
class Judged(Columns):
    """Segments with what kind of time they are, judged by their whole length; cut nowhere yet."""

    machine: Indexes
    start_us: Ints
    end_us: Ints
    state: Codes
    reason: Indexes
    """Index of the reason's key, of the PLC's own code where none means it, or ABSENT."""
    product: Indexes
    order: Indexes
    kind: Codes
    role: Codes
    own_reason: Flags
    """Whether the stop has a reason that the plant knows."""
    stop: Ints
    """Equal for the parts of one stop of one kind and reason; small stops are one whatever their reasons."""
    failure: Ints
    """Equal for neighbours of one kind."""
    unknown_until_us: Ints
    """Where the state is unknown: until when it goes on to be so; far in the future where nothing ends it."""


@dataclass(frozen=True, eq=False)
class Cells(Columns):
    """Judged segments laid over the calendar: no cell crosses an edge."""

    machine: Indexes
    start_us: Ints
    end_us: Ints
    interval: Ints
    """Index into the frame's intervals."""
    state: Codes
    reason: Indexes
    product: Indexes
    order: Indexes
    kind: Codes
    """The bucket, as the calendar leaves it."""
    role: Codes
    begins_stop: Flags
    """Whether a stop is counted here: in the first of its cells that the calendar leaves to it."""
    begins_failure: Flags
    unplanned: Flags
    """Whether the machine ran although nothing was planned."""
    unknown_until_us: Ints


def reach_us(plant: Plant) -> int:
    """Return how far beyond a range records can change what is in it: what is longer is judged alike."""
    lengths = [_LEAST_REACH_US]
    for machine in plant.machines.values():
        said = machine.definitions
        lengths.append(said.max_gap_us + said.startup_us + said.small_stop_us)
    for site in plant.sites.values():
        lengths += [
            microseconds(secs)
            for rule in site.rules
            for secs in (rule.at_least_secs, rule.below_secs)
            if secs is not None
        ]
    return max(lengths)


def judge(segments: Segments, policies: Policies) -> Judged:
    """Return what kind of time each segment is."""
    machine, state = segments.machine, segments.state
    said = segments.reason != ABSENT
    site, text = policies.site[machine], np.where(said, segments.reason, 0)
    stands = (state != RUNNING) & (state != UNKNOWN)
    known_kind = np.where(said & stands, _looked_up(policies.reason_kind, site, text, _NO_KIND), _NO_KIND)
    known_role = np.where(said & stands, _looked_up(policies.reason_role, site, text, _NO_ROLE), _NO_ROLE)
    reason = np.where(said, _looked_up(policies.reason_text, site, text, ABSENT), ABSENT).astype(np.int32)
    kind = np.where(known_kind != _NO_KIND, known_kind, _kinds_of_states()[state]).astype(np.int8)
    role = np.where(known_role != _NO_ROLE, known_role, policies.role[machine, kind]).astype(np.int8)
    may_be_small = np.isin(kind, _MAY_BE_SMALL) & (role != EXCLUDED)
    episode = _runs(segments, may_be_small)
    length = np.bincount(episode, weights=segments.end_us - segments.start_us).astype(np.int64)[episode]
    small = may_be_small & (length < policies.small_stop_us[machine])
    kind[small] = SMALL_STOPS
    role[small] = policies.role[machine[small], SMALL_STOPS]
    dark = _runs(segments, state == UNKNOWN)
    last = np.zeros(int(dark[-1]) + 1 if len(dark) else 0, dtype=np.int64)
    last[dark] = segments.end_us
    failure = _runs(segments, kind)
    return Judged(
        machine=machine,
        start_us=segments.start_us,
        end_us=segments.end_us,
        state=state,
        reason=reason,
        product=segments.product,
        order=segments.order,
        kind=kind,
        role=role,
        own_reason=known_kind != _NO_KIND,
        stop=_runs(segments, kind, np.where(small, ABSENT, reason)),
        failure=failure,
        unknown_until_us=np.where(state == UNKNOWN, last[dark], 0),
    )


def lay(judged: Judged, frame: Frame, policies: Policies) -> Cells:
    """Return the judged segments cut at the frame's edges, with the calendar's word on each part."""
    row, interval = _crossed(judged, frame)
    whole = judged.take(row)
    category = frame.category[interval]
    kind, role, reason = whole.kind.copy(), whole.role.copy(), whole.reason.copy()
    _take_scheduled_reasons(whole, frame, interval, policies, kind, role, reason)
    own = category == calendar.PRODUCTION
    in_break = (category == calendar.BREAK) & policies.breaks_are_loss[whole.machine]
    lost = in_break & (kind != PRODUCING) & (kind != NO_DATA) & (role != EXCLUDED)
    kind[lost], role[lost] = BREAK, AVAILABILITY
    outside = ~own & ~in_break
    included = outside & (kind == PRODUCING) & policies.unplanned_included[whole.machine]
    away = outside & ~included
    ran = away & (kind == PRODUCING)
    kind[away] = _KIND_OF_CALENDAR[category[away]]
    role[away] = EXCLUDED
    scheduled = away & (category == calendar.PLANNED_STOP)
    _name_planned_stops(whole, frame, interval, scheduled, reason)
    counted = own | (in_break & ~lost)
    return Cells(
        machine=whole.machine,
        start_us=np.maximum(whole.start_us, frame.start_us[interval]),
        end_us=np.minimum(whole.end_us, frame.end_us[interval]),
        interval=interval,
        state=whole.state,
        reason=reason,
        product=whole.product,
        order=whole.order,
        kind=kind,
        role=role,
        begins_stop=_first_of(whole.stop, counted)
        | _first_of(_planned_stops(whole.machine, frame, interval), scheduled),
        begins_failure=_first_of(whole.failure, counted),
        unplanned=ran,
        unknown_until_us=whole.unknown_until_us,
    )


def is_planned(counts: Counts, frame: Frame, policies: Policies) -> Flags:
    """Return which counts were made in planned production time, or count as if they were."""
    interval = frame.intervals(counts.machine, counts.at_us)
    machine, said = counts.machine, counts.reason != ABSENT
    site, text = policies.site[machine], np.where(said, counts.reason, 0)
    stands = said & (counts.state != RUNNING) & (counts.state != UNKNOWN)
    known_kind = np.where(stands, _looked_up(policies.reason_kind, site, text, _NO_KIND), _NO_KIND)
    known_role = np.where(stands, _looked_up(policies.reason_role, site, text, _NO_ROLE), _NO_ROLE)
    kind = np.where(known_kind != _NO_KIND, known_kind, _kinds_of_states()[counts.state])
    role = np.where(known_role != _NO_ROLE, known_role, policies.role[machine, kind])
    category = frame.category[interval]
    scheduled = (category == calendar.PRODUCTION) | (
        (category == calendar.BREAK) & policies.breaks_are_loss[machine]
    )
    left_out = (counts.state == UNKNOWN) & (role == EXCLUDED)
    planned: Flags = (scheduled & (role != EXCLUDED)) | (policies.unplanned_included[machine] & ~left_out)
    planned &= interval >= 0
    return planned


def with_rules(segments: Segments, plant: Plant, names: Names) -> Segments:
    """Return the segments with the reasons that rules give to stops, judged by their whole length."""
    ruled = [index for index, key in enumerate(names.machines) if _has_rules(plant.machines.get(key))]
    stands = np.isin(segments.machine, ruled) & (segments.state != RUNNING) & (segments.state != UNKNOWN)
    if not stands.any():
        return segments
    stop = _runs(segments, stands, segments.state, segments.reason)
    reason = segments.reason.copy()
    begin = np.flatnonzero(stands & np.append(True, stop[1:] != stop[:-1]))
    bound = np.searchsorted(stop, stop[begin], side="right")
    for first, end in zip(begin.tolist(), bound.tolist(), strict=True):
        key = names.machines[segments.machine[first]]
        found = plant.machines[key].site.reason_by_rule(
            key,
            STATES_BY_CODE[segments.state[first]],
            names.text_or_none(int(segments.reason[first])),
            int(segments.start_us[first]),
            int(segments.end_us[end - 1] - segments.start_us[first]),
        )
        if found is not None:
            reason[first:end] = names.text(found.key)
    return Segments(
        **{**dict(segments.columns()), "reason": reason},
    )


def _has_rules(machine: Machine | None) -> bool:
    return machine is not None and bool(machine.site.rules)


def _roles(definitions: Definitions) -> list[int]:
    roles = [AVAILABILITY] * len(BUCKETS)
    roles[NOT_SCHEDULED] = roles[PLANNED] = EXCLUDED
    roles[BREAK] = AVAILABILITY if definitions.breaks == "loss" else EXCLUDED
    roles[CHANGING_OVER] = _ROLES[definitions.changeover]
    roles[IDLING] = _ROLES[definitions.idle]
    roles[SMALL_STOPS] = _ROLES[definitions.small_stops]
    roles[NO_DATA] = EXCLUDED if definitions.unknown_time == "excluded" else AVAILABILITY
    roles[PRODUCING] = RUN
    return roles


def _reasons_of_texts(by_code: Mapping[str, Reason], texts: Sequence[str]) -> list[tuple[int, Reason]]:
    return [(index, by_code[text]) for index, text in enumerate(texts) if text in by_code]


def _looked_up(table: npt.NDArray[np.signedinteger], site: Indexes, text: Ints, missing: int) -> Ints:
    """Return table[site, text]; a text younger than the table means itself, or nothing."""
    if not table.shape[1]:
        return np.full(len(text), missing, dtype=np.int64)
    young = text >= table.shape[1]
    found = table[site, np.where(young, 0, text)].astype(np.int64)
    return np.where(young, text if missing == ABSENT and table.dtype == np.int32 else missing, found)


def _kinds_of_states() -> Codes:
    return np.array([_KIND_OF_STATE[code] for code in range(len(STATES_BY_CODE))], dtype=np.int8)


_KIND_OF_CALENDAR: Final = np.array([NOT_SCHEDULED, PRODUCING, BREAK, PLANNED], dtype=np.int8)
"""By the calendar's category."""


def _runs(segments: Segments, *keys: npt.NDArray[np.generic]) -> Ints:
    """Return a number per run of neighbours, of one machine and without a hole, that agree in all keys."""
    new = firsts(segments.machine)
    new[1:] |= segments.start_us[1:] != segments.end_us[:-1]
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.cumsum(new) - 1


def _crossed(judged: Judged, frame: Frame) -> tuple[Ints, Ints]:
    """Return (row, interval) for each interval that each segment shares time with, in order."""
    group = frame.cuts.of_machine[judged.machine]
    low, high = np.zeros(len(judged), dtype=np.int64), np.zeros(len(judged), dtype=np.int64)
    for index in np.unique(group):
        rows, edges = group == index, frame.cuts.edges[index]
        begin = np.searchsorted(edges, judged.start_us[rows], side="right") - 1
        end = np.searchsorted(edges, judged.end_us[rows], side="left")
        low[rows] = np.maximum(begin, 0) + frame.offset[index]
        high[rows] = np.minimum(end, len(edges) - 1) + frame.offset[index]
    parts = np.maximum(high - low, 0)
    row = np.repeat(np.arange(len(judged)), parts)
    part = np.arange(len(row)) - np.repeat(np.cumsum(parts) - parts, parts)
    return row, low[row] + part


def _take_scheduled_reasons(
    whole: Judged,
    frame: Frame,
    interval: Ints,
    policies: Policies,
    kind: Codes,
    role: Codes,
    reason: Indexes,
) -> None:
    """Give stops the reason of a planned stop that counts as loss, in whose time they lie."""
    scheduled = frame.stop_reason[interval]
    rows = np.flatnonzero(
        (scheduled != ABSENT)
        & (frame.category[interval] == calendar.PRODUCTION)
        & (whole.state != RUNNING)
        & (whole.state != UNKNOWN)
        & ~whole.own_reason
    )
    if not len(rows):
        return
    site, text = policies.site[whole.machine[rows]], scheduled[rows].astype(np.int64)
    known_kind = _looked_up(policies.reason_kind, site, text, _NO_KIND)
    known_role = _looked_up(policies.reason_role, site, text, _NO_ROLE)
    kind[rows] = np.where(known_kind != _NO_KIND, known_kind, PLANNED)
    role[rows] = np.where(known_role != _NO_ROLE, known_role, EXCLUDED)
    reason[rows] = text


def _name_planned_stops(
    whole: Judged, frame: Frame, interval: Ints, scheduled: Flags, reason: Indexes
) -> None:
    """Give the calendar's planned stops their reason, or without one the machine's own."""
    rows = np.flatnonzero(scheduled)
    stood = (whole.state[rows] != RUNNING) & (whole.state[rows] != UNKNOWN)
    said = frame.stop_reason[interval[rows]]
    reason[rows] = np.where(said != ABSENT, said, np.where(stood, reason[rows], ABSENT))


def _planned_stops(machine: Indexes, frame: Frame, interval: Ints) -> Ints:
    """Return a number per planned stop of the calendar, whatever the machine does in it."""
    category, reason = frame.category[interval], frame.stop_reason[interval]
    new = firsts(machine)
    new[1:] |= interval[1:] > interval[:-1] + 1
    new[1:] |= (category[1:] != category[:-1]) | (reason[1:] != reason[:-1])
    return np.cumsum(new) - 1


def _first_of(number: Ints, counted: Flags) -> Flags:
    """Return which counted rows are the first of their number; equal numbers are neighbours."""
    found = np.zeros(len(number), dtype=np.bool_)
    rows = np.flatnonzero(counted)
    if len(rows):
        numbers = number[rows]
        found[rows] = np.append(True, numbers[1:] != numbers[:-1])
    return found
