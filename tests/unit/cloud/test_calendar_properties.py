"""What holds for every calendar, zone and range."""

import re
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.oee.calendar import NOT_SCHEDULED, PRODUCTION, Grid, StopWindow, build_grid
from tests.support.plants import only, plant, us

DAY_US = 86_400_000_000
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Havana",
    "Asia/Beirut",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "UTC",
)
CHANGE_DAYS = (
    "2021-03-14",
    "2021-03-28",
    "2021-04-04",
    "2021-10-03",
    "2021-10-31",
    "2021-11-07",
    "2011-12-30",
)


class Case(NamedTuple):
    """A calendar that is free of overlaps, in a zone, over a range."""

    calendar: str
    zone: str
    production_date: str
    from_us: int
    to_us: int

    def grid(self, planned_stops: tuple[StopWindow, ...] = (), **options: str) -> Grid:
        top = f'[definitions]\nproduction_date = "{self.production_date}"'
        found = plant(self.calendar, zone=self.zone, top=top)
        return build_grid(
            found, only(found).key, self.from_us, self.to_us, planned_stops=planned_stops, **options
        )


def clock(minute: int) -> str:
    return f"{minute // 60 % 24:02}:{minute % 60:02}"


@st.composite
def cases(draw: st.DrawFn) -> Case:
    first = draw(st.integers(0, 1439))
    cuts = [0, *sorted(draw(st.sets(st.integers(1, 1439), max_size=6))), 1440]
    shifts, exceptions = [], []
    day = date.fromisoformat(draw(st.sampled_from(CHANGE_DAYS)))
    for number, (start, end) in enumerate(pairwise(cuts)):
        pauses = ""
        if end - start > 2:
            pause = draw(st.integers(start, end - 2))
            minutes = draw(st.integers(1, end - pause))
            pauses = f'{{ start = "{clock(first + pause)}", minutes = {minutes} }}'
        if draw(st.booleans()) or number == 0:
            times = f'start = "{clock(first + start)}", end = "{clock(first + end)}"'
            shifts.append(f'{{ name = "{number}", {times}, breaks = [ {pauses} ] }}')
            if draw(st.integers(0, 4)) == 0:
                exceptions.append(f'{{ date = {day}, shift = "{number}", cancelled = true }}')
    holiday = draw(st.sampled_from(["", f"{{ date = {day} }}"]))
    stop = f'{{ start = "{clock(draw(st.integers(0, 1439)))}", days = ["sun", "mon"], minutes = 90 }}'
    calendar = (
        f"shifts = [ {', '.join(shifts)} ]\nexceptions = [ {', '.join(exceptions)} ]\n"
        f"holidays = [ {holiday} ]\nplanned_stops = [ {draw(st.sampled_from(['', stop]))} ]"
    )
    noon = us(f"{day}T12:00")
    from_us = noon - draw(st.integers(1_000, 3 * DAY_US))
    return Case(
        calendar=calendar,
        zone=draw(st.sampled_from(ZONES)),
        production_date=draw(st.sampled_from(["shift_start", "next_day"])),
        from_us=from_us,
        to_us=noon + draw(st.integers(1_000, 3 * DAY_US)),
    )


def planned_us(grid: Grid) -> int:
    return int(np.diff(grid.edges)[grid.category == PRODUCTION].sum())


@given(cases())
@settings(max_examples=150, deadline=None)
def test_windows_follow_each_other_without_overlap(case: Case) -> None:
    grid = case.grid()
    for windows in (grid.shifts, grid.hours, grid.days, grid.local_days):
        assert all(window.start_us < window.end_us for window in windows)
        assert all(one.end_us <= after.start_us for one, after in pairwise(windows))


@given(cases())
@settings(max_examples=150, deadline=None)
def test_hours_and_days_leave_nothing_out(case: Case) -> None:
    grid = case.grid()
    assert (np.diff(grid.edges) > 0).all()
    for windows, index in ((grid.hours, grid.hour), (grid.days, grid.day), (grid.local_days, grid.local_day)):
        assert all(one.end_us == after.start_us for one, after in pairwise(windows))
        for place, (start_us, end_us) in enumerate(pairwise(grid.edges)):
            window = windows[index[place]]
            assert window.start_us <= start_us < end_us <= window.end_us


@given(cases())
@settings(max_examples=150, deadline=None)
def test_an_hour_is_the_hour_that_the_clock_shows(case: Case) -> None:
    grid = case.grid()
    zone = only(plant(case.calendar, zone=case.zone)).timezone
    for hour in grid.hours:
        for instant_us in (hour.start_us, hour.end_us - 1):
            shown = datetime.fromtimestamp(instant_us // 1_000_000, zone)
            assert (shown.date(), shown.hour) == (hour.date, hour.hour)


@given(cases())
@settings(max_examples=150, deadline=None)
def test_a_shift_lies_within_its_production_day(case: Case) -> None:
    grid = case.grid(widen="day")
    days = {day.date: day for day in grid.days}
    for shift in grid.shifts:
        day = days[shift.production_date]
        assert day.start_us <= shift.start_us < shift.end_us <= day.end_us


@given(cases())
@settings(max_examples=150, deadline=None)
def test_the_planned_time_of_shifts_is_that_of_their_intervals(case: Case) -> None:
    grid = case.grid(widen="shift")
    assert planned_us(grid) == sum(shift.planned_us for shift in grid.shifts)
    assert ((grid.shift >= 0) == (grid.category != NOT_SCHEDULED)).all()


@given(cases(), st.integers(0, 1439), st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_a_further_planned_stop_never_raises_planned_time(case: Case, start: int, minutes: int) -> None:
    stop = f'{{ start = "{clock(start)}", days = ["sat", "sun", "mon"], minutes = {minutes} }}, '
    more = case._replace(calendar=case.calendar.replace("planned_stops = [ ", f"planned_stops = [ {stop}"))
    assert planned_us(more.grid()) <= planned_us(case.grid())


@given(cases())
@settings(max_examples=100, deadline=None)
def test_a_break_never_raises_planned_time(case: Case) -> None:
    without = re.sub(r"breaks = \[.*?\]", "breaks = []", case.calendar)
    assert planned_us(case.grid()) <= planned_us(case._replace(calendar=without).grid())


@given(cases(), st.integers(1, 999))
@settings(max_examples=100, deadline=None)
def test_two_adjacent_ranges_are_the_whole(case: Case, share: int) -> None:
    middle = case.from_us + (case.to_us - case.from_us) * share // 1000
    whole = case.grid(widen="none")
    parts = [case._replace(to_us=middle).grid(widen="none"), case._replace(from_us=middle).grid(widen="none")]
    assert sum(map(planned_us, parts)) == planned_us(whole)
    assert {int(edge) for part in parts for edge in part.edges} == {*map(int, whole.edges), middle}


@given(cases(), st.integers(0, 5 * 24 * 60), st.integers(1, 600))
@settings(max_examples=100, deadline=None)
def test_a_planned_stop_entered_afterwards_takes_only_planned_time(
    case: Case, start: int, minutes: int
) -> None:
    start_us = case.from_us + timedelta(minutes=start) // timedelta(microseconds=1)
    stop = StopWindow(start_us, start_us + minutes * 60_000_000, "late")
    before, after = case.grid(widen="none"), case.grid((stop,), widen="none")
    taken = planned_us(before) - planned_us(after)
    assert 0 <= taken <= stop.end_us - stop.start_us
    whole = case.grid((stop,), widen="shift")
    assert planned_us(whole) == sum(shift.planned_us for shift in whole.shifts)
