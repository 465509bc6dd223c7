"""Live figures, closed shifts and revisions, with the clock as an argument."""

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from cloud import plant as plants
from cloud.closing import FIRST, LATE, ONGOING, Closing
from cloud.evaluation import Evaluation
from cloud.live import LOOK_BUDGET_US, Live, Picture
from cloud.oee.rollup import figures
from cloud.plant import Plant
from cloud.store.port import Arrivals, ClosedShift
from cloud.store.sqlite import SqliteStore
from contract.delivery import Gap
from contract.machine_key import MachineKey
from contract.states import MachineState
from contract.telemetry import Telemetry

PLANT = """
[site]
name = "berlin"
timezone = "UTC"

[calendar.three-shift]
shifts = [
  { name = "1", start = "06:00", end = "14:00", breaks = [ { start = "10:00", minutes = 30 } ] },
  { name = "2", start = "14:00", end = "22:00" },
  { name = "3", start = "22:00", end = "06:00" },
]

[reason.jam]
name = "Jam at infeed"
category = "breakdown"
codes = [17]

[[machine]]
area = "packaging"
line = "line-1"
name = "filler-1"
calendar = "three-shift"
ideal_run_rate = 60.0

[[machine]]
area = "packaging"
line = "line-1"
name = "capper-1"
calendar = "three-shift"
ideal_run_rate = 60.0
"""
SHIFT = 1_625_032_800
"""2021-06-30 06:00 UTC: a shift begins."""
HOUR, SEC = 3600, 1_000_000
FILLER = MachineKey("berlin", "packaging", "line-1", "filler-1")
STATES = [MachineState.RUNNING, MachineState.IDLE, MachineState.FAULTED, MachineState.STOPPED]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    (tmp_path / "plant.toml").write_text(PLANT)
    return plants.load(tmp_path / "plant.toml")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store")
    yield opened
    opened.close()


def record(sequence: int, at: float, **changes: Any) -> Telemetry:
    fields: dict[str, Any] = {
        "epochtime": at,
        **FILLER._asdict(),
        "state": MachineState.RUNNING,
        "gateway": "gw",
        "sequence": sequence,
        "total_units": sequence,
        "off_quality_units": 0,
    }
    return Telemetry(**fields | changes)


def day(seed: int, hours: int, machines: Sequence[str] = ("filler-1", "capper-1")) -> list[Telemetry]:
    """Return records of some hours from the shift's beginning: states, gaps, counter resets."""
    dice = random.Random(seed)
    records: list[Telemetry] = []
    for machine in machines:
        at, total, off, state = float(SHIFT - HOUR), 0, 0, MachineState.RUNNING
        while at < SHIFT + hours * HOUR:
            at += 200.0 if dice.random() < 0.01 else dice.choice([1.0, 5.5, 10.0])
            if dice.random() < 0.05:
                state = dice.choice(STATES)
            total, off = (
                (0, 0) if dice.random() < 0.002 else (total + dice.randint(0, 9), off + dice.randint(0, 1))
            )
            fields = {"reason_code": 17} if state is MachineState.FAULTED and dice.random() < 0.5 else {}
            records.append(
                record(
                    len(records),
                    at,
                    machine=machine,
                    state=state,
                    total_units=total,
                    off_quality_units=off,
                    **fields,
                )
            )
    return records


def keep(live: Live, store: SqliteStore, records: Sequence[Telemetry | Gap]) -> None:
    said = [item for item in records if isinstance(item, Telemetry)]
    gaps = [item for item in records if isinstance(item, Gap)]
    live.add(store.append(Arrivals(said, gaps)).fresh)


def figures_of(picture: Picture) -> list[Any]:
    return [view.figures for view in picture.machines.values()] + [
        view.figures for view in picture.lines.values()
    ]


def from_scratch(plant: Plant, store: SqliteStore, now: float) -> list[Any]:
    evaluation = Evaluation(plant, store)
    now_us = round(now * SEC)
    whole, _ = evaluation.timeline(list(plant.machines), now_us, now_us + 1, now_us)
    return [
        row.to_dict()
        for level in get_args(Literal["machine", "line"])
        for row in figures(
            whole,
            plant,
            evaluation.names,
            level=level,
            wanted=lambda at: at.end_us > now_us,
            revision=0,  # it still runs
        )
    ]


