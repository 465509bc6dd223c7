"""Upright charts: stacked columns, a line above them, a stepped target; all axes begin at zero.

A chart is drawn for the screen, where it is as wide as its place (positions are shares, only heights are
pixels), or for paper, where its width is known and everything is absolute.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

from dashboards import words
from dashboards.charts import svg

AXIS_WIDTH: Final = 52
_TOP: Final = 20
_FOOT: Final = 38
_LETTERS: Final = 22
"""How much height a column's value takes with the air around it [px]."""
_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)


class Part(NamedTuple):
    """One piece of a stacked column."""

    kind: str
    """Its colour class."""
    value: float
    tip: str


class Band(NamedTuple):
    """One column with what stands under it."""

    label: str
    sublabel: str
    parts: tuple[Part, ...]
    caption: str | None = None
    """Written above the column where there is room."""
    target: float | None = None
    """Where the target's step runs across this band."""
    line: float | None = None
    """Where the line passes above this band, as a ratio on the right axis."""
    line_tip: str = ""
    href: str | None = None


class Scale(NamedTuple):
    """An axis from zero: its end and its ticks."""

    top: float
    ticks: tuple[float, ...]


def scale(highest: float, count: int = 4) -> Scale:
    """Return an axis from 0 that holds the highest value, with about `count` round ticks."""
    if highest <= 0 or not math.isfinite(highest):
        return Scale(1.0, (0.0, 1.0))
    raw = highest / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in _STEPS if step * power >= raw * (1 - 1e-9))
    ticks = tuple(step * index for index in range(math.ceil(highest / step - 1e-9) + 1))
    return Scale(ticks[-1], ticks)


PERCENT: Final = Scale(1.0, (0.0, 0.25, 0.5, 0.75, 1.0))


def columns(
    bands: Sequence[Band],
    *,
    label: str,
    height: int = 260,
    axis: Scale | None = None,
    percent: bool = False,
    line_name: str | None = None,
    paper_width: float | None = None,
) -> Markup:
    """Draw columns side by side.

    label: what the chart shows, for those who do not see it
    axis: of the columns; made from the highest value where none is given
    percent: whether values are ratios, written as percent
    line_name: what the line says; a right axis of 0 to 100 % is drawn for it
    paper_width: [px] for paper; None for a screen
    """
    highest = max(
        (max(sum(part.value for part in band.parts), band.target or 0) for band in bands), default=0.0
    )
    axis = axis or (PERCENT if percent and highest <= 1 else scale(highest))
    inner = height - _TOP - _FOOT
    right = AXIS_WIDTH if line_name else 0
    width = None if paper_width is None else paper_width - AXIS_WIDTH - right
    area = _Area(width, inner)
    parts = [_grid(area, axis)]
    for index, band in enumerate(bands):
        parts.append(_column(area, axis, band, index, len(bands)))
    parts.append(_targets(area, axis, bands))
    parts.append(_captions(area, axis, bands))
    if line_name:
        parts.append(_line(area, bands))
    parts.append(_feet(area, bands))
    left_axis = [
        _tick(tick, axis, inner, percent=percent, x=AXIS_WIDTH - 8, anchor="end") for tick in axis.ticks
    ]
    right_axis = [_tick(tick, PERCENT, inner, percent=True, x=8, anchor="start") for tick in PERCENT.ticks]
    if paper_width is not None:
        pieces = [
            svg.group(left_axis),
            svg.group(parts, transform=f"translate({AXIS_WIDTH} 0)"),
        ]
        if line_name:
            pieces.append(svg.group(right_axis, transform=f"translate({paper_width - right:.1f} 0)"))
        return svg.element(
            "svg",
            *pieces,
            class_="plot",
            width=paper_width,
            height=height,
            viewBox=f"0 0 {paper_width:.0f} {height}",
            role="img",
            aria_label=label,
        )
    drawn = [
        svg.element(
            "svg", *left_axis, class_="plot-axis", width=AXIS_WIDTH, height=height, aria_hidden="true"
        ),
        svg.element("svg", *parts, class_="plot", width="100%", height=height, role="img", aria_label=label),
    ]
    if line_name:
        drawn.append(
            svg.element(
                "svg", *right_axis, class_="plot-axis", width=AXIS_WIDTH, height=height, aria_hidden="true"
            )
        )
    return svg.element("div", *drawn, class_="chart" + (" crowded" if len(bands) > 10 else ""))


