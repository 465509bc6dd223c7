"""Shifts, breaks and planned stops as instants, worked by hand."""

from datetime import date

import numpy as np
import pytest

from cloud.oee.calendar import (
    BREAK,
    NOT_SCHEDULED,
    PLANNED_STOP,
    PRODUCTION,
    DayWindow,
    Grid,
    ShiftWindow,
    StopWindow,
    build_grid,
    shift_at,
    shifts_between,
)
from cloud.plant import Plant, loads
from tests.support.plants import THREE_SHIFTS, only, plant, plant_text, us

BERLIN = "Europe/Berlin"
ONE_SHIFT = 'shifts = [ { name = "1", start = "06:00", end = "14:00" } ]\n'


def local(text: str) -> int:
    return us(text, BERLIN)


def shifts(found: Plant, start: str, end: str, zone: str = BERLIN) -> tuple[ShiftWindow, ...]:
    return shifts_between(only(found), us(start, zone), us(end, zone))


def grid(found: Plant, start: str, end: str, **options: object) -> Grid:
    return build_grid(found, only(found).key, local(start), local(end), **options)


def production_day(found: Plant, at: str) -> DayWindow:
    (day,) = build_grid(found, only(found).key, local(at), local(at) + 1, widen="none").days
    return day


def minutes(found: Grid, category: int) -> float:
    """Return the length of all intervals of a category [min]."""
    return float(np.diff(found.edges)[found.category == category].sum()) / 60e6


def test_a_shift_begins_and_ends_at_its_local_times() -> None:
    (shift,) = shifts(plant(ONE_SHIFT), "2021-06-30", "2021-07-01")
    assert (shift.name, shift.calendar, shift.crew) == ("1", "main", "")
    assert (shift.start_us, shift.end_us) == (us("2021-06-30T04:00"), us("2021-06-30T12:00"))
    assert shift.production_date == date(2021, 6, 30)
    assert shift.planned_us == 480 * 60_000_000


def test_a_shift_across_midnight_belongs_to_the_date_on_which_it_starts() -> None:
    found = shifts(plant(), "2021-06-30T23:00", "2021-07-01T01:00")
    assert [(shift.name, shift.production_date) for shift in found] == [("3", date(2021, 6, 30))]


def test_a_shift_across_midnight_may_belong_to_the_next_day() -> None:
    found = plant(top='[definitions]\nproduction_date = "next_day"')
    assert [
        (shift.name, shift.production_date.day) for shift in shifts(found, "2021-06-30", "2021-07-01T06:00")
    ] == [("3", 30), ("1", 30), ("2", 30), ("3", 1)]


def test_a_shift_that_ends_at_midnight_does_not_cross_it() -> None:
    found = plant(
        'shifts = [ { name = "late", start = "16:00", end = "24:00" } ]',
        top='[definitions]\nproduction_date = "next_day"',
    )
    (shift,) = shifts(found, "2021-06-30T12:00", "2021-07-01T12:00")
    assert shift.production_date == date(2021, 6, 30)
    assert shift.end_us == local("2021-07-01T00:00")


def test_a_shift_of_equal_times_lasts_a_whole_day() -> None:
    found = plant('shifts = [ { name = "all", start = "06:00", end = "06:00" } ]')
    assert [shift.planned_us / 3.6e9 for shift in shifts(found, "2021-06-29", "2021-07-01")] == [24, 24, 24]


def test_a_shift_starts_on_its_days_only() -> None:
    """2021-07-02 is a Friday: its night does not start, Thursday's still ends that morning."""
    calendar = (
        'shifts = [ { name = "n", start = "22:00", end = "06:00", days = ["mon", "tue", "wed", "thu"] } ]'
    )
    found = shifts(plant(calendar), "2021-07-02", "2021-07-05T23:00")
    assert [shift.production_date for shift in found] == [date(2021, 7, 1), date(2021, 7, 5)]


def test_a_weekday_may_have_other_times_under_the_same_name() -> None:
    calendar = """shifts = [ { name = "1", start = "06:00", end = "14:00", days = ["fri"] },
                             { name = "1", start = "07:00", end = "12:00", days = ["sat"] } ]"""
    found = shifts(plant(calendar), "2021-07-02", "2021-07-05")
    assert [shift.planned_us / 3.6e9 for shift in found] == [8, 5]


def test_breaks_lie_outside_planned_time() -> None:
    """480 min less 30 min of break in each of three shifts."""
    calendar = THREE_SHIFTS.replace('" },', '", breaks = [ { start = "10:00", minutes = 30 } ] },', 1)
    found = grid(plant(calendar), "2021-06-30T06:00", "2021-07-01T06:00")
    assert (minutes(found, PRODUCTION), minutes(found, BREAK)) == (1410, 30)
    assert [shift.planned_us / 60e6 for shift in found.shifts] == [450, 480, 480]


