"""A report as a sheet: one template for browser, print and PDF."""

import asyncio
import functools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import as_file, files
from typing import Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dashboards import words
from dashboards.charts import ribbon, svg
from dashboards.reports import charts, model
from dashboards.reports.model import Report

_RIBBON_WIDTH: Final = 590.0
_RIBBON_HEIGHT: Final = 21
_CHART_WIDTH: Final = 336.0
_CHART_HEIGHT: Final = 118
_ICONS: Final[Mapping[str, str]] = {
    "up": "m12 6 8 11H4z",
    "down": "M12 18 4 7h16z",
    "check": "m9.5 18.5-6-6 2-2 4 4 9-9 2 2z",
    "faulted": "M10.3 3.4 1.7 18.6a2 2 0 0 0 1.7 2.9h17.2a2 2 0 0 0 1.7-2.9L13.7 3.400a2 2 0 0 0-3.400 0z",
}
_VARIABLE: Final = re.compile(r"var\(--([a-z0-9-]+)\)")
_HALO: Final = "paint-order: stroke; stroke: var(--surface); stroke-width: 4px; stroke-linejoin: round;"
_FILL: Final = re.compile(r"^([^{}]+)\{ fill: var\(--([a-z0-9-]+)\);", re.MULTILINE)
_CLASS: Final = re.compile(r'class="([a-z0-9-]+)"')
_BAR: Final = re.compile(r'<svg viewBox="0 0 100 10".*?</svg>', re.DOTALL)
_HATCH: Final = (
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" fill="#eef1f4"/>'
    '<rect width="2" height="6" fill="#8d98a3"/></pattern></defs>'
)


PRINT_SECS: Final = 120.0


class ReportError(Exception):
    """A report could not be made."""


class WishError(ReportError):
    """A report that cannot be as it was asked for; the text says why."""


class Toolbar(NamedTuple):
    """What stands above a report in a browser."""

    back: str
    files: Sequence[tuple[str, str]]


class Sheet(NamedTuple):
    """One report with its drawings, each as wide as the paper."""

    report: Report
    ribbons: list[tuple[str, Markup]]
    axis: Markup
    hourly: Markup | None
    shifts: Markup | None
    swatches: dict[str, Markup]


def sheet(report: Report, *, is_alone: bool) -> Sheet:
    """Draw a report's charts.

    is_alone: whether the drawings carry their own style, as PDF needs
    """
    dress: Callable[[Markup], Markup] = dressed if is_alone else _same
    width = f"{_RIBBON_WIDTH:.0f}" if is_alone else "100%"
    ink: Callable[[Markup], Markup] = _inked if is_alone else _same
    zone = report.zone
    return Sheet(
        report=report,
        ribbons=[
            (
                view.machine,
                ink(
                    _low(
                        _wide(
                            ribbon.ribbon(
                                view.machine, view.segments, report.start, report.end, zone, now=report.now
                            ),
                            width,
                        )
                    )
                ),
            )
            for view in report.timelines
        ],
        axis=dress(_wide(ribbon.axis(report.start, report.end, zone), width)),
        hourly=dress(
            charts.hourly(
                report.hours,
                lambda at: words.clock(at, zone),
                end=report.end,
                paper_width=_CHART_WIDTH,
                height=_CHART_HEIGHT,
            )
        )
        if report.hours
        else None,
        shifts=dress(charts.by_shift(report.earlier, paper_width=_CHART_WIDTH, height=_CHART_HEIGHT))
        if len(report.earlier) > 1
        else None,
        swatches={kind: ink(_swatch(kind)) for kind in words.LOOKS},
    )


def html(
    reports: Sequence[Report],
    *,
    style_sheets: Sequence[str] = (),
    toolbar: Toolbar | None = None,
) -> str:
    """Return the sheets of reports as one page.

    style_sheets: addresses of the page's styles; without any the page carries its styles within itself
    """
    is_alone = not style_sheets
    jinja = environment()
    sheets = [sheet(report, is_alone=is_alone) for report in reports]
    text = jinja.get_template("report.html").render(
        sheets=sheets,
        style=Markup(_style()) if is_alone else None,  # noqa: S704  # our own files
        style_sheets=style_sheets,
        toolbar=toolbar,
        now=reports[0].now,
        pages_words=words,
    )
    # Bars in tables are drawn by the template; they need their style as much as the charts do.
    return _bars_inked(text) if is_alone else text


def pdf(page: str) -> bytes:
    """Return the PDF of a page that stands alone."""
    from weasyprint import HTML

    with as_file(files("dashboards.web") / "static") as static:
        made: Any = HTML(string=page, base_url=static.as_uri() + "/").write_pdf()
    assert isinstance(made, bytes)
    return made


