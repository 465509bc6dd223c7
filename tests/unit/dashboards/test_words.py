"""How values are written."""

from zoneinfo import ZoneInfo

import pytest

from dashboards import words

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0"), (12345, "12,345"), (-1180.4, "−1,180"), (-0.2, "0"), (0.0, "0")],
)
def test_counts_have_thousands_separated_and_a_true_minus(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(None, "–"), (0.0, "0.0"), (0.7479, "74.8"), (0.75, "75.0"), (1.204, "120.4")]
)
def test_a_ratio_becomes_percent_with_one_decimal_and_a_missing_one_a_dash(ratio, text):
    assert words.percent(ratio) == text


@pytest.mark.parametrize(("secs", "text"), [(270, "−4.5"), (-2802, "+46.7"), (0.0, "0.0"), (2.0, "0.0")])
def test_a_loss_is_taken_away_and_what_beats_the_ideal_is_given(secs, text):
    assert words.loss_minutes(secs) == text


@pytest.mark.parametrize(("value", "text"), [(412, "+412"), (-1180, "−1,180"), (0.3, "±0"), (None, "–")])
def test_a_difference_carries_its_sign(value, text):
    assert words.signed(value) == text


@pytest.mark.parametrize(
    ("secs", "text"), [(0, "0:00:00"), (2530, "0:42:10"), (90_061, "1 d 1:01:01"), (-5, "0:00:00")]
)
def test_a_running_time_reads_like_a_clock(secs, text):
    assert words.stopwatch(secs) == text


@pytest.mark.parametrize(
    ("secs", "text"),
    [(45, "45 s"), (432, "7 min 12 s"), (420, "7 min"), (7500, "2 h 05 min"), (7200, "2 h"), (3599.7, "1 h")],
)
def test_a_span_is_written_for_a_sentence(secs, text):
    assert words.span(secs).replace("\N{NO-BREAK SPACE}", " ") == text


def test_times_are_the_plants_24_hour_times_also_in_the_night_of_the_change():
    assert words.clock(1_635_640_200, BERLIN) == "02:30"
    assert words.clock(1_635_643_800, BERLIN) == "02:30"
    assert words.day_clock(1_625_011_200, BERLIN) == "Wed 30 Jun 02:00"
    assert words.iso_day("2021-06-30") == "Wed 30 Jun 2021"


@pytest.mark.parametrize(
    ("state", "category", "kind"),
    [
        ("running", "production", "running"),
        ("running", "break", "running"),
        ("idle", "break", "break"),
        ("stopped", "not_scheduled", "off-shift"),
        ("faulted", "planned_stop", "planned-stop"),
        ("unknown", "production", "unknown"),
        ("a state of version 2", "production", "unknown"),
        ("planned_stop", "production", "planned-stop"),
    ],
)
def test_a_stop_outside_planned_production_is_shown_as_what_the_calendar_says(state, category, kind):
    assert words.look(state, category).kind == kind
