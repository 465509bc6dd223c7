"""Days on which the clocks change, in several zones, worked by hand."""

from datetime import date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from cloud.compute import moment_us, parse_moment
from cloud.oee.calendar import (
    BREAK,
    HourWindow,
    build_grid,
    instant,
    local_date,
    shifts_between,
)
from tests.support.plants import THREE_SHIFTS, only, plant, us

HOUR = 3_600_000_000


def hours_on(zone: str, day: str, calendar: str = THREE_SHIFTS) -> list[HourWindow]:
    """Return the local hours of a local date."""
    found = plant(calendar, zone=zone)
    grid = build_grid(
        found, only(found).key, us(f"{day}T12:00", zone) - 20 * HOUR, us(f"{day}T12:00", zone) + 20 * HOUR
    )
    return [hour for hour in grid.hours if hour.date == date.fromisoformat(day)]


@pytest.mark.parametrize(
    ("zone", "night", "hours"),
    [
        ("Europe/Berlin", "2021-03-27", 7),  # 02:00 becomes 03:00
        ("Europe/Berlin", "2021-10-30", 9),  # 03:00 becomes 02:00
        ("Europe/Berlin", "2021-06-30", 8),
        ("Australia/Sydney", "2021-10-02", 7),  # spring in the south
        ("Australia/Sydney", "2021-04-03", 9),
        ("Australia/Lord_Howe", "2021-10-02", 7.5),  # half an hour: 02:00 becomes 02:30
        ("Australia/Lord_Howe", "2021-04-03", 8.5),
        ("America/New_York", "2021-03-13", 7),
        ("America/New_York", "2021-11-06", 9),
        ("America/Havana", "2021-03-13", 7),  # at midnight: 00:00 becomes 01:00
        ("America/Havana", "2021-11-06", 9),  # 01:00 becomes 00:00
        ("Asia/Kolkata", "2021-06-30", 8),
    ],
)
def test_a_night_shift_is_as_long_as_the_night(zone: str, night: str, hours: float) -> None:
    (shift,) = (
        shift
        for shift in shifts_between(
            only(plant(zone=zone)), us(f"{night}T22:00", zone), us(f"{night}T23:00", zone)
        )
    )
    assert shift.production_date == date.fromisoformat(night)
    assert (shift.end_us - shift.start_us) / HOUR == hours
    assert shift.planned_us == shift.end_us - shift.start_us


def test_the_missing_hour_is_no_hour() -> None:
    assert [hour.hour for hour in hours_on("Europe/Berlin", "2021-03-28")] == [0, 1, *range(3, 24)]


def test_the_repeated_hour_is_two_hours() -> None:
    hours = hours_on("Europe/Berlin", "2021-10-31")
    assert [(hour.hour, hour.fold) for hour in hours[:5]] == [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)]
    assert {hour.end_us - hour.start_us for hour in hours} == {HOUR}
    assert len(hours) == 25


def test_half_an_hour_is_left_out_on_lord_howe() -> None:
    hours = hours_on("Australia/Lord_Howe", "2021-10-03")
    assert [(hour.hour, (hour.end_us - hour.start_us) / HOUR) for hour in hours[:4]] == [
        (0, 1),
        (1, 1),
        (2, 0.5),
        (3, 1),
    ]


def test_half_an_hour_comes_again_on_lord_howe() -> None:
    hours = hours_on("Australia/Lord_Howe", "2021-04-04")
    assert [(hour.hour, hour.fold, (hour.end_us - hour.start_us) / HOUR) for hour in hours[:4]] == [
        (0, 0, 1),
        (1, 0, 1),
        (1, 1, 0.5),
        (2, 0, 1),
    ]


def test_a_day_may_begin_at_one_o_clock() -> None:
    hours = hours_on("America/Havana", "2021-03-14")
    assert hours[0].hour == 1
    assert len(hours) == 23


def test_midnight_may_come_twice() -> None:
    hours = hours_on("America/Havana", "2021-11-07")
    assert [(hour.hour, hour.fold) for hour in hours[:3]] == [(0, 0), (0, 1), (1, 0)]
    assert len(hours) == 25


def test_a_zone_may_lie_beside_whole_hours() -> None:
    """Kathmandu is 5:45 ahead of UTC."""
    hours = hours_on("Asia/Kathmandu", "2021-06-30")
    assert hours[0].start_us == us("2021-06-29T18:15")
    assert len(hours) == 24


def test_a_date_may_be_left_out() -> None:
    """Samoa went from 29 to 31 December 2011."""
    zone = "Pacific/Apia"
    found = plant('shifts = [ { name = "1", start = "06:00", end = "14:00" } ]', zone=zone)
    grid = build_grid(found, only(found).key, us("2011-12-29T00:00", zone), us("2012-01-01T00:00", zone))
    assert [day.date.day for day in grid.local_days] == [29, 31]
    assert [day.date.day for day in grid.days] == [29, 31]
    assert [shift.production_date.day for shift in grid.shifts] == [29, 31]
    assert len(grid.hours) == 48


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        ("2021-03-28T01:59:59", "2021-03-28T00:59:59"),
        ("2021-03-28T02:00", "2021-03-28T01:00"),  # left out: the jump
        ("2021-03-28T02:30", "2021-03-28T01:00"),
        ("2021-03-28T03:00", "2021-03-28T01:00"),
        ("2021-10-31T01:59", "2021-10-30T23:59"),
        ("2021-10-31T02:00", "2021-10-31T00:00"),  # twice: the first
        ("2021-10-31T02:59", "2021-10-31T00:59"),
        ("2021-10-31T03:00", "2021-10-31T02:00"),
    ],
)
def test_a_local_time_is_one_instant(local: str, utc: str) -> None:
    assert instant(ZoneInfo("Europe/Berlin"), datetime.fromisoformat(local)) == us(utc)


