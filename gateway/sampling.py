"""When a machine's fields become a record: by exception, coalesced, with a heartbeat. Pure.

Three clocks meet here, all in microseconds since 1970:

- a value's *source time*, as the PLC stamped it; every record is stamped with one
- *our* clock, passed in as `wall_us`
- the *source's present*, our clock less the lag between the two (`SourceClock`)

All decisions are made in source time. A source that plays back its past, or whose clock is wrong, is so
sampled exactly like one that tells of now: its past gets the heartbeats that it would have had, and no
heartbeat overtakes a value that is still to come.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct

from contract import topics
from contract.machine_key import MachineKey
from contract.telemetry import Telemetry, encode
from gateway.outbox.port import Draft, GapDraft, Kind
from gateway.sources.port import BAD, TagBatch
from gateway.tags import WAITING, Binding, Fields, MachineTags, Role

_US: Final = 1_000_000
_NEVER: Final = 1 << 62
LATE_TOLERANCE_US: Final = 60 * _US
"""A value that is older than its machine's last record by more than this was stamped by a clock set back."""
LIVE_LAG_US: Final = 5 * _US
"""A source whose values are at most this old when they come tells of now."""
MAX_FILL_US: Final = 26 * 3600 * _US
"""Silence longer than this is not filled with heartbeats: no shift is that long."""
_LAG_WINDOW_US: Final = 60 * _US
SETTLE_US: Final = 2 * _US
"""How long a machine's first record waits for tags that have not been heard."""
NOTE_OUR_CLOCK: Final = "GatewayTimestamp"
NOTE_CLOCK_BACK: Final = "SourceClockWentBack"
NOTE_CLOCK_AHEAD: Final = "SourceClockAhead"


@dataclass(frozen=True, slots=True)
class TelemetryDraft:
    """A telemetry record that has no sequence yet."""

    machine: MachineKey
    gateway: str
    epoch_us: int
    kind: Kind
    fields: Fields
    topic: str

    def encode(self, sequence: int) -> bytes:
        """Return the contract's Telemetry as JSON."""
        return encode(self.telemetry(sequence))

    def telemetry(self, sequence: int) -> Telemetry:
        """Return the contract's record."""
        fields = self.fields
        key = self.machine
        return Telemetry(
            epochtime=self.epoch_us / _US,
            site=key.site,
            area=key.area,
            line=key.line,
            machine=key.machine,
            state=fields.state,
            gateway=self.gateway,
            sequence=sequence,
            total_units=_or_unset(fields.total_units),
            off_quality_units=_or_unset(fields.off_quality_units),
            good_units=_or_unset(fields.good_units),
            reason_code=_or_unset(fields.reason_code),
            product=_or_unset(fields.product),
            order=_or_unset(fields.order),
            operator=_or_unset(fields.operator),
            ideal_run_rate=_or_unset(fields.ideal_run_rate),
            data_quality=fields.data_quality,
            status=_or_unset(fields.status),
            tags=_or_unset(fields.tags),
        )


def _is_within(one: Any, other: Any, deadband: float) -> bool:
    """Tell whether two numbers differ by no more than a deadband."""
    return isinstance(one, int | float) and isinstance(other, int | float) and abs(one - other) <= deadband


def _falls(before: Any, after: Any) -> bool:
    """Tell whether a counter has become less."""
    return isinstance(before, int | float) and isinstance(after, int | float) and after < before


def _or_unset(value: Any) -> Any:
    return UNSET if value is None else value


