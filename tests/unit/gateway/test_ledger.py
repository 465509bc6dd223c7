"""The bookkeeping of what is delivered, under way, and still to be sent; no clock, no broker."""

from hypothesis import given, settings
from hypothesis import strategies as st

from contract.delivery import Receipt
from gateway.ledger import LIVE_MAX_RECORDS, LIVE_START_RECORDS, MAX_SENDINGS, Ledger
from gateway.outbox.ranges import Ranges


def ledger(last=99, acknowledged=(), timeout_secs=10.0):
    made = Ledger(Ranges(acknowledged), last, timeout_secs)
    made.begin_session(0, last)
    return made


def take_all(book, now=0.0):
    taken = []
    while (free := book.next_live() or book.next_backlog()) is not None:
        book.take(*free)
        book.accepted_by_broker(*free, now)
        taken.append(free)
    return taken


def test_live_starts_with_the_newest_and_backlog_with_the_oldest():
    book = ledger(last=9_999)
    assert book.next_live() == (10_000 - LIVE_START_RECORDS, 9_999)
    assert book.next_backlog() == (0, 9_999 - LIVE_START_RECORDS)


def test_what_is_acknowledged_is_not_sent_again():
    book = ledger(last=99, acknowledged=[(10, 50)])
    assert book.next_live() == (0, 9)
    book.take(0, 9)
    assert book.next_live() == (51, 99)


def test_new_records_follow_live():
    book = ledger()
    take_all(book)
    book.appended(102)
    assert book.next_live() == (100, 102)
    assert book.next_backlog() is None


def test_live_that_falls_behind_goes_on_with_the_newest():
    book = ledger()
    take_all(book)
    book.appended(99 + LIVE_MAX_RECORDS + 1)
    assert book.next_live()[0] == 99 + LIVE_MAX_RECORDS + 2 - LIVE_START_RECORDS
    assert book.next_backlog()[0] == 100


def test_what_was_in_flight_when_the_session_broke_is_sent_again():
    book = ledger(last=9)
    book.take(0, 9)
    book.release(3, 5)
    assert book.next_live() is None or book.next_live() == (3, 5)
    book.live_next = 10
    assert book.next_backlog() == (3, 5)


def test_a_receipt_acknowledges_what_it_names_and_nothing_else():
    book = ledger(last=99)
    take_all(book)
    fresh = book.receive(Receipt(stored_through=20, stored_beyond=[(30, 40), (95, 200)]), 0, 1.0)
    assert fresh == [(0, 20), (30, 40), (95, 99)]
    assert list(book.awaiting) == [(21, 29), (41, 94)]
    assert book.receive(Receipt(stored_through=20), 0, 1.0) == []


def test_records_without_a_receipt_are_free_again_after_the_time_out():
    book = ledger(last=9)
    take_all(book, now=0.0)
    book.receive(Receipt(stored_through=4), 0, 5.0)
    assert book.expire(9.9) == []
    assert book.next_backlog() is None
    book.expire(10.0)
    assert book.next_backlog() == (5, 9)
    assert not book.store_silent


def test_a_store_that_never_answers_is_noticed_and_asked_ever_more_rarely():
    book = ledger(last=9)
    take_all(book, now=0.0)
    book.expire(10.0)
    assert book.store_silent
    waits = []
    for _ in range(9):
        book.probe()
        waits.append(book.patience_secs)
    assert waits == [20, 40, 80, 160, 320, 600, 600, 600, 600]
    book.receive(Receipt(stored_through=0), 0, 11.0)
    assert not book.store_silent
    assert book.patience_secs == 10


def test_a_record_that_the_store_answers_around_is_given_up_at_the_twentieth_sending():
    book = ledger(last=1000)
    given_up = []
    now = 0.0
    for sending in range(MAX_SENDINGS + 5):
        take_all(book, now)
        book.receive(Receipt(stored_through=4, stored_beyond=[(6, 10 + sending)]), 0, now + 5)
        given_up += book.expire(now + 10)
        for sequence in given_up:
            book.acknowledge(sequence, sequence)
        now += 10
    assert 5 in given_up
    assert 4 not in given_up


def test_sequences_that_have_no_record_are_passed_over():
    book = ledger(last=9)
    book.vacant(0, 4)
    assert book.next_live() == (5, 9)


EVENT = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 30)),
    st.tuples(st.just("send"), st.integers(1, 40)),
    st.tuples(st.just("lose"), st.integers(0, 10)),
    st.tuples(st.just("receipt"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.integers(1, 30)),
    st.tuples(st.just("reconnect"), st.just(0)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENT, max_size=60), st.randoms(use_true_random=False))
def test_whatever_happens_every_record_arrives_in_the_end(events, chance):
    """A store that forgets at random, sessions that break at random; then all is well and all arrives."""
    book = Ledger(Ranges(), 0, 10.0)
    book.begin_session(1, 0)
    stored, now, last, in_flight = Ranges(), 0.0, 0, []

    def send(limit, losing=0.0):
        for _ in range(limit):
            free = book.next_live() or book.next_backlog()
            if free is None:
                return
            first, end = free[0], min(free[1], free[0] + chance.randrange(20))
            book.take(first, end)
            in_flight.append((first, end))
            if chance.random() >= losing:
                stored.add(first, end)

    for event, amount in events:
        match event:
            case "append":
                last += amount
                book.appended(last)
            case "send":
                send(amount, losing=0.3)
            case "lose":
                for parcel in in_flight:
                    book.release(*parcel)
                in_flight.clear()
            case "receipt":
                for parcel in in_flight:
                    book.accepted_by_broker(*parcel, now)
                in_flight.clear()
                book.receive(Receipt(stored_through=0, stored_beyond=list(stored)), 1, now)
            case "wait":
                now += amount
                book.expire(now)
            case "reconnect":
                for parcel in in_flight:
                    book.release(*parcel)
                in_flight.clear()
                book.begin_session(1, last)
        assert set(_numbers(book.acknowledged)) <= set(_numbers(stored))
    for _ in range(4):
        now += 1000
        book.expire(now)
        send(10_000)
        for parcel in in_flight:
            book.accepted_by_broker(*parcel, now)
        in_flight.clear()
        book.receive(Receipt(stored_through=0, stored_beyond=list(stored)), 1, now)
    assert set(_numbers(stored)) == set(range(1, last + 1))
    assert book.next_live() is None
    assert book.next_backlog() is None


def _numbers(ranges):
    return [n for first, end in ranges for n in range(first, end + 1)]
