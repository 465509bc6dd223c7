"""Sums over the last while: of time and of running time, and when they begin anew."""

import pytest

from cloud.alerts.windows import Sums, Tally, Window

SEC = 1_000_000
SHIFT = 1_625_032_800 * SEC


def sums(running: float, total: int = 0, off: int = 0, shift: int = SHIFT) -> Sums:
    return Sums(shift, round(running * SEC), round(running * SEC * 0.5), total, off)


def test_nothing_is_known_before_a_whole_window() -> None:
    window = Window(60 * SEC, "time")
    for second in range(60):
        window.add(SHIFT + second * SEC, sums(second, second))
        assert window.tally() is None
    window.add(SHIFT + 60 * SEC, sums(60, 60))
    assert window.tally() == Tally(60 * SEC, 60 * SEC, 30 * SEC, 60, 0)


def test_a_window_of_time_slides_and_forgets() -> None:
    window = Window(60 * SEC, "time")
    for second in range(200):
        window.add(SHIFT + second * SEC, sums(second, second, min(second, 100)))
    found = window.tally()
    assert found is not None
    assert (found.total_units, found.off_quality_units) == (60, 0)


def test_a_window_of_running_time_reaches_over_stops() -> None:
    window = Window(60 * SEC, "running")
    for second in range(5000):
        window.add(SHIFT + second * SEC, sums(min(second, 50), min(second, 50)))
        assert window.tally() is None
    for second in range(5000, 5010):
        window.add(SHIFT + second * SEC, sums(51 + second - 5000, 51 + second - 5000))
    found = window.tally()
    assert found is not None
    assert found.running_us == 60 * SEC
    assert len(window._samples) < 200


def test_a_window_goes_on_over_a_change_of_shift() -> None:
    window = Window(60 * SEC, "time")
    for second in range(40):
        window.add(SHIFT + second * SEC, sums(second, second))
    for second in range(40, 100):
        window.add(SHIFT + second * SEC, sums(second - 39, second - 39, shift=SHIFT + 39 * SEC))
    found = window.tally()
    assert found is not None
    assert found.total_units == 60


@pytest.mark.parametrize("late", [sums(3000, 3000), sums(5, 5)])
def test_late_records_and_corrections_begin_a_window_anew(late: Sums) -> None:
    window = Window(60 * SEC, "time")
    for second in range(100):
        window.add(SHIFT + second * SEC, sums(second, second))
    window.add(SHIFT + 100 * SEC, late)
    assert window.tally() is None
    for second in range(1, 61):
        more = late._replace(running_us=late.running_us + second * SEC, total_units=late.total_units + second)
        window.add(SHIFT + (100 + second) * SEC, more)
    found = window.tally()
    assert found is not None
    assert found.total_units == 60


def test_unknown_time_begins_a_window_anew() -> None:
    window = Window(60 * SEC, "time")
    for second in range(100):
        window.add(SHIFT + second * SEC, sums(second, second))
    window.forget()
    window.add(SHIFT + 500 * SEC, sums(100, 500))
    assert window.tally() is None


def test_a_restart_goes_on_with_what_the_store_says() -> None:
    window = Window(60 * SEC, "time")
    window.begin_with(
        [Tally(30 * SEC, 20 * SEC, 10 * SEC, 20, 5), Tally(30 * SEC, 30 * SEC, 15 * SEC, 30, 0)], SHIFT
    )
    window.add(SHIFT, sums(1000, 1000, 100))
    assert window.tally() == Tally(60 * SEC, 50 * SEC, 25 * SEC, 50, 5)
    window.add(SHIFT + 15 * SEC, sums(1015, 1015, 100))
    found = window.tally()
    assert found is not None
    assert (found.total_units, found.off_quality_units) == (55, 3)
    for later in range(16, 61):
        window.add(SHIFT + later * SEC, sums(1000 + later, 1000 + later, 100))
    found = window.tally()
    assert found is not None
    assert (found.total_units, found.off_quality_units) == (60, 0)
