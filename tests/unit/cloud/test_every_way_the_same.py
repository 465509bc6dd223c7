"""One shift has one set of figures: from files, store, history or both, alone or within a longer range."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import json

from cloud.compute import compute
from cloud.history import figures_of_history
from cloud.oee.figures import Figures
from cloud.report import report
from cloud.store.parquet import History
from cloud.store.port import Arrivals
from cloud.store.sqlite import SqliteStore
from cloud.store.tiers import TieredStore
from contract.delivery import Gap
from contract.telemetry import Telemetry
from tests.support.days import START_SECS, days_of_telemetry, history_of, plant_of_days

DAY = date(2021, 6, 30)
NOW_US = (START_SECS + 10 * 86_400) * 1_000_000
DEFINITIONS = {
    "as they are": "",
    "stops of hours are small": "small_stop_secs = 14400",
    "units spread over silences": 'counts_between_samples = "proportional"',
    "states held": 'unknown_time = "hold"\nsmall_stop_secs = 7200',
    "start-ups of hours": "startup_secs = 5000\nsmall_stop_secs = 900",
}


@pytest.fixture(scope="module")
def items() -> list[Telemetry | Gap]:
    """Return days with silences of more than five hours."""
    return days_of_telemetry(11, 3.5)


@pytest.fixture(scope="module")
def file(items: list[Telemetry | Gap], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("telemetry") / "all.jsonl"
    path.write_bytes(b"\n".join(map(json.encode, items)))
    return path


@pytest.fixture(scope="module")
def history(items: list[Telemetry | Gap], tmp_path_factory: pytest.TempPathFactory) -> History:
    return history_of(tmp_path_factory.mktemp("history"), items, rows_per_group=700)


@pytest.fixture(scope="module")
def stores(
    items: list[Telemetry | Gap], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[SqliteStore, TieredStore]]:
    folder = tmp_path_factory.mktemp("stores")
    with (
        closing(SqliteStore(folder / "plain.sqlite3")) as plain,
        closing(TieredStore(folder / "tiered.sqlite3", History(folder / "history"))) as tiered,
    ):
        for store in (plain, tiered):
            store.append(
                Arrivals(
                    [item for item in items if isinstance(item, Telemetry)],
                    [item for item in items if isinstance(item, Gap)],
                )
            )
        tiered.archive(DAY + timedelta(days=1), limit=10)
        yield plain, tiered


def by_window(rows: list[Figures], day: date = DAY) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Return the rows of one production day."""
    return {
        (str(row.place.machine), row.window.shift): row.to_dict()
        for row in rows
        if row.window.production_date == day
    }


@pytest.mark.parametrize("definitions", DEFINITIONS.values(), ids=DEFINITIONS)
def test_a_shift_is_the_same_however_it_is_asked_for(
    file: Path, history: History, stores: tuple[SqliteStore, TieredStore], definitions: str
) -> None:
    plant = plant_of_days(definitions)
    expected = by_window(compute(plant, [file]).figures)
    assert len(expected) == 9
    assert "hold" in definitions or any(row["bounds"] is not None for row in expected.values())
    span: dict[str, Any] = {"since": DAY, "until": DAY + timedelta(days=1)}
    assert by_window(compute(plant, [file], **span).figures) == expected
    assert by_window(figures_of_history(plant, history, **span)) == expected
    for store in stores:
        assert by_window(report(plant, store, **span, now_us=NOW_US)) == expected
    for (machine, shift), row in expected.items():
        begin, end = (datetime.fromisoformat(row[key]) for key in ("start", "end"))
        found = by_window(report(plant, stores[1], since=begin, until=end, now_us=NOW_US))
        assert found[machine, shift] == row


def test_a_shift_closed_long_ago_does_not_depend_on_when_it_is_asked_for(
    stores: tuple[SqliteStore, TieredStore],
) -> None:
    """As soon as the reading after it is there."""
    plant = plant_of_days('counts_between_samples = "proportional"\nsmall_stop_secs = 14400')
    span: dict[str, Any] = {"since": DAY, "until": DAY + timedelta(days=1)}
    late = round(datetime(2021, 7, 1, 20, tzinfo=UTC).timestamp()) * 1_000_000
    found = [by_window(report(plant, stores[0], **span, now_us=now_us)) for now_us in (late, NOW_US)]
    assert found[0] == found[1]
