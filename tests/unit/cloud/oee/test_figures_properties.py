"""What holds for all figures, whatever the machines did and however the figures are defined."""

from collections import defaultdict
from datetime import date
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from operator import add

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.compute import figures_of
from cloud.oee import records
from cloud.oee.figures import IdealTime
from cloud.oee.frame import Frame
from cloud.oee.pieces import NOTHING, Rules
from cloud.oee.records import Names
from cloud.oee.rollup import figures
from cloud.oee.timeline import build, join
from cloud.oee.totals import timeline as judged
from cloud.oee.totals import totals
from contract.states import MachineState
from tests.support.line_plant import THREE_SHIFTS, definitions, plant_of, plant_text
from tests.support.telemetry import MACHINES, SEC, telemetry

# 30 October 2021, 12:00 UTC: the clocks of Berlin change in the night after it.
START = 1635595200
MORE = settings(max_examples=60, deadline=None)


@st.composite
def days(draw: st.DrawFn) -> list:
    """Draw three days of three machines in coarse steps, over shifts, breaks and a change of the clocks."""
    items = []
    sequence = 0
    for key in MACHINES:
        time, total, off = START, draw(st.integers(0, 1000)), draw(st.integers(0, 10))
        for _ in range(draw(st.integers(0, 12))):
            sequence += 1
            said = {"product": draw(st.sampled_from(["A", "B"]))} if draw(st.booleans()) else {}
            if draw(st.integers(0, 3)) == 0:
                said["reason_code"] = draw(st.sampled_from([17, "E1", 99]))
            if draw(st.integers(0, 4)) == 0:
                said["ideal_run_rate"] = draw(st.sampled_from([120.0, 203.3]))
            if draw(st.integers(0, 7)) == 0:
                said["data_quality"] = "bad"
            state = draw(st.sampled_from([*MachineState, MachineState.RUNNING])).value
            items.append(
                telemetry(
                    sequence, time, state, machine=key, total_units=total, off_quality_units=off, **said
                )
            )
            made = draw(st.integers(0, 5000))
            total, off = (total + made, off + draw(st.integers(0, made))) if made != 13 else (5, 0)
            time += draw(st.sampled_from([10, 59, 90, 900, 3600, 7200, 20_000, 50_000]))
    return items


def computed(text: str, items: list, **how: str) -> list:
    names = Names(list(MACHINES))
    return figures_of(records.from_telemetry(items, names), plant_of(text), names, **how)


@MORE
@given(days(), definitions(), st.randoms(use_true_random=False))
def test_order_and_repetition_change_no_figure(items, how, random):
    text = plant_text(how)
    expected = [row.to_dict() for row in computed(text, items)]
    again = items + random.sample(items, k=min(len(items), 4))
    random.shuffle(again)
    assert [row.to_dict() for row in computed(text, again)] == expected


@MORE
@given(days(), definitions(), st.lists(st.integers(0, 60), min_size=1, max_size=5))
def test_any_split_gives_the_same_figures(items, how, splits):
    plant, names = plant_of(plant_text(how)), Names(list(MACHINES))
    read = records.from_telemetry(items, names)
    frame = Frame.over(plant, names, START * SEC, (START + 3 * 86400) * SEC)
    rules = Rules.of(plant, names)
    bounds = [0, *sorted((START + split * 3600) * SEC for split in splits), 2**62]
    piece = NOTHING
    for low, high in pairwise(bounds):
        part = read.take((read.time_us >= low) & (read.time_us < high))
        piece = join(piece, build(part, rules, frame.cuts), rules, frame.cuts)
    found = figures(judged(piece, frame, plant, names), plant, names)
    whole = figures(judged(build(read, rules, frame.cuts), frame, plant, names), plant, names)
    assert [row.to_dict() for row in found] == [row.to_dict() for row in whole]


@MORE
@given(days(), definitions(), st.sampled_from(["shift", "hour", "day"]), st.sampled_from(["machine", "line"]))
def test_losses_sum_to_calendar_time_and_factors_to_oee(items, how, per, level):
    for row in computed(plant_text(how), items, per=per, level=level):
        sums, ideal, told = row.totals, IdealTime.of(row.totals.units), row.to_dict()
        assert sum(round(secs * 1e6) for secs in told["losses"].values()) == sums.calendar_us
        assert 0 <= sums.run_us <= sums.planned_us <= sums.calendar_us
        assert told["six_big_losses"].keys() == {
            "breakdowns",
            "setup_and_adjustments",
            "idling_and_small_stops",
            "reduced_speed",
            "process_defects",
            "reduced_yield",
        }
        assert told["waterfall"][-1]["left_secs"] == pytest.approx(told["losses"]["value_adding"], abs=1e-6)
        if None not in (told["availability"], told["performance"], told["quality"]):
            product = told["availability"] * told["performance"] * told["quality"]
            assert told["oee"] == pytest.approx(product, rel=1e-12, abs=1e-15)
            if not row.cap_performance:
                assert told["oee"] == float(Fraction(ideal.good, sums.planned_us * ideal.per))
        for name, bounds in (told["bounds"] or {}).items():
            if told[name] is not None and None not in bounds:
                least, most = bounds
                assert least <= told[name] * (1 + 1e-12), name
                assert told[name] <= most * (1 + 1e-12), name


