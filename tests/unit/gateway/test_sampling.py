"""When fields become records."""

import random
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.machine_key import MachineKey
from contract.telemetry import Telemetry, decode_one
from gateway.config import Machine
from gateway.outbox.port import GapDraft
from gateway.recorder_memory import WAITING_VALUES, Waiting
from gateway.sampling import ConnectionSampler
from gateway.source_clock import ServerClock, SourceClock
from gateway.sources.port import TagBatch
from gateway.tags import Binding, MachineTags, Role
from gateway.telemetry_draft import TelemetryDraft

US = 1_000_000
NOON = 1_700_000_000 * US
BAD = 0x808B0000
STATE, TOTAL, PRODUCT, TEMP = 1, 2, 3, 4
UNKNOWN = [0] * 100
"""The source time of no tag is known."""


class Bench:
    """A sampler whose clock is turned by hand. Each machine has state, total, product and a temperature."""

    def __init__(self, machines: int = 1, *, moving: bool = False, **options: Any) -> None:
        state = (
            {"moving": "total_units", "moving_for_secs": 5}
            if moving
            else {"node": "s", "map": {"0": "stopped", "1": "running", "2": "idle"}}
        )
        names = ["total_units"] if moving else ["state", "total_units", "product", "temp"]
        made = []
        bindings = []
        for index in range(machines):
            table = {
                "area": "a",
                "line": "l",
                "name": f"m{index}",
                "state": {**state, **({"node": "ns=2;s=S"} if not moving else {})},
                "total_units": "ns=2;s=T",
            }
            if not moving:
                table |= {"product": "ns=2;s=P", "tags": {"temp": {"node": "ns=2;s=C", "deadband": 0.5}}}
            tags = MachineTags(MachineKey("s", "a", "l", f"m{index}"), Machine.model_validate(table), hex)
            made.append(tags)
            for slot, one in enumerate(tags.slots):
                bindings.append(
                    Binding(len(bindings) + 1, index, slot, one.role, one.name, one.node, 0.0, 10, 0.0)
                )
        self.order = [slot.name for slot in made[0].slots]
        assert len(self.order) == len(names)
        self.sampler = ConnectionSampler(
            "gw",
            made,
            bindings,
            **{
                "publish_interval_us": US,
                "heartbeat_us": 10 * US,
                "margin_us": US // 2,
                "ahead_max_us": 60 * US,
                "assume_live_after_us": 10 * US,
            }
            | options,
        )
        self.handles = [binding.handle for binding in bindings]
        self.drafts: list[Any] = []
        self.now_us = NOON

    def handle(self, name: str, machine: int = 0) -> int:
        return machine * len(self.order) + self.order.index(name) + 1

    def subscribe(self, *, resumed: bool = False) -> None:
        self.drafts += self.sampler.subscribed(self.handles, self.now_us, resumed=resumed)

    def put(self, *rows: tuple[Any, ...], at_us: int | None = None, unstamped: bool = False) -> list[Any]:
        """Each row: name, value, source time [us after noon], status, machine."""
        if at_us is not None:
            self.now_us = at_us
        full = [(*row, *(0, 0)[len(row) - 3 :]) for row in rows]
        batch = TagBatch(
            handles=[self.handle(name, machine) for name, _, _, _, machine in full],
            values=[row[1] for row in full],
            statuses=[row[3] for row in full],
            source_us=[NOON + row[2] for row in full],
            received_us=self.now_us,
            unstamped=frozenset(range(len(full))) if unstamped else frozenset(),
        )
        new = self.sampler.apply(batch)
        self.drafts += new
        return new

    def tick(self, to_us: int, step_us: int = US // 4, *, alive: bool = True) -> None:
        while self.now_us < to_us:
            self.now_us += step_us
            if alive:
                self.sampler.alive(self.now_us)
            self.drafts += self.sampler.tick(self.now_us)

    def start(self, at_us: int = 0) -> None:
        self.subscribe()
        self.put(*[row for row in FIRST if row[0] in self.order])

    @property
    def told(self) -> list[tuple[Any, ...]]:
        return [
            (one.epoch_us - NOON, str(one.fields.state), one.fields.total_units)
            for one in self.drafts
            if isinstance(one, TelemetryDraft)
        ]

    def of(self, machine: int) -> list[TelemetryDraft]:
        return [
            one
            for one in self.drafts
            if isinstance(one, TelemetryDraft) and one.machine.machine == f"m{machine}"
        ]

    @property
    def gaps(self) -> list[GapDraft]:
        return [one for one in self.drafts if isinstance(one, GapDraft)]


FIRST = [("state", 1, 0), ("total_units", 100, 0), ("product", "cola", 0), ("tags.temp", 20.0, 0)]


def test_counters_of_one_interval_become_one_record_stamped_by_the_last() -> None:
    bench = Bench()
    bench.start()
    for n in range(1, 10):
        bench.put(("total_units", 100 + n, n * 100_000), at_us=NOON + n * 100_000)
    assert len(bench.told) == 1
    bench.tick(NOON + 2 * US)
    assert bench.told[1:] == [(900_000, "running", 109)]


def test_no_interval_reaches_over_a_whole_second() -> None:
    """A shift ends on a whole second; what is counted then is its own: later counts are another record."""
    bench = Bench()
    bench.start()
    bench.put(
        ("total_units", 101, 999_000),
        ("total_units", 102, US),
        ("total_units", 103, US + 1000),
        at_us=NOON + US + 2000,
    )
    bench.tick(NOON + 3 * US)
    assert bench.told[1:] == [(US, "running", 102), (US + 1000, "running", 103)]


def test_a_state_change_is_told_at_once_with_the_counters_of_its_moment() -> None:
    bench = Bench()
    bench.start()
    bench.put(
        ("total_units", 101, 200_000),
        ("state", 0, 300_000),
        ("state", 2, 400_000),
        ("total_units", 102, 350_000),
        at_us=NOON + 500_000,
    )
    assert bench.told[1:] == [(300_000, "stopped", 101), (400_000, "idle", 102)]


def test_what_belongs_to_one_moment_is_one_record() -> None:
    bench = Bench()
    bench.start()
    bench.put(
        ("state", 0, 300_000),
        ("total_units", 101, 300_000),
        ("product", "water", 300_000),
        at_us=NOON + 400_000,
    )
    (record,) = bench.drafts[1:]
    assert (record.fields.state, record.fields.total_units, record.fields.product) == (
        "stopped",
        101,
        "water",
    )


def test_a_product_change_is_never_coalesced_away() -> None:
    bench = Bench()
    bench.start()
    new = bench.put(
        ("product", "a", 100_000), ("product", "b", 200_000), ("product", "c", 300_000), at_us=NOON + 400_000
    )
    assert [one.fields.product for one in new] == ["a", "b", "c"]


def test_the_same_value_again_says_nothing() -> None:
    bench = Bench()
    bench.start()
    bench.put(("state", 1, US), ("total_units", 100, US), at_us=NOON + US)
    bench.tick(NOON + 3 * US)
    assert len(bench.told) == 1


def test_a_quiet_machine_has_a_heartbeat_of_the_present() -> None:
    bench = Bench()
    bench.start()
    bench.put(("total_units", 101, 100_000), at_us=NOON + 100_000)
    bench.tick(NOON + 35 * US)
    assert bench.told[1:] == [(100_000 + n * 10 * US, "running", 101) for n in range(4)]


def test_silence_of_the_server_ends_the_heartbeats() -> None:
    """A heartbeat says that nothing has changed: only the server can know."""
    bench = Bench()
    bench.start()
    bench.put(("total_units", 101, 100_000), at_us=NOON + 100_000)
    bench.tick(NOON + 15 * US)
    count = len(bench.told)
    bench.tick(NOON + 60 * US, alive=False)
    assert len(bench.told) == count


def test_a_machine_whose_values_are_old_is_told_at_their_time_then_now() -> None:
    """Nothing has happened for two hours: no heartbeat claims that we watched."""
    bench = Bench()
    bench.subscribe()
    hours = -7200 * US
    bench.put(*[(name, value, hours) for name, value, _ in FIRST])
    assert bench.told == [(hours, "running", 100)]
    bench.tick(NOON + 25 * US)
    assert [at for at, _, _ in bench.told[1:]] == [10 * US, 20 * US]
    assert all(at > -11 * US for at, _, _ in bench.told[1:])


def test_values_without_a_time_after_old_first_ones_fill_no_past() -> None:
    """First values are stamped with their last change; the next ones, of now, have no time."""
    bench = Bench(20)
    bench.subscribe()
    old = -13 * 60 * US
    for machine in range(20):
        bench.put(*[(n, v, old + machine, 0, machine) for n, v, _ in FIRST])
    bench.put(*[("total_units", 900, 0, 0, m) for m in range(20)], at_us=NOON + US, unstamped=True)
    bench.tick(NOON + 30 * US)
    assert not [at for at, _, _ in bench.told if old + 20 <= at < 0]
    assert [total for at, _, total in bench.told if at < 0] == [100] * 20
    assert bench.sampler.clock.lag_us == 0


def test_a_first_value_that_comes_late_says_nothing_of_the_clock() -> None:
    """A tag whose first value comes after the machine's first record is as old as its last change."""
    bench = Bench()
    bench.subscribe()
    bench.put(("state", 1, -800 * US))
    bench.tick(NOON + 3 * US)
    assert bench.told == [(-800 * US, "running", None)]
    bench.put(("total_units", 100, -780 * US), ("product", "cola", -7000 * US), at_us=NOON + 3 * US)
    assert bench.sampler.clock.lag_us is None
    bench.put(("total_units", 101, 0), at_us=NOON + 4 * US, unstamped=True)
    bench.tick(NOON + 40 * US)
    times = [at for at, _, _ in bench.told]
    assert times == sorted(times)
    assert not [at for at in times if -780 * US < at < 3 * US]
    assert times[-1] > 25 * US
    assert "SourceClockWentBack" not in {one.fields.status for one in bench.drafts}


def test_old_first_values_of_a_clock_that_is_slow_fill_no_past() -> None:
    """The PLC's clock is twelve seconds slow, and its values have not changed for hours."""
    bench = Bench(2)
    bench.subscribe()
    hours = -7200 * US
    bench.put(*[(n, v, hours, 0, m) for m in (0, 1) for n, v, _ in FIRST])
    bench.put(("total_units", 101, -10 * US), at_us=NOON + 2 * US)
    bench.tick(NOON + 40 * US)
    times = [one.epoch_us - NOON for one in bench.drafts]
    assert times.count(hours) == 2
    assert not [at for at in times if hours < at < -12 * US]
    assert max(times) > 15 * US


def test_the_first_good_value_after_bad_ones_may_be_old() -> None:
    """Servers wait for a device with a bad value, then tell its value with the time of its last change."""
    bench = Bench()
    bench.subscribe()
    bench.put(*[(n, None, 0, BAD) for n, _, _ in FIRST])
    bench.put(*[(n, v, US) for n, v, _ in FIRST[:1]], at_us=NOON + US)
    bench.put(*[(n, v, -7200 * US) for n, v, _ in FIRST[1:]], at_us=NOON + US)
    bench.tick(NOON + 30 * US)
    times = [at for at, _, _ in bench.told]
    assert times == sorted(times)
    assert min(times) == 0
    assert not [one for one in bench.drafts if one.fields.status == "SourceClockWentBack"]
    assert bench.drafts[-1].fields.data_quality == "good"


def test_a_counter_that_stood_for_hours_stands_since_we_look() -> None:
    bench = Bench(moving=True)
    bench.subscribe()
    bench.put(("total_units", 100, -7200 * US))
    bench.tick(NOON + 15 * US)
    assert bench.told[0] == (-7200 * US, "unknown", 100)
    assert [at for at, _, _ in bench.told if -7200 * US < at < 0] == []
    assert bench.told[-1][1] == "stopped"


def test_a_past_that_comes_with_the_first_values_is_played_back() -> None:
    """A server whose queues hold a played-back past tells first values and what followed at once."""
    bench = Bench(2)
    bench.subscribe()
    start = -7200 * US
    rows = [(n, v, start, 0, m) for m in (0, 1) for n, v, _ in FIRST]
    rows += [("total_units", 100 + n, start + n * US, 0, 0) for n in range(1, 301)]
    bench.put(*rows)
    quiet = [one.epoch_us - NOON for one in bench.drafts if one.machine.machine == "m1"]
    assert quiet == [start + n * 10 * US for n in range(30)]


def test_a_past_that_is_played_back_has_its_heartbeats_and_no_other_time() -> None:
    bench = Bench(2)
    bench.subscribe()
    start = -7200 * US
    bench.put(*[(n, v, start, 0, m) for m in (0, 1) for n, v, _ in FIRST])
    total = 100
    for second in range(600):
        total += 1
        bench.put(("total_units", total, start + second * US + 500_000), at_us=NOON + second * 1000)
    quiet = [one for one in bench.drafts if one.machine.machine == "m1"]
    times = [one.epoch_us - NOON for one in quiet]
    assert times == [start + n * 10 * US for n in range(60)]
    assert max(at for at, _, _ in bench.told) <= start + 600 * US


def test_a_played_back_past_that_reaches_the_present_goes_on_live() -> None:
    bench = Bench()
    bench.subscribe()
    bench.put(*[(n, v, -600 * US) for n, v, _ in FIRST])
    for second in range(-599, 1):
        bench.put(("total_units", 700 + second, second * US), at_us=NOON + (600 + second) * 100)
    bench.tick(NOON + 30 * US)
    times = [at for at, _, _ in bench.told]
    assert times == sorted(times)
    assert all(b - a <= 11 * US for a, b in pairwise(times))
    assert times[-1] > 15 * US


def test_a_clock_that_is_wrong_by_an_hour_keeps_its_own_time() -> None:
    bench = Bench()
    bench.subscribe()
    bench.put(*[(n, v, -3600 * US) for n, v, _ in FIRST])
    bench.put(("total_units", 101, -3599 * US), at_us=NOON + US)
    bench.tick(NOON + 30 * US)
    assert all(at < -3500 * US for at, _, _ in bench.told)
    assert len(bench.told) == 4


def test_a_late_value_does_not_turn_time_back() -> None:
    bench = Bench()
    bench.start()
    bench.put(("state", 0, 900_000), at_us=NOON + US)
    bench.put(("state", 2, 800_000), at_us=NOON + US + 1000)
    assert [at for at, _, _ in bench.told[1:]] == [900_000, 900_000]


def test_a_bad_counter_is_told_once_and_left_out() -> None:
    bench = Bench()
    bench.start()
    bench.put(("total_units", None, US, BAD), at_us=NOON + US)
    bench.put(("total_units", None, 2 * US, BAD), at_us=NOON + 2 * US)
    bench.tick(NOON + 4 * US)
    (record,) = bench.drafts[1:]
    assert (record.fields.total_units, record.fields.data_quality) == (None, "uncertain")


def test_a_temperature_within_its_deadband_is_not_told() -> None:
    bench = Bench()
    bench.start()
    bench.put(("tags.temp", 20.4, US), at_us=NOON + US)
    bench.tick(NOON + 3 * US)
    assert len(bench.told) == 1
    bench.put(("tags.temp", 20.6, 3 * US), at_us=NOON + 3 * US)
    bench.tick(NOON + 6 * US)
    (record,) = bench.drafts[1:]
    assert (record.kind, record.fields.tags) == ("analogue", {"temp": 20.6})


def test_kinds_say_what_may_be_dropped_first() -> None:
    bench = Bench()
    bench.start()
    bench.put(("tags.temp", 30.0, US + 1), ("total_units", 101, US + 2), at_us=NOON + US + 2)
    bench.put(("state", 0, 3 * US), at_us=NOON + 3 * US)
    assert [one.kind for one in bench.drafts] == ["state", "counter", "state"]


def test_a_lost_connection_becomes_a_gap_when_it_is_back() -> None:
    bench = Bench()
    bench.start()
    bench.put(("state", 0, US), at_us=NOON + US)
    bench.tick(NOON + 5 * US)
    bench.drafts += bench.sampler.lost(NOON + 5 * US, "pulled")
    bench.tick(NOON + 20 * US, alive=False)
    assert len(bench.told) == 2
    bench.subscribe()
    bench.put(("state", 0, US), ("total_units", 120, 7 * US), ("product", "cola", 0), ("tags.temp", 20.0, 0))
    (gap,) = bench.gaps
    assert (gap.from_us - NOON, gap.to_us - NOON, gap.cause) == (4_500_000, 20 * US, "pulled")
    assert bench.told[2:] == [(20 * US, "stopped", 120)]


def test_a_resumed_connection_has_no_gap() -> None:
    bench = Bench()
    bench.start()
    bench.put(("state", 0, US), at_us=NOON + US)
    bench.drafts += bench.sampler.lost(NOON + 2 * US, "pulled")
    bench.now_us = NOON + 9 * US
    bench.subscribe(resumed=True)
    bench.put(("state", 1, 3 * US), ("state", 2, 4 * US))
    assert bench.gaps == []
    assert [(at, state) for at, state, _ in bench.told[2:]] == [(3 * US, "running"), (4 * US, "idle")]


def test_a_session_that_goes_on_before_its_first_values_came_has_not_told_them() -> None:
    """The subscription is new, and lost again at once: what was before it is unknown all the same."""
    bench = Bench()
    bench.start()
    bench.put(("total_units", 101, US), at_us=NOON + US)
    bench.tick(NOON + 2 * US)
    bench.drafts += bench.sampler.lost(NOON + 2 * US, "cut")
    assert not bench.sampler.is_beginning
    bench.subscribe()
    assert bench.sampler.is_beginning
    bench.put(("state", 2, 4 * US))
    bench.drafts += bench.sampler.lost(NOON + 3 * US, "cut again")
    bench.tick(NOON + 5 * US)
    bench.subscribe(resumed=True)
    bench.tick(NOON + 6 * US)
    assert len(bench.told) == 2
    bench.put(*[(*row[:2], 4 * US) for row in FIRST[1:]], at_us=NOON + 6 * US)
    assert bench.told[2:] == [(6 * US, "idle", 100)]
    assert [(one.from_us - NOON, one.to_us - NOON) for one in bench.gaps] == [(3 * US // 2, 6 * US)]
    assert not bench.sampler.is_beginning


def test_a_moving_counter_runs_and_stands_by_source_time() -> None:
    bench = Bench(moving=True)
    bench.start()
    bench.put(("total_units", 101, US), at_us=NOON + US)
    bench.put(("total_units", 102, 4 * US), at_us=NOON + 4 * US)
    bench.tick(NOON + 12 * US)
    states = [(at, state) for at, state, _ in bench.told]
    assert states[0] == (0, "unknown")
    assert (US, "running") in states
    assert states[-1] == (9 * US, "stopped")


def test_a_crash_goes_on_from_what_was_saved() -> None:
    bench = Bench()
    bench.start()
    bench.put(("state", 0, US), at_us=NOON + US)
    saved = dict(bench.sampler.unsaved(UNKNOWN))
    assert list(saved) == ["0"]
    assert list(bench.sampler.unsaved(UNKNOWN)) == []
    after = Bench()
    after.now_us = NOON + 5 * US
    after.sampler.restore(saved, "was off")
    after.sampler.clock.lag_us = 0
    after.subscribe(resumed=True)
    after.put(("state", 0, US), ("total_units", 101, 2 * US), ("state", 2, 3 * US))
    assert after.told == [(2 * US, "stopped", 101), (3 * US, "idle", 101)]
    assert after.gaps == []
    again = Bench()
    again.now_us = NOON + 5 * US
    again.sampler.restore(saved, "was off")
    again.sampler.clock.lag_us = 0
    again.start()
    assert [(g.from_us - NOON, g.to_us - NOON, g.cause) for g in again.gaps] == [(US, 5 * US, "was off")]


def test_what_comes_with_the_end_of_the_first_values_is_one_record() -> None:
    """The first message holds values of before and two of one newer instant: no record has half of it."""
    bench = Bench()
    bench.subscribe()
    bench.put(*FIRST, ("state", 0, 2 * US), ("product", "water", 2 * US), at_us=NOON + 2 * US)
    told = [(one.epoch_us - NOON, one.fields.state, one.fields.product) for one in bench.drafts]
    assert told == [(0, "running", "cola"), (2 * US, "stopped", "water")]


def overflowing(*rows: tuple[str, Any, int], overflowed: set[int], at_us: int) -> tuple[Bench, list[Any]]:
    """A bench that was told all until 1 s, and then a message before whose values some were thrown away."""
    bench = Bench()
    bench.start()
    bench.put(("total_units", 101, US), at_us=NOON + US)
    before = len(bench.drafts)
    batch = TagBatch(
        handles=[bench.handle(name) for name, _, _ in rows],
        values=[value for _, value, _ in rows],
        statuses=[0] * len(rows),
        source_us=[NOON + at for _, _, at in rows],
        received_us=NOON + at_us,
        overflowed=frozenset(overflowed),
    )
    bench.now_us = NOON + at_us
    bench.drafts += bench.sampler.apply(batch)
    bench.tick(NOON + at_us + 2 * US)
    return bench, bench.drafts[before:]


def test_a_state_before_which_values_were_thrown_away_is_known_from_its_own_time_on() -> None:
    bench, _ = overflowing(("total_units", 140, 3 * US), ("state", 0, 4 * US), overflowed={1}, at_us=5 * US)
    assert [(gap.from_us - NOON, gap.to_us - NOON) for gap in bench.gaps] == [(US, 4 * US)]
    assert bench.told[1:3] == [(US, "running", 101), (4 * US, "stopped", 140)], "nothing within the gap"


def test_a_counter_that_was_coalesced_by_the_server_for_long_is_a_gap() -> None:
    bench, _ = overflowing(("total_units", 140, 6 * US), overflowed={0}, at_us=6 * US)
    assert [(gap.from_us - NOON, gap.to_us - NOON) for gap in bench.gaps] == [(US, 6 * US)]


def test_a_counter_that_was_coalesced_by_the_server_for_a_moment_is_no_gap() -> None:
    bench, _ = overflowing(("total_units", 103, US + US // 2), overflowed={0}, at_us=2 * US)
    assert bench.gaps == []
    assert (US + US // 2, "running", 103) in bench.told


def test_a_counter_that_fell_where_values_were_thrown_away_is_a_gap() -> None:
    """What it had reached nobody knows."""
    bench, _ = overflowing(("total_units", 2, US + US // 2), overflowed={0}, at_us=2 * US)
    assert len(bench.gaps) == 1


def test_what_a_dead_tag_told_is_withdrawn() -> None:
    """From each record since it was last alive a gap goes to the next; then what reading shows is told."""
    bench = Bench()
    bench.start()
    for second in range(1, 6):
        bench.put(("total_units", 100 + second, second * US), at_us=NOON + second * US)
    told = [at for at, _, _ in bench.told if at > 2 * US]
    dead = [bench.handle("state")]
    bench.drafts += bench.sampler.died(dead, NOON + 2 * US + US // 2, NOON + 5 * US, "was dead")
    bench.put(("state", 2, 3 * US), at_us=NOON + 5 * US)
    bench.tick(NOON + 8 * US)
    gaps = [(gap.from_us - NOON, gap.to_us - NOON) for gap in bench.gaps]
    assert [begin for begin, _ in gaps] == [2 * US, *told, 5 * US]
    assert all(end == begin for (_, end), (begin, _) in pairwise(gaps))
    assert bench.told[-1][1] == "idle"
    assert bench.sampler.died([bench.handle("tags.temp")], NOON, NOON + 8 * US, "was dead") == []


def test_a_dead_tag_that_cannot_be_read_is_told_as_bad_and_not_once_more_as_it_was() -> None:
    bench = Bench()
    bench.start()
    bench.put(("total_units", 101, US), at_us=NOON + US)
    dead = [bench.handle("state")]
    bench.drafts += bench.sampler.died(dead, NOON + US, NOON + 5 * US, "was dead")
    before = len(bench.drafts)
    bench.drafts += bench.sampler.unreadable(dead, BAD, NOON + 5 * US + 6000)
    assert [one.fields.state for one in bench.drafts[before:]] == ["unknown"]


def test_a_counter_that_falls_is_never_coalesced() -> None:
    """What was counted before a reset and after it is told, however close together."""
    bench = Bench()
    bench.start()
    bench.put(("state", 0, US), at_us=NOON + US)
    bench.put(
        ("total_units", 104, US + 200_000),
        ("total_units", 0, US + 400_000),
        ("total_units", 3, US + 600_000),
        at_us=NOON + 2 * US,
    )
    bench.put(("total_units", 5, 3 * US), at_us=NOON + 3 * US)
    told = [(at - US, total) for at, _, total in bench.told if at > US]
    assert told[:3] == [(200_000, 104), (400_000, 0), (600_000, 3)]


def test_what_was_counted_before_a_reset_is_told_with_the_state_of_then() -> None:
    """The state changes in the very instant in which the counter falls."""
    bench = Bench()
    bench.start()
    bench.put(("state", 1, US), at_us=NOON + US)
    reset = [("state", 0, US + 400_000), ("total_units", 0, US + 400_000)]
    bench.put(("total_units", 104, US + 200_000), *reset, at_us=NOON + 2 * US)
    expected = [(US + 200_000, "running", 104), (US + 400_000, "stopped", 0)]
    assert bench.told[1:] == expected


def test_the_last_word_of_a_counter_is_told_before_it_cannot_be_read() -> None:
    """It may be set back in the dark: then nothing after it says what it had reached."""
    for bad in (["total_units"], ["state", "total_units"]):
        bench = Bench()
        bench.start()
        bench.put(("state", 1, US), at_us=NOON + US)
        bench.put(("total_units", 104, US + 200_000), at_us=NOON + US + 250_000)
        bench.put(*[(name, None, US + 400_000, BAD) for name in bad], at_us=NOON + US + 450_000)
        bench.put(*[(name, 1, US + 900_000) for name in bad], at_us=NOON + US + 950_000)
        assert (US + 200_000, "running", 104) in bench.told
    bench = Bench()
    bench.start()
    bench.put(("state", 1, US), at_us=NOON + US)
    bench.put(("total_units", 104, US + 200_000), at_us=NOON + US + 250_000)
    bench.now_us = NOON + 2 * US
    bench.drafts += bench.sampler.unreadable(bench.handles, BAD, bench.now_us)
    assert (US + 200_000, "running", 104) in bench.told


def test_a_value_that_waits_to_be_coalesced_survives_a_crash() -> None:
    bench = Bench()
    bench.start()
    bench.put(("state", 0, US), at_us=NOON + US)
    saved = dict(bench.sampler.unsaved(UNKNOWN))
    bench.put(("total_units", 105, 2 * US), at_us=NOON + 2 * US)
    assert bench.sampler.has_unsaved
    saved |= dict(bench.sampler.unsaved(UNKNOWN))
    assert bench.told[-1][0] == US
    for resumed in (True, False):
        after = Bench()
        after.now_us = NOON + 5 * US
        after.sampler.restore(saved, "was off")
        after.sampler.clock.lag_us = 0
        if resumed:
            after.subscribe(resumed=True)
        else:
            after.start()
        assert after.told[0] == (2 * US, "stopped", 105)
        assert [gap.from_us - NOON for gap in after.gaps] == ([] if resumed else [2 * US])


def test_silence_that_a_new_process_has_taken_over_is_told_as_silence() -> None:
    """The server kept all values meanwhile: that nothing changed is known, and has its heartbeats."""
    bench = Bench()
    bench.start()
    bench.put(("state", 0, US), at_us=NOON + US)
    saved = dict(bench.sampler.unsaved(UNKNOWN))
    after = Bench()
    after.now_us = NOON + 50 * US
    after.sampler.restore(saved, "was off")
    after.sampler.clock.lag_us = 0
    after.subscribe(resumed=True)
    after.drafts += after.sampler.tick(after.now_us)
    assert after.told == [], "what the server has kept is still to come"
    after.put(("state", 2, 45 * US))
    after.tick(NOON + 51 * US)
    assert [(at // US, state) for at, state, _ in after.told] == [
        (11, "stopped"),
        (21, "stopped"),
        (31, "stopped"),
        (41, "stopped"),
        (45, "idle"),
    ]
    assert after.gaps == []


@pytest.mark.parametrize("watched_secs", [0, 15])
@pytest.mark.parametrize("is_new", [False, True])
def test_silence_before_a_machine_was_watched_is_not_told_when_its_session_goes_on(
    watched_secs: int, is_new: bool
) -> None:
    """Its first values are as old as a past that is still to be played, and nothing fresh has come."""
    bench = Bench()
    bench.now_us = NOON + 600 * US
    bench.start()
    bench.tick(NOON + (600 + watched_secs) * US)
    bench.drafts += bench.sampler.lost(bench.now_us, "cut")
    after = bench
    if is_new:
        after = Bench()
        after.now_us = bench.now_us
        after.sampler.restore(dict(bench.sampler.unsaved(UNKNOWN)), "was off")
    after.subscribe(resumed=True)
    after.tick(NOON + 630 * US)
    times = [at // US for at, _, _ in bench.told + (after.told if is_new else [])]
    assert times[0] == 0
    assert len(times) > 1
    assert min(times[1:]) >= 600


def test_what_no_longer_waits_is_not_told_again_after_a_crash() -> None:
    bench = Bench()
    bench.start()
    bench.put(("total_units", 105, 2 * US), at_us=NOON + 2 * US)
    saved = dict(bench.sampler.unsaved(UNKNOWN))
    bench.tick(NOON + 4 * US)
    assert bench.told[-1][2] == 105
    saved |= dict(bench.sampler.unsaved(UNKNOWN))
    after = Bench()
    after.sampler.restore(saved, "was off")
    after.subscribe(resumed=True)
    assert after.told == []


def test_what_an_earlier_version_saved_of_a_waiting_value_is_told() -> None:
    bench = Bench()
    addresses = [slot.node for slot in bench.sampler._recorder.machines[0].tags.slots]
    newest = {"state": 1, "total_units": 105, "product": "cola", "tags.temp": 20.0}
    row = [NOON, addresses, [newest[name] for name in bench.order], [0] * 4, NOON + US, "counter"]
    bench.sampler.restore({"0": msgspec.msgpack.encode(row)}, "was off")
    bench.subscribe(resumed=True)
    assert bench.told == [(US, "running", 105)]


def test_what_was_told_before_a_crash_is_withdrawn_after_it_where_its_tag_was_dead() -> None:
    bench = Bench()
    bench.start()
    for n in range(1, 41):
        bench.put(("state", n % 2, n * US), at_us=NOON + n * US)
    saved = dict(bench.sampler.unsaved(UNKNOWN))
    assert len(saved["0"]) < 200, "it is written with every record"
    after = Bench()
    after.now_us = NOON + 41 * US
    after.sampler.restore(saved, "was off")
    after.subscribe(resumed=True)
    dead = [after.handle("state")]
    gaps = after.sampler.died(dead, 0, NOON + 42 * US, "was dead")
    assert [(one.from_us - NOON) / US for one in gaps if isinstance(one, GapDraft)] == list(range(21, 41))


def test_what_was_saved_of_other_tags_is_not_taken_for_what_these_show() -> None:
    bench = Bench()
    bench.start()
    saved = dict(bench.sampler.unsaved(UNKNOWN))
    after = Bench()
    tags = after.sampler._recorder.machines[0].tags
    tags.addresses[1] = "ns=2;s=another"
    after.sampler.restore(saved, "was off")
    assert after.sampler.known(after.handle("state")) is None


def test_a_saved_state_that_cannot_be_read_is_as_if_there_were_none() -> None:
    bench = Bench()
    bench.sampler.restore({"0": b"\xc1nonsense", "waiting": b"\xc1"}, "was off")
    bench.start()
    assert (len(bench.told), bench.gaps) == (1, [])


def test_first_values_that_come_again_are_told_once() -> None:
    """The session is lost before time has gone on at the source, and all items are made anew."""
    bench = Bench()
    bench.start()
    for total in (100, 100, 101):
        bench.drafts += bench.sampler.lost(bench.now_us, "cut")
        bench.subscribe()
        bench.put(*[("total_units", total, 0) if row[0] == "total_units" else row for row in FIRST])
    assert bench.told == [(0, "running", 100), (0, "running", 101)]
    assert bench.gaps == []
    bench.put(("total_units", 102, 2 * US), at_us=NOON + 2 * US)
    bench.tick(NOON + 4 * US)
    assert bench.told[2:] == [(2 * US, "running", 102)]


def test_first_values_hold_until_the_next_ones_that_come_with_them() -> None:
    """A message after a loss has how all stood when it was asked for, and what has changed since."""
    bench = Bench(2)
    bench.start()
    bench.put(*[(*row, 0, 1) for row in FIRST])
    bench.put(("total_units", 110, 2 * US), at_us=NOON + 2 * US)
    bench.drafts += bench.sampler.lost(NOON + 3 * US, "cut")
    bench.drafts.clear()
    bench.subscribe()
    first = [(*row[:2], 5 * US, 0, machine) for row in FIRST for machine in (0, 1)]
    later = [("total_units", 101, 6 * US), ("state", 0, 7 * US), ("total_units", 130, 7 * US, 0, 1)]
    bench.put(*first, *later, at_us=NOON + 10 * US)
    bench.tick(NOON + 11 * US)
    told = [(one.epoch_us - NOON, str(one.fields.state), one.fields.total_units) for one in bench.of(0)]
    assert told == [(6 * US - 1, "running", 100), (6 * US, "running", 101), (7 * US, "stopped", 101)]
    told = [(one.epoch_us - NOON, str(one.fields.state), one.fields.total_units) for one in bench.of(1)]
    assert told == [(6 * US - 1, "running", 100), (7 * US, "running", 130)]
    assert [(one.from_us - NOON, one.to_us - NOON) for one in bench.gaps] == [(5 * US // 2, 6 * US - 1)] * 2


def test_a_next_value_of_before_a_loss_does_not_hide_the_loss() -> None:
    bench = Bench()
    bench.start()
    bench.put(("total_units", 110, 5 * US), at_us=NOON + 5 * US)
    bench.tick(NOON + 8 * US)
    bench.drafts += bench.sampler.lost(NOON + 8 * US, "cut")
    bench.subscribe()
    bench.put(*FIRST[:1], ("total_units", 110, 0), *FIRST[2:], ("state", 0, 3 * US), at_us=NOON + 20 * US)
    assert [(one.from_us - NOON, one.to_us - NOON) for one in bench.gaps] == [(15 * US // 2, 20 * US)]


def test_values_without_a_time_are_stamped_by_us_and_marked() -> None:
    bench = Bench()
    bench.start()
    bench.put(("state", 0, 0), at_us=NOON + 2 * US, unstamped=True)
    record = bench.drafts[-1]
    assert (record.epoch_us, record.fields.status) == (NOON + 2 * US, "GatewayTimestamp")


def test_every_draft_is_a_record_that_a_reader_takes() -> None:
    bench = Bench()
    bench.start()
    bench.put(("state", 0, 1), ("tags.temp", 3.5, 2), ("product", "x" * 999, 3), at_us=NOON + US)
    for number, draft in enumerate(bench.drafts):
        assert isinstance(decode_one(draft.encode(number)), Telemetry)
        assert decode_one(draft.encode(number)).epoch_us == draft.epoch_us


def test_the_lag_is_the_least_of_the_last_minutes() -> None:
    clock = SourceClock(10 * US)
    assert clock.at(NOON) is None
    clock.connected(NOON)
    assert clock.at(NOON + 9 * US) is None
    clock.heard(NOON - 100 * US, NOON)
    assert clock.at(NOON) == NOON - 100 * US
    clock.heard(NOON - 1 * US, NOON)
    clock.heard(NOON - 50 * US, NOON)
    assert clock.at(NOON) == NOON - US
    clock.heard(NOON + 70 * US - 30 * US, NOON + 70 * US)
    clock.heard(NOON + 140 * US - 30 * US, NOON + 140 * US)
    assert clock.lag_us == US, "what is told by one value alone is doubted"
    clock.heard(NOON + 141 * US - 30 * US, NOON + 141 * US)
    assert clock.lag_us == 30 * US
    clock.heard(NOON + 142 * US, NOON + 3742 * US)
    clock.heard(NOON + 142 * US, NOON + 3743 * US)
    assert clock.lag_us == 30 * US, "so may others of its moment"
    clock.heard(NOON + 144 * US, NOON + 3744 * US)
    assert clock.lag_us == 3600 * US, "our clock was set, or nothing was heard for long"


def test_a_message_is_as_old_as_the_quickest_before_it_shows() -> None:
    clock = ServerClock()
    assert clock.heard(0, NOON) == NOON, "it does not say when it was made"
    assert clock.heard(NOON - 3600 * US, NOON) == NOON, "nothing else is known"
    assert clock.heard(NOON - 3599 * US, NOON + 4 * US) == NOON + US
    assert clock.ours(NOON - 3599 * US, NOON) == NOON
    assert clock.heard(NOON - 3590 * US, NOON + 9 * US) == NOON + 9 * US, "one that is quicker is believed"
    assert clock.heard(NOON - 3589 * US, NOON + 13 * US) == NOON + 10 * US


def test_a_server_that_tells_the_time_shows_how_late_its_first_message_is() -> None:
    clock = ServerClock()
    clock.asked(NOON - 3600 * US, NOON)
    assert clock.heard(NOON - 3599 * US, NOON + 4 * US) == NOON + US


def test_a_server_that_tells_another_time_than_its_messages_is_not_believed() -> None:
    clock = ServerClock()
    clock.asked(NOON + 10**16, NOON)
    assert clock.heard(NOON, NOON + US) == NOON + US
    assert clock.heard(NOON + US, NOON + 4 * US) == NOON + 2 * US


def test_a_server_whose_clock_is_set_back_is_not_taken_for_one_that_is_late() -> None:
    clock = ServerClock()
    clock.heard(NOON, NOON)
    assert clock.heard(NOON - 3600 * US, NOON + US) == NOON + US
    assert clock.heard(NOON - 3599 * US, NOON + 5 * US) == NOON + 2 * US


def test_an_old_value_after_silence_does_not_stop_the_heartbeats() -> None:
    """A module that was away for long tells what it kept; the plant's clock is as right as before."""
    bench = Bench(machines=2)
    bench.subscribe()
    bench.put(*[(*row, 0, machine) for row in FIRST for machine in (0, 1)])
    bench.put(("total_units", 101, US, 0, 1), at_us=NOON + US)
    bench.tick(NOON + 400 * US)
    told = len(bench.of(1))
    late_us = max(one.epoch_us for one in bench.of(0)) - NOON + 1
    bench.now_us = NOON + 4000 * US
    bench.sampler.alive(bench.now_us)
    bench.put(("total_units", 102, late_us, 0, 0))
    bench.tick(NOON + 4030 * US)
    newest_us = max(one.epoch_us for one in bench.of(1))
    assert len(bench.of(1)) > told
    assert newest_us >= NOON + 4015 * US


writes = st.lists(
    st.tuples(
        st.integers(0, 2),  # machine
        st.sampled_from(["state", "total_units", "product"]),
        st.integers(0, 3),  # value
        st.integers(0, 3_000_000),  # us since the write before
    ),
    max_size=60,
)


@given(writes=writes, seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_every_fact_is_told_once_in_order_however_values_arrive(writes: list[Any], seed: int) -> None:
    """Batches of any size, items shuffled within a batch: same states at the same times, never backwards."""
    dice = random.Random(seed)
    rows = []
    at_us = US
    for machine, name, value, pause_us in writes:
        at_us += pause_us + 1
        shown = {"product": f"p{value}", "state": value, "total_units": 100 + len(rows)}[name]
        rows.append((name, shown, at_us, 0, machine))
    bench = Bench(3)
    bench.subscribe()
    bench.put(*[(n, v, 0, 0, m) for m in range(3) for n, v, _ in FIRST])
    position = 0
    while position < len(rows):
        size = dice.randint(1, 12)
        part = rows[position : position + size]
        position += size
        dice.shuffle(part)
        bench.put(*part, at_us=NOON + max(row[2] for row in part) + 1000)
        if dice.random() < 0.5:
            bench.sampler.alive(bench.now_us)
            bench.drafts += bench.sampler.tick(bench.now_us)
    bench.tick(bench.now_us + 3 * US)
    names = {0: "stopped", 1: "running", 2: "idle", 3: "unknown"}
    for machine in range(3):
        mine = [one for one in bench.drafts if one.machine.machine == f"m{machine}"]
        times = [one.epoch_us for one in mine]
        assert times == sorted(times)
        # before anything fresh has come, nobody knows what time it is there
        assert all(b - a <= 10 * US + 2 * US for a, b in pairwise(times) if a > NOON)
        expected = [(0, "running", "cola")]
        for name, value, stamp, _, owner in rows:
            if owner == machine and name != "total_units":
                _, state, product = expected[-1]
                after = (stamp, names[value], product) if name == "state" else (stamp, state, value)
                if after[1:] != expected[-1][1:]:
                    expected.append(after)
        changes = []
        for one in mine:
            fact = (one.epoch_us - NOON, str(one.fields.state), one.fields.product)
            if not changes or changes[-1][1:] != fact[1:]:
                changes.append(fact)
        assert changes == expected
        totals = [value for name, value, _, _, owner in rows if owner == machine and name == "total_units"]
        assert mine[-1].fields.total_units == (totals[-1] if totals else 100)


waits = st.lists(
    st.tuples(
        st.integers(0, 1),  # machine
        st.sampled_from(["state", "total_units", "tags.temp"]),
        st.integers(-1, 5),  # value; below 0 for one that cannot be read
        st.integers(-200_000, 700_000),  # us since the write before: late ones, too
    ),
    max_size=40,
)


@given(writes=waits)
@settings(max_examples=150, deadline=None)
def test_what_is_kept_of_waiting_values_is_what_waits(writes: list[Any]) -> None:
    """Whatever came before: later or earlier of its source time, of this tag or of another."""
    bench = Bench(2)
    bench.subscribe()
    bench.put(*[(n, v, 0, 0, m) for m in range(2) for n, v, _ in FIRST])
    at_us, kept = US, {}
    for machine, name, value, pause_us in writes:
        at_us += pause_us
        if value < 0:
            bench.now_us = NOON + at_us
            bench.sampler.unreadable([bench.handle(name, machine)], BAD, bench.now_us)
        else:
            shown = {"state": value, "total_units": value, "tags.temp": 20.0 + value}[name]
            bench.put((name, shown, at_us, 0, machine), at_us=NOON + at_us)
        kept |= dict(bench.sampler.unsaved(UNKNOWN))
        recorder = bench.sampler._recorder
        waiting = msgspec.msgpack.decode(kept.get(WAITING_VALUES, b"\x90"), type=list[Waiting])
        assert {one.position: (one.pending_us, one.kind, one.values, one.statuses) for one in waiting} == {
            one.position: (
                one.pending_us,
                one.pending_kind,
                recorder.values[one.where],
                recorder.statuses[one.where],
            )
            for one in recorder.machines
            if one.pending_us
        }


def test_roles_are_as_the_contract_ranks_them() -> None:
    bench = Bench()
    roles = [slot.role for slot in bench.sampler._recorder.machines[0].tags.slots]
    assert roles == [Role.FACT, Role.FACT, Role.COUNT, Role.ANALOGUE]
