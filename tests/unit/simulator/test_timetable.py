"""The oracle's own small calendar."""

import itertools
from datetime import UTC, datetime

import pytest

from simulator.timetable import US_PER_SEC, PlannedStop, Shift, Timetable, windows, windows_from

THREE = (
    Shift(name="1", start="06:00", end="14:00", breaks=(("10:00", 30),)),
    Shift(name="2", start="14:00", end="22:00"),
    Shift(name="3", start="22:00", end="06:00", breaks=(("01:00", 20),)),
)


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * US_PER_SEC


def berlin(*stops: PlannedStop) -> Timetable:
    return Timetable(name="three", timezone="Europe/Berlin", shifts=THREE, planned_stops=stops)


def test_three_shifts_fill_the_day_without_overlap() -> None:
    found = windows(berlin(), us("2026-06-01T04:00"), us("2026-06-08T04:00"))
    assert len(found) == 21
    for before, after in itertools.pairwise(found):
        assert before.end_us == after.start_us
    assert sum(window.end_us - window.start_us for window in found) == 7 * 86_400 * US_PER_SEC


@pytest.mark.parametrize(("day", "hours"), [("2025-10-25", 9), ("2026-03-28", 7), ("2026-06-01", 8)])
def test_a_night_shift_is_as_long_as_the_clocks_make_it(day: str, hours: int) -> None:
    found = windows(berlin(), us(f"{day}T12:00"), us(f"{day}T12:00") + 86_400 * US_PER_SEC)
    night = next(window for window in found if window.date == day and window.shift == "3")
    assert night.end_us - night.start_us == hours * 3600 * US_PER_SEC


def test_a_break_after_midnight_belongs_to_the_night_shift() -> None:
    night = windows(berlin(), us("2026-06-01T21:00"), us("2026-06-01T22:00"))[0]
    assert (night.shift, night.date) == ("3", "2026-06-01")
    assert night.breaks == ((us("2026-06-01T23:00"), us("2026-06-01T23:20")),)


def test_a_planned_stop_is_cut_at_the_shift() -> None:
    table = berlin(PlannedStop(start="2026-06-01T13:30", minutes=60))
    first, second = windows(table, us("2026-06-01T11:00"), us("2026-06-01T13:00"))[:2]
    assert first.planned_stops == ((us("2026-06-01T11:30"), us("2026-06-01T12:00")),)
    assert second.planned_stops == ((us("2026-06-01T12:00"), us("2026-06-01T12:30")),)


def test_shifts_stand_only_on_their_days() -> None:
    shifts = (Shift(name="s", start="06:00", end="14:00", days=("mon", "wed")),)
    table = Timetable(name="t", timezone="UTC", shifts=shifts)
    found = windows(table, us("2026-06-01T00:00"), us("2026-06-08T00:00"))
    assert [window.date for window in found] == ["2026-06-01", "2026-06-03"]


def test_shifts_go_on_for_ever() -> None:
    found = windows_from(berlin(), us("2026-06-01T04:00"))
    many = [next(found) for _ in range(100)]
    assert many == windows(berlin(), us("2026-06-01T04:00"), many[-1].end_us)