@pytest.mark.parametrize("seed", range(4))
def test_live_figures_are_those_of_the_stored_records_whatever_comes_when(
    plant: Plant, store: SqliteStore, seed: int
) -> None:
    dice = random.Random(seed)
    records = day(seed, 5)
    live = Live(Evaluation(plant, store), (SHIFT + 60) * SEC)
    held: list[Telemetry] = []
    records.sort(key=lambda item: item.epochtime)
    position, now = 0, float(SHIFT + 60)
    while position < len(records):
        now += dice.uniform(1, 900)
        batch = []
        while position < len(records) and records[position].epochtime <= now:
            (held if dice.random() < 0.02 else batch).append(records[position])
            position += 1
        if dice.random() < 0.3:
            batch += held
            held = []
        dice.shuffle(batch)
        keep(live, store, batch)
        live.look(round(now * SEC))
        if dice.random() < 0.3:
            now += 3  # late stretches are read again after two seconds at the most
            assert figures_of(live.look(round(now * SEC))) == from_scratch(plant, store, now)
    keep(live, store, held)
    live.look(round(now * SEC))
    now += 3
    assert figures_of(live.look(round(now * SEC))) == from_scratch(plant, store, now)


@pytest.mark.parametrize("seed", range(2))
def test_machines_that_take_turns_show_changes_and_stands_at_once(
    plant: Plant, store: SqliteStore, seed: int
) -> None:
    records = sorted(day(seed, 2), key=lambda item: item.epochtime)
    turns = Live(Evaluation(plant, store), (SHIFT + 60) * SEC, renew_limit=1)
    always = Live(Evaluation(plant, store), (SHIFT + 60) * SEC)
    position, renewed = 0, 0
    for now in range(SHIFT + 60, SHIFT + 2 * HOUR, 47):
        end = next((n for n in range(position, len(records)) if records[n].epochtime > now), len(records))
        rows = store.append(Arrivals(records[position:end])).fresh
        position = end
        turns.add(rows)
        always.add(rows)
        shown, expected = turns.look(now * SEC), always.look(now * SEC)
        fresh = [key for key, view in shown.machines.items() if view == expected.machines[key]]
        renewed += len(fresh)
        assert fresh
        for key, view in shown.machines.items():
            assert (view.state, view.category) == (
                expected.machines[key].state,
                expected.machines[key].category,
            )
            assert shown.pasts[key] == expected.pasts[key]
    assert renewed < 2 * len(range(SHIFT + 60, SHIFT + 2 * HOUR, 47))