def test_breaks_may_be_a_loss_within_planned_time() -> None:
    """They are still breaks, so that the loss has a name."""
    calendar = THREE_SHIFTS.replace('" },', '", breaks = [ { start = "10:00", minutes = 30 } ] },', 1)
    found = grid(
        plant(calendar, top='[definitions]\nbreaks = "loss"'), "2021-06-30T06:00", "2021-06-30T14:00"
    )
    assert (minutes(found, PRODUCTION), minutes(found, BREAK)) == (450, 30)
    assert found.shifts[0].planned_us / 60e6 == 480


def test_a_break_after_midnight_is_of_the_night_before() -> None:
    calendar = """shifts = [ { name = "n", start = "22:00", end = "06:00", breaks = [
        { start = "02:00", minutes = 45 }, { start = "23:30", minutes = 15 } ] } ]"""
    (shift,) = shifts(plant(calendar), "2021-06-30T22:00", "2021-07-01T06:00")
    assert shift.breaks == (
        (local("2021-06-30T23:30"), local("2021-06-30T23:45")),
        (local("2021-07-01T02:00"), local("2021-07-01T02:45")),
    )


STOPS = """
planned_stops = [
  { start = "2021-06-30T09:45", minutes = 30, reason = "maintenance" },
  { start = "21:30", days = ["wed"], minutes = 60, machines = ["a"] },
  { start = 2021-06-30T12:00:00, minutes = 30, reason = "meeting", lines = ["line-1"] },
]
"""
STOP_REASONS = """
[reason.maintenance]
name = "Maintenance"
category = "planned"
[reason.meeting]
name = "Meeting"
category = "planned"
counts_in = "availability"
"""


def test_planned_stops_take_out_of_planned_time_what_no_break_takes() -> None:
    """06:00 to 22:00 is 960 min; break 10:00-10:30 and stop 09:45-10:15 cover 45 min, 21:30-22:00 another 30.

    The meeting counts in availability, so its half hour stays planned production time.
    """
    calendar = THREE_SHIFTS.replace('" },', '", breaks = [ { start = "10:00", minutes = 30 } ] },', 1)
    calendar = calendar.replace('  { name = "3", start = "22:00", end = "06:00" },\n', "")
    found = loads(plant_text(calendar + STOPS, top=STOP_REASONS, machines=("a", "b")))
    a, b = (
        build_grid(found, key, local("2021-06-30"), local("2021-07-01"), widen="none")
        for key in found.machines
    )
    assert (minutes(a, PRODUCTION), minutes(b, PRODUCTION)) == (960 - 45 - 30, 960 - 45)
    assert (minutes(a, PLANNED_STOP), minutes(b, PLANNED_STOP)) == (60, 30)
    assert (minutes(a, BREAK), minutes(b, BREAK)) == (15, 15)
    assert sum(shift.planned_us for shift in a.shifts) / 60e6 == 960 - 45 - 30
    reasons = {a.reasons[index] for index in a.planned_stop_reason if index >= 0}
    assert reasons == {"maintenance", "meeting"}
    meeting = np.searchsorted(a.edges, local("2021-06-30T12:00"))
    assert a.category[meeting] == PRODUCTION
    assert a.reasons[a.planned_stop_reason[meeting]] == "meeting"


def test_a_planned_stop_outside_shifts_changes_nothing() -> None:
    stop = 'planned_stops = [ { start = "2021-06-30T13:30", minutes = 60 } ]'
    found = grid(plant(ONE_SHIFT + stop), "2021-06-30", "2021-07-01")
    assert (minutes(found, PLANNED_STOP), minutes(found, NOT_SCHEDULED)) == (30, 960)


def test_a_planned_stop_may_be_entered_afterwards() -> None:
    late = StopWindow(local("2021-06-30T08:07"), local("2021-06-30T08:20"), "drill")
    found = grid(plant(ONE_SHIFT), "2021-06-30", "2021-07-01", planned_stops=[late])
    assert minutes(found, PLANNED_STOP) == 13
    assert found.reasons == ("drill",)


def test_on_a_holiday_no_shift_starts() -> None:
    """The night of the 24th still ends on the 25th; the night of the 26th starts."""
    found = plant(THREE_SHIFTS + "holidays = [ { date = 2021-12-25 } ]")
    assert [
        (shift.name, shift.production_date.day) for shift in shifts(found, "2021-12-25", "2021-12-26T10:00")
    ] == [
        ("3", 24),
        ("1", 26),
    ]


def test_a_run_of_holidays_includes_its_last_day() -> None:
    found = plant(ONE_SHIFT + "holidays = [ { date = 2021-12-24, through = 2021-12-26 } ]")
    assert [shift.production_date.day for shift in shifts(found, "2021-12-23", "2021-12-28")] == [23, 27]