def test_the_date_of_an_instant_is_the_wall_calendars() -> None:
    zone = ZoneInfo("Australia/Lord_Howe")
    assert local_date(zone, us("2021-06-30T13:29:59.999999")) == date(2021, 6, 30)
    assert local_date(zone, us("2021-06-30T13:30")) == date(2021, 7, 1)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2021-06-30", "2021-06-29T22:00"),
        ("2021-06-30T06:00", "2021-06-30T04:00"),
        ("2021-06-30T06:00Z", "2021-06-30T06:00"),
        ("2021-06-30T06:00:00.25-02:00", "2021-06-30T08:00:00.25"),
        ("2021-06-30T06:00:00.75-02:00", "2021-06-30T08:00:00.75"),
    ],
)
def test_a_moment_is_read_as_local_unless_it_says_otherwise(text: str, utc: str) -> None:
    assert moment_us(ZoneInfo("Europe/Berlin"), parse_moment(text)) == us(utc)


def test_a_shift_within_the_missing_hour_does_not_happen() -> None:
    calendar = """shifts = [ { name = "a", start = "01:00", end = "02:10" },
                             { name = "b", start = "02:10", end = "02:50" },
                             { name = "c", start = "02:50", end = "04:00" } ]"""
    zone = "Europe/Berlin"
    found = shifts_between(only(plant(calendar)), us("2021-03-28", zone), us("2021-03-29", zone))
    assert [(shift.name, shift.planned_us / HOUR) for shift in found] == [("a", 1), ("c", 1)]
    assert found[0].end_us == found[1].start_us


def test_shifts_that_meet_in_the_repeated_hour_do_not_overlap() -> None:
    """The change falls to the later: 01:00 to the first 02:30 is 1.5 h, from there to 04:00 2.5 h."""
    calendar = """shifts = [ { name = "a", start = "01:00", end = "02:30" },
                             { name = "b", start = "02:30", end = "04:00" } ]"""
    zone = "Europe/Berlin"
    found = shifts_between(only(plant(calendar)), us("2021-10-31", zone), us("2021-11-01", zone))
    assert [(shift.name, shift.planned_us / HOUR) for shift in found] == [("a", 1.5), ("b", 2.5)]


@pytest.mark.parametrize(
    ("day", "start"),
    [
        ("2021-03-28", "2021-03-28T00:45"),
        ("2021-10-31", "2021-10-30T23:45"),
        ("2021-06-30", "2021-06-29T23:45"),
    ],
)
def test_a_break_lasts_its_minutes_whatever_the_clocks_do(day: str, start: str) -> None:
    """01:45 for 30 min; the planned time of the night is its length less 30 min."""
    calendar = """shifts = [ { name = "n", start = "00:30", end = "05:30", breaks = [
        { start = "01:45", minutes = 30 } ] } ]"""
    found = plant(calendar)
    grid = build_grid(found, only(found).key, us(f"{day}T12:00") - 12 * HOUR, us(f"{day}T12:00"))
    (shift,) = grid.shifts
    assert shift.breaks == ((us(start), us(start) + HOUR // 2),)
    assert shift.planned_us == shift.end_us - shift.start_us - HOUR // 2
    assert np.diff(grid.edges)[grid.category == BREAK].sum() == HOUR // 2


def test_breaks_that_fall_together_in_the_missing_hour_follow_each_other() -> None:
    """02:00 and 02:30 are the same instant; both last their half hours."""
    calendar = """shifts = [ { name = "n", start = "00:00", end = "06:00", breaks = [
        { start = "02:00", minutes = 30 }, { start = "02:30", minutes = 30 } ] } ]"""
    zone = "Europe/Berlin"
    (shift,) = shifts_between(only(plant(calendar)), us("2021-03-28", zone), us("2021-03-28T06:00", zone))
    assert shift.breaks == (
        (us("2021-03-28T01:00"), us("2021-03-28T01:30")),
        (us("2021-03-28T01:30"), us("2021-03-28T02:00")),
    )
    assert shift.planned_us == 4 * HOUR


def test_a_year_has_as_many_hours_as_it_has() -> None:
    """Spring and autumn even out."""
    found = plant(zone="America/New_York")
    grid = build_grid(
        found,
        only(found).key,
        us("2021-01-01", "America/New_York"),
        us("2022-01-01", "America/New_York"),
        widen="none",
    )
    assert len(grid.hours) == 8760
    assert np.diff(grid.edges).sum() == 8760 * HOUR
