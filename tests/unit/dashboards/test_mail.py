"""Reports as mails: the figures of the pages in the mail, the whole report attached, revised ones marked."""

import io
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import openpyxl
import pytest

from cloud.errors import ResultsError
from cloud.results.periods import Period, periods
from cloud.results.reports import Printed
from contract.states import MachineState
from dashboards.reports.mail import Printer
from tests.support.turns import DAY, HOUR, PLANT, Turns

LINE = ("berlin", "packaging", "line-1")
FILLER = "berlin/packaging/line-1/filler-1"
T0 = datetime(2021, 6, 28, 6, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()


class Press(Turns):
    """A cloud side with one shift that is closed, and its printer."""

    def __init__(self, folder: Path) -> None:
        lines = [line for line in PLANT.splitlines() if not line.startswith("rotation")]
        plant = "\n".join(lines).replace('name = "1"', 'name = "früh <1>"').replace("60.0", "0.5")
        plant = plant.replace("[calendar", "[definitions]\nmax_gap_secs = 120\n[calendar")
        super().__init__(folder, "", now=T0, plant=plant)
        for minute in range(8 * 60):
            state = MachineState.FAULTED if 60 <= minute < 90 else MachineState.RUNNING
            self.say(FILLER, T0 + minute * 60, minute // 4, state)
        self.close(T0 + 9 * HOUR)
        self.cloud._present.look()

    def period(self, every: str = "shift", place: tuple[str, ...] = LINE) -> Period:
        found = periods(self.cloud.plant, place, every, round((T0 - DAY) * 1e6), round((T0 + 8 * DAY) * 1e6))
        return next(period for period in found if period.first >= date(2021, 6, 28))

    def printed(self, period: Period, *formats: str, edition: int = 1) -> Printed:
        return Printer(self.cloud)(period, formats, edition=edition)


@pytest.fixture
def press(tmp_path: Path) -> Press:
    return Press(tmp_path)


def test_a_mail_tells_the_figures_that_the_pages_show(press: Press) -> None:
    printed = press.printed(press.period())
    (row,) = press.cloud.shift_table(round(T0 * 1e6), round((T0 + 8 * HOUR) * 1e6), "line")
    assert (
        printed.title == f"Shift report line-1, Shift früh <1>, Mon 28 Jun 2021: OEE {row['oee'] * 100:.1f} %"
    )
    for text in (
        f"{row['oee'] * 100:.1f} %",
        f"{row['good_units']:,}",
        "früh &lt;1&gt;",
        "filler-1",
        "Breakdown",
    ):
        assert text in printed.html, text
    assert "<1>" not in printed.html
    assert "revised" not in printed.html
    assert printed.files == []


def test_files_go_along_with_plain_names(press: Press) -> None:
    printed = press.printed(press.period(), "pdf", "xlsx", "csv", "json", "html")
    names = [file.name for file in printed.files]
    assert names[0] == "berlin-packaging-line-1_2021-06-28_shift-fr-h-1-.pdf"
    pdf, xlsx, csv, _, html = (file.content for file in printed.files)
    assert pdf.startswith(b"%PDF")
    assert openpyxl.load_workbook(io.BytesIO(xlsx)).sheetnames
    assert b"filler-1" in csv
    assert b"filler-1" in html
    assert [file.media_type for file in printed.files][:3] == [
        "application/pdf",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "text/csv",
    ]


def test_a_revised_report_says_so_and_why(press: Press) -> None:
    press.say(FILLER, T0 + 75 * 60 + 7, 20, MachineState.RUNNING)
    assert press.close(T0 + 10 * HOUR)
    press.cloud._present.look()
    printed = press.printed(press.period(), edition=2)
    assert printed.title.endswith("(revised, edition 2)")
    assert "This report is revised." in printed.html
    assert "because of: late data" in printed.html


@pytest.mark.parametrize(
    ("every", "title"), [("day", "Mon 28 Jun 2021"), ("week", "Week 26, Mon 28 Jun 2021 to Sun 4 Jul 2021")]
)
@pytest.mark.parametrize("place", [LINE, ("berlin",)])
def test_days_and_weeks_have_reports_of_their_own(
    press: Press, every: str, title: str, place: tuple[str, ...]
) -> None:
    printed = press.printed(press.period(every, place), "html")
    assert title in printed.title
    assert title in printed.html
    assert printed.files[0].name == f"{'-'.join(place)}_2021-06-28_{every}.html"


def test_a_report_of_nothing_is_refused(press: Press) -> None:
    with pytest.raises(ResultsError):
        press.printed(press.period()._replace(shift="none"))