def test_a_shift_on_a_holiday_is_an_exception() -> None:
    found = plant(
        ONE_SHIFT
        + "holidays = [ { date = 2021-12-25 } ]\n"
        + 'exceptions = [ { date = 2021-12-25, shift = "1", start = "08:00", end = "12:00" } ]'
    )
    (shift,) = shifts(found, "2021-12-25", "2021-12-26")
    assert (shift.planned_us / 60e6, shift.is_exception) == (240, True)


def test_a_cancelled_shift_does_not_run() -> None:
    found = plant(THREE_SHIFTS + 'exceptions = [ { date = 2021-07-03, shift = "2", cancelled = true } ]')
    assert [shift.name for shift in shifts(found, "2021-07-03T06:00", "2021-07-04T06:00")] == ["1", "3"]


def test_a_changed_shift_keeps_the_breaks_that_lie_within_it() -> None:
    calendar = """shifts = [ { name = "1", start = "06:00", end = "14:00", breaks = [
        { start = "07:00", minutes = 10 }, { start = "12:00", minutes = 30 } ] } ]
        exceptions = [ { date = 2021-07-03, shift = "1", start = "08:00", end = "16:00" } ]"""
    (shift,) = shifts(plant(calendar), "2021-07-03", "2021-07-04")
    assert shift.breaks == ((local("2021-07-03T12:00"), local("2021-07-03T12:30")),)


def test_a_changed_shift_may_have_its_own_breaks() -> None:
    calendar = """shifts = [ { name = "1", start = "06:00", end = "14:00", breaks = [
        { start = "12:00", minutes = 30 } ] } ]
        exceptions = [ { date = 2021-07-03, shift = "1", start = "08:00", end = "16:00", breaks = [] } ]"""
    (shift,) = shifts(plant(calendar), "2021-07-03", "2021-07-04")
    assert shift.breaks == ()


def test_an_extra_shift_needs_no_place_in_the_week() -> None:
    found = plant(
        ONE_SHIFT
        + 'exceptions = [ { date = 2021-07-03, shift = "x", start = "20:00",'
        + ' end = "02:00", crew = "D" } ]'
    )
    extra = shifts(found, "2021-07-03T18:00", "2021-07-04T03:00")
    assert [(shift.name, shift.crew, shift.planned_us / 3.6e9) for shift in extra] == [("x", "D", 6)]


def test_a_shift_of_another_weekday_may_be_worked_at_its_usual_times() -> None:
    calendar = """shifts = [ { name = "1", start = "06:00", end = "14:00", days = ["fri"] } ]
        exceptions = [ { date = 2021-07-03, shift = "1" } ]"""
    found = shifts(plant(calendar), "2021-07-03", "2021-07-04")
    assert [shift.start_us for shift in found] == [local("2021-07-03T06:00")]


def test_a_past_period_keeps_the_calendar_that_was_in_force() -> None:
    """Nothing before 2021-01-04, 8 h until the 11th, 9 h from then on."""
    found = plant(
        ONE_SHIFT
        + """valid_from = 2021-01-04
        [[calendar.main.version]]
        valid_from = 2021-01-11
        shifts = [ { name = "1", start = "06:00", end = "15:00" } ]"""
    )
    lengths = [shift.planned_us / 3.6e9 for shift in shifts(found, "2021-01-01", "2021-01-14")]
    assert lengths == [8] * 7 + [9] * 3


def test_a_night_that_began_before_a_version_takes_over_ends_as_it_was() -> None:
    found = plant(
        """shifts = [ { name = "n", start = "22:00", end = "06:00" } ]
        [[calendar.main.version]]
        valid_from = 2021-01-04
        shifts = [ { name = "m", start = "06:00", end = "14:00" } ]"""
    )
    names = [(shift.name, shift.planned_us / 3.6e9) for shift in shifts(found, "2021-01-04", "2021-01-05")]
    assert names == [("n", 8), ("m", 8)]


ROTATION = (
    THREE_SHIFTS + 'rotation = { crews = ["A", "B", "C", "D"], pattern = "112233--", from = 2021-01-04 }'
)


def test_crews_rotate_over_the_days_of_the_pattern() -> None:
    """B is two days ahead of A, C four, D six: on day 0 A has shift 1, B 2, C 3 and D is off."""
    found = shifts(plant(ROTATION), "2021-01-04T06:00", "2021-01-12T06:00")
    assert "".join(shift.crew for shift in found) == "ABCABCDABDABCDACDABCDBCD"


def test_the_pattern_begins_again_years_later() -> None:
    """2021-01-04 and 2023-03-15 are 800 days apart, a multiple of 8."""
    found = shifts(plant(ROTATION), "2023-03-15T06:00", "2023-03-16T06:00")
    assert [shift.crew for shift in found] == ["A", "B", "C"]


