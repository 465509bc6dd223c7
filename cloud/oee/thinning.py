"""Leaves out records that only repeat what their neighbours say, before anything else is done with them.

Most records of a running machine only count on: between two changes of state, product, interval or anything
else that decides where time and units belong, the first and the last record say all. What is left out changes
no figure, and what is left is a small part, so that a long history costs little more than one look at it.
"""

from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cloud.oee.columns import Flags, Ints, firsts
from cloud.oee.pieces import Cuts, Rules
from cloud.oee.records import UNKNOWN, Records

_LEAST_PER_MACHINE: Final = 32
_LARGEST_SHARE: Final = 0.7
_SIDES: Final[tuple[Literal["left", "right"], ...]] = ("left", "right")


class Thinned(NamedTuple):
    """The records that matter."""

    records: Records
    bridged: Flags
    """Whether records were left out after each, so that the time until the next is no silence."""


def thinned(records: Records, rules: Rules, cuts: Cuts, *, least: int = _LEAST_PER_MACHINE) -> Thinned:
    """Return which of sorted records matter.

    least: how many records a machine must have on average to be worth the look
    """
    count = len(records)
    starts = np.flatnonzero(firsts(records.machine)) if count >= least else np.zeros(1, dtype=np.int64)
    machines = records.machine[starts] if count else records.machine
    # Held states, noise and start-ups look further back than one record.
    exempt = rules.hold[machines] | (rules.jitter[machines] > 0) | (rules.startup_us[machines] > 0)
    if count < least * len(starts) or exempt.all():
        return _all(records)
    change = _changes(records, rules, starts)
    change[starts] = True
    ends = np.append(starts[1:], count)
    for start, end, machine, every in zip(
        starts.tolist(), ends.tolist(), machines.tolist(), exempt.tolist(), strict=True
    ):
        if every:
            change[start:end] = True
        else:
            time_us, edges = records.time_us[start:end], cuts.edges[cuts.of_machine[machine]]
            low, high = np.searchsorted(edges, (time_us[0], time_us[-1]), side="left")
            change[start + np.searchsorted(time_us, edges[low:high], side="right")] = True
    keep = change.copy()
    keep[:-1] |= change[1:]
    keep[-1] = True
    rows = np.flatnonzero(keep)
    if len(rows) > _LARGEST_SHARE * count:
        return _all(records)
    return Thinned(records.take(rows), np.diff(rows, append=count) > 1)


def _all(records: Records) -> Thinned:
    return Thinned(records, np.broadcast_to(np.False_, len(records)))


def _changes(records: Records, rules: Rules, starts: Ints) -> Flags:
    """Return before which records anything happens but that time passes and counters grow."""
    change = np.zeros(len(records), dtype=np.bool_)
    after = change[1:]
    gaps = rules.max_gap_us[records.machine[starts]]
    gap_us: Ints = gaps[:1] if (gaps == gaps[0]).all() else rules.max_gap_us[records.machine[:-1]]
    np.greater(records.time_us[1:] - records.time_us[:-1], gap_us, out=after)
    after |= records.state[:-1] == UNKNOWN
    for column in (records.state, records.reason, records.product, records.order, records.rate):
        if not _is_constant(column):
            after |= column[1:] != column[:-1]
    for counter in (records.total, records.off, records.good):
        if not _is_constant(counter):
            after |= counter[1:] < counter[:-1]  # also where it is no longer told
            if counter.min() < 0:
                after |= (counter[:-1] < 0) & (counter[1:] >= 0)
    return change


def _is_constant(column: npt.NDArray[np.generic]) -> bool:
    return column.strides[0] == 0
