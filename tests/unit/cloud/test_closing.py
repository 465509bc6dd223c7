"""Which shifts are closed and revised when, with the clock as an argument."""

from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from cloud import locks
from cloud.closing import Closing
from cloud.evaluation import Evaluation
from cloud.plant import Plant, loads
from cloud.report import history, report
from cloud.store.port import AfterLock, Arrivals, ClosedShift
from cloud.store.sqlite import SqliteStore
from contract.states import MachineState
from contract.telemetry import Telemetry

SHIFT, HOUR, SEC = 1_625_032_800, 3600, 1_000_000
"""2021-06-30 06:00 UTC: a shift begins."""
LINE = "site/area/line"
MACHINES = """
[[machine]]
area = "area"
line = "line"
name = "m1"
calendar = "short"
ideal_run_rate = 60

[[machine]]
area = "area"
line = "line"
name = "m2"
calendar = "long"
ideal_run_rate = 60
"""
CALENDARS = """
[calendar.short]
shifts = [
  { name = "early", start = "06:00", end = "14:00" },
  { name = "late", start = "14:00", end = "22:00" },
]
[calendar.long]
shifts = [
  { name = "early", start = "06:00", end = "15:00" },
  { name = "late", start = "15:00", end = "22:00" },
]
"""


def plant(definitions: str = "", calendars: str = CALENDARS, zone: str = "UTC") -> Plant:
    return loads(
        f'[site]\nname = "site"\ntimezone = "{zone}"\n[definitions]\n{definitions}\n{calendars}\n{MACHINES}'
    )


def ran(
    machine: str, from_: float, to: float, *, step: float = 30, first: int = 0, gateway: str = "gw"
) -> list[Telemetry]:
    """Return what a machine that makes a unit a second tells from one instant to another."""
    return [
        Telemetry(
            epochtime=from_ + number * step,
            site="site",
            area="area",
            line="line",
            machine=machine,
            state=MachineState.RUNNING,
            gateway=f"{gateway}-{machine}",
            sequence=first + number + 1,
            total_units=int(from_ + number * step - SHIFT + HOUR),
        )
        for number in range(round((to - from_) / step) + 1)
    ]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "store.sqlite3")) as opened:
        yield opened


def closed(store: SqliteStore, of: Plant, *instants: float) -> list[ClosedShift]:
    """Return what is closed or revised at successive instants, with one service that goes on."""
    made = Closing(Evaluation(of, store), grace_us=0, settle_us=0)
    return [shift for now in instants for shift in stepped(made, now)]


def stepped(made: Closing, now: float) -> list[ClosedShift]:
    """Return what a service that goes on closes and revises at an instant."""
    found: list[ClosedShift] = []
    is_done = False
    while not is_done:
        step = made.step(round(now * SEC))
        found += step.shifts
        is_done = step.is_done
    return found


def newest(shift: ClosedShift) -> dict[str, Any]:
    """Return a shift's figures, however many revisions they took."""
    return {**shift.revision.figures, "revision": 0}


def figures(store: SqliteStore, scope: str, start: float = SHIFT) -> list[dict[str, Any]]:
    return [each.figures for each in store.closed(scope, round(start * SEC))]


def test_a_line_closes_its_shift_when_it_has_ended_for_all_of_its_machines(store: SqliteStore) -> None:
    for machine in ("m1", "m2"):
        store.append(Arrivals(ran(machine, SHIFT, SHIFT + 10 * HOUR)))
    first = closed(store, plant(), SHIFT + 8.5 * HOUR)
    assert [shift.scope for shift in first] == [f"{LINE}/m1"]
    second = closed(store, plant(), SHIFT + 9.5 * HOUR)
    assert [shift.scope for shift in second if shift.start_us == SHIFT * SEC] == [f"{LINE}/m2", LINE]
    (line,) = figures(store, LINE)
    assert line["planned_production_secs"] == (8 + 9) * HOUR
    assert line["total_units"] == (8 + 9) * HOUR


def test_shifts_that_only_a_change_of_clocks_lets_start_together_hold_nothing_up(store: SqliteStore) -> None:
    """Both start at 03:00 on 28 March in Berlin: 02:10 and 02:40 are left out. One is the line's."""
    calendars = """
    [calendar.short]
    shifts = [ { name = "a", start = "02:10", end = "10:00" } ]
    [calendar.long]
    shifts = [ { name = "b", start = "02:40", end = "10:00" } ]
    """
    start = 1_616_893_200  # 01:00 UTC
    for machine in ("m1", "m2"):
        store.append(Arrivals(ran(machine, start, start + 8 * HOUR)))
    service = plant(calendars=calendars, zone="Europe/Berlin")
    found = closed(store, service, start + 8 * HOUR, start + 9 * HOUR, start + 40 * HOUR)
    first_day = [shift for shift in found if shift.start_us == start * SEC]
    assert {shift.scope for shift in first_day} == {LINE, f"{LINE}/m1", f"{LINE}/m2"}
    assert {shift.revision.figures["shift"] for shift in first_day if shift.scope == LINE} == {"a"}
    assert {shift.end_us for shift in found if shift.scope == LINE} > {(start + 7 * HOUR) * SEC}


