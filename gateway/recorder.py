"""Values that are believed become records of their machines, in source time. Pure.

What is decided here: what a change means for its machine (at once, with its interval, or not at all), what is
due by the passing of source time, and what each record says.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.outbox.port import Draft, GapDraft, Kind
from gateway.recorder_memory import Memory
from gateway.sampled_machine import NEVER, SampledMachine, sampled_machines
from gateway.sources.port import BAD
from gateway.tags import WAITING, Binding, Fields, MachineTags, Role
from gateway.telemetry_draft import TelemetryDraft

MAX_FILL_US: Final = 26 * 3600 * 1_000_000
"""Silence longer than this is not filled with heartbeats: no shift is that long."""
_COUNT: Final = 1
_ANALOGUE: Final = 2

Reading = tuple[Any, int, str | None]
"""A value, its status, and why its time is not the source's own; None where it is."""


@dataclass(slots=True)
class Rows:
    """Values in the order of their source times, while they are taken in.

    at_us: [us, source time] of the value that was taken in last
    is_heard: whether one of them has said when it is at the source
    position, rest: of the value that was taken in last, and all that follow it
    """

    times: Sequence[int]
    handles: Sequence[int]
    values: Sequence[Any]
    statuses: Sequence[int]
    at_us: int = 0
    is_heard: bool = False
    position: int = -1
    rest: Iterator[tuple[int, int, Any, int]] = field(init=False)

    def __post_init__(self) -> None:
        """Begin at the first."""
        self.rest = zip(self.times, self.handles, self.values, self.statuses, strict=True)


