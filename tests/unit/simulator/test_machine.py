"""What a simulated machine does, for ever the same."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from contract.states import MachineState
from simulator import machine as machines
from simulator import scenarios
from simulator.dice import Dice
from simulator.factory import Factory, Forced, Run
from simulator.machine import Machine, Moment, Stop, Stretch
from simulator.timetable import US_PER_SEC, Shift, Timetable

ORIGIN_US = 1_790_000_040 * US_PER_SEC
HOUR_US = 3600 * US_PER_SEC


def until(moments: Iterator[Moment], to_us: int) -> list[Moment]:
    return list(itertools.takewhile(lambda moment: moment.at_us < to_us, moments))


def test_the_same_seed_tells_the_same_story(run: Run) -> None:
    line = run.factory.lines[0]
    once, again = (until(run.machine_moments(line, 2), ORIGIN_US + HOUR_US) for _ in range(2))
    assert once == again
    assert len(once) > 500


def test_another_seed_tells_another_story(run: Run) -> None:
    line = run.factory.lines[0]
    other = replace(run, factory=replace(run.factory, seed=2))
    to_us = ORIGIN_US + HOUR_US
    assert until(run.machine_moments(line, 0), to_us) != until(other.machine_moments(line, 0), to_us)


def test_dice_are_the_same_on_every_machine() -> None:
    assert Dice(1, "filler-1").bits() == 6647606025738959019
    assert Dice(1, "filler-2").bits() != 6647606025738959019


@pytest.mark.parametrize("name", scenarios.names())
def test_a_late_start_joins_the_story_where_it_is(name: str) -> None:
    scenario = scenarios.build(name, lines=1)
    origin_us = scenario.span_us[0] if scenario.span_us else ORIGIN_US
    run = Run(factory=scenario.factory, origin_us=origin_us)
    line = run.factory.lines[0]
    from_us, to_us = origin_us + HOUR_US // 2 + 14 * US_PER_SEC, origin_us + HOUR_US
    for place in range(len(line.machines)):
        whole = until(run.machine_moments(line, place), to_us)
        joined = until(run.machine_moments(line, place, from_us), to_us)
        assert joined[0].at_us == from_us
        assert joined[0][1:] == [moment for moment in whole if moment.at_us <= from_us][-1][1:]
        assert joined[1:] == [moment for moment in whole if moment.at_us > from_us]


@pytest.mark.parametrize("name", scenarios.names())
def test_counters_and_truth_agree(name: str) -> None:
    """Whoever sees each write and knows of resets and rollovers counts what was really made."""
    scenario = scenarios.build(name, lines=1)
    origin_us = scenario.span_us[0] if scenario.span_us else ORIGIN_US
    run = Run(factory=scenario.factory, origin_us=origin_us)
    line = run.factory.lines[0]
    for place, machine in enumerate(line.machines):
        shown = until(run.machine_moments(line, place), origin_us + 90 * 60 * US_PER_SEC)
        resets = machine.reset_every_secs > 0
        for before, after in itertools.pairwise(shown):
            assert after.at_us > before.at_us
            for counter, really in (("total_units", "made"), ("off_quality_units", "spoiled")):
                old, new = getattr(before, counter), getattr(after, counter)
                made = getattr(after, really) - getattr(before, really)
                wrapped = (new - old) % 2**machine.counter_bits
                assert made >= 0
                assert made == (new if resets and new < old else wrapped)
        assert shown[-1].made > 0


def test_units_appear_on_the_tick_by_which_they_are_complete() -> None:
    behaviour = [
        Stretch(ORIGIN_US, ORIGIN_US + 4 * US_PER_SEC, MachineState.RUNNING, 0, "P", 300_000),
        Stretch(ORIGIN_US + 4 * US_PER_SEC, ORIGIN_US + 9 * US_PER_SEC, MachineState.IDLE, 0, "P"),
    ]
    machine = Machine(name="m", reject_rate=0.0)
    shown = list(machines.moments(machine, behaviour, 1, ORIGIN_US, US_PER_SEC))
    assert [(moment.at_us - ORIGIN_US, moment.total_units, moment.state.value) for moment in shown] == [
        (0, 0, "running"),
        (1_000_000, 3, "running"),
        (2_000_000, 6, "running"),
        (3_000_000, 10, "running"),
        (4_000_000, 13, "idle"),
    ]


def test_a_machine_after_one_that_stands_is_starved_after_a_while() -> None:
    sec = US_PER_SEC
    upstream = [
        Stretch(0, 10 * sec, MachineState.RUNNING),
        Stretch(10 * sec, 40 * sec, MachineState.FAULTED),
        Stretch(40 * sec, 100 * sec, MachineState.IDLE),
        Stretch(100 * sec, 200 * sec, MachineState.RUNNING),
    ]
    own = [Stretch(0, 200 * sec, MachineState.RUNNING, 0, "P", 7)]
    shown = list(machines.overlay(own, machines.starved(upstream, 20 * sec), machines.is_running))
    states = [(stretch.start_us // sec, stretch.end_us // sec, stretch.state.value) for stretch in shown]
    assert states == [(0, 30, "running"), (30, 40, "idle"), (40, 100, "idle"), (100, 200, "running")]


def test_stretches_are_contiguous_under_every_overlay(run: Run) -> None:
    line = run.factory.lines[0]
    for place in range(len(line.machines)):
        for before, after in itertools.pairwise(itertools.islice(run.behaviour(line, place), 2000)):
            assert before.start_us < before.end_us == after.start_us


def test_nobody_works_in_breaks_or_outside_shifts() -> None:
    shifts = (Shift(name="day", start="15:00", end="17:00", breaks=(("16:00", 30),)),)
    run = Run(
        factory=Factory(
            lines=scenarios.build("good-day", lines=1).factory.lines,
            timetable=Timetable(name="t", timezone="UTC", shifts=shifts),
        ),
        origin_us=ORIGIN_US,
    )
    minute = 60 * US_PER_SEC
    start_us = ORIGIN_US - ORIGIN_US % (24 * HOUR_US)
    for stretch in itertools.islice(run.behaviour(run.factory.lines[0], 0), 500):
        if stretch.state is MachineState.RUNNING:
            within = (stretch.start_us - start_us) % (24 * HOUR_US) // minute
            assert 15 * 60 <= within < 16 * 60 or 16 * 60 + 30 <= within < 17 * 60


def test_a_forced_idle_time_overrides_everything(run: Run) -> None:
    name = run.factory.lines[0].machines[2].name
    start_us, end_us = ORIGIN_US + 600 * US_PER_SEC, ORIGIN_US + 675 * US_PER_SEC
    forced = replace(run, forced=(Forced(name, start_us, end_us),))
    shown = until(forced.machine_moments(forced.factory.lines[0], 2), end_us)
    inside = [moment for moment in shown if moment.at_us >= start_us]
    assert inside
    assert {moment.state for moment in inside} == {MachineState.IDLE}


def test_bad_values_come_back_at_the_end_of_their_time() -> None:
    scenario = scenarios.build("bad-quality", lines=1)
    run = Run(factory=scenario.factory, origin_us=ORIGIN_US)
    shown = until(run.machine_moments(scenario.factory.lines[0], 0), ORIGIN_US + 6 * HOUR_US)
    turns = [after.status for before, after in itertools.pairwise(shown) if before.status != after.status]
    assert len(turns) > 4
    assert turns[:2] == [machines.BAD_DEVICE_FAILURE, 0]


def test_an_origin_off_the_tick_is_refused(factory: Factory) -> None:
    with pytest.raises(ValueError, match="not on the tick"):
        Run(factory=factory, origin_us=ORIGIN_US + 1)


def test_stops_keep_their_shortest_length() -> None:
    stop = Stop(state=MachineState.FAULTED, weight=1, mean_secs=1, shortest_secs=30, codes=(11,))
    machine = Machine(name="m", stops=(stop,), run_mean_secs=30)
    found = itertools.islice(machines.stretches(machine, 1, ORIGIN_US, US_PER_SEC), 200)
    faults = [stretch for stretch in found if stretch.state is MachineState.FAULTED]
    assert min(fault.end_us - fault.start_us for fault in faults) == 30 * US_PER_SEC
    assert {fault.fault_code for fault in faults} == {11}
