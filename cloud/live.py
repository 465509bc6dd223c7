"""The running shift of every machine, kept as one piece of timeline to which new records are joined.

Records that come in order are joined; a late one makes its machine's stretch be read from the store again, so
that what is shown is always a function of the stored records. The stretch goes back to the beginning of the
shift before, and is cut anew every few hours.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from cloud.alerts.conditions import Past, Stretch
from cloud.evaluation import Evaluation
from cloud.oee import timeline as oee_timeline
from cloud.oee.calendar import NOT_SCHEDULED, ShiftWindow, shift_at
from cloud.oee.columns import firsts, lasts
from cloud.oee.losses import Policies
from cloud.oee.pieces import NOTHING, Piece, Rules, merged_counts, merged_segments, stacked
from cloud.oee.records import ABSENT, UNKNOWN, Records
from cloud.oee.rollup import place_of, rolled_up
from cloud.oee.totals import Group, Timeline, Totals, timeline, totals
from cloud.plant import Definitions
from cloud.shown import (
    CATEGORIES,
    MachinePast,
    cycle_of_made_us,
    segments_of,
    shift_view,
    targets_of,
    verdicts,
)
from cloud.store.rows import Rows
from cloud.views import LineView, MachineView, Segment
from contract.machine_key import MachineKey
from contract.states import STATES_BY_CODE, MachineState

_LOOK_AHEAD_US: Final = 6 * 3_600_000_000
_REREAD_US: Final = 2_000_000
"""How often a machine's stretch is read again at most, while a backlog comes in."""
_NO_SHIFT_US: Final = 10_000_000
"""How often it is looked whether a shift has begun."""
RENEW_LIMIT: Final = 500
"""How many machines' figures are made anew in one look at most: with more than that, each has its turn."""
LOOK_BUDGET_US: Final = 40_000
"""[us of CPU] what a look may take: when one took longer, the next renews fewer machines, and more again when
one took less."""
_LEAST_RENEWED: Final = 100
_MAX_PENDING: Final = 256
"""How many batches wait for a look at most: when more come, everything is read from the store instead."""
_MAX_AHEAD: Final = 100_000
"""How many records wait for their time at most: machines that sent more are read again when it comes."""
_RECENT: Final = 4
"""How many segments per machine are recent at most, before they are put to the past."""


class Picture(NamedTuple):
    """All running shifts at one instant."""

    at_us: int
    machines: dict[MachineKey, MachineView]
    """Those of the plant in its order, then those that are not in it."""
    lines: dict[tuple[str, str, str], LineView]
    """Without their machines."""
    pasts: dict[MachineKey, Past]
    """What alert rules ask of machines."""
    overflows: int = 0
    """How often more came than may wait to be joined, so that it was read from the store."""


