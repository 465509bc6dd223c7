"""One report, every format, the same figures."""

import csv
import io
import json
import zipfile
from zoneinfo import ZoneInfo

import pytest
from pypdf import PdfReader

from dashboards.charts import losses
from dashboards.reports import files, paper, plain
from dashboards.reports.paper import ReportError
from dashboards.selection import select
from tests.support import small_cloud
from tests.support.small_cloud import FILLER, HOUR, LINE, SHIFT

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """A closed shift in which both stood for 20 minutes; of the filler it is known why for the first part."""
    with small_cloud.opened(tmp_path_factory.mktemp("cloud")) as (found, clock):
        began_us = (SHIFT + HOUR) * 1_000_000
        found.classify(FILLER, began_us, began_us + 400_000_000, reason="jam", comment=None, by="Ida")
        small_cloud.turn(found, clock)
        yield found


@pytest.fixture(scope="module")
def reports(cloud):
    chosen = select(cloud, cloud.board(), BERLIN, {"at": LINE, "shift": "2021-06-30/1"})
    return files.gather(cloud, chosen)


def test_a_line_has_its_own_sheet_and_one_for_each_machine(reports):
    assert [report.place[-1] for report in reports] == ["line-1", "filler-1", "capper-1"]


def test_every_format_says_the_same_oee(reports):
    oee = reports[0].row["oee"]
    (line, *_) = csv.DictReader(io.StringIO(plain.as_csv(reports).decode("utf-8-sig")))
    assert float(line["oee"]) == oee
    assert json.loads(plain.as_json(reports))[0]["figures"]["oee"] == oee
    with zipfile.ZipFile(io.BytesIO(files.render(reports, "xlsx"))) as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
        assert f"<v>{oee:.16g}</v>" in sheet or f"<v>{oee!r}</v>" in sheet
        assert any(name.startswith("xl/charts/") for name in book.namelist())
    assert f"<b>{oee * 100:.1f}</b>" in files.render(reports, "html").decode()


def test_a_page_that_stands_alone_asks_for_nothing_elsewhere(reports):
    page = paper.html(reports)
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "var(--" not in paper.chart_style()
    assert 'fill="url(#hatch)" fill' not in page


def test_the_pdf_has_one_page_for_the_line_and_one_for_each_machine(tmp_path):
    """Also after a night of many stops, and when it was revised."""
    with small_cloud.opened(tmp_path) as (cloud, clock):
        for minute in range(0, 20, 2):
            from_us = (SHIFT + HOUR + 60 * minute) * 1_000_000
            cloud.classify(FILLER, from_us, from_us + 60_000_000, reason="jam", comment=None, by="Ida")
        small_cloud.turn(cloud, clock)
        chosen = select(cloud, cloud.board(), BERLIN, {"at": LINE, "shift": "2021-06-30/1"})
        reports = files.gather(cloud, chosen)
    filler = reports[1]
    assert len(filler.stops) >= 10
    assert len(filler.revisions) > 1
    made = files.render(reports, "pdf")
    assert made.startswith(b"%PDF-")
    assert len(PdfReader(io.BytesIO(made)).pages) == len(reports)


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1+2", "@SUM(A1)", "\tx"])
def test_text_that_a_spreadsheet_would_run_is_made_inert(text):
    (row,) = csv.reader(io.StringIO(plain.table([{"reason": text}]).decode("utf-8-sig").split("\r\n", 1)[1]))
    assert row == ["'" + text]


def test_the_waterfall_ends_where_nothing_is_left_but_value(reports):
    steps = losses.waterfall(reports[0].row)
    assert steps[0].secs == pytest.approx(sum(reports[0].row["losses"].values()))
    lost = sum(step.secs for step in steps if not step.is_total)
    assert steps[-1].secs == pytest.approx(steps[0].secs - lost)
    assert [step.name for step in steps if step.is_total] == [
        "Calendar time",
        "Planned production time",
        "Run time",
        "Net run time",
        "Value-adding time",
    ]


def test_the_pareto_keeps_stops_without_a_reason_apart_and_ends_at_all_of_them(reports):
    rows = losses.pareto(reports[0].row)
    assert rows[-1].running_share == pytest.approx(1)
    assert [(row.name, row.secs, row.is_unnamed) for row in rows] == [
        ("No reason", pytest.approx(2000, abs=20), True),
        ("Jam at infeed", pytest.approx(400, abs=20), False),
    ]
    by_count = losses.pareto(reports[0].row, by_count=True)
    assert sum(row.stops for row in by_count) == sum(row.stops for row in rows)


def test_what_a_state_explains_by_itself_is_named_and_only_the_rest_has_no_reason():
    def group(name, bucket, secs, reason=None):
        bar = {"bucket": bucket, "reason": reason, "name": name, "secs": secs, "count": 1}
        return {"group": name, "secs": secs, "count": 1, "reasons": [bar]}

    row = {"pareto": [group("no reason", "idle", 60.0), group("changeover", "changeover", 40.0)]}
    row["pareto"].append(group("eJam", "breakdown", 20.0, "jam"))
    for by_group in (False, True):
        bars = losses.pareto(row, by_group=by_group)
        assert [(bar.name, bar.is_unnamed) for bar in bars] == [
            ("No reason", True),
            ("Changeover", False),
            ("eJam", False),
        ]


def test_a_report_of_a_time_without_records_is_refused(cloud, tmp_path):
    with pytest.raises(ReportError, match="Nothing is known"):
        files.write(cloud, tmp_path / "report.json", shift="1999-01-01/1")


def test_an_unknown_suffix_is_refused_with_those_that_are_known(cloud, tmp_path):
    with pytest.raises(ReportError, match=r"\.pdf"):
        files.write(cloud, tmp_path / "report.docx")


def test_a_file_is_of_the_last_closed_shift_when_none_is_named(cloud, tmp_path):
    files.write(cloud, tmp_path / "report.json", place=LINE)
    assert json.loads((tmp_path / "report.json").read_text())[0]["title"] == "Shift 1, Wed 30 Jun 2021"
