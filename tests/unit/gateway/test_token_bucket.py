"""Rates are kept over any second, with a share left for live records."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.token_bucket import TokenBucket


def test_no_limit_never_waits():
    assert TokenBucket(None).wait_secs(1e9, 5.0) == 0


def test_a_burst_is_one_second_and_then_the_rate_holds():
    bucket = TokenBucket(100)
    sent = 0
    for tick in range(1000, 1300):
        now = tick / 100
        while bucket.wait_secs(1, now) == 0:
            bucket.spend(1)
            sent += 1
    assert 100 + 290 <= sent <= 100 + 300


def test_backlog_leaves_a_share_to_live():
    bucket = TokenBucket(100)
    backlog = 0
    while bucket.wait_secs(1, 10.0, reserve=0.2) == 0:
        bucket.spend(1)
        backlog += 1
    assert backlog == 80
    live = 0
    while bucket.wait_secs(1, 10.0) == 0:
        bucket.spend(1)
        live += 1
    assert live == 20


@given(st.floats(1, 1e6), st.floats(0.1, 2e6), st.floats(0, 0.5))
def test_the_told_wait_is_enough(rate, amount, reserve):
    bucket = TokenBucket(rate)
    bucket.wait_secs(0, 0.0)
    bucket.spend(rate)
    wait = bucket.wait_secs(amount, 1.0, reserve=reserve)
    assert bucket.wait_secs(amount, 1.0 + wait + 1e-6, reserve=reserve) <= 1e-6