def test_late_records_of_one_machine_revise_the_whole_line(store: SqliteStore) -> None:
    store.append(Arrivals(ran("m2", SHIFT, SHIFT + 10 * HOUR)))
    late = ran("m1", SHIFT, SHIFT + 10 * HOUR)
    store.append(Arrivals(late[:100] + late[300:]))
    service = plant()
    closed(store, service, SHIFT + 10 * HOUR)
    store.append(Arrivals(late[100:300]))
    revised = closed(store, service, SHIFT + 10.5 * HOUR, SHIFT + 11 * HOUR)
    assert [(shift.scope, shift.revision.revision) for shift in revised] == [(f"{LINE}/m1", 2), (LINE, 2)]
    before, after = figures(store, LINE)
    assert before["unknown_secs"] > 0
    assert after["unknown_secs"] == 0
    assert after["planned_production_secs"] == before["planned_production_secs"] == (8 + 9) * HOUR


DAY = 24 * HOUR


def late(number: int = 100) -> list[Telemetry]:
    return ran("m1", SHIFT, SHIFT + 10 * HOUR)[number : 2 * number]


def stored_but_for_late(store: SqliteStore) -> None:
    store.append(Arrivals(ran("m2", SHIFT, SHIFT + 10 * HOUR)))
    every = ran("m1", SHIFT, SHIFT + 10 * HOUR)
    store.append(Arrivals([item for item in every if item not in late()]))


@pytest.mark.parametrize("locking", [None, "m1", "both"])
def test_a_locked_shift_keeps_its_figures_and_lists_what_came_late(store: SqliteStore, locking: str) -> None:
    definitions = "lock_after_days = 2" if locking == "both" else ""
    of_machine = "definitions = { lock_after_days = 2 }" if locking == "m1" else ""
    service = loads(
        f'[site]\nname = "site"\ntimezone = "UTC"\n[definitions]\n{definitions}\n{CALENDARS}\n'
        + MACHINES.replace('name = "m1"', f'name = "m1"\n{of_machine}')
    )
    stored_but_for_late(store)
    closed(store, service, SHIFT + 10 * HOUR)
    before = {scope: figures(store, scope) for scope in (LINE, f"{LINE}/m1")}
    now = SHIFT + 4 * DAY
    assert locks.lock(store, service, round(now * SEC)) == 0
    appended = store.append(Arrivals(late()))
    assert len(appended.fresh) == 100
    revised = closed(store, service, now + 10, now + 60)
    if locking is None:
        assert [shift.revision.revision for shift in revised if shift.start_us == SHIFT * SEC] == [2, 2]
        return
    assert not [shift for shift in revised if shift.start_us == SHIFT * SEC]
    assert {scope: figures(store, scope) for scope in before} == before
    for level in ("machine", "line"):
        kept = [
            shift.after_lock
            for shift in history(service, store, date(2021, 6, 30), date(2021, 7, 1), level)
            if shift.scope in before and shift.revisions[0].figures["shift"] == "early"
        ]
        assert kept == [AfterLock(100, round(now * SEC), round(now * SEC))]
    (day,) = report(
        service,
        store,
        since=date(2021, 6, 30),
        until=date(2021, 7, 1),
        now_us=now * SEC,
        per="day",
        level="line",
    )
    assert day.to_dict()["unknown_secs"] >= 100 * 30 - 60


def test_without_the_lock_what_came_late_counts(store: SqliteStore) -> None:
    locked, free = plant("lock_after_days = 1"), plant()
    stored_but_for_late(store)
    closed(store, locked, SHIFT + 10 * HOUR)
    now = SHIFT + 4 * DAY
    locks.lock(store, locked, now * SEC)
    store.append(Arrivals(late()))
    assert store.append(Arrivals(late())).repeated == 100
    closed(store, locked, now, now + 60)
    assert locks.lock(store, free, (now + 100) * SEC) == 100
    assert locks.lock(store, free, (now + 101) * SEC) == 0
    revised = closed(store, free, now + 110, now + 120)
    found = {shift.scope: shift.revision for shift in revised if shift.start_us == SHIFT * SEC}
    assert set(found) == {LINE, f"{LINE}/m1"}
    assert found[LINE].why == "late data"
    assert found[LINE].figures["unknown_secs"] == 0
    assert all(
        shift.after_lock is None
        for shift in history(free, store, date(2021, 6, 30), date(2021, 7, 1), "machine")
    )


def test_what_waited_on_the_edge_while_the_cloud_side_was_down_is_not_locked_out(store: SqliteStore) -> None:
    """The shift ended long ago, but was closed only now."""
    service = plant("lock_after_days = 1")
    now = SHIFT + 5 * DAY
    store.append(Arrivals(ran("m1", SHIFT, SHIFT + HOUR)))
    closed(store, service, now)
    assert figures(store, f"{LINE}/m1")
    locks.lock(store, service, now * SEC)
    store.append(Arrivals(ran("m1", SHIFT + HOUR, SHIFT + 10 * HOUR, first=1000)))
    closed(store, service, now + 10, now + 60)
    assert figures(store, f"{LINE}/m1")[-1]["unknown_secs"] == 0


