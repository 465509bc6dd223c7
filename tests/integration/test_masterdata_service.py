"""Master data while the service runs: PostgreSQL as MES, SQLite as quality database, a laboratory's files."""

import json
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from cloud.commands import import_telemetry
from cloud.store.sqlite import SqliteStore
from cloud.views import Revision
from tests.support.cloud import PLANT, CloudProcess, write_config
from tests.support.edge import wait_for
from tests.support.postgres import Postgres

HOUR = 3600
FILLER = "berlin/packaging/line-1/filler-1"
MIXER = """
[[machine]]
area = "packaging"
line = "line-1"
name = "mixer-1"
calendar = "three-shift"
ideal_run_rate = 60.0
"""
SOURCES = """
[[source]]
name = "mes-rates"
kind = "ideal_rate"
url_file = "mes.url"
query = '''SELECT id AS ref, workplace AS machine, valid_from AS "from", valid_to AS "to", product, rate,
  deleted, changed_at FROM rates WHERE changed_at >= :watermark'''
watermark = "changed_at"
interval_secs = 1
machines = {{ "WP-1" = "{filler}" }}
[[source]]
name = "mes-orders"
kind = "order"
url_file = "mes.url"
query = '''SELECT id AS ref, workplace AS machine, starts AS "from", ends AS "to", order_no AS order,
  sku AS product FROM orders'''
interval_secs = 1
machines = {{ "WP-1" = "{filler}" }}
[[source]]
name = "mes-stops"
kind = "planned_stop"
url_file = "mes.url"
query = 'SELECT id AS ref, workplace AS machine, starts AS "from", ends AS "to" FROM stops'
interval_secs = 1
[[source]]
name = "quality"
kind = "off_quality"
url = "sqlite:///{quality}"
query = '''SELECT sample AS ref, machine, at AS "from", bad AS units, stamp FROM finding
  WHERE stamp >= :watermark'''
watermark = "stamp"
start = 0
interval_secs = 1
[[source]]
name = "lab"
kind = "off_quality"
folder = "lab"
pattern = "*"
interval_secs = 1
"""


@pytest.fixture(scope="module")
def mes() -> Iterator[Postgres]:
    with Postgres() as running:
        running.run(
            "CREATE TABLE rates (id text PRIMARY KEY, workplace text, valid_from timestamptz,"
            " valid_to timestamptz, product text, rate numeric(9, 3), deleted boolean DEFAULT false,"
            " changed_at timestamptz DEFAULT clock_timestamp())"
        )
        running.run(
            "CREATE TABLE orders (id int PRIMARY KEY, workplace text, starts timestamptz, ends timestamptz,"
            " order_no text, sku text)"
        )
        running.run(
            "CREATE TABLE stops (id int PRIMARY KEY, workplace text, starts timestamptz, ends timestamptz)"
        )
        yield running


def last_shift_start(now: float) -> float:
    """Return when the last shift began that has ended some minutes ago."""
    local = datetime.fromtimestamp(now - 600, ZoneInfo("Europe/Berlin")).replace(
        minute=0, second=0, microsecond=0
    )
    while local.hour not in (6, 14, 22):
        local -= timedelta(hours=1)
    return (local - timedelta(hours=8)).timestamp()


class Plant:
    """A cloud service with a shift that is over, and what it makes of it."""

    def __init__(self, folder: Path, mes: Postgres) -> None:
        self.quality = folder / "quality.sqlite3"
        self.lab = folder / "cloud" / "lab"
        self.config = write_config(
            folder / "cloud", "mqtt://127.0.0.1:1", options={"cloud": 'masterdata = "masterdata.toml"'}
        )
        self.lab.mkdir()
        (folder / "cloud" / "mes.url").write_text(mes.url)
        text = SOURCES.format(filler=FILLER, quality=self.quality)
        (folder / "cloud" / "masterdata.toml").write_text(text)
        self.find("CREATE TABLE finding (sample INTEGER PRIMARY KEY, machine, at REAL, bad, stamp INTEGER)")
        self.start = last_shift_start(time.time())
        self._load(folder / "day.jsonl")

    def _load(self, path: Path) -> None:
        """Let the filler make 60 units a minute throughout the shift."""
        with path.open("w") as file:
            for number, second in enumerate(range(-60, 8 * HOUR + 60, 20)):
                record = {
                    "epochtime": self.start + second,
                    **dict(zip(("site", "area", "line", "machine"), FILLER.split("/"), strict=True)),
                    "state": "running",
                    "total_units": 1000 + second,
                    "off_quality_units": 0,
                    "gateway": "gw",
                    "sequence": number + 1,
                }
                file.write(json.dumps(record) + "\n")
        assert import_telemetry([path], self.config) == 0

    def find(self, statement: str, *values: Any) -> None:
        """Write into the quality database."""
        database = sqlite3.connect(self.quality)
        with database:
            database.execute(statement, values)
        database.close()

    def revisions(self) -> list[Revision]:
        """Return the revisions of the filler's shift."""
        store = SqliteStore(self.config.parent / "store" / "store.sqlite3")
        try:
            return store.closed(FILLER, round(self.start * 1e6))
        finally:
            store.close()

    def becomes(self, why: str, **figures: float) -> bool:
        """Wait until the newest revision has some figures; tell whether its reason is the one given."""

        def is_there() -> bool:
            found = self.revisions()
            last = found[-1].figures if found else {}
            return all(last.get(key) == pytest.approx(value, rel=1e-6) for key, value in figures.items())

        return wait_for(is_there, 30) and self.revisions()[-1].why == why

    def at(self, hours: float) -> datetime:
        """Return an instant of the shift."""
        return datetime.fromtimestamp(self.start + hours * HOUR, UTC)