class Series(NamedTuple):
    """One line of a trend; None is a hole."""

    name: str
    kind: str
    values: Sequence[float | None]
    tips: Sequence[str]


def lines(
    series: Sequence[Series],
    labels: Sequence[tuple[str, str]],
    *,
    label: str,
    height: int = 240,
    axis: Scale = PERCENT,
    target: float | None = None,
    paper_width: float | None = None,
) -> Markup:
    """Draw lines over the same bands; ratios from 0 to 100 % where no other axis is given."""
    inner = height - _TOP - _FOOT
    width = None if paper_width is None else paper_width - AXIS_WIDTH
    area = _Area(width, inner)
    percent = axis is PERCENT
    parts = [_grid(area, axis)]
    if target is not None:
        y = area.y(target / axis.top)
        parts.append(svg.element("line", class_="target", x1=area.x(0), x2=area.x(1), y1=y, y2=y))
    count = len(labels)
    for one in series:
        shares = [((index + 0.5) / max(count, 1), value) for index, value in enumerate(one.values)]
        parts.append(_path(area, shares, axis.top, f"line {one.kind}"))
        for (share, value), tip in zip(shares, one.tips, strict=True):
            if value is not None:
                parts.append(
                    svg.element(
                        "circle",
                        class_=f"dot {one.kind}",
                        cx=area.x(share),
                        cy=area.y(value / axis.top),
                        r=3.5,
                        data_tip=tip,
                    )
                )
    parts.append(_feet(area, [Band(text, below, ()) for text, below in labels]))
    left_axis = [
        _tick(tick, axis, inner, percent=percent, x=AXIS_WIDTH - 8, anchor="end") for tick in axis.ticks
    ]
    if paper_width is not None:
        return svg.element(
            "svg",
            svg.group(left_axis),
            svg.group(parts, transform=f"translate({AXIS_WIDTH} 0)"),
            class_="plot",
            width=paper_width,
            height=height,
            viewBox=f"0 0 {paper_width:.0f} {height}",
            role="img",
            aria_label=label,
        )
    return svg.element(
        "div",
        svg.element(
            "svg", *left_axis, class_="plot-axis", width=AXIS_WIDTH, height=height, aria_hidden="true"
        ),
        svg.element("svg", *parts, class_="plot", width="100%", height=height, role="img", aria_label=label),
        class_="chart" + (" crowded" if count > 10 else ""),
    )


class _Area:
    """Where values become positions: shares of an unknown width, or pixels of a known one."""

    def __init__(self, width: float | None, height: float) -> None:
        self.width = width
        self.height = height

    def x(self, share: float) -> str | float:
        return f"{share:.4%}" if self.width is None else share * self.width

    def y(self, share: float) -> float:
        return _TOP + self.height * (1 - min(max(share, 0.0), 1.0))


def _grid(area: _Area, axis: Scale) -> Markup:
    return svg.group(
        svg.element(
            "line",
            class_="grid" if tick else "base",
            x1=area.x(0),
            x2=area.x(1),
            y1=area.y(tick / axis.top),
            y2=area.y(tick / axis.top),
        )
        for tick in axis.ticks
    )


def _column(area: _Area, axis: Scale, band: Band, index: int, count: int) -> Markup:
    gap = 0.32 if count < 4 else 0.18 if count < 30 else 0.08
    left, width = (index + gap) / count, (1 - 2 * gap) / count
    drawn, below = [], 0.0
    for part in band.parts:
        top = area.y((below + max(part.value, 0)) / axis.top)
        height = area.y(below / axis.top) - top
        if height > 0:
            drawn.append(
                svg.element(
                    "rect",
                    class_=part.kind,
                    x=area.x(left),
                    width=area.x(width),
                    y=top,
                    height=max(height, 0.5),
                    data_tip=part.tip,
                )
            )
        below += max(part.value, 0)
    if band.href:
        return svg.element("a", *drawn, href=band.href)
    return svg.group(drawn)


