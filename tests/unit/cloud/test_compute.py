import gzip
import io
import json

import pytest
from rich.console import Console

from cloud.compute import compute, parse_moment, read_telemetry
from cloud.errors import CloudError, TelemetryFileError
from cloud.oee.records import Names
from cloud.render import as_csv, as_json, print_table
from contract.telemetry import encode
from tests.support.line_plant import plant_of, plant_text
from tests.support.telemetry import telemetry

SHIFT = 1625025600  # 30 June 2021, 06:00 in Berlin


def lines(count=8 * 360, step=10):
    return [
        encode(
            telemetry(number, SHIFT + number * step, total_units=number * 5, off_quality_units=number // 10)
        )
        for number in range(1, count + 1)
    ]


@pytest.fixture
def plant():
    return plant_of(plant_text(machines=("filler",)))


def test_a_gzipped_file_is_the_same(tmp_path, plant):
    plain, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    plain.write_bytes(b"\n".join(lines()))
    packed.write_bytes(gzip.compress(b"\n".join(lines())))
    first, second = (as_json(compute(plant, [path]).figures) for path in (plain, packed))
    assert first == second
    assert json.loads(first)[0]["total_units"] == (8 * 360 - 1) * 5 - 1800 // 10 * 5


def test_progress_ends_at_the_size_of_the_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines(11_000, 1)))
    told = []
    read_telemetry([path], Names(), told.append)
    assert sum(told) == path.stat().st_size
    assert len(told) > 2


def test_refused_lines_are_named_and_their_neighbours_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([*lines(3), b"", b"[1]", b"\xff", *lines(5)[3:]]))
    found, refused = read_telemetry([path], Names())
    assert len(found) == 5
    assert [(line.line, line.file) for line in refused] == [(5, str(path)), (6, str(path))]
    assert str(refused[0]).startswith(f"{path}:5: ")


def test_an_empty_file_has_no_figures(tmp_path, plant):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n")
    assert compute(plant, [path]).figures == []


def test_a_range_without_records_is_all_unknown(tmp_path, plant):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"")
    (shift, *_) = compute(
        plant, [path], since=parse_moment("2021-06-30"), until=parse_moment("2021-07-01")
    ).figures
    assert shift.to_dict()["unknown_secs"] == 7.5 * 3600


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(TelemetryFileError, match=r"none\.jsonl"):
        read_telemetry([tmp_path / "none.jsonl"], Names())
    broken = tmp_path / "b.gz"
    broken.write_bytes(gzip.compress(b"\n".join(lines()))[:500])
    with pytest.raises(TelemetryFileError, match=r"b\.gz"):
        read_telemetry([broken], Names())


@pytest.mark.parametrize(
    "text", ["yesterday", "2021-13-01", "2021-06-30T25:00", "0001-01-01", "9999-12-31T23:59"]
)
def test_a_moment_that_is_none_is_refused(text):
    with pytest.raises(CloudError, match="neither a date"):
        parse_moment(text)


def test_csv_and_table_show_every_row(tmp_path, plant):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines(8 * 720)))
    figures = compute(plant, [path]).figures
    assert len(figures) == 2
    text = as_csv(figures).splitlines()
    assert len(text) == 3
    assert {"oee", "losses.idle", "bounds.oee.least", "iso22400.oee_index"} <= set(text[0].split(","))
    console = Console(file=io.StringIO(), width=240)
    print_table(figures, console, plant)
    shown = console.file.getvalue()
    assert "2021-06-30 06:00 - 14:00" in shown
    assert "100.00 %" in shown
