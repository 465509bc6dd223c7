"""Shifts whose records have left the history keep their figures, whatever is said or arrives later."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from cloud import locks, upkeep
from cloud import plant as plants
from cloud.closing import Closing
from cloud.config import CloudConfig
from cloud.correcting import Corrections
from cloud.errors import AskedError, CorrectionError
from cloud.evaluation import Evaluation
from cloud.oee.corrections import Correction
from cloud.opening import open_store
from cloud.plant import Plant
from cloud.report import history, report
from cloud.store.port import Arrivals
from cloud.store.tiers import TieredStore
from contract.states import MachineState
from contract.telemetry import Telemetry

PLANT = """
[site]
name = "berlin"
timezone = "Europe/Berlin"
[definitions]
max_gap_secs = 3600
[calendar.days]
shifts = [
  { name = "day", start = "06:00", end = "18:00" },
  { name = "night", start = "18:00", end = "06:00" },
]
[reason.jam]
name = "Jam"
category = "breakdown"
[[machine]]
area = "packaging"
line = "line-1"
name = "filler-1"
calendar = "days"
ideal_run_rate = 60
"""
KEY = "berlin/packaging/line-1/filler-1"
HOUR, DAY, SEC = 3600, 86_400, 1_000_000
BEGIN = int(datetime(2021, 6, 21, 4, tzinfo=UTC).timestamp())
"""06:00 in Berlin: a day shift begins."""
NOW_US = (BEGIN + 10 * DAY) * SEC
FIRST = date(2021, 6, 26)
"""Whose records are kept: the night before it has lost its first two hours."""


def record(sequence: int, at: float) -> Telemetry:
    return Telemetry(
        epochtime=at,
        site="berlin",
        area="packaging",
        line="line-1",
        machine="filler-1",
        state=MachineState.RUNNING,
        gateway="gw",
        sequence=sequence,
        total_units=int(at - BEGIN),
    )


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    path = tmp_path / "plant.toml"
    path.write_text(PLANT)
    return plants.load(path)


@pytest.fixture
def store(tmp_path: Path, plant: Plant) -> Iterator[TieredStore]:
    """A store of ten days, all closed, of which the records of the last five are left."""
    config = CloudConfig.model_validate(
        {"cloud": {"data_dir": str(tmp_path / "data")}, "history": {"keep_days": 5, "after_days": 1}}
    )
    opened = open_store(config)
    assert isinstance(opened, TieredStore)
    opened.append(Arrivals([record(n, BEGIN + n * 600) for n in range(10 * 24 * 6)]))
    close(plant, opened)
    work = {job.name: job.work for job in upkeep.jobs(config, opened, lambda: NOW_US)}
    work["history"]()
    assert work["retention"]() == "5 days left the history"
    locks.lock(opened, plant, NOW_US)
    yield opened
    opened.close()


def close(plant: Plant, store: TieredStore) -> None:
    closing = Closing(Evaluation(plant, store), grace_us=0, settle_us=0)
    while not closing.step(NOW_US).is_done:
        pass


def revisions(plant: Plant, store: TieredStore) -> list[int]:
    shifts = history(plant, store, date(2021, 6, 21), date(2021, 7, 1), "machine")
    return [len(shift.revisions) for shift in shifts]


def test_late_records_change_no_shift_that_others_are_gone_of(plant: Plant, store: TieredStore) -> None:
    before = revisions(plant, store)
    late = [record(100_000 + day, BEGIN + day * DAY + 18 * HOUR + 300) for day in range(9)]
    late = [item for item in late if item.epochtime != BEGIN]
    store.append(Arrivals(late))
    close(plant, store)
    after = revisions(plant, store)
    changed = [place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert changed == []  # a record of a running machine changes nothing where the others are there
    shifts = list(history(plant, store, date(2021, 6, 21), date(2021, 7, 1), "machine"))
    kept_apart = [
        shift.after_lock is not None for shift in shifts if shift.revisions[-1].figures["shift"] == "night"
    ]
    assert kept_apart == [True] * 5 + [False] * 4
    assert all(shift.revisions[-1].figures["total_units"] > 42_000 for shift in shifts)


def test_a_correction_of_what_is_gone_is_refused_and_one_beyond_changes_what_is_left(
    plant: Plant, store: TieredStore
) -> None:
    made = Corrections(store, plant=lambda: plant, now_us=lambda: NOW_US)

    def stop(from_day: float, to_day: float) -> Correction:
        span = [round((BEGIN + day * DAY) * SEC) for day in (from_day, to_day)]
        return Correction(
            machine=KEY, kind="planned_stop", from_us=span[0], to_us=span[1], who="Ana", when_us=0
        )

    with pytest.raises(CorrectionError, match=f"before {FIRST} have left the history"):
        made.correct(stop(1.1, 1.2))
    with pytest.raises(CorrectionError, match="keep their figures"):
        made.correct(stop(4.6, 4.9))  # of the night of which some records are left
    made.correct(stop(4.9, 5.1))
    before = revisions(plant, store)
    close(plant, store)
    after = revisions(plant, store)
    assert [place for place, each in enumerate(zip(before, after, strict=True)) if each[0] != each[1]] == [10]


def test_sums_of_what_is_gone_are_not_told_as_if_nothing_had_run(plant: Plant, store: TieredStore) -> None:
    span: dict[str, Any] = {"since": date(2021, 6, 21), "until": date(2021, 7, 1), "now_us": NOW_US}
    shifts = report(plant, store, **span)
    assert {row.to_dict()["total_units"] > 42_000 for row in shifts if row.window.shift} == {True}
    with pytest.raises(AskedError, match=f"use --by shift, or --from {FIRST}"):
        report(plant, store, **span, per="week")
    days = report(plant, store, **(span | {"since": FIRST}), per="day")
    assert len(days) == 5
