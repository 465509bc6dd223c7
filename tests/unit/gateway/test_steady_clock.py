"""What the gateway takes for the time while somebody sets its machine's clock."""

import pytest

from gateway.steady_clock import SteadyClock

US = 1_000_000
NOON = 1_700_000_000 * US
HOUR = 3600 * US


class Bench:
    """A machine whose clock can be set."""

    def __init__(self) -> None:
        self.elapsed = 5 * US
        self.set_by = 0
        self.clock = SteadyClock(lambda: NOON + self.elapsed + self.set_by, lambda: self.elapsed)

    def after(self, secs: int) -> int:
        """Let time pass, with a look each second; returns what the clock is off by [us]."""
        for _ in range(secs):
            self.elapsed += US
            shown = self.clock()
        return shown - NOON - self.elapsed


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 365 * 24 * HOUR, -365 * 24 * HOUR])
def test_a_jump_that_is_taken_back_is_never_seen(jump: int) -> None:
    bench = Bench()
    bench.set_by = jump
    assert bench.after(50) == 0
    bench.set_by = 0
    assert bench.after(120) == 0


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_jump_that_lasts_is_believed_after_a_minute(jump: int) -> None:
    bench = Bench()
    bench.set_by = jump
    assert bench.after(55) == 0
    assert bench.after(10) == jump


def test_a_clock_that_is_slewed_is_followed() -> None:
    bench = Bench()
    for _ in range(100):
        bench.set_by += US // 100
        assert bench.after(1) == bench.set_by


def test_another_jump_begins_the_minute_anew() -> None:
    bench = Bench()
    bench.set_by = HOUR
    bench.after(50)
    bench.set_by = 2 * HOUR
    assert bench.after(50) == 0
    assert bench.after(15) == 2 * HOUR


def test_a_process_that_is_put_aside_while_it_looks_at_the_clocks_starts_with_the_right_time() -> None:
    """Between its looks at the two clocks three seconds pass, once."""
    at_us = 5 * US
    aside_us = 3 * US

    def wall_us() -> int:
        nonlocal at_us, aside_us
        shown = NOON + at_us
        at_us, aside_us = at_us + aside_us, 0
        return shown

    clock = SteadyClock(wall_us, lambda: at_us)
    assert clock() == NOON + 8 * US