class Live:
    """Rows come from any thread by `add`; everything else is one thread's at a time."""

    def __init__(
        self,
        evaluation: Evaluation,
        now_us: int,
        *,
        renew_limit: int = RENEW_LIMIT,
        cpu_us: Callable[[], int] | None = None,
    ) -> None:
        """Read the running shifts.

        cpu_us: how much processor time the thread that looks has used; None: looks have no budget
        """
        self._renew_limit = self._renewed = renew_limit
        self._cpu_us = cpu_us
        self._evaluation = evaluation
        self._plant = evaluation.plant
        self._names = evaluation.names
        self._pending: deque[Rows] = deque()
        self._overflows = 0
        machines = len(self._names.machines)
        self._last_us = np.full(machines, ABSENT, dtype=np.int64)
        """By index: the time of the newest record in the piece; and its state, reason, product and order."""
        self._last_state = np.full(machines, UNKNOWN, dtype=np.int8)
        self._last_reason, self._last_product, self._last_order = np.full(
            (3, machines), ABSENT, dtype=np.int32
        )
        self._shown_state = np.full(machines, ABSENT, dtype=np.int8)
        """By index: the state that its view shows, ABSENT where it is to be made anew; and its interval."""
        self._shown_interval = np.full(machines, ABSENT, dtype=np.int64)
        self._shown_us = np.full(machines, ABSENT, dtype=np.int64)
        """By index: when its view was made."""
        self._indexes = np.array([self._names.machine(key) for key in self._plant.machines], dtype=np.int32)
        self._by_line = np.array(
            [self._names.machine(each.key) for line in self._plant.lines.values() for each in line],
            dtype=np.int32,
        )
        self._turn = 0
        """The place in `_by_line` of the machine whose turn it is to be renewed."""
        self._views: dict[MachineKey, MachineView] = {}
        self._lines: dict[tuple[str, str, str], LineView] = {}
        self._pasts: dict[MachineKey, Past] = {}
        """As they were when the machine's view was made."""
        self._reread: set[MachineKey] = set()
        self._sums: dict[MachineKey, tuple[Group, Totals]] = {}
        self._windows: dict[MachineKey, tuple[int, ShiftWindow | None]] = {}
        """By machine: the shift that runs, and until when that is known."""
        self._targets = {key: targets_of([machine]) for key, machine in self._plant.machines.items()}
        self._line_targets = {line: targets_of(members) for line, members in self._plant.lines.items()}
        self._policies: tuple[int, Policies] | None = None
        """For how many texts, and what the definitions and reasons say."""
        self._late: set[MachineKey] = set()
        self._ahead: dict[MachineKey, int] = {}
        """By machine: its first record that was read before its time."""
        self._reread_us: dict[MachineKey, int] = {}
        self._strangers: dict[MachineKey, MachineView] = {}
        self._rules = Rules.of(self._plant, self._names)
        self._stretch(now_us)
        self._meet_strangers()

    @property
    def from_us(self) -> int:
        """Return since when records are seen here."""
        return self._frame.from_us

    def add(self, rows: Rows) -> None:
        """Take rows that were just stored."""
        if len(rows) and len(self._pending) < _MAX_PENDING:
            self._pending.append(rows)
        elif len(rows):
            self._overflows += 1
            self._is_stale = True

    def cut_anew(self) -> None:
        """Let the next look read everything from the store again; from any thread."""
        self._is_stale = True

    def read_again(self, machine: MachineKey) -> None:
        """Read a machine's records from the store again: others have written some."""
        if machine in self._plant.machines:
            self._late.add(machine)

    def take_late(self) -> set[MachineKey]:
        """Return the machines whose past was read again since this was last asked: records came late."""
        late, self._reread = self._reread, set()
        return late

    def look(self, now_us: int) -> Picture:
        """Return everything as it is now."""
        if self._cpu_us is None:
            return self._look(now_us)
        began_us = self._cpu_us()
        picture = self._look(now_us)
        pace = LOOK_BUDGET_US / max(self._cpu_us() - began_us, 1)
        wanted = round(self._renewed * min(max(pace, 0.5), 1.5))
        self._renewed = max(min(wanted, self._renew_limit), _LEAST_RENEWED)
        return picture

    def _look(self, now_us: int) -> Picture:
        if self._evaluation.look_for_corrections():
            self._is_stale = True
        if self._is_stale or not self._frame.from_us <= now_us < self._fresh_until_us:
            self._stretch(now_us)
        else:
            self._late.update(key for key, time_us in self._ahead.items() if time_us <= now_us)
            self._join_pending(now_us)
            self._reread_late(now_us)
        chosen = self._choose(now_us)
        if len(chosen):
            self._renew(chosen, now_us)
        views = self._views | {key: self._stranger(view, now_us) for key, view in self._strangers.items()}
        return Picture(now_us, views, dict(self._lines), self._pasts_now(now_us), self._overflows)

    def segments(self, machine: MachineKey, from_us: int, to_us: int, now_us: int) -> list[Segment] | None:
        """Return a machine's timeline; None when it begins before what is held here."""
        if from_us < self._frame.from_us or machine not in self._plant.machines:
            return None
        cells = self._whole(now_us, np.array([self._names.machine(machine)], dtype=np.int32)).cells
        return segments_of(
            cells, self._names.machine(machine), self._frame, (from_us, to_us), self._evaluation
        )

    def _choose(self, now_us: int) -> NDArray[np.int32]:
        """Return the machines whose views are made anew: all, or of very many the most urgent and some more.

        Urgent are those whose state or calendar says another thing than shown. The others have their turns,
        line by line, so that few lines change in one look.
        """
        silent = (now_us - self._last_us > self._rules.max_gap_us) & ~self._rules.hold
        states = np.where(silent, np.int8(UNKNOWN), self._last_state)
        machines = self._by_line
        intervals = self._frame.intervals(machines, np.full(len(machines), now_us))
        urgent = (states != self._shown_state)[machines] | (intervals != self._shown_interval[machines])
        # What a record of this very moment says is not seen yet in time that ends here.
        borderline = self._last_us >= now_us
        urgent |= borderline[machines]
        self._shown_state = np.where(borderline, np.int8(ABSENT), states)
        self._shown_interval[machines] = intervals
        count = min(self._renewed, len(machines))
        urgent[(self._turn + np.arange(count)) % max(len(machines), 1)] = True
        self._turn = (self._turn + count) % max(len(machines), 1)
        return np.sort(machines[urgent])

    def _renew(self, chosen: NDArray[np.int32], now_us: int) -> None:
        whole = self._whole(now_us, chosen)
        self._shown_us[chosen] = now_us
        sums = totals(_of_running(whole, now_us), self._plant, self._names)
        keys = [self._names.machines[index] for index in chosen.tolist()]
        for key in keys:
            self._sums.pop(key, None)
        self._sums.update((group.machine, (group, total)) for group, total in sums.items())
        rows = rolled_up(sums, self._plant, level="machine", revision=0)
        figures = {row.place: row.to_dict() for row in rows}
        begin = np.searchsorted(whole.cells.machine, chosen, side="left").tolist()
        end = np.searchsorted(whole.cells.machine, chosen, side="right").tolist()
        intervals = self._shown_interval[chosen].tolist()
        for key, index, first, last, interval in zip(
            keys, chosen.tolist(), begin, end, intervals, strict=True
        ):
            past = MachinePast(whole.cells, self._frame, first, last)
            self._views[key] = self._machine_view(
                key, index, past, interval, figures.get(place_of(key, "machine")), now_us
            )
            recent = past.recent(now_us, self._names.text_or_none)
            self._pasts[key] = recent._replace(heard_us=int(self._last_us[index]))
        self._renew_lines({key[:3] for key in keys})

    def _pasts_now(self, now_us: int) -> dict[MachineKey, Past]:
        """Return the pasts of all machines until now: where a view was not made anew, its state went on."""
        found = dict(self._pasts)
        waiting = self._by_line[self._shown_us[self._by_line] < now_us]
        for index, heard_us in zip(waiting.tolist(), self._last_us[waiting].tolist(), strict=True):
            key = self._names.machines[index]
            past = found[key]
            stretches = past.stretches
            if stretches:
                last = stretches[-1]
                gone_on = Stretch(last.start_us, now_us, last.state, last.is_production, last.reason)
                stretches = (*stretches[:-1], gone_on)
            found[key] = Past(stretches, past.is_planned, heard_us)
        return found

    def _whole(self, now_us: int, chosen: NDArray[np.int32]) -> Timeline:
        """Return the judged timeline of some machines."""
        piece, past, frame = self._piece, self._past, self._frame
        if len(chosen) < len(self._indexes):
            wanted = np.zeros(len(self._last_us), dtype=np.bool_)
            wanted[chosen] = True
            piece, past = _only(piece, wanted), _only(past, wanted)
            frame = replace(frame, machines=chosen)
        return timeline(
            replace(
                piece,
                segments=stacked([past.segments, piece.segments]),
                counts=stacked([past.counts, piece.counts]),
            ),
            frame,
            self._plant,
            self._names,
            until_us=now_us,
            rules=self._rules,
            policies=self._policies_now(),
            corrections=self._evaluation.corrections,
        )

    def _policies_now(self) -> Policies:
        """Return what the definitions and reasons say; made anew when there are new texts."""
        texts = len(self._names.texts)
        if self._policies is None or self._policies[0] != texts:
            policies = Policies.of(self._plant, self._names)
            self._policies = (len(self._names.texts), policies)
        return self._policies[1]

    def _stretch(self, now_us: int) -> None:
        """Read everything anew, for the shifts around this instant."""
        self._is_stale = False
        self._pending.clear()
        keys = list(self._plant.machines)
        self._frame = self._evaluation.frame(keys, now_us, now_us + _LOOK_AHEAD_US)
        self._fresh_until_us = now_us + _LOOK_AHEAD_US
        self._late.clear()
        self._reread.update(keys)
        self._shown_state[:] = ABSENT
        self._piece, self._past = self._read(keys, now_us), NOTHING

    def _read(self, machines: list[MachineKey], now_us: int) -> Piece:
        records = self._evaluation.records(machines, self._frame.from_us, self._frame.to_us, now_us=now_us)
        ahead = records.time_us > now_us
        for index in np.unique(records.machine[ahead]).tolist():
            self._ahead[self._names.machines[index]] = int(
                records.time_us[ahead & (records.machine == index)].min()
            )
        records = records.take(~ahead)
        self._note_last(records)
        return oee_timeline.build(records, self._rules, self._frame.cuts)

    def _join_pending(self, now_us: int) -> None:
        parts = [self._pending.popleft() for _ in range(len(self._pending))]
        if not parts:
            return
        rows = self._of_plant(np.concatenate(parts))
        ahead = rows["time_us"] > now_us
        if ahead.any():  # the machine's clock is ahead: later
            self._wait_for_time(rows[ahead])
            rows = rows[~ahead]
        records = self._evaluation.translation.records(rows)
        begins = np.flatnonzero(firsts(records.machine))
        late = [
            index
            for index, time_us in zip(
                records.machine[begins].tolist(), records.time_us[begins].tolist(), strict=True
            )
            if time_us <= self._last_us[index]
        ]
        self._late.update(self._names.machines[index] for index in late)
        records = records.take(~np.isin(records.machine, late))
        if not len(records):
            return
        self._note_last(records)
        self._piece = oee_timeline.extend(self._piece, records, self._rules, self._frame.cuts)
        if len(self._piece.segments) > _RECENT * len(self._indexes):
            self._past = replace(
                NOTHING,
                segments=merged_segments([self._past.segments, self._piece.segments]),
                counts=merged_counts([self._past.counts, self._piece.counts]),
            )
            self._piece = replace(self._piece, segments=NOTHING.segments, counts=NOTHING.counts)

    def _wait_for_time(self, rows: Rows) -> None:
        """Keep rows until their time comes; of too many, remember only when to read them."""
        if len(rows) <= _MAX_AHEAD:
            self._pending.append(rows)
            return
        self._overflows += 1
        for number in np.unique(rows["machine"]).tolist():
            key = MachineKey(*self._evaluation.store.names.name("machine", number))
            first_us = int(rows["time_us"][rows["machine"] == number].min())
            self._ahead[key] = min(first_us, self._ahead.get(key, first_us))

    def _note_last(self, records: Records) -> None:
        """Note what the newest records say, and which machines say another thing than those before."""
        machine, begins = records.machine, firsts(records.machine)
        ends = np.flatnonzero(lasts(machine))
        before_us = np.where(begins, self._last_us[machine], np.roll(records.time_us, 1))
        changed = (records.time_us - before_us > self._rules.max_gap_us[machine]) & ~self._rules.hold[machine]
        for column, last in (
            (records.state, self._last_state),
            (records.reason, self._last_reason),
            (records.product, self._last_product),
            (records.order, self._last_order),
        ):
            changed |= column != np.where(begins, last[machine], np.roll(column, 1))
            last[machine[ends]] = column[ends]
        self._shown_state[machine[changed]] = ABSENT
        self._last_us[machine[ends]] = records.time_us[ends]

    def _of_plant(self, rows: Rows) -> Rows:
        """Return the rows of machines of the plant; remember what the others say."""
        stored = self._evaluation.store.names
        numbers = np.unique(rows["machine"]).tolist()
        keys = {number: MachineKey(*stored.name("machine", number)) for number in numbers}
        strange = [number for number, key in keys.items() if key not in self._plant.machines]
        for number in strange:
            self._note_stranger(keys[number], rows[rows["machine"] == number])
        return rows[~np.isin(rows["machine"], strange)] if strange else rows

    def _meet_strangers(self) -> None:
        store = self._evaluation.store
        for number, key in enumerate(store.names.all("machine")):
            if MachineKey(*key) not in self._plant.machines and (extent := store.extent(number)) is not None:
                self._note_stranger(MachineKey(*key), store.read([number], extent[1], extent[1] + 1))

    def _note_stranger(self, key: MachineKey, rows: Rows) -> None:
        newest = rows[np.argmax(rows["time_us"])]
        known = self._strangers.get(key)
        time_secs = int(newest["time_us"]) / 1e6
        if known is not None and (known.last_data_epochtime or 0.0) > time_secs:
            return
        self._strangers[key] = MachineView(
            **key._asdict(),
            state=STATES_BY_CODE[newest["state"]].value,
            last_data_epochtime=time_secs,
            in_plant=False,
            total_units=max(int(newest["total_units"]), 0),
        )

    def _stranger(self, view: MachineView, now_us: int) -> MachineView:
        """Return a stranger as it is shown now: its last state is believed for as long as that of others."""
        site = self._plant.sites.get(view.site)
        rules = site.definitions if site else Definitions()
        if now_us - (view.last_data_epochtime or 0.0) * 1e6 <= rules.max_gap_us:
            return view
        return msgspec.structs.replace(view, state=MachineState.UNKNOWN.value)

    def _reread_late(self, now_us: int) -> None:
        due = [
            key for key in self._late if not 0 <= now_us - self._reread_us.get(key, -_REREAD_US) < _REREAD_US
        ]
        if not due:
            return
        self._late.difference_update(due)
        self._reread.update(due)
        for key in due:
            self._ahead.pop(key, None)
        self._reread_us.update(dict.fromkeys(due, now_us))
        indexes = [self._names.machine(key) for key in due]
        others = np.ones(len(self._last_us), dtype=np.bool_)
        others[indexes] = False
        again = self._read(due, now_us)
        self._shown_state[indexes] = ABSENT
        self._past = _only(self._past, others)
        self._piece = oee_timeline.join(_only(self._piece, others), again, self._rules, self._frame.cuts)

    def _window(self, key: MachineKey, now_us: int) -> ShiftWindow | None:
        """Return the shift that runs; looked up again when it may have ended or another begun."""
        until_us, window = self._windows.get(key, (0, None))
        if now_us >= until_us or (window is not None and now_us < window.start_us):
            window = shift_at(self._plant.machines[key], now_us)
            until_us = now_us + _NO_SHIFT_US if window is None else window.end_us
            self._windows[key] = (until_us, window)
        return window

    def _machine_view(
        self,
        key: MachineKey,
        index: int,
        past: MachinePast,
        interval: int,
        figures: dict[str, Any] | None,
        now_us: int,
    ) -> MachineView:
        machine = self._plant.machines[key]
        target: float | None = None
        target_now: float | None = None
        window = self._window(key, now_us)
        product = past.text("product", self._names.text_or_none)
        if figures is not None:
            own = self._sums[key][1]
            per_us = self._targets[key]["oee"] / float(cycle_of_made_us(machine, own, product))
            target_now = own.planned_us * per_us
            target = None if window is None else window.planned_us * per_us
        reason = past.text("reason", self._names.text_or_none)
        known = None if reason is None else machine.site.reason_for_code(reason)
        last_us = int(self._last_us[index])
        return MachineView(
            **key._asdict(),
            state=past.state.value,
            state_since_epochtime=past.state_since_us(now_us) / 1e6,
            reason=reason,
            reason_name=reason if known is None else known.name,
            product=product,
            order=past.text("order", self._names.text_or_none),
            category=CATEGORIES[NOT_SCHEDULED if interval < 0 else self._frame.category[interval]],
            shift=None if window is None else shift_view(window),
            figures=figures,
            target_units=target,
            target_units_now=target_now,
            good_units=0 if figures is None else figures["good_units"],
            off_quality_units=0 if figures is None else figures["off_quality_units"],
            total_units=0 if figures is None else figures["total_units"],
            verdicts=verdicts(figures, self._targets[key]),
            last_data_epochtime=None if last_us == ABSENT else last_us / 1e6,
        )

    def _renew_lines(self, changed: set[tuple[str, ...]]) -> None:
        members = {line: machines for line, machines in self._plant.lines.items() if line in changed}
        groups = [
            self._sums[machine.key]
            for machines in members.values()
            for machine in machines
            if machine.key in self._sums
        ]
        rows = rolled_up(dict(groups), self._plant, level="line", revision=0)
        found = {(row.place.site, row.place.area, row.place.line): row.to_dict() for row in rows}
        for line in members:
            self._lines[line] = LineView(
                site=line[0],
                area=line[1],
                line=line[2],
                figures=found.get(line),
                verdicts=verdicts(found.get(line), self._line_targets[line]),
            )


def _of_running(whole: Timeline, now_us: int) -> Timeline:
    """Return what lies in the shifts that run."""
    windows, window_of = whole.frame.windows("shift")
    runs = [window.start_us <= now_us < window.end_us for window in windows]
    inside = np.array([*runs, False], dtype=np.bool_)[window_of]  # the last is for NO_WINDOW
    interval = whole.frame.intervals(whole.counts.machine, whole.counts.at_us)
    return replace(
        whole,
        cells=whole.cells.take(inside[whole.cells.interval]),
        counts=whole.counts.take((interval >= 0) & inside[interval]),
    )


def _only(piece: Piece, wanted: NDArray[np.bool_]) -> Piece:
    """Return the piece of some machines, given by index."""
    return Piece(
        head=piece.head.take(wanted[piece.head.machine]),
        segments=piece.segments.take(wanted[piece.segments.machine]),
        counts=piece.counts.take(wanted[piece.counts.machine]),
        tail=piece.tail.take(wanted[piece.tail.machine]),
    )