@pytest.fixture
def plant(tmp_path: Path, mes: Postgres) -> Plant:
    return Plant(tmp_path, mes)


def test_what_other_systems_say_revises_the_shifts_it_touches_and_stands_there_with_its_source(
    plant: Plant, mes: Postgres
) -> None:
    rate = "INSERT INTO rates (id, workplace, valid_from, rate) VALUES (%s, %s, %s, %s)"
    with CloudProcess(plant.config) as cloud:
        assert plant.becomes("shift ended", total_units=8 * HOUR, performance=1.0, quality=1.0)
        mes.run(rate, "r1", "WP-1", plant.at(-24), 120)
        assert plant.becomes("ideal rate by mes-rates", performance=0.5)
        mes.run("UPDATE rates SET rate = 80, changed_at = clock_timestamp() WHERE id = 'r1'")
        assert plant.becomes("ideal rate by mes-rates", performance=0.75)
        plant.find("INSERT INTO finding VALUES (1, 'filler-1', ?, 2880, 1)", plant.start + HOUR)
        assert plant.becomes("off quality by quality", quality=0.9)
        mes.stop()
        plant.find("UPDATE finding SET bad = 1440, stamp = 2")
        assert plant.becomes("off quality by quality", quality=0.95)
        cloud.kill()
        mes.start()
        mes.run("INSERT INTO stops VALUES (1, 'filler-1', %s, %s)", plant.at(7), plant.at(8))
        cloud.start()
        assert plant.becomes("planned stop by mes-stops", planned_production_secs=7.0 * HOUR)
        mes.run("UPDATE rates SET deleted = true, changed_at = clock_timestamp()")
        assert wait_for(lambda: plant.revisions()[-1].figures["performance"] == pytest.approx(1.0), 30)
        told = [revision.revision for revision in plant.revisions()]
        assert told == list(range(1, len(told) + 1))
        assert cloud.log().count("mes-rates: cannot be read") <= 20
    mes.run("DELETE FROM stops")


def test_a_row_of_a_machine_that_comes_later_is_worked_in_then(plant: Plant, mes: Postgres) -> None:
    mes.run("INSERT INTO orders VALUES (1, 'WP-1', %s, %s, 'PO-1', 'SKU-1')", plant.at(0), plant.at(4))
    mes.run("INSERT INTO orders VALUES (2, 'mixer-1', %s, %s, 'PO-2', 'SKU-1')", plant.at(0), plant.at(4))
    with CloudProcess(plant.config) as cloud:
        assert wait_for(lambda: "machine 'mixer-1' is not in the plant" in cloud.log(), 30)
        assert wait_for(lambda: _orders(plant) == {"PO-1"}, 30)
        (plant.config.parent / "plant.toml").write_text(PLANT + MIXER)
        assert wait_for(lambda: _orders(plant) == {"PO-1", "PO-2"}, 30)
        assert cloud.log().count("row refused") == 1
    mes.run("DELETE FROM orders")


def _orders(plant: Plant) -> set[str]:
    store = SqliteStore(plant.config.parent / "store" / "store.sqlite3")
    try:
        found = [json.loads(text) for _, text in store.corrections()]
    finally:
        store.close()
    return {item["order"] for item in found if item["kind"] == "order"}


def test_files_that_a_laboratory_drops_are_read(plant: Plant) -> None:
    with CloudProcess(plant.config) as cloud:
        assert plant.becomes("shift ended", quality=1.0)
        moment = plant.at(2).isoformat()
        (plant.lab / "monday.csv").write_text(
            f"ref;machine;from;units\na;filler-1;{moment};288\nb;filler-1;{moment};x\n"
        )
        assert plant.becomes("off quality by lab", quality=0.99)
        rows = {
            "ref": ["c"],
            "machine": ["filler-1"],
            "from": [plant.at(3).replace(tzinfo=None)],
            "units": [288],
        }
        partial = plant.lab.parent / "tuesday.xlsx"
        pd.DataFrame(rows).to_excel(partial, index=False)
        partial.rename(plant.lab / "tuesday.xlsx")
        assert plant.becomes("off quality by lab", quality=0.98)
        assert wait_for(lambda: cloud.log().count("row refused") == 1)
