"""The QuickSight definitions are what the code makes, what AWS takes, and ask for columns that exist."""

import json
from pathlib import Path

import botocore.session
import duckdb
import pytest
from botocore.validate import ParamValidator
from pyarrow import parquet

from cloud import plant as plants
from cloud import render
from cloud.compute import compute
from cloud.store.parquet_columns import SCHEMA
from dashboards import quicksight
from dashboards.web.api import as_parquet

CASE = Path(__file__).parents[2] / "cases" / "pareto"
KINDS = {
    "STRING": {"VARCHAR"},
    "INTEGER": {"BIGINT", "INTEGER"},
    "DECIMAL": {"DOUBLE"},
    "DATETIME": {"TIMESTAMP"},
}


def test_the_files_are_what_the_code_makes():
    made = quicksight.texts()
    assert {name: (quicksight.FOLDER / name).read_text(encoding="utf-8") for name in made} == made
    assert {file.name for file in quicksight.FOLDER.glob("*.json")} == set(made)


@pytest.mark.parametrize("name", sorted(quicksight.texts()))
def test_aws_would_take_each_request(name):
    operation = (
        "CreateDataSet" if name.startswith("data-set") else f"Create{name.removesuffix('.json').capitalize()}"
    )
    model = botocore.session.get_session().get_service_model("quicksight").operation_model(operation)
    report = ParamValidator().validate(json.loads(quicksight.texts()[name]), model.input_shape)
    assert not report.has_errors(), report.generate_report()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The two tables as their files hold them: figures of the API, records of the history."""
    folder = tmp_path_factory.mktemp("exported")
    plant = plants.load(CASE / "plant.toml")
    for level in ("line", "machine"):
        rows = json.loads(render.as_json(compute(plant, [CASE / "telemetry.jsonl"], level=level).figures))
        (folder / f"figures-{level}.parquet").write_bytes(as_parquet(rows))
    day = folder / "site=site" / "day=2021-06-30"
    day.mkdir(parents=True)
    parquet.write_table(SCHEMA.empty_table(), day / "records.parquet")
    return folder


@pytest.mark.parametrize("found", quicksight.DATA_SETS, ids=lambda found: found.name)
def test_every_column_of_a_data_set_is_in_the_real_export(found, exported):
    records = f"read_parquet('{exported}/site=*/*/*.parquet', hive_partitioning = true)"
    with duckdb.connect() as connection:
        connection.execute(
            f"CREATE VIEW figures AS FROM read_parquet('{exported}/figures-*.parquet', union_by_name = true)"
        )
        connection.execute(f"CREATE VIEW records AS FROM {records}")
        answer = connection.execute(f"DESCRIBE {found.sql}").fetchall()
        rows = connection.execute(found.sql).fetchall()
    assert [name for name, *_ in answer] == [column.name for column in found.columns]
    for column, (_, kind, *_) in zip(found.columns, answer, strict=True):
        assert kind in KINDS[column.kind], column
    assert rows or found is quicksight.STATES


def test_a_ratio_is_read_and_never_averaged():
    for visual in quicksight.VISUALS:
        for field in (*visual.values, *visual.lines):
            is_ratio = field.column in ("oee", "availability", "performance", "quality")
            assert field.is_ratio == is_ratio
            assert not is_ratio or "shift_label" in visual.by