def test_looks_that_cost_too_much_renew_fewer_machines_in_turn(
    plant: Plant, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.live._LEAST_RENEWED", 1)
    spent_us = itertools.count(step=2 * LOOK_BUDGET_US)
    live = Live(Evaluation(plant, store), (SHIFT + 60) * SEC, renew_limit=2, cpu_us=lambda: next(spent_us))
    keep(live, store, [record(n, SHIFT + n + 0.5) for n in range(0, 200, 10)])
    now, before, renewed = SHIFT + 60, live.look((SHIFT + 60) * SEC), []
    for _ in range(6):
        now += 1
        after = live.look(now * SEC)
        renewed.append([key for key, view in after.machines.items() if view is not before.machines[key]])
        before = after
    assert [len(keys) for keys in renewed] == [1] * 6
    assert renewed[0] != renewed[1]


def test_more_than_may_wait_is_read_from_the_store(
    plant: Plant, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.live._MAX_PENDING", 3)
    monkeypatch.setattr("cloud.live._MAX_AHEAD", 5)
    live = Live(Evaluation(plant, store), (SHIFT + 60) * SEC)
    records = sorted(day(5, 1), key=lambda item: item.epochtime)
    for part in range(6):
        keep(live, store, records[part::6])
    picture = live.look((SHIFT + 1800) * SEC)
    assert picture.overflows == 3
    assert figures_of(picture) == from_scratch(plant, store, SHIFT + 1800)
    keep(live, store, [record(10**6 + n, SHIFT + 1800 + n) for n in range(0, 400, 5)])  # a clock ahead
    assert live.look((SHIFT + 1805) * SEC).overflows == 4
    for now in (SHIFT + 1830, SHIFT + 1900, SHIFT + 3 * HOUR):
        assert figures_of(live.look(now * SEC)) == from_scratch(plant, store, now)


def test_a_restart_shows_the_same(plant: Plant, store: SqliteStore) -> None:
    live = Live(Evaluation(plant, store), SHIFT * SEC)
    keep(live, store, day(1, 3))
    now_us = (SHIFT + 3 * HOUR) * SEC
    live.look(now_us - 5 * SEC)
    shown = live.look(now_us)
    again = Live(Evaluation(plant, store), now_us).look(now_us)
    assert again == shown


def test_a_new_shift_begins_with_nothing(plant: Plant, store: SqliteStore) -> None:
    live = Live(Evaluation(plant, store), SHIFT * SEC)
    keep(live, store, [record(n, SHIFT + n) for n in range(0, 8 * HOUR, 10)])
    before = live.look((SHIFT + 8 * HOUR - 1) * SEC).machines[FILLER]
    after = live.look((SHIFT + 8 * HOUR + 1) * SEC).machines[FILLER]
    assert before.shift is not None
    assert after.shift is not None
    assert (before.shift.name, after.shift.name) == ("1", "2")
    assert before.total_units > 0
    assert after.total_units == 0


def test_a_view_tells_state_reason_and_since_when(plant: Plant, store: SqliteStore) -> None:
    live = Live(Evaluation(plant, store), SHIFT * SEC)
    keep(
        live,
        store,
        [
            record(1, SHIFT + 10),
            record(2, SHIFT + 20, state=MachineState.FAULTED, reason_code=17, product="SKU-7"),
            record(3, SHIFT + 30, state=MachineState.FAULTED, reason_code=17, product="SKU-7"),
        ],
    )
    view = live.look((SHIFT + 40) * SEC).machines[FILLER]
    assert (view.state, view.state_since_epochtime) == ("faulted", SHIFT + 20)
    assert (view.reason, view.reason_name, view.product) == ("jam", "Jam at infeed", "SKU-7")
    assert view.category == "production"
    assert view.last_data_epochtime == SHIFT + 30
    silent = live.look((SHIFT + 90) * SEC).machines[FILLER]
    assert (silent.state, silent.state_since_epochtime) == ("unknown", SHIFT + 60)


def test_a_machine_that_never_spoke_is_unknown_and_shown(plant: Plant, store: SqliteStore) -> None:
    view = Live(Evaluation(plant, store), SHIFT * SEC).look((SHIFT + 5) * SEC).machines[FILLER]
    assert view.state == "unknown"
    assert view.last_data_epochtime is None
    assert view.figures is not None
    assert view.figures["oee"] == 0.0
    assert view.figures["unknown_secs"] == 5.0


def test_a_machine_that_is_not_in_the_plant_is_shown_as_such(plant: Plant, store: SqliteStore) -> None:
    live = Live(Evaluation(plant, store), SHIFT * SEC)
    keep(live, store, [record(1, SHIFT + 1, machine="stranger"), record(2, SHIFT + 1)])
    stranger = MachineKey("berlin", "packaging", "line-1", "stranger")
    view = live.look((SHIFT + 5) * SEC).machines[stranger]
    assert not view.in_plant
    assert view.figures is None
    assert (view.state, view.last_data_epochtime) == ("running", SHIFT + 1)
    again = Live(Evaluation(plant, store), (SHIFT + 5) * SEC).look((SHIFT + 5) * SEC)
    assert again.machines[stranger] == view
    later = live.look((SHIFT + 40) * SEC).machines[stranger]
    assert (later.state, later.last_data_epochtime) == ("unknown", SHIFT + 1)


def test_the_goal_by_now_follows_planned_time(plant: Plant, store: SqliteStore) -> None:
    live = Live(Evaluation(plant, store), SHIFT * SEC)
    keep(live, store, [record(n, SHIFT + n) for n in range(0, 5 * HOUR, 10)])
    view = live.look((SHIFT + 2 * HOUR) * SEC).machines[FILLER]
    assert view.target_units == pytest.approx(0.85 * 7.5 * HOUR)
    assert view.target_units_now == pytest.approx(0.85 * 2 * HOUR)
    in_break = live.look((SHIFT + 4 * HOUR + 600) * SEC).machines[FILLER]
    assert in_break.category == "break"
    assert in_break.target_units_now == pytest.approx(0.85 * 4 * HOUR)


def test_the_timeline_has_no_holes(plant: Plant, store: SqliteStore) -> None:
    live = Live(Evaluation(plant, store), SHIFT * SEC)
    keep(live, store, day(3, 5))
    now_us = (SHIFT + 5 * HOUR) * SEC
    live.look(now_us)
    segments = live.segments(FILLER, SHIFT * SEC, now_us, now_us)
    assert segments
    assert segments[0].start_epochtime == SHIFT
    assert segments[-1].end_epochtime == SHIFT + 5 * HOUR
    for before, after in itertools.pairwise(segments):
        assert before.end_epochtime == after.start_epochtime
        assert (before.state, before.category, before.loss, before.reason) != (
            after.state,
            after.category,
            after.loss,
            after.reason,
        ) or before.product != after.product


# Closing


def closing(plant: Plant, store: SqliteStore) -> Closing:
    return Closing(Evaluation(plant, store), grace_us=0, settle_us=10 * SEC)


def steps(closer: Closing, now: float) -> list[ClosedShift]:
    found: list[ClosedShift] = []
    for _ in range(100):
        step = closer.step(round(now * SEC))
        found += step.shifts
        if step.is_done:
            return found
    raise AssertionError("it never ends")


def of_filler(shifts: Sequence[ClosedShift]) -> list[tuple[str, int, str]]:
    return [
        (shift.revision.figures["shift"], shift.revision.revision, shift.revision.why)
        for shift in shifts
        if shift.scope == str(FILLER)
    ]


def settled(closer: Closing, now: float) -> list[ClosedShift]:
    return steps(closer, now) + steps(closer, now + 11)


def test_a_shift_is_closed_once_when_it_is_over_and_settled(plant: Plant, store: SqliteStore) -> None:
    store.append(Arrivals([record(n, SHIFT + n) for n in range(0, 10 * HOUR, 10)]))
    closer = closing(plant, store)
    assert settled(closer, SHIFT + 8 * HOUR - 20) == []
    assert of_filler(settled(closer, SHIFT + 8 * HOUR + 200)) == [("1", 1, FIRST)]
    assert settled(closer, SHIFT + 8 * HOUR + 300) == []
    (kept,) = store.closed(str(FILLER), SHIFT * SEC)
    assert (kept.figures["total_units"], kept.figures["unplanned_units"]) == (7.5 * HOUR, 0.5 * HOUR)
    assert kept.figures["unknown_secs"] == 0
    line = store.closed("berlin/packaging/line-1", SHIFT * SEC)
    assert line[0].figures["total_units"] == 7.5 * HOUR


def test_a_restart_closes_nothing_twice_and_misses_nothing(plant: Plant, store: SqliteStore) -> None:
    store.append(Arrivals([record(n, SHIFT + n) for n in range(0, 30 * HOUR, 10)]))
    first = settled(closing(plant, store), SHIFT + 9 * HOUR)
    assert of_filler(first) == [("1", 1, FIRST)]
    later = settled(closing(plant, store), SHIFT + 26 * HOUR)
    assert of_filler(later) == [("2", 1, FIRST), ("3", 1, FIRST)]
    assert settled(closing(plant, store), SHIFT + 26 * HOUR) == []


def test_shifts_without_any_record_between_others_are_closed_too(plant: Plant, store: SqliteStore) -> None:
    store.append(Arrivals([record(1, SHIFT + 10), record(2, SHIFT + 100 * HOUR)]))
    found = settled(closing(plant, store), SHIFT + 101 * HOUR)
    assert len(of_filler(found)) == 12
    assert {revision for _, revision, _ in of_filler(found)} == {1}


def test_late_records_make_one_revision_of_the_shifts_they_change(plant: Plant, store: SqliteStore) -> None:
    records = [record(n, SHIFT + n) for n in range(0, 30 * HOUR, 10)]
    late = [item for item in records if SHIFT + HOUR <= item.epochtime < SHIFT + 2 * HOUR]
    store.append(Arrivals([item for item in records if item not in late]))
    closer = closing(plant, store)
    now = SHIFT + 26 * HOUR
    settled(closer, now)
    for part in range(5):
        store.append(Arrivals(late[part::5]))
        assert steps(closer, now + 20 + part) == []
    assert of_filler(steps(closer, now + 40)) == [("1", 2, LATE)]
    assert steps(closer, now + 60) == []
    before, after = store.closed(str(FILLER), SHIFT * SEC)
    assert before.figures["unknown_secs"] == pytest.approx(HOUR - 20, abs=20)
    assert after.figures["unknown_secs"] == 0
    assert after.figures["revision"] == 2


def test_many_late_records_of_many_shifts_make_one_revision_each(plant: Plant, store: SqliteStore) -> None:
    shifts, late_count = 20, 100_000
    hours = 8 * shifts
    store.append(Arrivals([record(n, SHIFT + 60 * n) for n in range(60 * hours + 1)]))
    closer = closing(plant, store)
    now = SHIFT + (hours + 3) * HOUR
    first = of_filler(settled(closer, now))
    assert [revision for _, revision, _ in first] == [1] * shifts
    late = [
        record(
            10**6 + n,
            SHIFT + 1 + n * (hours * HOUR - 2) / late_count,
            state=STATES[n // 40 % 4],
            total_units=0,
        )
        for n in range(late_count)
    ]
    random.Random(1).shuffle(late)
    for part in range(20):
        store.append(Arrivals(late[part::20]))
        now += 5
        assert steps(closer, now) == [], "more came before the last had settled"
    revised = of_filler(steps(closer, now + 10))
    assert [(revision, why) for _, revision, why in revised] == [(2, LATE)] * shifts
    assert settled(closer, now + 60) == []
    assert store.dirty() == []


def test_records_that_change_no_figure_make_no_revision(plant: Plant, store: SqliteStore) -> None:
    store.append(Arrivals([record(n, SHIFT + n) for n in range(0, 10 * HOUR, 10)]))
    closer = closing(plant, store)
    settled(closer, SHIFT + 9 * HOUR)
    store.append(Arrivals([record(10**6, SHIFT + HOUR + 5, total_units=HOUR)]))
    assert settled(closer, SHIFT + 9 * HOUR + 100) == []
    assert store.dirty() == []


def test_records_older_than_everything_get_their_shifts(plant: Plant, store: SqliteStore) -> None:
    store.append(Arrivals([record(10**6 + n, SHIFT + n) for n in range(0, 10 * HOUR, 10)]))
    closer = closing(plant, store)
    settled(closer, SHIFT + 9 * HOUR)
    store.append(Arrivals([record(n, SHIFT - 30 * HOUR + n) for n in range(0, HOUR, 10)]))
    found = of_filler(settled(closer, SHIFT + 9 * HOUR + 60))
    assert [name for name, revision, why in found if revision == 1 and why == FIRST] == ["3", "1", "2", "3"]


def test_a_stop_across_the_end_is_judged_when_it_is_known_whole(plant: Plant, store: SqliteStore) -> None:
    end = SHIFT + 8 * HOUR
    running = [record(n, SHIFT + n) for n in range(0, 8 * HOUR - 30, 10)]
    stop = [
        record(10**6 + n, end - 30 + n, state=MachineState.STOPPED, total_units=8 * HOUR)
        for n in range(0, 60, 10)
    ]
    store.append(Arrivals([*running, *stop]))
    closer = closing(plant, store)
    found = settled(closer, end + 200)
    assert of_filler(found)[0] == ("1", 1, FIRST)
    (kept,) = store.closed(str(FILLER), SHIFT * SEC)
    assert kept.figures["losses"]["small_stops"] == 30.0
    store.live_from_us[0] = end * SEC
    more = [
        record(2 * 10**6 + n, end + 30 + n, state=MachineState.STOPPED, total_units=8 * HOUR)
        for n in range(0, 8 * HOUR, 10)
    ]
    store.append(Arrivals(more))
    found = settled(closer, end + 9 * HOUR)
    assert ("1", 2, ONGOING) in of_filler(found)
    kept = store.closed(str(FILLER), SHIFT * SEC)[-1]
    assert kept.figures["losses"]["small_stops"] == 0.0
    assert kept.figures["losses"]["other_stop"] == 30.0


def test_the_goal_by_now_is_met_exactly_where_the_oee_target_is_whatever_was_made(store: SqliteStore) -> None:
    quick = "products = { quick = { ideal_run_rate = 120.0 } }\n"
    plant = plants.loads(PLANT.replace('name = "filler-1"\n', f'name = "filler-1"\n{quick}'))
    live = Live(Evaluation(plant, store), SHIFT * SEC)
    secs = range(0, 2 * HOUR, 10)
    made = [(n, min(n, HOUR) + max(0, n - HOUR) * 2, "quick" if n > HOUR else "slow") for n in secs]
    keep(
        live, store, [record(n, SHIFT + n, total_units=total, product=product) for n, total, product in made]
    )
    view = live.look((SHIFT + 2 * HOUR) * SEC).machines[FILLER]
    assert view.product == "quick"
    assert view.figures is not None
    assert view.target_units_now is not None
    assert view.good_units / view.target_units_now == pytest.approx(view.figures["oee"] / 0.85)