@MORE
@given(days(), definitions())
def test_shifts_and_hours_sum_to_days(items, how):
    plant, names = plant_of(plant_text(how)), Names(list(MACHINES))
    read = records.from_telemetry(items, names)
    frame = Frame.over(plant, names, START * SEC, (START + 2 * 86400) * SEC)
    rules = Rules.of(plant, names)
    whole = judged(build(read, rules, frame.cuts), frame, plant, names)
    daily = summed(totals(whole, plant, names, by="day"))
    assert summed(totals(whole, plant, names, by="hour")) == daily
    if how["unplanned_production"] == "apart":  # else what lies outside all shifts is planned, too
        shifts = summed(totals(whole, plant, names, by="shift"))
        for machine, sums in shifts.items():
            for key in ("planned", "run", "units", "off", "stops", "failures"):
                assert sums[key] == daily[machine][key]


@MORE
@given(days(), definitions())
def test_the_rows_of_shifts_hold_every_unit_of_the_day(items, how):
    """Whatever was made outside all shifts, and however that counts."""

    def units(per):
        found = defaultdict(lambda: [0, 0])
        for row in computed(plant_text(how), items, per=per):
            made = row.totals.made
            day = found[row.place, row.window.production_date]
            day[0] += made.total + row.totals.unplanned_total
            day[1] += made.off + row.totals.unplanned_off
        return {place: made for place, made in found.items() if made != [0, 0]}

    assert units("shift") == units("day")


def summed(found):
    sums = defaultdict(lambda: defaultdict(int))
    for group, total in found.items():
        mine = sums[group.machine]
        mine["planned"] += total.planned_us
        mine["run"] += total.run_us
        mine["units"] += total.made.total
        mine["off"] += total.made.off
        mine["stops"] += sum(stops.times for stops in total.stops.values())
        mine["failures"] += total.failures
        mine["calendar"] += total.calendar_us
        mine["unplanned"] += total.unplanned_total
    return sums


@MORE
@given(days(), definitions())
def test_days_merge_to_the_week_and_to_the_month(items, how):
    text, ends = plant_text(how), {"since": date(2021, 10, 25), "until": date(2021, 11, 1)}
    days_ = computed(text, items, per="day", **ends)
    for per in ("week", "month"):
        for row in computed(text, items, per=per, **ends):
            mine = [day.totals for day in days_ if day.place == row.place]
            assert len(mine) == 7
            assert reduce(add, mine) == row.totals


@MORE
@given(days(), definitions(), st.integers(0, 23), st.integers(1, 45))
def test_a_break_more_never_raises_planned_time(items, how, hour, minutes):
    how |= {"unplanned_production": "apart"}  # else running through the break is planned time
    more = THREE_SHIFTS.replace(
        '{ start = "10:00", minutes = 30 }',
        f'{{ start = "10:00", minutes = 30 }}, {{ start = "11:{hour:02}", minutes = {minutes} }}',
    )
    with_less = computed(plant_text(how), items)
    with_more = computed(plant_text(how, shifts=more), items)
    for less, other in zip(with_less, with_more, strict=True):
        assert other.totals.planned_us <= less.totals.planned_us
        assert other.totals.calendar_us == less.totals.calendar_us


@MORE
@given(days(), definitions())
def test_a_line_is_the_sum_of_its_machines_and_a_product_a_part(items, how):
    text = plant_text(how)
    machines = computed(text, items)
    lines = computed(text, items, level="line")
    assert sum(row.totals.planned_us for row in machines) == sum(row.totals.planned_us for row in lines)
    assert sum(row.totals.made.total for row in machines) == sum(row.totals.made.total for row in lines)
    if items:
        whole = computed(text, items, per="range")
        parts = computed(text, items, per="product")
        for key in ("planned_us", "run_us", "unknown_us", "calendar_us", "failures"):
            assert sum(getattr(row.totals, key) for row in parts) == sum(
                getattr(row.totals, key) for row in whole
            )
        assert sum(row.totals.made.total for row in parts) == sum(row.totals.made.total for row in whole)
