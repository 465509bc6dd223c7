"""The reliability page: what one run writes of what another has measured."""

from pathlib import Path

from tests.chaos import report
from tests.chaos.endurance import Measured

MEASURED = [
    Measured(
        row=17, what="p95 with 500 open pages", found="1.14 s (2.01 s without)", promised="2 s", holds=True
    ),
    Measured(row=19, what="growth of memory", found="38.7 %, to 211 MiB", promised="5 %", holds=False),
]


def test_what_an_earlier_page_tells_of_endurance_is_read_back() -> None:
    page = report.page([], "make chaos", [], MEASURED, jobs=4, minutes=1)
    assert report.measured_of(page) == MEASURED
    assert report.measured_of(report.page([], "make chaos", [], [], jobs=4, minutes=1)) == []
    assert report.measured_of("") == []


def test_the_page_as_it_stands_keeps_its_rows() -> None:
    page = Path(__file__).parents[3] / "docs" / "reliability.md"
    assert {one.row for one in report.measured_of(page.read_text())} >= {10, 17, 18, 19}