def _captions(area: _Area, axis: Scale, bands: Sequence[Band]) -> Markup:
    """Write the columns' values above them, or inside where the target would run through the letters."""
    count, drawn = len(bands), []
    for index, band in enumerate(bands):
        if band.caption:
            top = area.y(sum(max(part.value, 0) for part in band.parts) / axis.top)
            meets = band.target is not None and -4 < top - area.y(band.target / axis.top) < _LETTERS
            has_room = area.height + _TOP - top > 2 * _LETTERS
            y, kind = (top + _LETTERS, "caption inside") if meets and has_room else (top - 6, "caption")
            drawn.append(
                svg.text(band.caption, area.x((index + 0.5) / count), y, class_=kind, text_anchor="middle")
            )
    return svg.group(drawn)


def _targets(area: _Area, axis: Scale, bands: Sequence[Band]) -> Markup:
    """Draw the target as steps, each across its own band."""
    count, drawn = len(bands), []
    before: float | None = None
    for index, band in enumerate(bands):
        if band.target is not None:
            y = area.y(band.target / axis.top)
            tip = (
                f"Target {words.number(band.target)}"
                if axis.top > 2
                else f"Target {words.with_percent(band.target)}"
            )
            drawn.append(
                svg.element(
                    "line",
                    class_="target",
                    x1=area.x(index / count),
                    x2=area.x((index + 1) / count),
                    y1=y,
                    y2=y,
                    data_tip=tip,
                )
            )
            if before is not None and before != y:
                x = area.x(index / count)
                drawn.append(svg.element("line", class_="target", x1=x, x2=x, y1=before, y2=y))
            before = y
        else:
            before = None
    return svg.group(drawn)


def _line(area: _Area, bands: Sequence[Band]) -> Markup:
    count = len(bands)
    shares = [((index + 0.5) / count, band.line) for index, band in enumerate(bands)]
    dots = [
        svg.element(
            "circle",
            class_="dot over",
            cx=area.x(share),
            cy=area.y(value),
            r=4,
            data_tip=band.line_tip or None,
        )
        for (share, value), band in zip(shares, bands, strict=True)
        if value is not None
    ]
    return svg.group([_path(area, shares, 1.0, "line over"), *dots])


def _path(area: _Area, shares: Sequence[tuple[float, float | None]], top: float, kind: str) -> Markup:
    """Join the points; a hole ends a run."""
    runs: list[list[str]] = [[]]
    for share, value in shares:
        if value is None:
            runs.append([])
            continue
        x = share * (100 if area.width is None else area.width)
        runs[-1].append(f"{x:.3f},{area.y(value / top):.2f}")
    drawn = [svg.element("polyline", class_=kind, points=" ".join(run)) for run in runs if len(run) > 1]
    if area.width is not None:
        return svg.group(drawn)
    high = area.height + _TOP + _FOOT
    return svg.element(
        "svg", *drawn, viewBox=f"0 0 100 {high:.0f}", width="100%", height=high, preserveAspectRatio="none"
    )


def _feet(area: _Area, bands: Sequence[Band]) -> Markup:
    count, drawn = len(bands), []
    every = max(1, math.ceil(count / 24))
    for index, band in enumerate(bands):
        if index % every:
            continue
        x, y = area.x((index + 0.5) / count), area.height + _TOP + 16
        odd = " odd rare" if (index // every) % 2 else " rare" if (index // every) % 4 else ""
        drawn.append(svg.text(band.label, x, y, class_="foot" + odd, text_anchor="middle"))
        if band.sublabel:
            drawn.append(svg.text(band.sublabel, x, y + 15, class_="foot sub" + odd, text_anchor="middle"))
    return svg.group(drawn)


def _tick(tick: float, axis: Scale, inner: float, *, percent: bool, x: float, anchor: str) -> Markup:
    text = f"{tick * 100:.0f} %" if percent else words.number(tick, 0 if tick == int(tick) else 1)
    y = _TOP + inner * (1 - tick / axis.top) + 4
    return svg.text(text, x, y, text_anchor=anchor, class_="tick")
