"""Sums of days that are over: kept, and the same as made from the records, whatever comes late."""

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cloud import questions
from cloud.clock import clock_us
from cloud.correcting import Corrections
from cloud.evaluation import Evaluation
from cloud.oee.calendar import shift_at
from cloud.oee.corrections import Correction
from cloud.plant import Plant
from cloud.settled import Settled
from cloud.store.port import Arrivals
from cloud.store.sqlite import SqliteStore
from contract.delivery import Gap
from contract.telemetry import Telemetry
from tests.support.days import MACHINES, START_SECS, days_of_telemetry, plant_of_days

SEC = 1_000_000
HOUR_US = 3_600 * SEC
START_US = START_SECS * SEC
KEY = f"plant/packaging/line-1/{MACHINES[0]}"
WAYS: tuple[tuple[Any, Any], ...] = (
    ("day", "site"),
    ("range", "area"),
    ("week", "machine"),
    ("shift", "site"),
)


def append(store: SqliteStore, items: list[Telemetry | Gap]) -> None:
    told = [item for item in items if isinstance(item, Telemetry)]
    store.append(Arrivals(told, [item for item in items if isinstance(item, Gap)]))


def look(store: SqliteStore, plant: Plant, now_us: int) -> None:
    """Say which records leave a mark, as the service does with each look."""
    for key, machine in plant.machines.items():
        number = store.names.find("machine", tuple(key))
        if number >= 0:
            window = shift_at(machine, now_us)
            store.live_from_us[number] = now_us if window is None else window.start_us


def asked(
    plant: Plant, store: SqliteStore, now_us: int, settled: Settled | None
) -> list[list[dict[str, Any]]]:
    return [
        questions.figures(
            plant,
            store,
            now_us,
            from_us=START_US,
            to_us=now_us,
            every=every,
            level=level,
            settled=settled,
        )
        for every, level in WAYS
    ]


def heard_until(items: list[Telemetry | Gap], until_us: int) -> list[Telemetry | Gap]:
    return [item for item in items if _time_us(item) <= until_us]


def _time_us(item: Telemetry | Gap) -> int:
    return round((item.epochtime if isinstance(item, Telemetry) else item.from_epochtime) * SEC)


@given(
    seed=st.integers(0, 2**16),
    late_share=st.sampled_from([0.0, 0.02, 0.3]),
    hours=st.lists(st.integers(20, 90), min_size=2, max_size=4, unique=True).map(sorted),
    definitions=st.sampled_from(["", 'counts_between_samples = "proportional"', "small_stop_secs = 7200"]),
)
@settings(max_examples=6, deadline=None, phases=[Phase.generate])
def test_what_is_kept_is_what_the_records_say_whatever_comes_late(
    tmp_path_factory: pytest.TempPathFactory, seed: int, late_share: float, hours: list[int], definitions: str
) -> None:
    dice = random.Random(seed)
    items = days_of_telemetry(seed, 3.7, step_secs=2000)
    plant = plant_of_days(definitions)
    waiting = [item for item in items if dice.random() < late_share]
    prompt = [item for item in items if item not in waiting]
    with closing(SqliteStore(tmp_path_factory.mktemp("store") / "store")) as store:
        settled = Settled(store)
        before_us = 0
        for hour in hours:
            now_us = START_US + hour * HOUR_US
            append(store, [item for item in prompt if before_us < _time_us(item) <= now_us])
            look(store, plant, now_us)
            assert asked(plant, store, now_us, settled) == asked(plant, store, now_us, None)
            come = [item for item in heard_until(waiting, now_us) if dice.random() < 0.5]
            append(store, come)
            assert asked(plant, store, now_us, settled) == asked(plant, store, now_us, None)
            before_us = now_us


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "store")) as opened:
        yield opened


def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list to which is added how many machines' records are read for figures."""
    found: list[int] = []
    timeline = Evaluation.timeline

    def counted(self: Evaluation, machines: Any, *rest: Any, **options: Any) -> Any:
        found.append(len(machines))
        return timeline(self, machines, *rest, **options)

    monkeypatch.setattr(Evaluation, "timeline", counted)
    return found


def test_days_that_are_over_are_read_once_and_again_when_their_past_changes(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, settled = plant_of_days(), Settled(store)
    items = days_of_telemetry(3, 3.7)
    now_us = START_US + 80 * HOUR_US
    append(store, heard_until(items, now_us))
    look(store, plant, now_us)
    span: dict[str, Any] = {"every": "day", "level": "site"}
    span |= {"from_us": START_US, "to_us": START_US + 48 * HOUR_US, "settled": settled}
    read = reads(monkeypatch)
    first = questions.figures(plant, store, now_us, **span)
    assert read == [3]
    assert questions.figures(plant, store, now_us, **span) == first
    assert read == [3]
    late = next(item for item in items if item.machine == MACHINES[1] and isinstance(item, Telemetry))
    append(store, [msgspec.structs.replace(late, epochtime=START_SECS + 90_000, sequence=10**6)])
    questions.figures(plant, store, now_us, **span)
    assert read == [3, 1]
    known = Corrections(store, plant=lambda: plant, now_us=clock_us)
    begin_us = START_US + 10 * HOUR_US
    known.correct(
        Correction(
            machine=KEY,
            kind="off_quality",
            from_us=begin_us,
            to_us=begin_us + HOUR_US,
            who="Ana",
            when_us=0,
            units=1000,
        )
    )
    last = questions.figures(plant, store, now_us, **span)
    assert read == [3, 1, 1]
    assert sum(row["off_quality_units"] for row in last) == sum(
        row["off_quality_units"]
        for row in questions.figures(plant, store, now_us, **span | {"settled": None})
    )
    assert questions.figures(plant_of_days("small_stop_secs = 9"), store, now_us, **span) != last


def test_a_day_that_is_not_heard_to_its_end_is_made_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last state may go on, and the next reading tell what was made until it came."""
    plant, settled = plant_of_days(), Settled(store)
    items = days_of_telemetry(3, 3.7)
    now_us = START_US + 80 * HOUR_US
    append(store, heard_until(items, START_US + 29 * HOUR_US))
    look(store, plant, now_us)
    read = reads(monkeypatch)
    for _ in range(2):
        settled_days = settled.days(plant, list(plant.machines), START_US, START_US + 24 * HOUR_US, now_us)
        assert len(list(settled_days)) == 6
    assert read == [3, 3]