async def pdf_beside(page: str) -> bytes:
    """Return the PDF of a page, made by a process of its own: setting type takes seconds of a processor."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "dashboards.reports.printing",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        made, said = await asyncio.wait_for(process.communicate(page.encode()), PRINT_SECS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise ReportError(f"The PDF could not be made: {said.decode(errors='replace')[-500:]}")
    return made


def dressed(drawing: Markup) -> Markup:
    """Put the charts' style, in the light palette, into a drawing: a PDF knows no other sheet."""
    head, close, rest = str(drawing).partition(">")
    return Markup(head + close + f"<style>{chart_style()}</style>" + rest)  # noqa: S704  # from svg.py


def inked(drawing: str) -> str:
    """Give the shapes of a simple drawing their colour each: much quicker to set than a style sheet."""

    def ink(found: re.Match[str]) -> str:
        colour = inks().get(found[1])
        return found[0] if colour is None else f'fill="{colour}"'

    text = _CLASS.sub(ink, drawing)
    if "url(#hatch)" in text:
        head, close, rest = text.partition(">")
        text = head + close + _HATCH + rest
    return text


@functools.cache
def inks() -> dict[str, str]:
    """Return the colour of each class that charts.css fills; what is hatched is not among them."""
    found: dict[str, str] = {}
    for selectors, name in _FILL.findall(_static("charts.css")):
        for selector in selectors.split(","):
            parts = selector.strip().split(".")
            if len(parts) > 1 and re.fullmatch("[a-z0-9-]+", parts[-1]):
                found[parts[-1]] = palette()[name]
    return found


@functools.cache
def chart_style() -> str:
    """Return charts.css with the light palette put in, in units of paper."""
    text = _static("charts.css").replace(_HALO, "")
    text = _VARIABLE.sub(lambda found: palette()[found[1]], text)
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).replace(".8rem", "10px").replace(".7333rem", "9px")
    return "text{font-family:Inter}" + re.sub(r"\s+", " ", text).strip()


@functools.cache
def palette() -> dict[str, str]:
    """Return the light palette: name to colour."""
    return dict(re.findall(r"--([a-z0-9-]+): ([^;]+);", _static("light.css")))


def _bars_inked(text: str) -> str:
    """Colour the bars that the template draws in tables."""
    return _BAR.sub(lambda found: inked(found[0]), text)


@functools.cache
def _style() -> str:
    """Return one style sheet for a page that stands alone; WeasyPrint takes single font weights only."""
    faces = "".join(
        f'@font-face {{ font-family: Inter; src: url("inter-{part}.woff2") format("woff2"); '
        f"font-weight: {weight}; unicode-range: {span}; }}"
        for part, span in (
            (
                "latin",
                "U+0000-00FF, U+0131, U+0152-0153, U+2000-206F, U+20AC, U+2122, U+2191, U+2193, U+2212",
            ),
            ("latin-ext", "U+0100-02BA, U+1E00-1EFF, U+20A0-20AB, U+20AD-20C0"),
            ("cyrillic", "U+0400-045F, U+0490-0491, U+04B0-04B1, U+2116"),
            ("greek", "U+0370-03FF"),
        )
        for weight in ("400", "700")
    )
    body = 'body { font-family: Inter, sans-serif; font-feature-settings: "tnum"; margin: 0; }'
    return faces + body + _static("report.css")


def _static(name: str) -> str:
    return (files("dashboards.web") / "static" / name).read_text(encoding="utf-8")


def environment() -> Environment:
    """Return what makes the templates of reports."""
    jinja = Environment(
        loader=PackageLoader("dashboards.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.globals |= {"words": words, "LOOKS": words.LOOKS, "icon": _icon}
    jinja.filters |= {
        "instant": model.instant,
        "ratio": model.ratio,
        "standing": model.standing,
        "child_name": model.name_of,
    }
    return jinja


def _icon(name: str, label: str | None = None) -> Markup:
    path = svg.element("path", d=_ICONS[name])
    return svg.element("svg", path, class_="icon", viewBox="0 0 24 24", width=8, height=8, aria_label=label)


def _swatch(kind: str) -> Markup:
    fill = "url(#hatch)" if kind == "unknown" else None
    return svg.element(
        "svg", svg.element("rect", class_=f"k-{kind}", width=10, height=10, fill=fill), width=10, height=10
    )


def _wide(drawing: Markup, width: str) -> Markup:
    """Give a drawing of shares a width: in a PDF, which knows no shares of a cell, in pixels."""
    return Markup(str(drawing).replace('width="100%"', f'width="{width}"', 1))  # noqa: S704  # from svg.py


def _low(drawing: Markup) -> Markup:
    """Give a ribbon less height than on a screen: a line of some machines stands on one page."""
    low = f'height="{_RIBBON_HEIGHT}" viewBox="0 0 {_RIBBON_WIDTH:.0f} {ribbon.HEIGHT}"'
    text = str(drawing).replace(f'height="{ribbon.HEIGHT}"', f'{low} preserveAspectRatio="none"')
    return Markup(text)  # noqa: S704  # from svg.py


def _inked(drawing: Markup) -> Markup:
    return Markup(inked(str(drawing)))  # noqa: S704  # from svg.py


def _same(drawing: Markup) -> Markup:
    return drawing