class SourceClock:
    """What time it is at the source, judged by how old its values are when they come.

    The lag is the least that was seen in the last one to two minutes. Before any fresh value has come it is
    unknown, and after `assume_live_after_us` taken to be nothing.
    """

    def __init__(self, assume_live_after_us: int, lag_us: int | None = None) -> None:
        self._assume_live_after_us = assume_live_after_us
        self._connected_us = _NEVER
        self._window_us = 0
        self._least: int | None = None
        self._least_before: int | None = None
        self.lag_us = lag_us
        """[us] our clock less the source's; None while unknown."""

    def connected(self, wall_us: int) -> None:
        """Take note that values of this source come from now on."""
        self._connected_us = min(self._connected_us, wall_us)

    def lost(self) -> None:
        """Take note that no values come any more."""
        self._connected_us = _NEVER

    def heard(self, source_us: int, wall_us: int) -> None:
        """Take note of the newest of some fresh values and of when it came."""
        lag = wall_us - source_us
        if wall_us - self._window_us >= _LAG_WINDOW_US or wall_us < self._window_us:
            self._least_before, self._least = self._least, None
            self._window_us = wall_us
        self._least = lag if self._least is None else min(lag, self._least)
        self.lag_us = self._least if self._least_before is None else min(self._least, self._least_before)

    def at(self, wall_us: int) -> int | None:
        """Return the source's time at a moment of ours; None while unknown."""
        if self.lag_us is None:
            if wall_us - self._connected_us < self._assume_live_after_us:
                return None
            self.lag_us = 0
        return wall_us - self.lag_us


class Saved(Struct, frozen=True, array_like=True):
    """What must be known of a machine after a crash, so that the same values are not told twice."""

    last_us: int
    addresses: list[str]
    values: list[Any]
    statuses: list[int]
    pending_us: int = 0
    pending_kind: Kind = "analogue"


@dataclass(slots=True, eq=False)
class _Machine:
    """The newest of everything about one machine."""

    position: int
    tags: MachineTags
    addresses: list[str]
    topic: str
    values: list[Any]
    statuses: list[int]
    notes: list[str | None]
    awaiting: set[int]
    subscribed_us: int = _NEVER
    ready: bool = False
    newest_us: int = 0
    last_us: int = 0
    lost_us: int = 0
    cause: str = ""
    facts: tuple[Any, ...] = ()
    pending_us: int = 0
    pending_kind: Kind = "analogue"
    flush_us: int = _NEVER
    beat_us: int = _NEVER
    moving: bool | None = None
    still_us: int = _NEVER
    changed: bool = False
    noted: bool = False
    fell: bool = False


_COUNT: Final = 1
_ANALOGUE: Final = 2
_BY_TIME: Final = itemgetter(0)


def _quick_place(machine: _Machine, binding: Binding) -> tuple[_Machine, int, int, list[Any], list[int]]:
    """Return where a tag's values go, and whether the newest of an interval says all: _COUNT or _ANALOGUE.

    That is 0 for tags that need a closer look: facts, a counter that is watched for moving, a deadband.
    """
    coalesced = 0
    if binding.role is Role.COUNT and binding.slot != machine.tags.moving_slot:
        coalesced = _COUNT
    elif binding.role is Role.ANALOGUE and not machine.tags.slots[binding.slot].deadband:
        coalesced = _ANALOGUE
    return machine, binding.slot, coalesced, machine.values, machine.statuses


