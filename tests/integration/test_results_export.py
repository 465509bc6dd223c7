"""The export to databases: each revision once, the newest marked, nothing lost while the database is away."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql

from cloud.results.config import ExportTable
from cloud.results.export import Export
from cloud.store.port import ClosedShift
from cloud.store.sqlite import SqliteStore
from cloud.views import Revision
from tests.support.postgres import Postgres

T0 = 1_625_011_200
SCOPE, LINE = "berlin/packaging/line-1/filler-1", "berlin/packaging/line-1"


def figures(scope: str, revision: int, units: int) -> dict[str, Any]:
    names = dict(zip(("site", "area", "line", "machine"), scope.split("/"), strict=False))
    return {
        **names,
        "production_date": "2021-06-30",
        "shift": "1",
        "crew": None,
        "total_units": units,
        "good_units": units,
        "oee": 0.5 if units else None,
        "losses": {"breakdown": 60.0, "idle": 0.0},
        "pareto": [
            {
                "group": "Mechanical\0",
                "reasons": [
                    {"bucket": "breakdown", "reason": "jam" * 200, "name": "Jam", "secs": 60.0, "count": 2},
                    {"bucket": "breakdown", "reason": None, "name": "no reason", "secs": 1.0, "count": 1},
                ],
            }
        ],
        "revision": revision,
    }


def shift(number: int, revision: int = 1, *, scope: str = SCOPE, units: int = 100) -> ClosedShift:
    start_us = (T0 + number * 28_800) * 1_000_000
    made = Revision(
        revision=revision, made_epochtime=T0 + 1e6, why="late data", figures=figures(scope, revision, units)
    )
    return ClosedShift(scope, start_us, start_us + 28_800_000_000, made)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'bi.sqlite3'}"
    server: Postgres = request.getfixturevalue("postgres")
    for table in ("oee_shift", "oee_shift_loss", "oee_shift_stop"):
        server.run(f"DROP TABLE IF EXISTS {table}")
    return server.url


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store")
    yield opened
    opened.close()


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    engine = sql.create_engine(url, poolclass=sql.NullPool)
    with closing(engine.connect()) as connection:
        return [tuple(row) for row in connection.execute(sql.text(query))]


def test_each_revision_is_written_once_and_the_newest_is_marked(url: str, store: SqliteStore) -> None:
    export = Export(ExportTable(name="bi", url=url), store)
    store.save_closed([shift(0), shift(0, scope=LINE), shift(1, units=0)])
    export.turn()
    store.save_closed([shift(0, 2, units=120)])
    export.turn()
    assert export.fault is None
    store.set_note("export:bi", b"0")
    Export(ExportTable(name="bi", url=url), store).turn()  # all of it once more, as after a crash
    found = rows(
        url,
        "SELECT scope, level, machine, revision, is_newest, total_units, oee FROM oee_shift"
        " ORDER BY shift_start, scope, revision",
    )
    assert [(*row[:4], bool(row[4]), *row[5:]) for row in found] == [
        (LINE, "line", None, 1, True, 100, 0.5),
        (SCOPE, "machine", "filler-1", 1, False, 100, 0.5),
        (SCOPE, "machine", "filler-1", 2, True, 120, 0.5),
        (SCOPE, "machine", "filler-1", 1, True, 0, None),
    ]
    assert rows(url, "SELECT sum(secs), count(*) FROM oee_shift_loss") == [(240.0, 8)]
    assert rows(url, "SELECT max(reason_group), sum(stops) FROM oee_shift_stop") == [("Mechanical", 12)]


def test_instants_are_those_of_the_shift(url: str, store: SqliteStore) -> None:
    store.save_closed([shift(0)])
    Export(ExportTable(name="bi", url=url), store).turn()
    ((start, end, day),) = rows(url, "SELECT shift_start, shift_end, production_date FROM oee_shift")
    assert str(start).startswith("2021-06-30 00:00:00")
    assert str(end).startswith("2021-06-30 08:00:00")
    assert str(day) == "2021-06-30"


def test_without_history_only_what_is_closed_from_now_on(url: str, store: SqliteStore) -> None:
    store.save_closed([shift(0)])
    export = Export(ExportTable(name="bi", url=url, history=False), store)
    export.turn()
    store.save_closed([shift(1)])
    export.turn()
    assert rows(url, "SELECT count(*) FROM oee_shift") == [(1,)]


def test_only_some_places_and_levels(url: str, store: SqliteStore) -> None:
    store.save_closed([shift(0), shift(0, scope=LINE), shift(0, scope="berlin/packaging/line-2")])
    Export(ExportTable(name="bi", url=url, places=(LINE,), levels=("line",)), store).turn()
    assert rows(url, "SELECT scope FROM oee_shift") == [(LINE,)]


def test_a_database_that_is_away_loses_nothing(postgres: Postgres, store: SqliteStore) -> None:
    postgres.run("CREATE SCHEMA IF NOT EXISTS bi")
    table = ExportTable(name="away", url=postgres.url, schema="bi")
    export = Export(table, store)
    store.save_closed([shift(0)])
    export.turn()
    postgres.stop()
    try:
        store.save_closed([shift(1), shift(2)])
        assert [export.turn() for _ in range(3)] == [1, 2, 4]
        assert export.fault is not None
        assert export.fault.startswith("away: the database takes nothing: ")
        assert export.backlog() == 2
    finally:
        postgres.start()
    export.turn()
    assert export.fault is None
    assert rows(postgres.url, "SELECT count(*) FROM bi.oee_shift") == [(3,)]


def test_a_database_that_is_not_there_is_named_without_its_password(store: SqliteStore) -> None:
    store.save_closed([shift(0)])
    export = Export(ExportTable(name="x", url="postgresql+psycopg://oee:hidden@127.0.0.1:1/none"), store)
    export.turn()
    assert "hidden" not in str(export.fault)
