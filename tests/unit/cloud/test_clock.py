"""Since when something holds, by a clock that may be set."""

from cloud.clock import Watch

SEC = 1_000_000


def test_a_clock_that_was_set_makes_what_holds_hold_since_then() -> None:
    now = steady = 1_000 * SEC
    watch = Watch(now_us=lambda: now, monotonic_us=lambda: steady)
    assert watch.since_us(900 * SEC) == 900 * SEC
    for step in (SEC, -3600 * SEC, SEC, 7200 * SEC, SEC):
        steady += SEC
        now += step
        before = watch.since_us(900 * SEC)
        assert (before == now) == (step != SEC)
    began = now + SEC
    now, steady = began + SEC, steady + 2 * SEC
    assert watch.since_us(began) == began
