"""Figures from the history are those of the telemetry that it was made of."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import json

from cloud.compute import compute
from cloud.history import figures_of_history
from cloud.plant import Plant
from cloud.store.parquet import History
from contract.delivery import Gap
from contract.telemetry import Telemetry
from tests.support.days import days_of_telemetry, history_of, plant_of_days


@pytest.fixture(scope="module")
def items() -> list[Telemetry | Gap]:
    return days_of_telemetry(3)


@pytest.fixture(scope="module")
def file(items: list[Telemetry | Gap], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("telemetry") / "all.jsonl"
    path.write_bytes(b"\n".join(map(json.encode, items)))
    return path


@pytest.fixture(scope="module")
def history(items: list[Telemetry | Gap], tmp_path_factory: pytest.TempPathFactory) -> History:
    return history_of(tmp_path_factory.mktemp("history"), items, rows_per_group=700)


def both(plant: Plant, file: Path, history: History, **options: Any) -> tuple[list[dict[str, Any]], ...]:
    return (
        [row.to_dict() for row in compute(plant, [file], **options).figures],
        [row.to_dict() for row in figures_of_history(plant, history, **options)],
    )


@pytest.mark.parametrize("per", ["shift", "hour", "day", "range", "product"])
@pytest.mark.parametrize("level", ["machine", "line"])
def test_every_window_and_level_is_the_same(file: Path, history: History, per: str, level: str) -> None:
    expected, found = both(plant_of_days(), file, history, per=per, level=level)
    assert len(expected) > 0
    assert found == expected


@pytest.mark.parametrize(
    "definitions",
    [
        'unknown_time = "hold"',
        'counts_between_samples = "proportional"',
        'startup_secs = 300\nsmall_stops = "availability"',
        'unplanned_production = "included"\nidle = "performance"',
    ],
)
def test_every_definition_is_the_same(file: Path, history: History, definitions: str) -> None:
    expected, found = both(plant_of_days(definitions), file, history)
    assert found == expected


def test_jitter_is_the_same(file: Path, history: History) -> None:
    expected, found = both(plant_of_days(machine="counter_jitter = 3"), file, history)
    assert found == expected


@pytest.mark.parametrize(
    ("since", "until"),
    [
        (date(2021, 6, 30), date(2021, 7, 1)),
        (datetime(2021, 6, 30, 1, 30), datetime(2021, 6, 30, 23, 50)),  # noqa: DTZ001
        (date(2021, 6, 1), date(2021, 6, 2)),
    ],
)
def test_a_part_of_the_history_is_the_same(file: Path, history: History, since: Any, until: Any) -> None:
    expected, found = both(plant_of_days(), file, history, since=since, until=until)
    assert found == expected


@pytest.mark.parametrize("workers", [1, 4])
def test_the_number_of_workers_changes_nothing(file: Path, history: History, workers: int) -> None:
    plant = plant_of_days()
    expected = [row.to_dict() for row in figures_of_history(plant, history)]
    assert [row.to_dict() for row in figures_of_history(plant, history, workers=workers)] == expected


def test_no_history_has_no_figures(tmp_path: Path) -> None:
    assert figures_of_history(plant_of_days(), History(tmp_path)) == []