def test_a_lock_that_moves_lets_a_part_of_what_came_late_count(store: SqliteStore) -> None:
    short, long = plant("lock_after_days = 1"), plant("lock_after_days = 3")
    store.append(Arrivals(ran("m1", SHIFT, SHIFT + 50 * HOUR, step=600)))
    closed(store, short, *(SHIFT + hour * HOUR for hour in range(10, 60, 4)))
    now = SHIFT + 3.5 * DAY
    locks.lock(store, short, round(now * SEC))
    early = ran("m1", SHIFT + 5, SHIFT + HOUR, first=5000, gateway="other")
    later = ran("m1", SHIFT + 40 * HOUR + 5, SHIFT + 41 * HOUR, first=9000, gateway="other")
    store.append(Arrivals([*early, *later]))
    assert locks.lock(store, long, round(now * SEC)) == len(later)
    machine = store.names.find("machine", ("site", "area", "line", "m1"))
    kept = store.after_lock([machine], 0, 2**62)
    assert kept is not None
    assert kept.records == len(early)


@pytest.mark.parametrize("restarted", [False, True])
def test_what_a_clock_that_was_ahead_has_closed_is_closed_again_when_it_ends(
    store: SqliteStore, *, restarted: bool
) -> None:
    service = plant()
    made = Closing(Evaluation(service, store), grace_us=0, settle_us=0)
    told = [record for machine in ("m1", "m2") for record in ran(machine, SHIFT, SHIFT + 17 * HOUR)]
    store.append(Arrivals([record for record in told if record.epochtime < SHIFT + HOUR]))
    stepped(made, SHIFT + HOUR)
    ahead = stepped(made, SHIFT + HOUR + 30 * DAY)
    assert (LINE, SHIFT * SEC) in {(shift.scope, shift.start_us) for shift in ahead}
    if restarted:
        made = Closing(Evaluation(service, store), grace_us=0, settle_us=0)
    stepped(made, SHIFT + HOUR)
    for number in range(2):
        store.live_from_us[number] = SHIFT * SEC  # what comes in time leaves no mark
    store.append(Arrivals([record for record in told if record.epochtime >= SHIFT + HOUR]))
    stepped(made, SHIFT + 10 * HOUR)
    stepped(made, SHIFT + 17 * HOUR)
    for start, planned_hours in ((SHIFT, 8), (SHIFT + 8 * HOUR, 8)):
        first, last = figures(store, f"{LINE}/m1", start)
        assert first["unknown_secs"] > 0
        assert (last["unknown_secs"], last["total_units"]) == (0, planned_hours * HOUR)
    assert figures(store, LINE)[-1]["total_units"] == (8 + 9) * HOUR


def test_late_records_seen_by_a_clock_that_was_ahead_are_waited_for_no_longer_than_others(
    store: SqliteStore,
) -> None:
    made = Closing(Evaluation(plant(), store), grace_us=0, settle_us=SEC)
    store.append(Arrivals(ran("m1", SHIFT, SHIFT + 8 * HOUR)))
    for now in (SHIFT + 10 * HOUR, SHIFT + 10 * HOUR + 2):
        stepped(made, now)
    store.append(Arrivals(ran("m2", SHIFT, SHIFT + 9 * HOUR)))
    stepped(made, SHIFT + 11 * HOUR + 365 * DAY)
    for now in (SHIFT + 11 * HOUR, SHIFT + 11 * HOUR + 2):
        stepped(made, now)
    assert figures(store, LINE)[-1]["total_units"] == (8 + 9) * HOUR


def test_time_of_which_nothing_was_told_is_closed_as_it_is_day_by_day_in_fewer_steps(
    store: SqliteStore, tmp_path: Path
) -> None:
    """Records in the middle, and a machine that goes on from there, end the silence to the shift."""
    service = plant()
    with closing(SqliteStore(tmp_path / "other.sqlite3")) as other:
        for each in (store, other):
            each.append(Arrivals(ran("m1", SHIFT, SHIFT + HOUR)))
            each.append(Arrivals(ran("m2", SHIFT + 45 * DAY, SHIFT + 45 * DAY + HOUR)))
            each.append(Arrivals(ran("m1", SHIFT + 50 * DAY, SHIFT + 51 * DAY, first=5000)))
        made = Closing(Evaluation(service, store), grace_us=0, settle_us=0)
        now = SHIFT + 60 * DAY
        steps, is_done = 0, False
        while not is_done:
            is_done = made.step(now * SEC).is_done
            steps += 1
        closed(other, service, *(SHIFT + day * DAY for day in range(1, 61)))
        for scope in (LINE, f"{LINE}/m1", f"{LINE}/m2"):
            ours, theirs = (each.closed_between(scope, 0, now * SEC) for each in (store, other))
            assert [(shift.start_us, newest(shift)) for shift in ours] == [
                (shift.start_us, newest(shift)) for shift in theirs
            ]
            assert len(ours) == 2 * 60
    assert steps < 30
