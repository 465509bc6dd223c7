"""A report as a mail: its figures in the mail itself, the whole of it attached."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cloud.errors import CloudError, ResultsError
from cloud.postbox import Attachment
from cloud.results.config import Format
from cloud.results.periods import Period
from cloud.results.reports import Printed
from dashboards import words
from dashboards.port import CloudReader
from dashboards.reports import files, paper
from dashboards.reports.model import Report, instant, place_of
from dashboards.reports.paper import ReportError
from dashboards.selection import AddressError, Selection, select

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_TOP: Final = 6
_HEADLINE: Final = (
    ("oee", "OEE"),
    ("availability", "Availability"),
    ("performance", "Performance"),
    ("quality", "Quality"),
)


class Printer:
    """Makes reports of what a running cloud side knows; see cloud.results.reports.Print."""

    def __init__(self, cloud: CloudReader) -> None:
        self._cloud = cloud

    def __call__(self, period: Period, formats: Sequence[Format], *, edition: int) -> Printed:
        """Return the report of a period; raise ResultsError when it cannot be made."""
        try:
            reports = files.gather(self._cloud, self._selection(period))
            attached = [_file(reports, form, _file_name(period)) for form in formats]
        except (ReportError, AddressError, TimeoutError) as error:
            raise ResultsError(f"report of {period.key}: {error}") from error
        except CloudError as error:
            raise ResultsError(f"report of {period.key}: {error}") from error
        whole = reports[0]
        return Printed(_subject(whole, edition), self._html(period, whole, edition), attached)

    def _selection(self, period: Period) -> Selection:
        board = self._cloud.board()
        zone = self._cloud.plant.sites[period.place[0]].timezone
        query = {"at": "/".join(period.place)}
        if period.shift is not None:
            return select(self._cloud, board, zone, query | {"shift": f"{period.first}/{period.shift}"})
        days = {"from": period.first.isoformat(), "to": period.last.isoformat()}
        return replace(select(self._cloud, board, zone, query | days), title=_title(period))

    def _html(self, period: Period, report: Report, edition: int) -> str:
        return (
            paper.environment()
            .get_template("mail.html")
            .render(
                report=report,
                period=period,
                edition=edition,
                reasons=self._reasons(period) if edition > 1 else [],
                headline=_HEADLINE,
                losses=[step for step in report.steps if not step.is_total][:_TOP],
                stops=report.pareto()[:_TOP],
                verdict=words.VERDICT_WORDS,
                words=words,
            )
        )

    def _reasons(self, period: Period) -> list[str]:
        """Return why shifts of a period were revised, each reason once."""
        rows = [
            row
            for level in ("line", "machine")
            for row in self._cloud.figures(
                period.start_us,
                period.end_us,
                every="shift",
                level=level,
                place=period.place,
            )
            if (row.get("revision") or 0) > 1
        ]
        found = [
            revision.why
            for row in rows
            for revision in self._cloud.revisions(
                "/".join(place_of(row)), round(instant(row["start"]) * 1_000_000)
            )[1:]
        ]
        return list(dict.fromkeys(found))


def _title(period: Period) -> str:
    first = words.iso_day(period.first.isoformat())
    if period.every == "day":
        return first
    week = period.first.isocalendar().week
    return f"Week {week}, {first} to {words.iso_day(period.last.isoformat())}"


def _subject(report: Report, edition: int) -> str:
    revised = f" (revised, edition {edition})" if edition > 1 else ""
    return f"{report.heading}: OEE {words.percent(report.row['oee'])} %{revised}"


def _file_name(period: Period) -> str:
    what = f"shift-{period.shift}" if period.shift is not None else period.every
    name = f"{'-'.join(period.place)}_{period.first}_{what}"
    return _NOT_IN_NAMES.sub("-", name)


def _file(reports: Sequence[Report], form: Format, name: str) -> Attachment:
    if form == "pdf":
        content = asyncio.run(paper.pdf_beside(paper.html(reports)))
    else:
        content = files.render(reports, form)
    return Attachment(f"{name}.{form}", files.FORMATS[form].media_type.partition(";")[0], content)