def test_before_the_rotation_there_is_no_crew() -> None:
    found = shifts(plant(ROTATION), "2021-01-03T06:00", "2021-01-04T06:00")
    assert [shift.crew for shift in found] == ["", "", ""]


def test_crews_may_have_patterns_of_their_own() -> None:
    """Two crews by day, two by night, as in a 2-2-3 rota."""
    calendar = """
    shifts = [ { name = "day", start = "06:00", end = "18:00" },
               { name = "night", start = "18:00", end = "06:00" } ]
    [calendar.main.rotation]
    crews = ["A", "B", "C", "D"]
    from = 2021-01-04
    [calendar.main.rotation.pattern]
    A = "day day - - day day day - - day day - - -"
    B = "- - day day - - - day day - - day day day"
    C = "night night - - night night night - - night night - - -"
    D = "- - night night - - - night night - - night night night"
    """
    found = shifts(plant(calendar), "2021-01-04T06:00", "2021-01-18T06:00")
    assert "".join(shift.crew for shift in found if shift.name == "day") == "AABBAAABBAABBB"
    assert "".join(shift.crew for shift in found if shift.name == "night") == "CCDDCCCDDCCDDD"


def test_a_version_keeps_the_rotation_unless_it_has_one() -> None:
    one = 'shifts = [ { name = "1", start = "06:00", end = "14:00" } ]'
    found = plant(
        f"""{one}
        rotation = {{ crews = ["A", "B"], pattern = "1-", from = 2021-01-04 }}
        [[calendar.main.version]]
        valid_from = 2021-01-05
        {one}
        [[calendar.main.version]]
        valid_from = 2021-01-06
        {one}
        rotation = {{ crews = ["C"], pattern = "1", from = 2021-01-01 }}"""
    )
    assert "".join(shift.crew for shift in shifts(found, "2021-01-04", "2021-01-08")) == "ABCC"


def test_new_years_night_belongs_to_the_old_year() -> None:
    found = plant()
    (night,) = shifts(found, "2022-01-01T00:00", "2022-01-01T06:00")
    assert night.production_date == date(2021, 12, 31)
    day = production_day(found, "2022-01-01T05:59:59")
    assert (day.date, day.end_us) == (date(2021, 12, 31), local("2022-01-01T06:00"))


def test_new_years_night_may_belong_to_the_new_year() -> None:
    found = plant(top='[definitions]\nproduction_date = "next_day"')
    (night,) = shifts(found, "2021-12-31T23:00", "2022-01-01T06:00")
    assert night.production_date == date(2022, 1, 1)
    day = production_day(found, "2021-12-31T22:00")
    assert (day.date, day.start_us) == (date(2022, 1, 1), local("2021-12-31T22:00"))


def test_a_production_day_without_a_night_begins_at_midnight() -> None:
    day = production_day(plant(ONE_SHIFT), "2021-06-30T03:00")
    assert (day.start_us, day.end_us) == (local("2021-06-30T00:00"), local("2021-07-01T00:00"))


def test_a_shift_that_is_worked_now_is_found() -> None:
    machine = only(plant(ONE_SHIFT))
    found = shift_at(machine, local("2021-06-30T06:00"))
    assert found is not None
    assert found.start_us == local("2021-06-30T06:00")
    assert shift_at(machine, local("2021-06-30T14:00")) is None


@pytest.mark.parametrize(
    ("widen", "start", "end"),
    [
        ("none", "2021-06-30T07:10", "2021-06-30T07:50"),
        ("hour", "2021-06-30T07:00", "2021-06-30T08:00"),
        ("shift", "2021-06-30T06:00", "2021-06-30T14:00"),
        ("day", "2021-06-30T06:00", "2021-07-01T06:00"),
    ],
)
def test_a_range_grows_to_whole_windows(widen: str, start: str, end: str) -> None:
    found = grid(plant(), "2021-06-30T07:10", "2021-06-30T07:50", widen=widen)
    assert (found.start_us, found.end_us) == (local(start), local(end))


def test_windows_keep_their_whole_length_where_the_range_ends_within_them() -> None:
    found = grid(plant(), "2021-06-30T07:10", "2021-06-30T07:50", widen="none")
    assert [(s.start_us, s.end_us) for s in found.shifts] == [
        (local("2021-06-30T06:00"), local("2021-06-30T14:00"))
    ]
    assert len(found.edges) == 2
    assert [found.hours[found.hour[0]].hour, found.local_days[found.local_day[0]].date.day] == [7, 30]


def test_machines_that_agree_share_one_grid() -> None:
    found = loads(plant_text(machines=("a", "b")))
    one, other = (build_grid(found, key, local("2021-06-30"), local("2021-07-01")) for key in found.machines)
    assert one is other


def test_a_range_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="ends after it begins"):
        grid(plant(), "2021-06-30", "2021-06-30")
