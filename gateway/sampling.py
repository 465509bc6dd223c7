"""When a machine's fields become a record: by exception, coalesced, with a heartbeat. Pure.

Three clocks meet here, all in microseconds since 1970:

- a value's *source time*, as the PLC stamped it; every record is stamped with one
- *our* clock, passed in as `wall_us`
- the *source's present*, our clock less the lag between the two (`SourceClock`)

All decisions are made in source time. A source that plays back its past, or whose clock is wrong, is so
sampled exactly like one that tells of now: its past gets the heartbeats that it would have had, and no
heartbeat overtakes a value that is still to come.

Which time a value has, and since when its machine is read, is settled here; what then becomes of it, by the
`Recorder`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from gateway.outbox.port import Draft
from gateway.recorder import Reading, Recorder, Rows
from gateway.sampled_machine import NEVER, SampledMachine
from gateway.source_clock import SourceClock
from gateway.sources.port import BAD, TagBatch
from gateway.tags import WAITING, Binding, MachineTags, Role

_US: Final = 1_000_000
LATE_TOLERANCE_US: Final = 60 * _US
"""A value that is older than its machine's last record by more than this was stamped by a clock set back."""
LIVE_LAG_US: Final = 5 * _US
"""A source whose values are at most this old when they come tells of now."""
SETTLE_US: Final = 2 * _US
"""How long a machine's first record waits for tags that have not been heard."""
_CUT_OFF: Final = NEVER - 1
"""Since when a machine is read whose first values have not all come, and cannot come."""
_OVERFLOW: Final = "queue overflow in the server"
NOTE_OUR_CLOCK: Final = "GatewayTimestamp"
NOTE_CLOCK_BACK: Final = "SourceClockWentBack"
NOTE_CLOCK_AHEAD: Final = "SourceClockAhead"


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
        self._interval_us = publish_interval_us
        self._margin_us = margin_us
        self._ahead_max_us = ahead_max_us
        self.clock = SourceClock(assume_live_after_us)
        self._recorder = Recorder(
            gateway,
            machines,
            bindings,
            interval_us=publish_interval_us,
            heartbeat_us=heartbeat_us,
            margin_us=margin_us,
        )
        self._machine_of = self._recorder.machine_of
        self._alive_us = 0

    # --- what happens ---

    def subscribed(self, handles: Sequence[int], wall_us: int, *, resumed: bool) -> list[Draft]:
        """Take note that tags are read from now on; see Receiver.on_subscribed."""
        self.clock.connected(wall_us)
        if not resumed:
            self._alive_us = wall_us
        for handle in handles:
            machine = self._machine_of[handle]
            if machine.ready:
                continue
            if resumed and machine.subscribed_us != NEVER:
                machine.subscribed_us = min(machine.subscribed_us, wall_us)
                continue  # what it has not told yet is still to come
            if resumed and machine.last_us:
                self._resume(machine, wall_us)
                continue
            machine.awaiting.add(handle)
            self._recorder.statuses[handle] = WAITING
            machine.subscribed_us = min(machine.subscribed_us, wall_us)
        return self._recorder.taken()

    def unreadable(self, handles: Sequence[int], status: int, wall_us: int) -> list[Draft]:
        """Take note that tags cannot be read now: as if a bad value had come."""
        recorder = self._recorder
        present = self.clock.at(wall_us)
        for handle in handles:
            machine = self._machine_of[handle]
            if not machine.ready:
                machine.awaiting.discard(handle)
                recorder.statuses[handle] = status
                recorder.values[handle] = None
            else:
                recorder.fail(machine, handle, status, max(machine.last_us, machine.newest_us, present or 0))
        recorder.settle()
        self._begin_ready(wall_us)
        return recorder.taken()

    def lost(self, lost_us: int, cause: str) -> list[Draft]:
        """Take note that nothing has been heard since a moment of our clock."""
        self._alive_us = min(self._alive_us, lost_us)
        present = self.clock.at(lost_us)
        for machine in self._recorder.machines:
            self._recorder.forget(machine, present or 0, cause)
            if machine.subscribed_us != NEVER:
                machine.subscribed_us = _CUT_OFF
        self.clock.lost()
        return self._recorder.taken()

    def stopped(self, wall_us: int, cause: str) -> list[Draft]:
        """Take note that nobody wants to read any machine from a moment of our clock on, and tell it at once.

        What was unknown until now has a gap of its own cause; the next one goes on where that ends.
        """
        present = self._present(wall_us)
        for machine in self._recorder.machines:
            self._recorder.forget(machine, present, cause)
            machine.subscribed_us = NEVER
            if machine.last_us:
                from_us = max(machine.lost_us, machine.last_us)
                end_us = max(from_us, present)
                self._recorder.gap(machine, from_us, end_us, machine.cause or cause)
                machine.lost_us, machine.cause = end_us, cause
        self.clock.lost()
        return self._recorder.taken()

    def died(self, handles: Sequence[int], since_us: int, wall_us: int, cause: str) -> list[Draft]:
        """Withdraw what was told of tags that had gone quiet unnoticed; see Receiver.on_died."""
        present_us = self._present(wall_us)
        since = ((self.clock.at(since_us) if since_us else None) or 0) - self._margin_us
        found = [handle for handle in handles if self._recorder.role_of[handle] is not Role.ANALOGUE]
        for machine in dict.fromkeys(self._machine_of[handle] for handle in found):
            if machine.ready:
                self._recorder.withdraw(machine, since, present_us, cause)
        return self._recorder.taken()

    def gap(self, handles: Sequence[int], from_us: int, to_us: int, cause: str) -> list[Draft]:
        """Record that values of tags between two source times are missing for ever."""
        for machine in dict.fromkeys(self._machine_of[handle] for handle in handles):
            if machine.ready:
                self._recorder.gap_while_ready(machine, from_us, to_us, cause)
        return self._recorder.taken()

    def alive(self, wall_us: int) -> None:
        """Take note that the server has said that nothing else had changed at a moment of our clock."""
        self._alive_us = max(self._alive_us, wall_us)

    def apply(self, batch: TagBatch) -> list[Draft]:
        """Take values in, in the order of their source time."""
        wall_us = batch.received_us
        proven_us, self._alive_us = self._alive_us, max(self._alive_us, wall_us)
        times = batch.source_us
        if not times:
            return self._recorder.taken()
        if batch.overflowed:
            times = self._after_losses(batch, (self.clock.at(proven_us) or 0) - self._margin_us)
            batch = replace(batch, source_us=times)
        newest_us = max(times)
        latest_us = wall_us + self._ahead_max_us
        if batch.unstamped or newest_us > latest_us:
            self._apply_doubtful(batch, latest_us)
        else:
            self._apply_timed(_in_order(batch), wall_us, is_past=batch.is_past)
        self._recorder.settle()
        self._begin_ready(wall_us)
        return self._recorder.taken()

    def _after_losses(self, batch: TagBatch, proven_us: int) -> Sequence[int]:
        """Record gaps where the server threw values away; return the times of the batch with that in mind.

        Between the last message before, up to which all is proven to be known, and the first value after the
        loss nobody knows how the tags stood to each other: what is left of that time becomes true at its end.
        A counter that was only coalesced, within a publish interval and without falling, is no loss; then
        other tags keep their times.
        """
        losses: dict[int, tuple[int, int, bool]] = {}
        for position in batch.overflowed:
            handle = batch.handles[position]
            machine, role = self._machine_of[handle], self._recorder.role_of[handle]
            if role is Role.ANALOGUE or not machine.ready:
                continue
            until_us = batch.source_us[position]
            from_us = max(machine.last_us, machine.pending_us, min(until_us, proven_us))
            is_loss = (
                role is Role.FACT
                or until_us - from_us > self._interval_us
                or self._recorder.falls(handle, batch.values[position])
            )
            known = losses.get(machine.position, (from_us, until_us, is_loss))
            losses[machine.position] = min(known[0], from_us), max(known[1], until_us), known[2] or is_loss
        for position, (from_us, until_us, is_loss) in losses.items():
            if is_loss and until_us >= from_us:
                self._recorder.gap_while_ready(
                    self._recorder.machines[position], from_us, until_us, _OVERFLOW
                )
        times = list(batch.source_us)
        for row, (handle, at_us) in enumerate(zip(batch.handles, times, strict=True)):
            from_us, until_us, is_loss = losses.get(self._machine_of[handle].position, (0, 0, False))
            is_mixed = is_loss or self._recorder.role_of[handle] is Role.COUNT
            if is_mixed and from_us < at_us < until_us:
                times[row] = until_us
        return times

    def _apply_timed(self, rows: Rows, wall_us: int, *, is_past: bool) -> None:
        """Take in values whose times may be believed, in their order."""
        listen = _hear_nothing if is_past else partial(self._listen, rows.times[-1], wall_us)
        while (position := self._recorder.take(rows, listen)) < len(rows.times):
            handle = rows.handles[position]
            reading = rows.values[position], rows.statuses[position], None
            self._apply_one(self._machine_of[handle], handle, reading, rows.times[position], wall_us)
            # its neighbours of the same instant belong to the same record
            rows.at_us = max(rows.at_us, rows.times[position])

    def _apply_one(
        self, machine: SampledMachine, handle: int, reading: Reading, at_us: int, wall_us: int
    ) -> None:
        """Take in one value of which anything may be true."""
        recorder = self._recorder
        value, status, note = reading
        if not machine.ready:
            if handle in machine.awaiting or not machine.newest_us:
                self._hear(machine, handle, reading, wall_us if note else at_us)
                return
            before_us = NEVER if note else at_us
            self._begin_ready(wall_us, before_us)  # all that have their first values, before time goes on
            if not machine.ready:
                self._begin(machine, wall_us, before_us)
        anew = recorder.statuses[handle] >> 30 >= BAD
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
        elif recorder.observed_us == NEVER and not anew:
            self._listen(at_us, wall_us, at_us)
        recorder.settle(before_us=at_us)
        if at_us >= recorder.next_us:
            recorder.advance(at_us, at_us - self._margin_us)
        recorder.put(machine, handle, reading, at_us)

    def _apply_doubtful(self, batch: TagBatch, latest_us: int) -> None:
        """Take in values of which some have no time, or one that is not to be believed."""
        times = batch.source_us
        stamped = (stamp for i, stamp in enumerate(times) if i not in batch.unstamped and stamp <= latest_us)
        newest_us = max(stamped, default=0)
        order = sorted(range(len(times)), key=times.__getitem__)
        heard = False
        for i in order:
            handle = batch.handles[i]
            note = NOTE_OUR_CLOCK if i in batch.unstamped else None
            if times[i] > latest_us:
                note = NOTE_CLOCK_AHEAD
            if note is None and not heard and self._is_fresh(handle, times[i]):
                heard = True
                self._listen(newest_us, batch.received_us, times[i])
            reading = batch.values[i], batch.statuses[i], note
            self._apply_one(self._machine_of[handle], handle, reading, times[i], batch.received_us)

    def tick(self, wall_us: int) -> list[Draft]:
        """Do what is due by the passing of time."""
        recorder = self._recorder
        self._begin_ready(wall_us)
        present = self.clock.at(wall_us)
        if present is not None:
            if recorder.observed_us == NEVER:
                recorder.observe_from(present)
            if present >= recorder.next_us:
                proven = (self.clock.at(self._alive_us) or 0) - self._margin_us
                recorder.advance(present, min(proven, present))
        return recorder.taken()

    def known(self, handle: int) -> tuple[Any, int] | None:
        """Return value and status that were last heard of a tag; None while there is none."""
        status = self._recorder.statuses[handle]
        return None if status == WAITING else (self._recorder.values[handle], status)

    # --- after a crash ---

    @property
    def is_beginning(self) -> bool:
        """Tell whether a machine is read anew whose first values, which only memory has, have not all come.

        Of one that is read for the first time nothing can be missing.
        """
        return any(
            not one.ready and one.last_us and one.subscribed_us != NEVER for one in self._recorder.machines
        )

    @property
    def has_unsaved(self) -> bool:
        """Tell whether `unsaved` would yield anything."""
        return self._recorder.memory.has_unsaved

    def unsaved(self, source_us: Sequence[int]) -> Iterator[tuple[str, bytes]]:
        """Yield, once, by key, what has changed of what has to be on disk.

        source_us: by handle, the source time of each tag's newest value [us since 1970]; 0 for none
        """
        return self._recorder.memory.unsaved(source_us)

    def unsaved_again(self, keys: Iterable[str]) -> None:
        """Have `unsaved` yield these again: what it gave did not reach the disk."""
        self._recorder.memory.unsaved_again(keys)

    def restore(self, saved: Mapping[str, bytes], cause: str) -> dict[int, int]:
        """Go on from what `unsaved` gave before the crash, and return its source times.

        What does not fit any more is left out.
        """
        return self._recorder.restore(saved, cause)

    # --- inside ---

    def _present(self, wall_us: int) -> int:
        """Return the source's present; ours while that is unknown."""
        present = self.clock.at(wall_us)
        return wall_us if present is None else present

    def _is_fresh(self, handle: int, at_us: int) -> bool:
        """Tell whether a value that comes now says when it is at the source.

        The first value of a tag does not: it is stamped with its last change, which may be hours ago. Neither
        does the first after bad ones.
        """
        machine = self._machine_of[handle]
        return machine.ready and at_us >= machine.last_us and self._recorder.statuses[handle] >> 30 < BAD

    def _listen(self, newest_us: int, wall_us: int, oldest_us: int) -> None:
        """Let the clock judge a batch by its newest source time.

        oldest_us: [us] the oldest fresh value in it: the source was observed at that time of its own

        A source that tells of now is observed since it was heard; one that plays back its past, since the
        first value that followed its first ones. What was before is told by the first values alone.
        """
        self.clock.heard(newest_us, wall_us)
        if self._recorder.observed_us == NEVER:
            is_live = wall_us - newest_us <= LIVE_LAG_US
            self._recorder.observe_from(newest_us if is_live else oldest_us)

    def _hear(self, machine: SampledMachine, handle: int, reading: Reading, at_us: int) -> None:
        """Take in a first value, before the machine's first record."""
        value, status, note = reading
        self._recorder.values[handle] = value
        self._recorder.statuses[handle] = status
        self._recorder.mark(machine, handle, note)
        machine.awaiting.discard(handle)
        if note is None or not machine.newest_us:
            machine.newest_us = max(machine.newest_us, at_us)

    def _begin_ready(self, wall_us: int, before_us: int = NEVER) -> None:
        for machine in self._recorder.machines:
            if not machine.ready and machine.subscribed_us != NEVER:
                heard = len(machine.awaiting) < len(machine.handles)
                late = wall_us - machine.subscribed_us >= SETTLE_US
                if not machine.awaiting or (heard and late):
                    self._begin(machine, wall_us, before_us)

    def _resume(self, machine: SampledMachine, wall_us: int) -> None:
        """Go on with a machine of which nothing was missed; of its silence nothing is known before it is."""
        recorder = self._recorder
        recorder.resume(machine)
        if machine.watched_us == NEVER and recorder.observed_us != NEVER:
            recorder.watch_from(machine, self._present(wall_us))

    def _begin(self, machine: SampledMachine, wall_us: int, before_us: int) -> None:
        """Make a machine's first record since we read it (again), and the gap before it.

        None where the last one says the same of the same moment, as when a session is lost that has told
        no more than how all stood.

        before_us: [us, source time] when the next value came; until then the first ones hold
        """
        recorder = self._recorder
        present = self.clock.at(wall_us)
        at_us = machine.newest_us
        if machine.last_us:
            from_us = max(machine.lost_us, machine.last_us)
            if before_us <= from_us:  # it is of before the loss, and says nothing of how long that was
                before_us = NEVER
            at_us = max(at_us, machine.last_us, min(present or 0, before_us - 1))
            if at_us > from_us:
                recorder.gap(machine, from_us, at_us, machine.cause or "not read")
        elif not at_us:
            at_us = self._present(wall_us)
        if recorder.repeats(machine, at_us):
            recorder.resume(machine)
        else:
            recorder.begin(machine, at_us)
        if recorder.observed_us != NEVER:
            recorder.watch_from(machine, self._present(wall_us))


def _hear_nothing(_oldest_us: int) -> None:
    """Learn nothing of the source's present from its past."""


def _in_order(batch: TagBatch) -> Rows:
    """Return a batch's values in the order of their source times."""
    times = batch.source_us
    ordered = sorted(times)
    if ordered == times:
        return Rows(times, batch.handles, batch.values, batch.statuses)
    order = sorted(range(len(times)), key=times.__getitem__)
    columns = (batch.handles, batch.values, batch.statuses)
    return Rows(ordered, *([column[position] for position in order] for column in columns))  # type: ignore[arg-type]
