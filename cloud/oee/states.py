"""Which state holds when: a machine's records in their order, after what is known of those before."""

from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

from cloud.oee.columns import Codes, Flags, Indexes, Ints, firsts, held
from cloud.oee.pieces import EVERY, NEVER, STATE, Anchors, Rules, Segments, merged_segments
from cloud.oee.records import ABSENT, RUNNING, UNKNOWN

OPEN: Final = -1
"""Where a head ends: not within these rows."""
_IN_FORCE: Final = ("state", "reason", "product", "order", "stop_since_us", "started_us")
_Column = TypeVar("_Column", bound=npt.NDArray[Any])


class States(NamedTuple):
    """The rows of a fold that tell a state, with what holds."""

    rows: slice | Ints
    """Where they stand among all rows."""
    machine: Indexes
    time_us: Ints
    state: Codes
    reason: Indexes
    product: Indexes
    order: Indexes
    silent: Flags
    """Whether the row is followed by a silence of more than max_gap."""
    dark: Flags
    """Whether time between this row and the machine's next is unknown."""
    before: Ints
    """How many rows before are dark."""
    stop_since_us: Ints
    started_us: Ints
    last_of: Ints | None
    """For each row of the fold, the last of these rows at or before it; None where all rows are these."""
    starts: Ints
    """By machine: its first row, and the first of the next machine."""
    stops: Ints
    live: Ints
    """By machine: the last row of its head, or OPEN; its first row where it has no head."""
    known: Flags
    """By machine: whether its first row is known."""
    known_dark: Ints
    """By machine: stretches of unknown time before the first row, where it is known."""

    @property
    def after_head(self) -> Ints:
        """Return by machine the first row after its head."""
        return np.where(self.live == OPEN, self.stops, self.live + 1)

    def place(self, machine: Indexes) -> Ints:
        """Return where the machines stand in what is by machine."""
        return np.searchsorted(self.machine[self.starts], machine)


def states_of(work: Anchors, rules: Rules, *, from_nothing: bool) -> States:
    """Return the rows that tell a state, with what holds from each on."""
    tells = (work.role == EVERY) | (work.role == STATE)
    rows = slice(None) if tells.all() else np.flatnonzero(tells)
    told = work.take(rows)
    machine, time_us, state = told.machine, told.time_us, told.state
    reason, product, order = told.reason, told.product, told.order
    first = firsts(machine)
    hold = each(rules.hold, machine)
    if np.any(hold):
        source = held(first | (state != UNKNOWN) | ~hold)  # an unknown state carries the one before it on
        state, reason, product, order = state[source], reason[source], product[source], order[source]
    follows = np.append(~first[1:], False)
    length = np.append(time_us[1:], time_us[-1]) - time_us
    silent = follows & (length > each(rules.max_gap_us, machine)) & ~hold & ~told.bridged
    dark = silent | (follows & (length > 0) & (state == UNKNOWN))
    stop_since, started = _start_ups(told, state, first, dark, rules)
    starts = np.flatnonzero(first)
    states = States(
        rows=rows,
        machine=machine,
        time_us=time_us,
        state=state,
        reason=reason,
        product=product,
        order=order,
        silent=silent,
        dark=dark,
        before=np.cumsum(dark) - dark,
        stop_since_us=stop_since,
        started_us=started,
        last_of=None if isinstance(rows, slice) else np.cumsum(tells) - 1,
        starts=starts,
        stops=np.append(starts[1:], len(machine)),
        live=starts,
        known=told.known[starts],
        known_dark=np.where(told.known[starts], told.dark[starts], 0),
    )
    return states if from_nothing else states._replace(live=_end_of_state_head(states, rules))


def _start_ups(told: Anchors, state: Codes, first: Flags, dark: Flags, rules: Rules) -> tuple[Ints, Ints]:
    """Return for each row since when the machine has known to stand, and when it last started up before."""
    if not rules.startup_us[told.machine[first]].any():
        return told.stop_since_us, told.started_us
    stands = (state != RUNNING) & (state != UNKNOWN)
    goes_on = np.zeros(len(told), dtype=np.bool_)
    goes_on[1:] = stands[:-1] & ~dark[:-1] & ~first[1:]
    begins = stands & ~goes_on
    since = np.where(begins & (told.stop_since_us == NEVER), told.time_us, told.stop_since_us)
    since = np.where(stands, since[held(first | begins)], NEVER)
    before = np.append(np.int64(NEVER), since[:-1])
    starts = (state == RUNNING) & goes_on
    starts &= told.time_us - before >= rules.startup_stop_us[told.machine]
    started = np.where(starts, told.time_us, told.started_us)
    return since, started[held(first | starts)]


