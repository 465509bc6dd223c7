"""A report as an XLSX workbook: real numbers, real charts, nothing that a spreadsheet would run."""

import io
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from cloud.views import ShiftRow
from dashboards import words
from dashboards.reports import model
from dashboards.reports.model import Report

_BLUE: Final = "#2f6fc9"
_RED: Final = "#a8142f"
_INK: Final = "#14212b"


class Column(NamedTuple):
    """One column of a sheet: its header, the format of its cells and its width."""

    header: str
    form: str = "text"
    width: int = 12


_FIGURES: Final[tuple[tuple[Column, str], ...]] = (
    (Column("OEE", "percent"), "oee"),
    (Column("Availability", "percent"), "availability"),
    (Column("Performance", "percent"), "performance"),
    (Column("Quality", "percent"), "quality"),
    (Column("Good units", "count"), "good_units"),
    (Column("Off quality", "count"), "off_quality_units"),
    (Column("Total units", "count"), "total_units"),
    (Column("Planned min", "minutes"), "planned_production_secs"),
    (Column("Run min", "minutes"), "run_secs"),
    (Column("No data min", "minutes"), "unknown_secs"),
    (Column("TEEP", "percent"), "teep"),
    (Column("Revision", "count", 9), "revision"),
)


def workbook(reports: Sequence[Report]) -> bytes:
    """Return the workbook of reports; the first is the whole, the others are what stands in it."""
    import xlsxwriter

    buffer = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(buffer, options) as book:
        book.set_properties({"title": reports[0].heading})
        writer = _Writer(book)
        writer.summary(reports)
        writer.losses(reports)
        writer.pareto(reports)
        writer.hours(reports[0])
        writer.shifts(reports[0])
        writer.stops(reports)
        writer.alerts(reports[0])
        writer.comments(reports[0])
        writer.revisions(reports)
    return buffer.getvalue()


