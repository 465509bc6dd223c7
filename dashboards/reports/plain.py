"""A report as CSV and JSON: the same figures, unrounded."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from cloud.report import flat
from cloud.views import ShiftRow
from dashboards.reports.model import Report
from dashboards.reports.workbook import rows_of

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def as_csv(reports: Sequence[Report]) -> bytes:
    """Return one line per place with every figure; columns are named as in JSON, tables joined by dots."""
    return table(rows_of(reports))


def table(rows: Iterable[ShiftRow]) -> bytes:
    """Return figures rows as CSV with a header, UTF-8 with the mark by which spreadsheets know it."""
    lines = [flat(row) for row in rows]
    columns = list(dict.fromkeys(key for line in lines for key in line))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(line.get(column)) for column in columns] for line in lines)
    return "\N{ZERO WIDTH NO-BREAK SPACE}".encode() + buffer.getvalue().encode()


def as_json(reports: Sequence[Report]) -> bytes:
    """Return reports with their figures, hours, timelines, alerts, comments and revisions."""
    return msgspec.json.format(msgspec.json.encode([_told(report) for report in reports]), indent=1)


def _told(report: Report) -> dict[str, Any]:
    return {
        "place": "/".join(report.place),
        "level": report.level,
        "title": report.title,
        "shift": report.shift,
        "production_date": report.production_date,
        "start_epochtime": report.start,
        "end_epochtime": report.end,
        "figures": report.row,
        "children": report.children,
        "hours": report.hours,
        "earlier": report.earlier,
        "timelines": report.timelines,
        "alerts": report.alerts,
        "comments": [
            {
                "machine": str(said.machine),
                "start_epochtime": said.start,
                "end_epochtime": said.end,
                "comment": said.text,
                "reason_name": said.reason,
                "who": said.who,
                "said_epochtime": said.said,
            }
            for said in report.comments
        ],
        "revisions": report.revisions,
    }


def _cell(value: object) -> object:
    """Return a cell that no spreadsheet runs: text that looks like a formula gets an apostrophe."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
