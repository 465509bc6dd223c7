"""What every store must do."""

import threading
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from cloud.errors import StoreError
from cloud.store.parquet import History
from cloud.store.port import Arrivals, ClosedShift, DeadLetter, Dirty, Store
from cloud.store.rows import US_PER_HOUR, to_telemetry
from cloud.store.sqlite import SqliteStore
from cloud.store.tiers import TieredStore
from cloud.views import AlertView, Revision
from contract.delivery import Gap, Receipt, Status
from contract.machine_key import MachineKey
from contract.states import MachineState
from contract.telemetry import ExtendedTelemetry, Telemetry

HOUR = 3600
T0 = 1_625_011_200
Open = Callable[[], Store]


def tiered(path: Path) -> TieredStore:
    """Return a store with a history behind it."""
    return TieredStore(path, History(path.with_name("history")))


def archived(path: Path) -> TieredStore:
    """Return a store all of whose records have moved to the history when it was opened."""
    store = tiered(path)
    store.archive(date(2100, 1, 1), limit=1_000)
    return store


@pytest.fixture(params=[SqliteStore, tiered, archived])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the same store anew; the one before is closed as a crash would, without a word."""
    opened: list[Store] = []

    def _open() -> Store:
        opened.append(request.param(tmp_path / "store"))
        return opened[-1]

    yield _open
    for store in opened:
        store.close()


@pytest.fixture
def store(reopen: Open) -> Store:
    return reopen()


def record(sequence: int, at: float = T0, **changes: Any) -> Telemetry:
    fields: dict[str, Any] = {
        "epochtime": at,
        "site": "berlin",
        "area": "packaging",
        "line": "line-1",
        "machine": "filler-1",
        "state": MachineState.RUNNING,
        "gateway": "gw",
        "sequence": sequence,
        "total_units": sequence,
    }
    return Telemetry(**fields | changes)


def gap(sequence: int, at: float = T0) -> Gap:
    return Gap(
        site="berlin",
        area="packaging",
        line="line-1",
        machine="filler-1",
        gateway="gw",
        sequence=sequence,
        from_epochtime=at,
        to_epochtime=at + 60,
        cause="PLC silent",
    )


def everything(store: Store) -> list[Telemetry | Gap]:
    machines = range(len(store.names.all("machine")))
    return to_telemetry(store.read_table(machines, 0, 2**62), store.names)


def test_a_record_is_read_back_whole(reopen: Open) -> None:
    full = ExtendedTelemetry(
        epochtime=T0 + 0.123456,
        site="berlin",
        area="packaging",
        line="line-1",
        machine="filler-1",
        state=MachineState.FAULTED,
        gateway="gw",
        sequence=7,
        total_units=2**53,
        off_quality_units=0,
        good_units=5,
        reason_code="E017",
        product="SKU-7",
        order="O1",
        operator="Ana",
        ideal_run_rate=203.5,
        data_quality="bad",
        status="BadNoCommunication",
        tags={"speed": 1.5, "on": True, "mode": "auto"},
        extras={"shift_lead": {"name": "Kim"}},
    )
    bare = Telemetry(**{**_required(), "sequence": 8})
    reopen().append(
        Arrivals([full, bare, record(9, reason_code=17), record(10, reason_code="17")], [gap(11)])
    )
    found = {item.sequence: item for item in everything(reopen())}
    assert found == {
        7: full,
        8: bare,
        9: record(9, reason_code=17),
        10: record(10, reason_code="17"),
        11: gap(11),
    }


def _required() -> dict[str, Any]:
    return {
        "epochtime": float(T0),
        "site": "berlin",
        "area": "packaging",
        "line": "line-1",
        "machine": "filler-1",
        "state": MachineState.RUNNING,
        "gateway": "gw",
    }


def test_what_was_appended_is_there_after_a_crash(reopen: Open) -> None:
    reopen().append(Arrivals([record(n, T0 + n) for n in range(100)]))
    assert everything(reopen()) == [record(n, T0 + n) for n in range(100)]


def test_a_record_is_stored_once(reopen: Open) -> None:
    store = reopen()
    first = store.append(Arrivals([record(1), record(2), record(2)]))
    assert (len(first.fresh), first.repeated) == (2, 1)
    again = reopen().append(Arrivals([record(2), record(3)]))
    assert (again.fresh["sequence"].tolist(), again.repeated) == ([3], 1)
    assert [item.sequence for item in everything(store)] == [1, 2, 3]


def test_gateways_of_one_name_at_two_sites_do_not_share_sequences(store: Store) -> None:
    appended = store.append(Arrivals([record(1), record(1, site="rome"), record(1, gateway="gw-2")]))
    assert len(appended.fresh) == 3
    assert set(appended.receipts) == {("berlin", "gw"), ("rome", "gw"), ("berlin", "gw-2")}


def test_receipts_say_what_is_stored_from_the_base_on(reopen: Open) -> None:
    store = reopen()
    appended = store.append(Arrivals([record(n) for n in (100, 101, 105)], [gap(102)]))
    assert appended.receipts["berlin", "gw"] == Receipt(
        stored_through=0, stored_beyond=[(100, 102), (105, 105)]
    )
    status = Status(gateway="gw", site="berlin", online=True, epochtime=float(T0), first_sequence=100)
    expected = Receipt(stored_through=102, stored_beyond=[(105, 105)])
    assert store.set_status(status, 5) == expected
    without_base = Status(gateway="gw", site="berlin", online=False, epochtime=float(T0))
    assert reopen().set_status(without_base, 6) == expected
    (known,) = reopen().gateways()
    assert known.gateway == ("berlin", "gw")
    assert known.status == without_base
    assert known.received_us == 6
    assert known.receipt == expected


def test_a_gateway_that_only_says_its_status_is_known(store: Store) -> None:
    status = Status(gateway="gw", site="berlin", online=True, epochtime=float(T0), first_sequence=100)
    assert store.set_status(status, 1) == Receipt(stored_through=99)


def test_rows_are_read_by_time_whatever_the_order_of_arrival(store: Store) -> None:
    store.append(Arrivals([record(3, T0 + 2 * HOUR), record(1, T0)]))
    store.append(Arrivals([record(2, T0 + HOUR), record(4, T0, machine="capper-1")]))
    filler = store.names.find("machine", ("berlin", "packaging", "line-1", "filler-1"))
    rows = store.read([filler], T0 * 10**6, (T0 + 2 * HOUR) * 10**6)
    assert rows["sequence"].tolist() == [1, 2]
    assert store.read([], 0, 2**62).tolist() == []
    assert store.extent(filler) == (T0 * 10**6, (T0 + 2 * HOUR) * 10**6)
    assert store.extent(99) is None
    assert store.next_time(filler, T0 * 10**6) == (T0 + HOUR) * 10**6
    assert store.next_time(filler, (T0 + 2 * HOUR) * 10**6) is None


def test_the_rows_before_reach_back_to_the_last_counter(store: Store) -> None:
    def quiet(sequence: int, at: float) -> Telemetry:
        return Telemetry(**{**_required(), "sequence": sequence, "epochtime": at})

    store.append(
        Arrivals(
            [
                record(1, T0),
                record(2, T0 + 10),
                quiet(3, T0 + 5 * HOUR),
                quiet(4, T0 + 9 * HOUR),
                record(5, T0 + 10 * HOUR),
            ]
        )
    )
    before = store.read_before([0], (T0 + 9 * HOUR + 1) * 10**6)
    assert before["sequence"].tolist() == [2, 3, 4]
    assert not len(store.read_before([0], T0 * 10**6))
    after = store.read_after([0], (T0 + 5) * 10**6)
    assert after["sequence"].tolist() == [2]
    after = store.read_after([0], (T0 + HOUR) * 10**6)
    assert after["sequence"].tolist() == [3, 4, 5]
    assert not len(store.read_after([0], (T0 + 11 * HOUR) * 10**6))


def test_the_rows_around_an_instant_reach_to_every_counter_that_is_believed(store: Store) -> None:
    def told(sequence: int, at: float, **said: Any) -> Telemetry:
        return Telemetry(**{**_required(), "sequence": sequence, "epochtime": at, **said})

    store.append(
        Arrivals(
            [
                told(1, T0, total_units=1, off_quality_units=0),
                told(2, T0 + 10, total_units=2),
                told(3, T0 + 20, total_units=900, off_quality_units=800, data_quality="bad"),
                told(4, T0 + 2 * HOUR, total_units=900, data_quality="bad"),
                told(5, T0 + 3 * HOUR, total_units=3),
                told(6, T0 + 3 * HOUR + 10, total_units=4, off_quality_units=1),
            ]
        )
    )
    before = store.read_before([0], (T0 + 3 * HOUR) * 10**6)
    assert before["sequence"].tolist() == [1, 2, 3, 4]
    after = store.read_after([0], (T0 + 15) * 10**6)
    assert after["sequence"].tolist() == [3, 4, 5, 6]


def test_dead_letters_are_kept_whole_newest_first_and_in_number(store: Store) -> None:
    letters = [DeadLetter(n, "topic", f"reason {n}", bytes([0, 255, n])) for n in range(5)]
    store.append(Arrivals(dead_letters=letters))
    assert store.dead_letter_count() == 5
    assert store.dead_letters(2) == [letters[4], letters[3]]
    assert store.forget_dead_letters(3) == 2
    assert store.dead_letters(10) == letters[:1:-1]
    assert store.forget_dead_letters(3) == 0


def test_records_before_the_running_shift_leave_a_mark(reopen: Open) -> None:
    store = reopen()
    store.append(Arrivals([record(1, T0)]))
    (mark,) = store.dirty()
    assert (mark.machine, mark.hour) == (0, T0 // HOUR)
    store.clean([mark])
    store.live_from_us[0] = (T0 + HOUR) * 10**6
    store.append(Arrivals([record(2, T0 + HOUR), record(3, T0 + HOUR - 1)]))
    assert [dirty.hour for dirty in reopen().dirty()] == [(T0 + HOUR - 1) // HOUR]


def test_a_mark_that_was_set_anew_stays(store: Store) -> None:
    store.append(Arrivals([record(1, T0)]))
    (old,) = store.dirty()
    store.append(Arrivals([record(2, T0 + 1)]))
    store.clean([old])
    (new,) = store.dirty()
    assert new.mark > old.mark
    store.clean([new])
    assert store.dirty() == []


def test_a_repeated_record_leaves_no_mark(store: Store) -> None:
    store.append(Arrivals([record(1, T0)]))
    store.clean(store.dirty())
    store.append(Arrivals([record(1, T0)]))
    assert store.dirty() == []


def test_small_pieces_of_past_hours_are_joined_without_a_change(store: Store) -> None:
    for n in range(20):
        store.append(Arrivals([record(n, T0 + n * 400, tags={"n": n})]))
    store.clean(store.dirty())
    before = everything(store)
    assert store.compact((T0 + HOUR) * 10**6, limit=100) == 1
    assert store.compact((T0 + 100 * HOUR) * 10**6, limit=100) == 2
    assert store.compact((T0 + 100 * HOUR) * 10**6, limit=100) == 0
    assert everything(store) == before
    assert store.dirty() == []
    assert store.append(Arrivals([record(3, T0 + 1200)])).repeated == 1


def shift(revision: int, start: int = T0, scope: str = "berlin/packaging/line-1/filler-1") -> ClosedShift:
    return ClosedShift(
        scope,
        start * 10**6,
        (start + 8 * HOUR) * 10**6,
        Revision(revision=revision, made_epochtime=1.0, why="shift ended", figures={"oee": revision / 10}),
    )


def test_revisions_are_kept_and_the_newest_counts(reopen: Open) -> None:
    store = reopen()
    store.append(Arrivals([record(1, T0)]))
    (mark,) = store.dirty()
    store.save_closed([shift(1), shift(1, T0 + 8 * HOUR)])
    store.save_closed([shift(2)], [mark])
    store = reopen()
    scope = shift(1).scope
    assert [each.revision for each in store.closed(scope, T0 * 10**6)] == [1, 2]
    newest = store.closed_between(scope, T0 * 10**6, (T0 + 24 * HOUR) * 10**6)
    assert newest == [shift(2), shift(1, T0 + 8 * HOUR)]
    assert store.closed_between(scope, (T0 + 1) * 10**6, (T0 + 8 * HOUR) * 10**6) == []
    assert store.closed_span(scope) == (T0 * 10**6, (T0 + 16 * HOUR) * 10**6)
    assert store.closed_span("elsewhere") is None
    assert store.dirty() == []


def test_a_revision_is_never_overwritten(store: Store) -> None:
    store.append(Arrivals([record(1, T0)]))
    store.save_closed([shift(1)])
    with pytest.raises(StoreError):
        store.save_closed([shift(2), shift(1)], store.dirty())
    assert [each.revision for each in store.closed(shift(1).scope, T0 * 10**6)] == [1]
    assert len(store.dirty()) == 1


def alert(number: int, state: Any = "open") -> AlertView:
    return AlertView(
        id=f"idle-{number}",
        rule="idle",
        site="berlin",
        area="packaging",
        line="line-1",
        machine="filler-1",
        state=state,
        level=1,
        message="stands",
        since_epochtime=float(number),
        raised_epochtime=float(number),
    )


def test_alerts_and_their_events_survive(reopen: Open) -> None:
    store = reopen()
    store.save_alert(alert(1), "topic/1", b"raised")
    store.save_alert(alert(2), "topic/2", b"raised too")
    store.save_alert(alert(1, "cleared"), "topic/1", b"cleared")
    store = reopen()
    assert store.alerts(open_only=True, limit=10) == [alert(2)]
    assert store.alerts(open_only=False, limit=10) == [alert(2), alert(1, "cleared")]
    events = store.events(10)
    assert [(event.topic, event.payload) for event in events] == [
        ("topic/1", b"raised"),
        ("topic/2", b"raised too"),
        ("topic/1", b"cleared"),
    ]
    store.event_sent(events[0].id)
    assert store.events(10) == events[1:]


def test_corrections_are_kept_in_order_with_their_marks(reopen: Open) -> None:
    store = reopen()
    key = MachineKey("berlin", "packaging", "line-1", "filler-1")
    numbers = [
        store.add_correction(b"{}", key, range(5, 7), "by Ana", after=0),
        store.add_correction(b"[]", key, [6], "by Ben", after=1),
    ]
    assert numbers == [1, 2]
    assert store.add_correction(b"judged beside the first alone", key, [8], "by Cid", after=1) is None
    store = reopen()
    assert store.corrections() == list(zip(numbers, [b"{}", b"[]"], strict=True))
    first, second = store.dirty()
    assert (first.hour, first.why) == (5, "by Ana")
    assert (second.hour, second.why) == (6, "by Ben")
    assert second.mark > first.mark
    store.append(Arrivals([record(1, 6 * HOUR + 1)]))
    (mark,) = [dirty for dirty in store.dirty() if dirty.hour == 6]
    assert mark.mark > second.mark
    assert mark.why == "by Ben"
    store.clean([first, second])
    assert store.dirty() == [mark]


def test_changes_of_the_past_are_counted_whoever_makes_them(reopen: Open) -> None:
    store, key = reopen(), MachineKey("berlin", "packaging", "line-1", "filler-1")
    assert store.changes() == {}
    store.append(Arrivals([record(1, 6 * HOUR + 1), record(2, 7 * HOUR)]))
    assert store.changes() == {0: 1}
    store.live_from_us[0] = 8 * HOUR * 1_000_000
    store.append(Arrivals([record(3, 8 * HOUR)]))
    assert store.changes() == {0: 1}
    store.append(Arrivals([record(4, 8 * HOUR - 1)]))
    store.append(Arrivals([record(4, 8 * HOUR - 1)]))
    assert store.changes() == {0: 2}
    store.add_correction(b"{}", key, [], "by Ana", after=0)
    assert reopen().changes() == {0: 3}


def test_two_processes_share_a_store_without_repeating_a_record(reopen: Open) -> None:
    one, other = reopen(), reopen()
    one.append(Arrivals([record(1, machine="a")]))
    other.append(Arrivals([record(2, machine="b"), record(1, machine="a")]))
    appended = one.append(Arrivals([record(2, machine="b"), record(3, machine="c")]))
    assert appended.fresh["sequence"].tolist() == [3]
    assert {item.sequence: item.machine for item in everything(reopen())} == {1: "a", 2: "b", 3: "c"}
    assert len(one.dirty()) == 3


def test_nothing_of_a_failed_batch_stays(store: Store) -> None:
    store.append(Arrivals([record(1)]))
    bad = DeadLetter(2**70, "topic", "a number too large for any store", b"")
    with pytest.raises((StoreError, OverflowError)):
        store.append(Arrivals([record(2, machine="new", product="new")], dead_letters=[bad]))
    assert store.names.find("text", "new") == -1
    assert len(store.append(Arrivals([record(2, machine="newer")])).fresh) == 1
    assert [item.machine for item in everything(store)] == ["filler-1", "newer"]


def test_many_threads_may_append_and_read(store: Store) -> None:
    def work(worker: int) -> None:
        for n in range(20):
            store.append(Arrivals([record(1000 * worker + n, T0 + n, gateway=f"gw-{worker}")]))
            everything(store)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(everything(store)) == 80


def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match="store"):
        SqliteStore(tmp_path / "store")


def test_a_store_that_is_closed_says_so(store: Store) -> None:
    store.close()
    with pytest.raises(StoreError):
        store.append(Arrivals([record(1)]))
    store.close()


def test_hours_are_those_of_the_rows(store: Store) -> None:
    store.append(Arrivals([record(1, T0 + HOUR - 0.000001), record(2, T0 + HOUR)]))
    assert sorted(dirty.hour for dirty in store.dirty()) == [
        T0 * 10**6 // US_PER_HOUR,
        T0 * 10**6 // US_PER_HOUR + 1,
    ]
    assert all(isinstance(dirty, Dirty) for dirty in store.dirty())


def test_each_channel_has_its_own_queue_that_survives(reopen: Open) -> None:
    store = reopen()
    store.save_alert(alert(1), "topic/1", b"raised", ["mail", "sms"])
    store.save_alert(alert(1, "cleared"), "topic/1", b"cleared", ["mail"])
    store = reopen()
    first, second = store.deliveries("mail", 10)
    assert (first.channel, first.payload, second.payload) == ("mail", b"raised", b"cleared")
    store.delivery_done(first.id)
    assert [left.payload for left in reopen().deliveries("mail", 10)] == [b"cleared"]
    assert [left.payload for left in reopen().deliveries("sms", 1)] == [b"raised"]


def test_no_delivery_is_kept_of_an_alert_that_could_not_be_kept(store: Store) -> None:
    store.close()
    with pytest.raises(StoreError):
        store.save_alert(alert(1), "topic/1", b"raised", ["mail"])


def test_what_waits_for_a_channel_that_is_gone_is_forgotten(store: Store) -> None:
    store.save_alert(alert(1), "topic/1", b"raised", ["mail", "sms"])
    assert store.forget_deliveries(["mail"]) == 1
    assert store.forget_deliveries(["mail"]) == 0
    assert store.deliveries("sms", 10) == []
    assert len(store.deliveries("mail", 10)) == 1


def closed_shift(scope: str, start: int, revision: int) -> ClosedShift:
    figures = Revision(revision=revision, made_epochtime=start, why="x", figures={"revision": revision})
    return ClosedShift(scope, start, start + 10, figures)


def test_revisions_are_read_in_the_order_in_which_they_were_made(reopen: Open) -> None:
    store = reopen()
    assert store.closed_end() == 0
    made = [("b", 20, 1), ("a", 20, 1), ("a", 10, 1), ("b", 20, 2)]
    for scope, start, revision in made:
        store.save_closed([closed_shift(scope, start, revision)])
    store = reopen()
    found = store.closed_after(0, 10)
    assert [(item.shift.scope, item.shift.start_us, item.shift.revision.revision) for item in found] == made
    assert [item.position for item in found] == sorted(item.position for item in found)
    assert store.closed_end() == found[-1].position
    assert store.closed_after(found[1].position, 1) == found[2:3]
    assert store.revisions_between(["a", "b"], 10, 20) == 1
    assert store.revisions_between(["b"], 10, 21) == 2
    assert store.revisions_between([], 0, 99) == 0


def test_a_revision_that_could_not_be_kept_is_not_in_the_order(store: Store) -> None:
    store.save_closed([closed_shift("a", 10, 1)])
    with pytest.raises(StoreError):
        store.save_closed([closed_shift("b", 10, 1), closed_shift("a", 10, 1)])
    assert [item.shift.scope for item in store.closed_after(0, 10)] == ["a"]


def test_notes_survive_and_the_newest_counts(reopen: Open) -> None:
    store = reopen()
    assert store.note("n") is None
    store.set_note("n", b"1")
    store.queue_deliveries(["x", "y"], b"letter", "n", b"2")
    store.queue_deliveries([], b"letter", "m", b"3")
    store = reopen()
    assert (store.note("n"), store.note("m")) == (b"2", b"3")
    assert [store.delivery_count(name) for name in ("x", "y", "z")] == [1, 1, 0]
    assert [delivery.payload for delivery in store.deliveries("y", 9)] == [b"letter"]


def test_what_waits_for_another_kind_of_channel_is_not_forgotten(store: Store) -> None:
    store.queue_deliveries(["sms", "mail:a", "mail:b"], b"x", "n", b"")
    assert store.forget_deliveries([]) == 1
    assert store.forget_deliveries(["mail:b"], "mail") == 1
    assert [store.delivery_count(name) for name in ("sms", "mail:a", "mail:b")] == [0, 0, 1]


def test_shifts_that_were_closed_before_there_was_an_order_are_in_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store")
    store.save_closed([closed_shift("b", 20, 1), closed_shift("a", 10, 1)])
    store._writer.execute("DROP TABLE closed_log")
    store.close()
    again = SqliteStore(tmp_path / "store")
    assert [item.shift.start_us for item in again.closed_after(0, 10)] == [10, 20]
    again.close()


def test_the_past_of_a_machine_that_never_counts_is_looked_through_once(reopen: Open) -> None:
    store = reopen()
    begin = T0 // HOUR * HOUR
    silent = [record(number, begin + number * HOUR / 2, total_units=UNSET) for number in range(40)]
    store.append(Arrivals(silent))
    at_us = round((begin + 15 * HOUR) * 1e6)
    assert len(store.read_before([0], at_us)) == 30
    assert [row["sequence"] for row in store.read_before([0], at_us)] == [28, 29]
    assert [row["sequence"] for row in store.read_before([0], at_us - 10 * HOUR * 1_000_000)] == [8, 9]
    after = store.read_after([0], round(begin * 1e6))
    assert [row["sequence"] for row in after] == [0, 1, *range(30, 40)]
    store.append(Arrivals([record(100, begin + 3 * HOUR + 1, total_units=7)]))
    assert [row["sequence"] for row in store.read_before([0], at_us)] == [100, *range(7, 30)]
    assert [row["sequence"] for row in store.read_before([0], at_us)] == [100, *range(7, 30)]


def test_a_counter_that_another_process_stores_is_found(reopen: Open) -> None:
    store, begin = reopen(), T0 // HOUR * HOUR
    store.append(Arrivals([record(number, begin + number * HOUR, total_units=UNSET) for number in range(9)]))
    at_us = round((begin + 8 * HOUR) * 1e6)
    for _ in range(2):
        store.read_before([0], at_us)
    other = reopen()
    other.append(Arrivals([record(100, begin + HOUR, total_units=7)]))
    store.append(Arrivals([record(101, begin + 8 * HOUR, total_units=UNSET)]))
    assert 100 in store.read_before([0], at_us)["sequence"]