class ConnectionSampler:
    """All machines of one connection, from tag values to drafts.

    gateway: the gateway's name
    machines, bindings: as `gateway.tags.bindings` made them
    publish_interval_us: [us] one record per machine and interval of source time, besides changed facts
    heartbeat_us: [us] at least one record per machine in this time
    margin_us: [us] how much later than its source time a value may come although nothing is wrong
    ahead_max_us: [us] a source time further ahead of our clock than this is not believed
    """

    def __init__(
        self,
        gateway: str,
        machines: Sequence[MachineTags],
        bindings: Sequence[Binding],
        *,
        publish_interval_us: int,
        heartbeat_us: int,
        margin_us: int,
        ahead_max_us: int,
        assume_live_after_us: int,
    ) -> None:
        self._gateway = gateway
        self._interval_us = publish_interval_us
        self._heartbeat_us = heartbeat_us
        self._margin_us = margin_us
        self._ahead_max_us = ahead_max_us
        self.clock = SourceClock(assume_live_after_us)
        self._machines = [self._machine(position, tags) for position, tags in enumerate(machines)]
        self._places = [(self._machines[b.machine], b.slot, b.role) for b in bindings]
        self._quick = {b.handle: _quick_place(self._machines[b.machine], b) for b in bindings}
        self._alive_us = 0
        self._observed_us = _NEVER
        self._next_us = _NEVER
        self._drafts: list[Draft] = []
        self._touched: list[_Machine] = []
        self._unsaved: set[int] = set()

    @staticmethod
    def _machine(position: int, tags: MachineTags) -> _Machine:
        slots = len(tags.slots)
        return _Machine(
            position=position,
            tags=tags,
            addresses=[slot.node for slot in tags.slots],
            topic=topics.machine_topic(tags.key, "telemetry"),
            values=[None] * slots,
            statuses=[WAITING] * slots,
            notes=[None] * slots,
            awaiting=set(range(slots)),
        )

    # --- what happens ---

    def subscribed(self, handles: Sequence[int], wall_us: int, *, resumed: bool) -> list[Draft]:
        """Take note that tags are read from now on; see Receiver.on_subscribed."""
        self.clock.connected(wall_us)
        if not resumed:
            self._alive_us = wall_us
        for handle in handles:
            machine, slot, _ = self._places[handle - 1]
            if machine.ready:
                continue
            if resumed and machine.last_us:
                self._resume(machine)
                continue
            machine.awaiting.add(slot)
            machine.statuses[slot] = WAITING
            machine.subscribed_us = min(machine.subscribed_us, wall_us)
        return self._taken()

    def unreadable(self, handles: Sequence[int], status: int, wall_us: int) -> list[Draft]:
        """Take note that tags cannot be read now: as if a bad value had come."""
        present = self.clock.at(wall_us)
        for handle in handles:
            machine, slot, _ = self._places[handle - 1]
            if not machine.ready:
                machine.awaiting.discard(slot)
                machine.statuses[slot] = status
                machine.values[slot] = None
            else:
                at_us = max(machine.last_us, machine.newest_us, present or 0)
                self._advance(at_us, at_us)
                self._put(machine, slot, Role.FACT, (None, status, None), at_us)
        self._settle()
        self._begin_ready(wall_us)
        return self._taken()

    def lost(self, lost_us: int, cause: str) -> list[Draft]:
        """Take note that nothing has been heard since a moment of our clock."""
        self._alive_us = min(self._alive_us, lost_us)
        present = self.clock.at(lost_us)
        for machine in self._machines:
            self._forget(machine, present or 0, cause)
        self.clock.lost()
        return self._taken()

    def stopped(self, wall_us: int, cause: str) -> list[Draft]:
        """Take note that nobody wants to read any machine from a moment of our clock on, and tell it at once.

        What was unknown until now has a gap of its own cause; the next one goes on where that ends.
        """
        present = self._present(wall_us)
        for machine in self._machines:
            self._forget(machine, present, cause)
            machine.subscribed_us = _NEVER
            if machine.last_us:
                from_us = max(machine.lost_us, machine.last_us)
                end_us = max(from_us, present)
                self._drafts.append(self._gap(machine, from_us, end_us, machine.cause or cause))
                machine.lost_us, machine.cause = end_us, cause
        self.clock.lost()
        return self._taken()

    def gap(self, handles: Sequence[int], from_us: int, to_us: int, cause: str) -> list[Draft]:
        """Record that values of tags between two source times are missing for ever."""
        for machine in dict.fromkeys(self._places[handle - 1][0] for handle in handles):
            if machine.ready:
                start_us = max(from_us, machine.last_us)
                end_us = max(start_us, to_us)
                self._drafts.append(self._gap(machine, start_us, end_us, cause))
                machine.facts = ()  # the next value or heartbeat says anew what holds
                machine.beat_us = min(machine.beat_us, end_us)
                self._next_us = min(self._next_us, machine.beat_us + self._margin_us)
        return self._taken()

    def alive(self, wall_us: int) -> None:
        """Take note that the server has said that nothing else had changed at a moment of our clock."""
        self._alive_us = max(self._alive_us, wall_us)

    def apply(self, batch: TagBatch) -> list[Draft]:
        """Take values in, in the order of their source time."""
        wall_us = batch.received_us
        self._alive_us = max(self._alive_us, wall_us)
        times = batch.source_us
        if not times:
            return self._taken()
        ordered = sorted(times)
        rows: Iterable[tuple[int, int, Any, int]] = zip(
            times, batch.handles, batch.values, batch.statuses, strict=True
        )
        if ordered != times:
            rows = sorted(rows, key=_BY_TIME)
        latest_us = wall_us + self._ahead_max_us
        if batch.unstamped or ordered[-1] > latest_us:
            self._apply_doubtful(batch, latest_us)
        else:
            self._apply_timed(rows, ordered[-1], wall_us)
        self._settle()
        self._begin_ready(wall_us)
        return self._taken()

    def _apply_timed(self, rows: Iterable[tuple[int, int, Any, int]], newest_us: int, wall_us: int) -> None:
        """Take in values whose times may be believed, in their order.

        Most values are of a counter or a further tag, good as the one before: those are taken in right here,
        because a call for each would cost more than all that is done with it.
        """
        places = self._quick
        unsaved = self._unsaved.add
        now_us = 0
        heard = False
        for at_us, handle, value, status in rows:
            machine, slot, coalesced, values, statuses = places[handle]
            if at_us < machine.last_us or machine.noted or not machine.ready:
                self._apply_one(machine, handle, (value, status, None), at_us, wall_us)
                continue
            if not heard and statuses[slot] >> 30 < BAD:
                heard = True
                self._listen(newest_us, wall_us, at_us)
            if at_us > now_us:
                now_us = at_us
                if self._touched:
                    self._settle()
                if at_us >= self._next_us:
                    self._advance(at_us, at_us - self._margin_us)
            before = values[slot]
            if value == before and status == statuses[slot] and type(value) is type(before):
                continue
            if (
                not coalesced
                or status != statuses[slot]
                or (coalesced == _COUNT and (type(value) is not type(before) or value < before))
            ):
                self._put(machine, slot, self._places[handle - 1][2], (value, status, None), at_us)
            else:
                values[slot] = value
                if at_us > machine.newest_us:  # noqa: PLR1730 - max() is several times slower
                    machine.newest_us = at_us
                if at_us > machine.pending_us:  # noqa: PLR1730
                    machine.pending_us = at_us
                if coalesced == _COUNT:
                    machine.pending_kind = "counter"
                unsaved(machine.position)
                if machine.flush_us == _NEVER:
                    machine.flush_us = self._interval_end(at_us)
                    self._next_us = min(self._next_us, machine.flush_us)

    def _apply_one(
        self, machine: _Machine, handle: int, reading: tuple[Any, int, str | None], at_us: int, wall_us: int
    ) -> None:
        """Take in one value of which anything may be true."""
        _, slot, role = self._places[handle - 1]
        value, status, note = reading
        if not machine.ready:
            if slot in machine.awaiting or not machine.newest_us:
                self._hear(machine, slot, reading, wall_us if note else at_us)
                return
            self._begin_ready(wall_us)  # all that have their first values, before time goes on
            if not machine.ready:
                self._begin(machine, wall_us)
        anew = machine.statuses[slot] >> 30 >= BAD
        if note is not None:
            at_us = max(self._present(wall_us), machine.last_us)
        elif at_us < machine.last_us:
            if machine.last_us - at_us > LATE_TOLERANCE_US:
                if anew:  # it has been so for long, and can only now be read
                    at_us = self.clock.at(wall_us) or 0
                else:
                    at_us = self._present(wall_us)
                    reading = value, status, NOTE_CLOCK_BACK
            at_us = max(at_us, machine.last_us)
        elif self._observed_us == _NEVER and not anew:
            self._listen(at_us, wall_us, at_us)
        if self._touched and at_us > self._touched[0].newest_us:
            self._settle()
        if at_us >= self._next_us:
            self._advance(at_us, at_us - self._margin_us)
        self._put(machine, slot, role, reading, at_us)

    def _apply_doubtful(self, batch: TagBatch, latest_us: int) -> None:
        """Take in values of which some have no time, or one that is not to be believed."""
        times = batch.source_us
        stamped = (stamp for i, stamp in enumerate(times) if i not in batch.unstamped and stamp <= latest_us)
        newest_us = max(stamped, default=0)
        order = sorted(range(len(times)), key=times.__getitem__)
        heard = False
        for i in order:
            machine = self._places[batch.handles[i] - 1][0]
            note = NOTE_OUR_CLOCK if i in batch.unstamped else None
            if times[i] > latest_us:
                note = NOTE_CLOCK_AHEAD
            if note is None and not heard and self._is_fresh(batch.handles[i], times[i]):
                heard = True
                self._listen(newest_us, batch.received_us, times[i])
            reading = batch.values[i], batch.statuses[i], note
            self._apply_one(machine, batch.handles[i], reading, times[i], batch.received_us)

    def tick(self, wall_us: int) -> list[Draft]:
        """Do what is due by the passing of time."""
        self._begin_ready(wall_us)
        present = self.clock.at(wall_us)
        if present is not None:
            if self._observed_us == _NEVER:
                self._observe_from(present)
            if present >= self._next_us:
                proven = (self.clock.at(self._alive_us) or 0) - self._margin_us
                self._advance(present, min(proven, present))
        return self._taken()

    def known(self, handle: int) -> tuple[Any, int] | None:
        """Return value and status that were last heard of a tag; None while there is none."""
        machine, slot, _ = self._places[handle - 1]
        status = machine.statuses[slot]
        return None if status == WAITING else (machine.values[slot], status)

    # --- after a crash ---

    @property
    def has_unsaved(self) -> bool:
        """Tell whether `unsaved` would yield anything."""
        return bool(self._unsaved)

    def unsaved(self) -> Iterator[tuple[int, bytes]]:
        """Yield, once, position and state of each machine with a new record, or a value that waits to be one.

        A waiting value was acknowledged to the server, so that it too has to be on disk.
        """
        positions, self._unsaved = self._unsaved, set()
        for position in positions:
            machine = self._machines[position]
            waiting = machine.pending_us, machine.pending_kind
            saved = Saved(machine.last_us, machine.addresses, machine.values, machine.statuses, *waiting)
            yield position, msgspec.msgpack.encode(saved)

    def unsaved_again(self, positions: Iterable[int]) -> None:
        """Have `unsaved` yield these again: what it gave did not reach the disk."""
        self._unsaved.update(positions)

    def restore(self, position: int, saved: bytes, cause: str) -> None:
        """Go on from what `unsaved` gave before the crash; what does not fit any more is left out."""
        machine = self._machines[position]
        try:
            known = msgspec.msgpack.decode(saved, type=Saved)
        except msgspec.DecodeError:
            return
        machine.last_us = machine.newest_us = machine.lost_us = known.last_us
        machine.cause = cause
        if known.addresses == machine.addresses:
            machine.values[:] = known.values
            machine.statuses[:] = known.statuses
            machine.facts = machine.tags.compose(machine.values, machine.statuses).facts
            if known.pending_us:
                self._emit(machine, known.pending_us, known.pending_kind)
                machine.newest_us = machine.lost_us = machine.last_us

    # --- inside ---

    def _taken(self) -> list[Draft]:
        drafts, self._drafts = self._drafts, []
        return drafts

    def _present(self, wall_us: int) -> int:
        """Return the source's present; ours while that is unknown."""
        present = self.clock.at(wall_us)
        return wall_us if present is None else present

    def _is_fresh(self, handle: int, at_us: int) -> bool:
        """Tell whether a value that comes now says when it is at the source.

        The first value of a tag does not: it is stamped with its last change, which may be hours ago. Neither
        does the first after bad ones.
        """
        machine, slot, _ = self._places[handle - 1]
        return machine.ready and at_us >= machine.last_us and machine.statuses[slot] >> 30 < BAD

    def _listen(self, newest_us: int, wall_us: int, oldest_us: int) -> None:
        """Let the clock judge a batch by its newest source time.

        oldest_us: [us] the oldest fresh value in it: the source was observed at that time of its own
        """
        self.clock.heard(newest_us, wall_us)
        if self._observed_us == _NEVER:
            is_live = wall_us - newest_us <= LIVE_LAG_US
            self._observe_from(newest_us if is_live else oldest_us)

    def _observe_from(self, source_us: int) -> None:
        """Settle from which source time on silence means that nothing changed.

        A source that tells of now is observed since it was heard; one that plays back its past, since the
        first value that followed its first ones. What was before is told by the first values alone.
        """
        self._observed_us = source_us
        for machine in self._machines:
            if machine.ready:
                machine.beat_us = max(machine.beat_us, source_us)
                if machine.still_us != _NEVER:
                    machine.still_us = max(machine.still_us, source_us)
                due_us = min(machine.beat_us, machine.still_us) + self._margin_us
                self._next_us = min(self._next_us, due_us)

    def _hear(self, machine: _Machine, slot: int, reading: tuple[Any, int, str | None], at_us: int) -> None:
        """Take in a first value, before the machine's first record."""
        value, status, note = reading
        machine.values[slot] = value
        machine.statuses[slot] = status
        machine.notes[slot] = note
        machine.awaiting.discard(slot)
        if note is None or not machine.newest_us:
            machine.newest_us = max(machine.newest_us, at_us)

    def _resume(self, machine: _Machine) -> None:
        """Go on with a machine of which nothing was missed."""
        machine.ready = True
        machine.lost_us = 0
        machine.subscribed_us = _NEVER
        machine.beat_us = machine.last_us + self._heartbeat_us
        if machine.tags.moving_slot >= 0 and machine.moving is not False:
            machine.still_us = machine.last_us + machine.tags.moving_for_us
        self._next_us = min(self._next_us, machine.beat_us + self._margin_us)

    def _begin_ready(self, wall_us: int) -> None:
        for machine in self._machines:
            if not machine.ready and machine.subscribed_us != _NEVER:
                heard = len(machine.awaiting) < len(machine.values)
                late = wall_us - machine.subscribed_us >= SETTLE_US
                if not machine.awaiting or (heard and late):
                    self._begin(machine, wall_us)

    def _begin(self, machine: _Machine, wall_us: int) -> None:
        """Make a machine's first record since we read it (again), and the gap before it."""
        present = self.clock.at(wall_us)
        at_us = machine.newest_us
        if machine.last_us:
            at_us = max(at_us, machine.last_us, present or 0)
            from_us = max(machine.lost_us, machine.last_us)
            if at_us > from_us:
                self._drafts.append(self._gap(machine, from_us, at_us, machine.cause or "not read"))
        elif not at_us:
            at_us = self._present(wall_us)
        machine.ready = True
        machine.lost_us = 0
        machine.subscribed_us = _NEVER
        machine.still_us = at_us + machine.tags.moving_for_us if machine.tags.moving_slot >= 0 else _NEVER
        machine.moving = None
        self._emit(machine, at_us, "state")
        if self._observed_us != _NEVER:
            machine.beat_us = max(machine.beat_us, self._present(wall_us))
            if machine.still_us != _NEVER:
                machine.still_us = max(machine.still_us, self._present(wall_us))

    def _forget(self, machine: _Machine, present_us: int, cause: str) -> None:
        """Stop speaking for a machine that is not read any more."""
        if not machine.ready:
            return
        if machine.pending_us:
            self._emit(machine, machine.pending_us, machine.pending_kind)
        machine.ready = False
        machine.lost_us = max(present_us - self._margin_us, machine.last_us)
        machine.cause = cause
        machine.awaiting = set(range(len(machine.values)))
        machine.beat_us = machine.flush_us = machine.still_us = _NEVER

    def _put(
        self, machine: _Machine, slot: int, role: Role, reading: tuple[Any, int, str | None], at_us: int
    ) -> None:
        """Take in one value of a machine that has had its first record."""
        value, status, note = reading
        before, status_before = machine.values[slot], machine.statuses[slot]
        machine.newest_us = max(machine.newest_us, at_us)
        if note != machine.notes[slot]:
            machine.notes[slot] = note
            machine.noted = any(machine.notes)
            self._touch(machine)
        if value == before and status == status_before and type(value) is type(before):
            return
        if role is Role.ANALOGUE and status == status_before:
            deadband = machine.tags.slots[slot].deadband
            if deadband and _is_within(before, value, deadband):
                return
        if role is Role.COUNT and _falls(before, value):
            # Coalescing across a reset would lose what was counted just before it, or just after.
            if 0 < machine.pending_us < at_us:
                self._emit(machine, machine.pending_us, machine.pending_kind)
            machine.fell = True
            self._touch(machine)
        machine.values[slot] = value
        machine.statuses[slot] = status
        if role is Role.FACT or status >> 30 != status_before >> 30:
            self._touch(machine)
        elif slot == machine.tags.moving_slot:
            self._moved(machine, before, value, at_us)
        if role is not Role.FACT and status >> 30 < BAD:
            machine.pending_us = max(at_us, machine.pending_us)
            if role is not Role.ANALOGUE:
                machine.pending_kind = "counter"
            self._unsaved.add(machine.position)
            machine.flush_us = self._interval_end(at_us)
            self._next_us = min(self._next_us, machine.flush_us)

    def _interval_end(self, at_us: int) -> int:
        """Return when a value's interval is over: intervals include their end, as shifts do for counts."""
        return ((at_us - 1) // self._interval_us + 1) * self._interval_us + 1

    def _touch(self, machine: _Machine) -> None:
        """Have a machine's facts looked at once all values of the moment are in."""
        if not machine.changed:
            machine.changed = True
            self._touched.append(machine)

    def _moved(self, machine: _Machine, before: Any, value: Any, at_us: int) -> None:
        """Take note that the watched counter has another value."""
        machine.still_us = at_us + machine.tags.moving_for_us
        self._next_us = min(self._next_us, machine.still_us)
        if machine.moving is not True and before is not None and value is not None:
            machine.moving = True
            self._touch(machine)

    def _settle(self) -> None:
        """Make records of the facts that changed, now that all values of their moment are in."""
        for machine in self._touched:
            machine.changed = False
            fields = self._fields(machine)
            if fields.facts != machine.facts or machine.fell:
                self._emit(machine, machine.newest_us, "counter", fields)
        self._touched.clear()

    def _advance(self, to_us: int, beat_to_us: int) -> None:
        """Do for every machine, in order, what is due up to a source time.

        to_us: [us] up to where coalesced values are due
        beat_to_us: [us] up to where the server is known to have told all, so that silence means no change
        """
        if self._observed_us == _NEVER:
            beat_to_us = 0  # nobody has watched yet
        next_us = _NEVER
        for machine in self._machines:
            if machine.ready:
                due_us = self._run(machine, to_us, beat_to_us)
                next_us = min(next_us, due_us)
        self._next_us = next_us

    def _run(self, machine: _Machine, to_us: int, beat_to_us: int) -> int:
        """Do what is due for one machine; return when something is due next."""
        if beat_to_us - machine.beat_us > MAX_FILL_US:
            machine.beat_us = beat_to_us
        while True:
            beat_us, still_us, flush_us = machine.beat_us, machine.still_us, machine.flush_us
            if flush_us <= to_us and flush_us <= beat_us and flush_us <= still_us:
                self._emit(machine, machine.pending_us, machine.pending_kind)
            elif still_us <= beat_to_us and still_us <= beat_us:
                machine.still_us = _NEVER
                machine.moving = False
                fields = self._fields(machine)
                if fields.facts != machine.facts:
                    self._emit(machine, max(still_us, machine.last_us), "state", fields)
            elif beat_us <= beat_to_us:
                self._emit(machine, max(beat_us, machine.last_us, machine.pending_us), "counter")
            elif flush_us <= to_us:
                self._emit(machine, machine.pending_us, machine.pending_kind)
            else:
                return min(flush_us, beat_us + self._margin_us, still_us + self._margin_us)

    def _fields(self, machine: _Machine) -> Fields:
        note = next(filter(None, machine.notes), None)
        return machine.tags.compose(machine.values, machine.statuses, moving=machine.moving, note=note)

    def _emit(self, machine: _Machine, at_us: int, kind: Kind, fields: Fields | None = None) -> None:
        fields = fields or self._fields(machine)
        if fields.facts != machine.facts:
            kind = "state"
        machine.facts = fields.facts
        machine.fell = False
        machine.last_us = at_us
        machine.pending_us = 0
        machine.pending_kind = "analogue"
        machine.flush_us = _NEVER
        machine.beat_us = at_us + self._heartbeat_us
        due_us = min(machine.beat_us, machine.still_us) + self._margin_us
        self._next_us = min(self._next_us, due_us)
        self._unsaved.add(machine.position)
        key = machine.tags.key
        self._drafts.append(TelemetryDraft(key, self._gateway, at_us, kind, fields, machine.topic))

    def _gap(self, machine: _Machine, from_us: int, to_us: int, cause: str) -> GapDraft:
        return GapDraft(machine.tags.key, self._gateway, from_us, to_us, cause)