class _Writer:
    """Fills sheets of one workbook."""

    def __init__(self, book: Any) -> None:
        self.book = book
        self.forms = {
            "text": book.add_format({"valign": "top"}),
            "count": book.add_format({"num_format": "#,##0"}),
            "percent": book.add_format({"num_format": "0.0%"}),
            "minutes": book.add_format({"num_format": "#,##0.0"}),
            "moment": book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"}),
            "head": book.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "bottom"}),
            "title": book.add_format({"bold": True, "font_size": 16}),
            "quiet": book.add_format({"font_color": "#4d5c68"}),
            "total": book.add_format({"bold": True}),
        }

    def summary(self, reports: Sequence[Report]) -> None:
        """Write the headline, then one row per place."""
        whole = reports[0]
        sheet = self.book.add_worksheet("Summary")
        sheet.write_string(0, 0, whole.heading, self.forms["title"])
        sheet.write_string(1, 0, " › ".join(whole.place), self.forms["quiet"])
        span = f"{words.day_clock(whole.start, whole.zone)} – {words.day_clock(whole.end, whole.zone)}"
        sheet.write_string(2, 0, f"{span}, plant time", self.forms["quiet"])
        if whole.targets:
            sheet.write_string(3, 0, "Target", self.forms["quiet"])
            for index, name in enumerate(("oee", "availability", "performance", "quality")):
                sheet.write_number(3, 1 + index, whole.targets[name], self.forms["percent"])
        rows = [report.row for report in reports] if len(reports) > 1 else [whole.row, *whole.children]
        self._table(
            sheet,
            [Column("Place", width=22), *(column for column, _ in _FIGURES)],
            [[model.name_of(row), *(row.get(key) for _, key in _FIGURES)] for row in rows],
            top=5,
        )

    def losses(self, reports: Sequence[Report]) -> None:
        """Write the time-loss tree of each place, with the whole's as a chart."""
        sheet = self.book.add_worksheet("Losses")
        names = list(dict.fromkeys(name for report in reports for name in report.row["losses"]))
        places = [report.place[-1] for report in reports]
        rows = [
            [words.loss_name(name), *(report.row["losses"].get(name, 0.0) for report in reports)]
            for name in names
        ]
        rows.append(["Calendar time", *(report.row["calendar_secs"] for report in reports)])
        columns = [Column("Bucket, min", width=20), *(Column(place, "minutes") for place in places)]
        self._table(sheet, columns, rows)
        chart = self.book.add_chart({"type": "bar"})
        chart.add_series(
            {
                "name": "Minutes",
                "categories": ["Losses", 1, 0, len(names), 0],
                "values": ["Losses", 1, 1, len(names), 1],
                "fill": {"color": _BLUE},
            }
        )
        chart.set_title({"name": f"Where the time of {places[0]} went, min"})
        chart.set_legend({"none": True})
        chart.set_y_axis({"reverse": True})
        chart.set_x_axis({"min": 0, "num_format": "#,##0"})
        chart.set_size({"width": 640, "height": 420})
        sheet.insert_chart(len(rows) + 3, 0, chart)

    def pareto(self, reports: Sequence[Report]) -> None:
        """Write the stops by reason of each place."""
        sheet = self.book.add_worksheet("Pareto")
        rows = [
            [report.place[-1], row.name, row.group, row.secs, row.stops, row.share, row.running_share]
            for report in reports
            for row in report.pareto()
        ]
        columns = [
            Column("Place", width=18),
            Column("Reason", width=26),
            Column("Group", width=18),
            Column("min", "minutes"),
            Column("Stops", "count"),
            Column("Share", "percent"),
            Column("Running share", "percent"),
        ]
        self._table(sheet, columns, rows)
        count = len(reports[0].pareto())
        if count:
            chart = self.book.add_chart({"type": "column"})
            chart.add_series(
                {
                    "name": "Minutes",
                    "categories": ["Pareto", 1, 1, count, 1],
                    "values": ["Pareto", 1, 3, count, 3],
                    "fill": {"color": _BLUE},
                }
            )
            line = self.book.add_chart({"type": "line"})
            line.add_series(
                {
                    "name": "Running share",
                    "categories": ["Pareto", 1, 1, count, 1],
                    "values": ["Pareto", 1, 6, count, 6],
                    "y2_axis": True,
                    "line": {"color": _INK},
                }
            )
            line.set_y2_axis({"min": 0, "max": 1, "num_format": "0%"})
            chart.combine(line)
            chart.set_title({"name": f"Stops of {reports[0].place[-1]}"})
            chart.set_y_axis({"min": 0, "num_format": "#,##0"})
            chart.set_size({"width": 760, "height": 360})
            sheet.insert_chart(1, 8, chart)

    def hours(self, report: Report) -> None:
        """Write units per hour with the target."""
        if not report.hours:
            return
        sheet = self.book.add_worksheet("Hours")
        rows = [
            [
                self._moment(row["start"], report),
                row["good_units"],
                row["off_quality_units"],
                row.get("target_units"),
                row["oee"],
                row["availability"],
                row["performance"],
                row["quality"],
            ]
            for row in report.hours
        ]
        columns = [
            Column("Hour from", "moment", 19),
            Column("Good units", "count"),
            Column("Off quality", "count"),
            Column("Target", "count"),
            Column("OEE", "percent"),
            Column("Availability", "percent"),
            Column("Performance", "percent"),
            Column("Quality", "percent"),
        ]
        self._table(sheet, columns, rows)
        chart = self._units_chart("Hours", len(rows), good=1, off=2)
        target = self.book.add_chart({"type": "line"})
        target.add_series(
            {
                "name": "Target",
                "categories": ["Hours", 1, 0, len(rows), 0],
                "values": ["Hours", 1, 3, len(rows), 3],
                "line": {"color": _INK, "dash_type": "dash"},
            }
        )
        chart.combine(target)
        chart.set_x_axis({"num_format": "hh:mm", "text_axis": True})
        chart.set_title({"name": "Units per hour"})
        sheet.insert_chart(len(rows) + 3, 0, chart)

    def shifts(self, report: Report) -> None:
        """Write the last shifts side by side."""
        if len(report.earlier) < 2:
            return
        sheet = self.book.add_worksheet("Shifts")
        rows = [
            [f"{row.get('production_date')} S{row.get('shift')}", *(row.get(key) for _, key in _FIGURES)]
            for row in report.earlier
        ]
        self._table(sheet, [Column("Shift", width=18), *(column for column, _ in _FIGURES)], rows)
        chart = self._units_chart("Shifts", len(rows), good=5, off=6)
        line = self.book.add_chart({"type": "line"})
        line.add_series(
            {
                "name": "OEE",
                "categories": ["Shifts", 1, 0, len(rows), 0],
                "values": ["Shifts", 1, 1, len(rows), 1],
                "y2_axis": True,
                "line": {"color": _INK},
            }
        )
        line.set_y2_axis({"min": 0, "max": 1, "num_format": "0%"})
        chart.combine(line)
        chart.set_title({"name": "Good units by shift, with OEE"})
        sheet.insert_chart(len(rows) + 3, 0, chart)

    def stops(self, reports: Sequence[Report]) -> None:
        """Write every stop in planned production time."""
        sheet = self.book.add_worksheet("Stops")
        found = sorted({stop for report in reports for stop in report.stops}, key=lambda stop: stop.start)
        zone = reports[0].zone
        rows = [
            [
                stop.machine.machine,
                _naive(stop.start, zone),
                _naive(stop.end, zone),
                stop.secs,
                words.look(stop.state, stop.category).word,
                words.loss_name(stop.loss),
                stop.reason_name or stop.reason or "",
            ]
            for stop in found
        ]
        columns = [
            Column("Machine", width=18),
            Column("From", "moment", 19),
            Column("Until", "moment", 19),
            Column("min", "minutes"),
            Column("State", width=14),
            Column("Loss", width=16),
            Column("Reason", width=28),
        ]
        self._table(sheet, columns, rows)

    def alerts(self, report: Report) -> None:
        """Write the alerts that were open in that time."""
        sheet = self.book.add_worksheet("Alerts")
        rows = [
            [
                alert.name,
                alert.message,
                _naive(alert.raised_epochtime, report.zone),
                None if alert.cleared_epochtime is None else _naive(alert.cleared_epochtime, report.zone),
                alert.acknowledged_by or "",
                alert.note or "",
            ]
            for alert in report.alerts
        ]
        columns = [
            Column("Machine", width=18),
            Column("Alert", width=44),
            Column("Raised", "moment", 19),
            Column("Cleared", "moment", 19),
            Column("Looked after by", width=18),
            Column("Note", width=40),
        ]
        self._table(sheet, columns, rows)

    def comments(self, report: Report) -> None:
        """Write what people said of that time."""
        sheet = self.book.add_worksheet("Comments")
        rows = [
            [
                said.machine.machine,
                _naive(said.start, report.zone),
                _naive(said.end, report.zone),
                said.reason or "",
                said.text,
                said.who,
                _naive(said.said, report.zone),
            ]
            for said in report.comments
        ]
        columns = [
            Column("Machine", width=18),
            Column("From", "moment", 19),
            Column("Until", "moment", 19),
            Column("Reason", width=28),
            Column("Comment", width=60),
            Column("Who", width=18),
            Column("Said", "moment", 19),
        ]
        self._table(sheet, columns, rows)

    def revisions(self, reports: Sequence[Report]) -> None:
        """Write how the figures came to be as they are."""
        sheet = self.book.add_worksheet("Revisions")
        rows = [
            [
                report.place[-1],
                revision.revision,
                _naive(revision.made_epochtime, report.zone),
                revision.why,
                revision.figures["oee"],
                revision.figures["good_units"],
            ]
            for report in reports
            for revision in report.revisions
        ]
        columns = [
            Column("Place", width=18),
            Column("Revision", "count"),
            Column("Made", "moment", 19),
            Column("Why", width=40),
            Column("OEE", "percent"),
            Column("Good units", "count"),
        ]
        self._table(sheet, columns, rows)

    def _units_chart(self, sheet: str, rows: int, *, good: int, off: int) -> Any:
        chart = self.book.add_chart({"type": "column", "subtype": "stacked"})
        for name, column, colour in (("Good units", good, _BLUE), ("Off quality", off, _RED)):
            chart.add_series(
                {
                    "name": name,
                    "categories": [sheet, 1, 0, rows, 0],
                    "values": [sheet, 1, column, rows, column],
                    "fill": {"color": colour},
                    "gap": 60,
                }
            )
        chart.set_y_axis({"min": 0, "num_format": "#,##0"})
        chart.set_legend({"position": "bottom"})
        chart.set_size({"width": 760, "height": 340})
        return chart

    def _table(
        self, sheet: Any, columns: Sequence[Column], rows: Sequence[Sequence[Any]], top: int = 0
    ) -> None:
        """Write a header and rows, each cell as what it is."""
        for index, column in enumerate(columns):
            sheet.write_string(top, index, column.header, self.forms["head"])
            sheet.set_column(index, index, column.width)
        for offset, row in enumerate(rows, start=top + 1):
            for index, (column, value) in enumerate(zip(columns, row, strict=True)):
                self._cell(sheet, offset, index, column.form, value)
        sheet.freeze_panes(top + 1, 1)
        if rows:
            sheet.autofilter(top, 0, top + len(rows), len(columns) - 1)

    def _cell(self, sheet: Any, row: int, column: int, form: str, value: Any) -> None:
        if value is None:
            sheet.write_blank(row, column, None, self.forms["text"])
        elif isinstance(value, datetime):
            sheet.write_datetime(row, column, value, self.forms[form])
        elif isinstance(value, int | float):
            sheet.write_number(row, column, value / 60 if form == "minutes" else value, self.forms[form])
        else:
            sheet.write_string(row, column, str(value), self.forms["text"])

    @staticmethod
    def _moment(text: object, report: Report) -> datetime:
        return _naive(model.instant(text), report.zone)


def _naive(epochtime: float, zone: Any) -> datetime:
    """Return an instant as the plant's clock shows it: spreadsheets know no zones."""
    return words.local(epochtime, zone).replace(tzinfo=None)


def rows_of(reports: Sequence[Report]) -> list[ShiftRow]:
    """Return the figures of reports, the whole first."""
    if len(reports) > 1:
        return [report.row for report in reports]
    return [reports[0].row, *reports[0].children]