class Recorder:
    """All machines of one connection.

    gateway: the gateway's name
    machines, bindings: as `gateway.tags.bindings` made them
    interval_us: [us] one record per machine and interval of source time, besides changed facts
    heartbeat_us: [us] at least one record per machine in this time
    margin_us: [us] how much later than its source time a value may come although nothing is wrong
    """

    def __init__(
        self,
        gateway: str,
        machines: Sequence[MachineTags],
        bindings: Sequence[Binding],
        *,
        interval_us: int,
        heartbeat_us: int,
        margin_us: int,
    ) -> None:
        self._gateway = gateway
        self._interval_us = interval_us
        self._heartbeat_us = heartbeat_us
        self._margin_us = margin_us
        self.machines = sampled_machines(machines, bindings)
        self.machine_of: dict[int, SampledMachine] = {b.handle: self.machines[b.machine] for b in bindings}
        self.role_of = {b.handle: b.role for b in bindings}
        self.values: list[Any] = [None] * (len(bindings) + 1)
        """The newest of each tag, by its handle, as all that follows."""
        self.statuses = [WAITING] * (len(bindings) + 1)
        self.observed_us = NEVER
        self.next_us = NEVER
        self._deadbands = {b.handle: self._slot_deadband(b) for b in bindings}
        self._watched = {
            one.handles[one.tags.moving_slot] for one in self.machines if one.tags.moving_slot >= 0
        }
        self._places = [(self.machines[0], 0)]
        self._places += [(self.machines[b.machine], self._coalesced(b)) for b in bindings]
        self._drafts: list[Draft] = []
        self._touched: list[SampledMachine] = []
        self.memory = Memory(self.machines, self.values, self.statuses)

    def _slot_deadband(self, binding: Binding) -> float:
        return self.machines[binding.machine].tags.slots[binding.slot].deadband

    def _coalesced(self, binding: Binding) -> int:
        """Return whether the newest value of an interval says all: _COUNT or _ANALOGUE.

        That is 0 for tags that need a closer look: facts, a counter that is watched for moving, a deadband.
        """
        if binding.role is Role.FACT or binding.handle in self._watched or self._deadbands[binding.handle]:
            return 0
        return _COUNT if binding.role is Role.COUNT else _ANALOGUE

    def taken(self) -> list[Draft]:
        """Return, once, the drafts that were made."""
        drafts, self._drafts = self._drafts, []
        return drafts

    # --- values come ---

    def take(self, rows: Rows, listen: Callable[[int], None]) -> int:
        """Take in values up to one whose time has to be judged first; return its position, or the end.

        listen: called, once per batch, with the source time of its first value that says when it is there

        Most values are of a counter or a further tag, good as the one before: those are taken in right here,
        because a call for each would cost more than all that is done with it.
        """
        places, values, statuses, waits = self._places, self.values, self.statuses, self.memory.waiting.add
        position = rows.position
        now_us, is_heard, some_wait = rows.at_us, rows.is_heard, False
        for at_us, handle, value, status in rows.rest:
            position += 1
            machine, coalesced = places[handle]
            if at_us < machine.last_us or machine.notes or not machine.ready:
                break
            before, status_before = values[handle], statuses[handle]
            if not is_heard and status_before >> 30 < BAD:
                is_heard = True
                listen(at_us)
            if at_us > now_us:
                now_us = at_us
                if self._touched:
                    self.settle()
                if at_us >= self.next_us:
                    self.advance(at_us, at_us - self._margin_us)
            if value == before and status == status_before and type(value) is type(before):
                continue
            if (
                not coalesced
                or status != status_before
                or (coalesced == _COUNT and (type(value) is not type(before) or value < before))
            ):
                self.put(machine, handle, (value, status, None), at_us)
                continue
            values[handle] = value
            machine.waits_as = None
            if at_us > machine.newest_us:  # noqa: PLR1730 - max() is several times slower
                machine.newest_us = at_us
            if at_us > machine.pending_us:  # noqa: PLR1730
                machine.pending_us = at_us
            if coalesced == _COUNT:
                machine.pending_kind = "counter"
            some_wait = True
            if machine.flush_us == NEVER:
                waits(machine.position)
                machine.flush_us = self._interval_end(at_us)
                self.next_us = min(self.next_us, machine.flush_us)
        else:
            position += 1
        rows.at_us, rows.is_heard, rows.position = now_us, is_heard, position
        self.memory.is_waiting_unsaved |= some_wait
        return position

    def put(self, machine: SampledMachine, handle: int, reading: Reading, at_us: int) -> None:
        """Take in one value, whatever it is, of a machine that has had its first record."""
        value, status, note = reading
        before, status_before = self.values[handle], self.statuses[handle]
        machine.newest_us = max(machine.newest_us, at_us)
        if note != machine.notes.get(handle):
            self.mark(machine, handle, note)
            self._touch(machine)
        if value == before and status == status_before and type(value) is type(before):
            return
        role = self.role_of[handle]
        if role is Role.ANALOGUE and status == status_before:
            deadband = self._deadbands[handle]
            if deadband and _is_within(before, value, deadband):
                return
        turns = status >> 30 != status_before >> 30
        falls = role is Role.COUNT and _falls(before, value)
        if falls or (turns and role is Role.COUNT):
            # Coalescing across a reset would lose what was counted just before it, or just after; and what
            # cannot be read any more may be set back before it can be again.
            self._tell_waiting(machine, at_us)
        elif turns or role is Role.FACT:
            self._keep_waiting(machine, at_us)
        if falls:
            machine.fell = True
            self._touch(machine)
        self.values[handle] = value
        self.statuses[handle] = status
        self.memory.differs(machine)
        if role is Role.FACT or turns:
            self._touch(machine)
        elif handle in self._watched:
            self._moved(machine, before, value, at_us)
        if role is not Role.FACT and status >> 30 < BAD:
            machine.pending_us = max(at_us, machine.pending_us)
            if role is not Role.ANALOGUE:
                machine.pending_kind = "counter"
            self.memory.waits(machine.position)
            machine.flush_us = self._interval_end(at_us)
            self.next_us = min(self.next_us, machine.flush_us)

    def _keep_waiting(self, machine: SampledMachine, before_us: int) -> None:
        """Keep in mind how a machine stood when what waits came: its facts are about to change."""
        if not machine.changed and 0 < machine.pending_us < before_us:
            machine.waiting = self._newest(machine)

    def _tell_waiting(self, machine: SampledMachine, before_us: int) -> None:
        """Make a record of what waits for its interval's end, as it was then."""
        if not 0 < machine.pending_us < before_us:
            return
        fields = None
        if machine.waiting is not None:
            fields = machine.tags.compose(*machine.waiting, moving=machine.moving, note=self._note(machine))
        self.emit(machine, machine.pending_us, machine.pending_kind, fields)

    def fail(self, machine: SampledMachine, handle: int, status: int, at_us: int) -> None:
        """Take note that a tag of a machine that has had its first record cannot be read any more."""
        self.advance(at_us, at_us - self._margin_us)
        machine.newest_us = max(machine.newest_us, at_us)
        if handle in machine.notes or self.values[handle] is not None or self.statuses[handle] != status:
            if self.role_of[handle] is Role.COUNT:
                self._tell_waiting(machine, at_us)
            else:
                self._keep_waiting(machine, at_us)
            self._touch(machine)
        self.values[handle], self.statuses[handle] = None, status
        self.memory.differs(machine)
        self.mark(machine, handle, None)

    def mark(self, machine: SampledMachine, handle: int, note: str | None) -> None:
        """Keep, or forget, why a tag's time is not the source's own."""
        if note is None:
            machine.notes.pop(handle, None)
        else:
            machine.notes[handle] = note

    def _interval_end(self, at_us: int) -> int:
        """Return when a value's interval is over: intervals include their end, as shifts do for counts."""
        return ((at_us - 1) // self._interval_us + 1) * self._interval_us + 1

    def _touch(self, machine: SampledMachine) -> None:
        """Have a machine's facts looked at once all values of the moment are in."""
        if not machine.changed:
            machine.changed = True
            self._touched.append(machine)

    def _moved(self, machine: SampledMachine, before: Any, value: Any, at_us: int) -> None:
        """Take note that the watched counter has another value."""
        machine.still_us = at_us + machine.tags.moving_for_us
        self.next_us = min(self.next_us, machine.still_us)
        if machine.moving is not True and before is not None and value is not None:
            machine.moving = True
            self._touch(machine)

    # --- records become due ---

    def settle(self, before_us: int = NEVER) -> None:
        """Make records of facts that changed, once all values of their moment are in: before this one."""
        if not self._touched or self._touched[0].newest_us >= before_us:
            return
        for machine in self._touched:
            machine.changed = False
            machine.waiting = None
            fields = self._fields(machine)
            if fields.facts != machine.facts or machine.fell:
                self.emit(machine, machine.newest_us, "counter", fields)
        self._touched.clear()

    def advance(self, to_us: int, beat_to_us: int) -> None:
        """Do for every machine, in order, what is due up to a source time.

        to_us: [us] up to where coalesced values are due
        beat_to_us: [us] up to where the server is known to have told all, so that silence means no change
        """
        if self.observed_us == NEVER:
            beat_to_us = 0  # nobody has watched yet
        next_us = NEVER
        for machine in self.machines:
            if machine.ready:
                due_us = self._run(machine, to_us, beat_to_us)
                next_us = min(next_us, due_us)
        self.next_us = next_us

    def _run(self, machine: SampledMachine, to_us: int, beat_to_us: int) -> int:
        """Do what is due for one machine; return when something is due next."""
        if beat_to_us - machine.beat_us > MAX_FILL_US:
            machine.beat_us = beat_to_us
        while True:
            beat_us, still_us, flush_us = machine.beat_us, machine.still_us, machine.flush_us
            if flush_us <= to_us and flush_us <= beat_us and flush_us <= still_us:
                self.emit(machine, machine.pending_us, machine.pending_kind)
            elif still_us <= beat_to_us and still_us <= beat_us:
                machine.still_us = NEVER
                machine.moving = False
                fields = self._fields(machine)
                if fields.facts != machine.facts:
                    self.emit(machine, max(still_us, machine.last_us), "state", fields)
            elif beat_us <= beat_to_us:
                self.emit(machine, max(beat_us, machine.last_us, machine.pending_us), "counter")
            elif flush_us <= to_us:
                self.emit(machine, machine.pending_us, machine.pending_kind)
            else:
                return min(flush_us, beat_us + self._margin_us, still_us + self._margin_us)

    def observe_from(self, source_us: int) -> None:
        """Settle from which source time on silence means that nothing changed."""
        self.observed_us = source_us
        for machine in self.machines:
            if machine.ready:
                self.watch_from(machine, source_us)

    def watch_from(self, machine: SampledMachine, source_us: int) -> None:
        """Have no heartbeat and no standstill of a machine lie before a moment."""
        machine.watched_us = source_us
        machine.beat_us = max(machine.beat_us, source_us)
        if machine.still_us != NEVER:
            machine.still_us = max(machine.still_us, source_us)
        self._due_soon(machine)

    def begin(self, machine: SampledMachine, at_us: int) -> None:
        """Make a machine's first record since it is read."""
        self._made_ready(machine)
        machine.still_us = at_us + machine.tags.moving_for_us if machine.tags.moving_slot >= 0 else NEVER
        machine.moving = None
        self.emit(machine, at_us, "state")

    def repeats(self, machine: SampledMachine, at_us: int) -> bool:
        """Tell whether a record as of a moment would be its last one once more."""
        return at_us == machine.last_us and machine.said == self._fields(machine)

    def resume(self, machine: SampledMachine) -> None:
        """Go on with a machine of which nothing was missed; in a new process too its silence is known."""
        self._made_ready(machine)
        machine.beat_us = machine.last_us + self._heartbeat_us
        if machine.tags.moving_slot >= 0 and machine.moving is not False:
            machine.still_us = machine.last_us + machine.tags.moving_for_us
        if machine.watched_us != NEVER:
            self.observed_us = min(self.observed_us, machine.watched_us)
            self.watch_from(machine, machine.watched_us)
        self._due_soon(machine)

    def _made_ready(self, machine: SampledMachine) -> None:
        machine.ready = True
        machine.lost_us = 0
        machine.subscribed_us = NEVER

    def forget(self, machine: SampledMachine, present_us: int, cause: str) -> None:
        """Stop speaking for a machine that is not read any more."""
        if not machine.ready:
            return
        if machine.pending_us:
            self.emit(machine, machine.pending_us, machine.pending_kind)
        machine.ready = False
        machine.lost_us = max(present_us - self._margin_us, machine.last_us)
        machine.cause = cause
        machine.awaiting = set(machine.handles)
        machine.beat_us = machine.flush_us = machine.still_us = NEVER

    def gap(self, machine: SampledMachine, from_us: int, to_us: int, cause: str) -> None:
        """Record that a machine was not read between two source times."""
        machine.said = None
        self._drafts.append(GapDraft(machine.tags.key, self._gateway, from_us, to_us, cause))

    def gap_while_ready(self, machine: SampledMachine, from_us: int, to_us: int, cause: str) -> None:
        """Record that values of a machine that is read are missing between two source times."""
        if machine.pending_us:
            self.emit(machine, machine.pending_us, machine.pending_kind)
        start_us = max(from_us, machine.last_us)
        end_us = max(start_us, to_us)
        self.gap(machine, start_us, end_us, cause)
        self._tell_anew(machine, end_us)

    def withdraw(self, machine: SampledMachine, since_us: int, present_us: int, cause: str) -> None:
        """Record that what was told of a machine that is read since a source time was not known to be so.

        A gap lasts until the next record, so that there is one from each record that was told since. Of older
        ones than are kept in mind nothing is withdrawn.
        """
        if machine.pending_us:
            self.emit(machine, machine.pending_us, machine.pending_kind)
        told = machine.told or [machine.last_us]
        first_us = max(told[0], since_us)
        starts = [first_us, *(at_us for at_us in told if at_us > first_us)]
        ends = [*starts[1:], max(present_us, starts[-1])]
        for start_us, end_us in zip(starts, ends, strict=True):
            self.gap(machine, start_us, end_us, cause)
        self._tell_anew(machine, ends[-1])

    def falls(self, handle: int, value: Any) -> bool:
        """Tell whether a counter would become less by a value."""
        return self.role_of[handle] is Role.COUNT and _falls(self.values[handle], value)

    def _tell_anew(self, machine: SampledMachine, at_us: int) -> None:
        """Have the next value or heartbeat say what holds, after a gap that ends then."""
        machine.facts = ()
        machine.beat_us = at_us
        self.next_us = min(self.next_us, machine.beat_us + self._margin_us)

    def _due_soon(self, machine: SampledMachine) -> None:
        due_us = machine.beat_us
        if machine.still_us < due_us:  # noqa: PLR1730 - min() is several times slower
            due_us = machine.still_us
        due_us += self._margin_us
        if due_us < self.next_us:  # noqa: PLR1730
            self.next_us = due_us

    def _fields(self, machine: SampledMachine) -> Fields:
        values, statuses = self._newest(machine)
        return machine.tags.compose(values, statuses, moving=machine.moving, note=self._note(machine))

    def _note(self, machine: SampledMachine) -> str | None:
        return machine.notes[min(machine.notes)] if machine.notes else None

    def _newest(self, machine: SampledMachine) -> tuple[list[Any], list[int]]:
        return self.values[machine.where], self.statuses[machine.where]

    def emit(self, machine: SampledMachine, at_us: int, kind: Kind, fields: Fields | None = None) -> None:
        """Make a machine's record as of a moment [us, source time]."""
        fields = fields or self._fields(machine)
        facts = fields.facts
        if facts != machine.facts:
            kind = "state"
        machine.facts = facts
        machine.said = fields
        machine.fell = False
        machine.last_us = at_us
        machine.pending_us = 0
        machine.waiting = None
        machine.pending_kind = "analogue"
        machine.flush_us = NEVER
        machine.beat_us = at_us + self._heartbeat_us
        self._due_soon(machine)
        machine.told.append(at_us)
        self.memory.told(machine.position)
        self._drafts.append(
            TelemetryDraft(machine.tags.key, self._gateway, at_us, kind, fields, machine.topic)
        )

    # --- after a crash ---

    def restore(self, saved: Mapping[str, bytes], cause: str) -> dict[int, int]:
        """Go on from what `memory` gave before the crash; what does not fit any more is left out.

        Return, by handle, the source times of the values that are known again [us since 1970].

        cause: why nothing was read meanwhile
        """
        source_us: dict[int, int] = {}
        for machine, pending_us, kind in self.memory.restored(saved, cause, source_us):
            self.emit(machine, pending_us, kind)
        return source_us


def _is_within(one: Any, other: Any, deadband: float) -> bool:
    """Tell whether two numbers differ by no more than a deadband."""
    return isinstance(one, int | float) and isinstance(other, int | float) and abs(one - other) <= deadband


def _falls(before: Any, after: Any) -> bool:
    """Tell whether a counter has become less."""
    return isinstance(before, int | float) and isinstance(after, int | float) and after < before
