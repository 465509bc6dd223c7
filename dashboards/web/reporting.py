"""Reports in the browser: the archive of shifts, a shift's sheets, and the same as files."""

import asyncio
import re
from datetime import timedelta
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from dashboards import words
from dashboards.links import link
from dashboards.reports import files, paper
from dashboards.reports.files import FORMATS
from dashboards.reports.model import Report
from dashboards.reports.paper import ReportError, Toolbar
from dashboards.selection import AddressError, Selection
from dashboards.web.screen import REFRESH_SECS, Screen

_ARCHIVE_DAYS: Final = 30
_STYLES: Final = ("light.css", "charts.css", "app.css", "report.css")
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.-]+")


class ReportPages(Screen):
    """The report of one place and shift in every format."""

    def archive(self, request: Request) -> Response:
        """Answer `/reports`: the shifts of 30 days with their reports; `to` is the last of the days."""
        board = self.cloud.board()
        chosen = self.select(request, board)
        until = min(chosen.end, chosen.now) if "to" in chosen.query else chosen.now
        last = words.local(until - 1, chosen.zone).date()
        rows = self.cloud.shift_table(
            round((until - _ARCHIVE_DAYS * 86_400) * 1e6),
            round(until * 1e6),
            "machine" if chosen.place.level == "machine" else "line",
        )
        return self.answer(
            request,
            "reports.html",
            "reports",
            board,
            selection=chosen,
            rows=[row for row in reversed(rows) if self._is_of(chosen, row)],
            last=None if until == chosen.now else last.isoformat(),
            older=(last - timedelta(days=_ARCHIVE_DAYS)).isoformat(),
            newer=(last + timedelta(days=_ARCHIVE_DAYS)).isoformat(),
            refresh_secs=REFRESH_SECS if until == chosen.now else 0,
            formats=[form for form in FORMATS.values() if form.suffix != "html"],
        )

    def sheets(self, request: Request) -> Response:
        """Answer `/report`: the sheets in the browser."""
        board = self.cloud.board()
        chosen = self.select(request, board)
        query = dict(chosen.query)
        toolbar = Toolbar(
            back=link(self.base + "/reports", at=query.get("at")),
            files=[
                (form.name, link(f"{self.base}/report.{form.suffix}", **query))
                for form in FORMATS.values()
                if form.suffix != "html"
            ],
        )
        styles = [self.jinja.globals["static"](name) for name in _STYLES]  # type: ignore[operator]
        html = paper.html(_gathered(self, chosen), style_sheets=styles, toolbar=toolbar)
        return HTMLResponse(html, headers={"cache-control": "no-store"})

    async def file(self, request: Request) -> Response:
        """Answer `/report.{suffix}`: the report as a file."""
        form = FORMATS.get(request.path_params["suffix"])
        if form is None:
            raise AddressError(f"Reports are written as {', '.join(FORMATS)}.")
        async with self.slots:
            reports = await asyncio.to_thread(self._reports, request)
            try:
                if form.suffix == "pdf":
                    page = await asyncio.to_thread(paper.html, reports)
                    body = await paper.pdf_beside(page)
                else:
                    body = await asyncio.to_thread(files.render, reports, form.suffix)
            except (ReportError, TimeoutError) as error:
                raise AddressError(str(error) or "The report took too long.") from error
        name = _NOT_IN_NAMES.sub("-", f"{reports[0].heading}".lower()).strip("-")
        headers = {
            "content-disposition": f'attachment; filename="{name}.{form.suffix}"',
            "cache-control": "no-store",
        }
        return Response(body, media_type=form.media_type, headers=headers)

    def _reports(self, request: Request) -> list[Report]:
        board = self.cloud.board()
        return _gathered(self, self.select(request, board))

    @staticmethod
    def _is_of(chosen: Selection, row: dict[str, object]) -> bool:
        place = tuple(str(row.get(level)) for level in ("site", "area", "line", "machine"))
        return place[: len(chosen.place.levels)] == chosen.place.levels


def _gathered(pages: ReportPages, chosen: Selection) -> list[Report]:
    try:
        return files.gather(pages.cloud, chosen)
    except ReportError as error:
        raise AddressError(str(error)) from error
