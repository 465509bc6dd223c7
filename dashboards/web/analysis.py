"""The pages that say where the time went: place, timeline, losses, hours, shifts, trends."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import dropwhile
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from cloud.oee.rollup import Level
from cloud.questions import Every
from cloud.views import BoardView, ShiftRow
from contract.machine_key import MachineKey
from dashboards import words
from dashboards.charts import losses, plot, ribbon
from dashboards.charts.plot import Series
from dashboards.links import Place
from dashboards.reports import charts, model
from dashboards.reports.model import Report
from dashboards.selection import AddressError, Selection
from dashboards.web.screen import Screen

_US: Final = 1_000_000
_SHORTEST_SECS: Final = 120.0
_LEVELS: Final[dict[str, Level]] = {"site": "site", "area": "area", "line": "line", "machine": "machine"}
_CHILD: Final[dict[str, Level]] = {"site": "line", "area": "line", "line": "machine", "machine": "machine"}
_MOST_RIBBONS: Final = 60
_STOPS_SECS: Final = 8 * 86_400
"""Of how much time single stops are listed behind a loss."""
_TREND_STEPS: Final[dict[str, Every]] = {"shift": "shift", "day": "day", "week": "week", "month": "month"}


class AnalysisPages(Screen):
    """Pages of one place and time each."""

    def report(self, board: BoardView, chosen: Selection) -> Report:
        """Gather what a page of the selection says; raise AddressError when nothing is known of it."""
        found = model.gather(
            self.cloud,
            board,
            chosen.place.levels,
            start=chosen.start,
            end=chosen.end,
            zone=chosen.zone,
            title=chosen.title,
            is_shift=chosen.shift is not None,
            product=chosen.product,
        )
        if found is None:
            raise AddressError(f"Nothing is known of {chosen.place} in that time: {chosen.title}.")
        return found

    def place(self, request: Request) -> Response:
        """Answer `/place`: everything about one place in one shift or range."""
        board = self.cloud.board()
        chosen = self.select(request, board)
        report = self.report(board, chosen)
        return self.answer(
            request,
            "place.html",
            "place",
            board,
            selection=chosen,
            report=report,
            leading=_leading(chosen),
            ribbons=ribbons(report),
            axis=ribbon.axis(chosen.start, chosen.end, chosen.zone),
            hourly=charts.hourly(report.hours, lambda at: words.clock(at, chosen.zone), end=chosen.end)
            if report.hours
            else None,
            factors=charts.FACTORS,
        )

    def timeline(self, request: Request) -> Response:
        """Answer `/timeline`: ribbons of a shift or range, as near as one likes."""
        board = self.cloud.board()
        chosen = self.select(request, board)
        start, end = _zoom(request, chosen)
        shortest = _number(request.query_params.get("shortest"), _SHORTEST_SECS, 0, 86_400)
        drawn, stops = [], []
        for key in chosen.machines[:_MOST_RIBBONS]:
            view = self.cloud.timeline(key, round(start * _US), round(end * _US))
            slow = self._slow(key, start, end) if end - start <= 36 * 3600 else ()
            drawn.append(
                (
                    key,
                    ribbon.ribbon(
                        key.machine, view.segments, start, end, chosen.zone, now=chosen.now, slow=slow
                    ),
                )
            )
            stops += [stop for stop in model.stops(view) if stop.secs >= shortest]
        stops.sort(key=lambda stop: stop.start, reverse=True)
        return self.answer(
            request,
            "timeline.html",
            "timeline",
            board,
            selection=chosen,
            drawn=drawn,
            axis=ribbon.axis(start, end, chosen.zone),
            window=(start, end),
            is_zoomed=(start, end) != (chosen.start, chosen.end),
            stops=stops[:400],
            hidden=max(0, len(stops) - 400),
            shortest=shortest,
            left_out=max(0, len(chosen.machines) - _MOST_RIBBONS),
        )

    def _slow(self, key: MachineKey, start: float, end: float) -> list[tuple[float, float, float]]:
        """Return (start, end, performance) of the hours in which a machine ran below its ideal rate."""
        rows = self.cloud.figures(
            round(start * _US), round(end * _US), every="hour", level="machine", place=tuple(key)
        )
        return [
            (model.instant(row["start"]), model.instant(row["end"]), row["performance"])
            for row in rows
            if row["performance"] is not None and row["performance"] < 1
        ]

    def losses(self, request: Request) -> Response:
        """Answer `/losses`: the waterfall and the Pareto."""
        board = self.cloud.board()
        chosen = self.select(request, board)
        rows = self._rows(chosen, "range" if chosen.shift is None else "shift", chosen.place.level)
        if not rows:
            raise AddressError(f"Nothing is known of {chosen.place} in that time: {chosen.title}.")
        row = next((row for row in rows if abs(model.instant(row["start"]) - chosen.start) < 1), rows[-1])
        targets = model.targets(self.cloud, chosen.machines)
        by_group = request.query_params.get("reasons") == "groups"
        by_count = request.query_params.get("order") == "count"
        return self.answer(
            request,
            "losses.html",
            "losses",
            board,
            selection=chosen,
            row=row,
            targets=targets,
            judged=model.judged(row, targets),
            leading=_leading(chosen),
            steps=losses.waterfall(row),
            pareto=losses.pareto(row, by_group=by_group, by_count=by_count),
            by_group=by_group,
            by_count=by_count,
        )

    def hourly(self, request: Request) -> Response:
        """Answer `/hourly`: units per hour against the target."""
        board = self.cloud.board()
        chosen = self.select(request, board)
        if chosen.end - chosen.start > 15 * 86_400:
            raise AddressError("Hours are shown for up to 14 days.")
        rows = [
            row
            for row in self._rows(chosen, "hour", chosen.place.level)
            if model.instant(row["start"]) < chosen.now
        ]
        return self.answer(
            request,
            "hourly.html",
            "hourly",
            board,
            selection=chosen,
            rows=rows,
            chart=charts.hourly(
                rows, lambda at: words.clock(at, chosen.zone), end=chosen.end if chosen.shift else None
            ),
        )

    def shifts(self, request: Request) -> Response:
        """Answer `/shifts`: shifts side by side."""
        board = self.cloud.board()
        chosen = self.select(request, board)
        if chosen.shift is not None or not ({"days", "from"} & chosen.query.keys()):
            chosen = self._last_days(request, board, 7)
        rows = self._rows(chosen, "shift", chosen.place.level)
        rows = [row for row in rows if model.instant(row["start"]) < chosen.now][-60:]
        rows = rows if any(map(model.has_records, rows)) else []
        targets = model.targets(self.cloud, chosen.machines)
        return self.answer(
            request,
            "shifts.html",
            "shifts",
            board,
            selection=chosen,
            rows=rows,
            units=charts.by_shift(rows),
            ratios=[
                (name, charts.per_shift(rows, factor, name, targets.get(factor)))
                for factor, name in (
                    *charts.FACTORS[3:],
                    charts.FACTORS[2],
                    charts.FACTORS[1],
                    charts.FACTORS[0],
                )
            ],
        )

    def trends(self, request: Request) -> Response:
        """Answer `/trends`: figures over days, weeks or months, and the places below."""
        board = self.cloud.board()
        chosen = self.select(request, board)
        if not ({"days", "from"} & chosen.query.keys()):
            chosen = self._last_days(request, board, 14)
        asked = request.query_params.get("by", "day")
        by = _TREND_STEPS.get(asked, "day")
        rows = list(
            dropwhile(lambda row: not model.has_records(row), self._rows(chosen, by, chosen.place.level))
        )
        chosen, asked_for = self._since_records(chosen, rows), chosen
        children = []
        if chosen.place.level != "machine":
            children = self._rows(chosen, "range", _CHILD[chosen.place.level])
        whole = self._rows(chosen, "range", chosen.place.level)
        targets = model.targets(self.cloud, chosen.machines)
        return self.answer(
            request,
            "trends.html",
            "trends",
            board,
            selection=asked_for,
            began=chosen.start if chosen is not asked_for else None,
            by=by,
            rows=rows,
            whole=whole[0] if whole else None,
            children=[(Place(model.place_of(row)), row) for row in children],
            chart=trend(rows, by),
            targets=targets,
            judged=model.judged(whole[0], targets) if whole else {},
        )

    @staticmethod
    def _since_records(chosen: Selection, rows: Sequence[ShiftRow]) -> Selection:
        """Return a selection that begins with the first row: what lay before the first record was no loss."""
        start = model.instant(rows[0]["start"]) if rows else chosen.start
        return replace(chosen, start=start) if start > chosen.start else chosen

    def _last_days(self, request: Request, board: BoardView, days: int) -> Selection:
        from dashboards import selection

        query = selection.plain(dict(request.query_params))
        kept: dict[str, str] = {name: query[name] for name in ("at", "product") if name in query}
        return selection.select(self.cloud, board, self.zone(board), {**kept, "days": str(days)})

    def _rows(self, chosen: Selection, every: Every, level: str) -> list[ShiftRow]:
        return self.cloud.figures(
            chosen.from_us,
            chosen.to_us,
            every=every,
            level=_LEVELS[level],
            place=chosen.place.levels,
            product=chosen.product,
        )


def _leading(chosen: Selection) -> Selection | None:
    """Return the selection whose losses lead to their stops; None where the stops would be others."""
    is_short = chosen.end - chosen.start <= _STOPS_SECS
    return chosen if is_short and chosen.product is None else None


def ribbons(report: Report) -> list[tuple[MachineKey, str]]:
    """Draw the ribbons of a report."""
    return [
        (
            MachineKey(view.site, view.area, view.line, view.machine),
            ribbon.ribbon(view.machine, view.segments, report.start, report.end, report.zone, now=report.now),
        )
        for view in report.timelines
    ]


def trend(rows: Sequence[ShiftRow], by: Every) -> str:
    """Draw OEE and its factors over time."""
    labels = [
        (model.short_shift(row), model.short_day(row)) if by == "shift" else (model.short_day(row), "")
        for row in rows
    ]
    series = [
        Series(
            name,
            f"s-{factor}",
            [model.ratio(row, factor) for row in rows],
            [
                f"{name} {words.with_percent(model.ratio(row, factor))}, "
                f"{words.iso_day(row.get('production_date'))}"
                for row in rows
            ],
        )
        for factor, name in reversed(charts.FACTORS)
    ]
    return plot.lines(series, labels, label=f"OEE and its factors by {by}, percent", height=300)


def _zoom(request: Request, chosen: Selection) -> tuple[float, float]:
    """Return the part that the address asks for by `since` and `until` [s since 1970]."""
    since = _number(request.query_params.get("since"), chosen.start, chosen.start, chosen.end)
    until = _number(request.query_params.get("until"), chosen.end, chosen.start, chosen.end)
    return (since, until) if until - since >= 10 else (chosen.start, chosen.end)


def _number(text: str | None, default: float, least: float, most: float) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        return default
    return min(max(value, least), most) if value == value else default  # noqa: PLR0124  # nan