def _end_of_state_head(states: States, rules: Rules) -> Ints:
    """Return by machine the state's row after which it no longer matters what came before, or OPEN."""
    live = states.starts.copy()
    machine = states.machine[states.starts]
    looks_back = ~states.known & (rules.hold[machine] | (rules.startup_us[machine] > 0))
    for place in np.flatnonzero(looks_back):
        rows = slice(int(states.starts[place]), int(states.stops[place]))
        settled = _settled_state(
            states.time_us[rows],
            states.state[rows],
            states.silent[rows],
            hold=bool(rules.hold[machine[place]]),
            startup_us=int(rules.startup_us[machine[place]]),
        )
        live[place] = OPEN if settled is None else rows.start + settled
    return live


def _settled_state(time_us: Ints, state: Codes, silent: Flags, *, hold: bool, startup_us: int) -> int | None:
    """Return the row of one machine after which neither a held state nor a start-up of before matters."""
    first_known = 0
    if hold:
        if not (state != UNKNOWN).any():
            return None
        first_known = int(np.argmax(state != UNKNOWN))
    if not startup_us:
        return first_known
    fresh = state == RUNNING
    if not hold:
        fresh |= state == UNKNOWN
        fresh[1:] |= silent[:-1]
    fresh[:first_known] = False
    if not fresh.any():
        return None
    over = time_us > time_us[np.argmax(fresh)] + startup_us
    return int(np.argmax(over)) if over.any() else None


def segments_of(states: States, rules: Rules) -> Segments:
    """Return the segments from the end of each head to the machine's last row."""
    has_heads = bool((states.live != states.starts).any())
    new = np.zeros(len(states.machine), dtype=np.bool_)
    for column in (states.state, states.reason, states.product, states.order):
        new[1:] |= column[1:] != column[:-1]
    new[1:] |= states.silent[:-1]
    new[states.starts] = True
    if has_heads:
        new[states.live[states.live != OPEN]] = True
    begin = np.flatnonzero(new)
    last = np.append(begin[1:], len(new)) - 1
    following = np.minimum(last + 1, len(new) - 1)
    ends = states.machine[following] != states.machine[last]
    quiet = states.silent[last]
    end_us = np.where(ends, states.time_us[last], states.time_us[following])
    end_us = np.where(quiet, states.time_us[last] + rules.max_gap_us[states.machine[last]], end_us)
    found = Segments(
        machine=states.machine[begin],
        start_us=states.time_us[begin],
        end_us=end_us,
        state=states.state[begin],
        reason=states.reason[begin],
        product=states.product[begin],
        order=states.order[begin],
    )
    silence = found.take(quiet)
    silence = replace(
        silence,
        start_us=end_us[quiet],
        end_us=states.time_us[following[quiet]],
        state=np.full(len(silence), UNKNOWN, dtype=np.int8),
        reason=np.full(len(silence), ABSENT, dtype=np.int32),
    )
    if has_heads:
        live = np.where(states.live == OPEN, states.stops, states.live)
        in_body = begin >= live[states.place(found.machine)]
        found, silence = found.take(in_body), silence.take(in_body[quiet])
    return merged_segments([found, silence])


def in_force(work: Anchors, states: States) -> tuple[Anchors, Ints]:
    """Return the rows with the states that hold, and how many stretches of unknown time precede each."""
    columns: dict[str, npt.NDArray[Any]] = {name: getattr(states, name) for name in _IN_FORCE}
    if states.last_of is None:
        return replace(work, **columns), states.before
    tells = (work.role == EVERY) | (work.role == STATE)
    same = tells | (work.raw & ~work.known[states.rows][states.last_of])
    for name, column in columns.items():
        columns[name] = np.where(same, column[states.last_of], getattr(work, name))
    return replace(work, **columns), states.before[states.last_of] + np.where(same, 0, work.dark)


def is_early(work: Anchors, states: States) -> Flags:
    """Return which rows are of a state's head that is not among the rows, and so may not be used yet."""
    if states.last_of is None:
        return np.broadcast_to(np.False_, len(work))
    early: Flags = work.raw & (work.role != EVERY) & (work.role != STATE)
    return early & work.known[states.rows][states.last_of]


def each(values: _Column, machine: Indexes) -> _Column:
    """Return the values of the rows' machines: one value for all rows where all are equal."""
    used = values[machine[firsts(machine)]]
    found = used[:1] if (used == used[0]).all() else values[machine]
    return cast("_Column", found)
