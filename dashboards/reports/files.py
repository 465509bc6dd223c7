"""Reports as files: one place to ask for any format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from dashboards.port import CloudReader
from dashboards.reports import model, paper, plain, workbook
from dashboards.reports.model import Report
from dashboards.reports.paper import WishError
from dashboards.selection import AddressError, Selection, select


class Format(NamedTuple):
    """One format of a report."""

    suffix: str
    media_type: str
    name: str


FORMATS: Final[dict[str, Format]] = {
    form.suffix: form
    for form in (
        Format("pdf", "application/pdf", "PDF"),
        Format("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "Excel"),
        Format("csv", "text/csv; charset=utf-8", "CSV"),
        Format("json", "application/json", "JSON"),
        Format("html", "text/html; charset=utf-8", "HTML"),
    )
}


def gather(cloud: CloudReader, chosen: Selection) -> list[Report]:
    """Return the report of a selection's place, and one of each machine in it when it is a line."""
    board = cloud.board()
    places = [chosen.place.levels]
    if chosen.place.level == "line":
        places += [tuple(key) for key in chosen.machines]
    found = [
        model.gather(
            cloud,
            board,
            place,
            start=chosen.start,
            end=chosen.end,
            zone=chosen.zone,
            title=chosen.title,
            is_shift=chosen.shift is not None,
            product=chosen.product,
        )
        for place in places
    ]
    reports = [report for report in found if report is not None]
    if not chosen.is_live and not any(_says_something(report) for report in reports):
        raise WishError(f"Nothing is known of {chosen.place} in that time: {chosen.title}.")
    return reports


def _says_something(report: Report) -> bool:
    """Tell whether there is a record of a report's time, or a closed shift that says how much is missing."""
    return model.has_records(report.row) or bool(report.revisions)


def render(reports: Sequence[Report], suffix: str) -> bytes:
    """Return reports in a format of FORMATS."""
    match suffix:
        case "pdf":
            return paper.pdf(paper.html(reports))
        case "xlsx":
            return workbook.workbook(reports)
        case "csv":
            return plain.as_csv(reports)
        case "json":
            return plain.as_json(reports)
        case "html":
            return paper.html(reports).encode()
        case _:
            raise WishError(f"No report is written as .{suffix}: use {', '.join(FORMATS)}.")


def write(cloud: CloudReader, path: Path, *, place: str | None = None, shift: str | None = None) -> None:
    """Write a report file in the format of its suffix; raise WishError for what cannot be.

    place: `site/area/line/machine` from the left; the site when None
    shift: such as `2021-06-30/2`; the last closed shift when None, else the running one
    """
    suffix = path.suffix.lstrip(".").lower()
    if suffix not in FORMATS:
        raise WishError(f"No report is written as {path.suffix or path}: use .{', .'.join(FORMATS)}.")
    board = cloud.board()
    query = {name: value for name, value in (("at", place), ("shift", shift)) if value}
    zone = ZoneInfo(board.timezone)
    try:
        chosen = select(cloud, board, zone, query)
        if shift is None and chosen.is_live and (before := chosen.neighbour(-1)) is not None:
            chosen = select(cloud, board, zone, {**query, "shift": before.key})
    except AddressError as error:
        raise WishError(str(error)) from error
    path.write_bytes(render(gather(cloud, chosen), suffix))
