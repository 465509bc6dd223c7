"""Figures as JSON, CSV or a table for the terminal. Rounding and percent happen here alone."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, Literal, NamedTuple

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cloud.oee.figures import Figures
from cloud.plant import Plant
from contract.printable import printable

Format = Literal["table", "json", "csv"]
_WIDTH: Final = 320
_DASH: Final = "\N{EN DASH}"
_OUTSIDE: Final = "outside all"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NESTED: Final = ("losses", "six_big_losses", "iso22400")
_LISTS: Final = ("waterfall", "pareto")


def wide_console() -> Console:
    """Return a console that squeezes no table: what is too wide for the terminal goes on in its next line."""
    return Console(width=max(Console().width, _WIDTH))


def as_json(figures: Sequence[Figures]) -> str:
    """Return a list of flat objects, unrounded, with null where a figure divides by nothing."""
    return json.dumps([row.to_dict() for row in figures], indent=2, ensure_ascii=False)


def as_csv(figures: Sequence[Figures]) -> str:
    """Return one line per row of figures; what is nested in JSON has columns such as `losses.idle`."""
    rows = [_flat(row.to_dict()) for row in figures]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def print_figures(figures: Sequence[Figures], form: Format, plant: Plant) -> None:
    """Print figures to standard output."""
    match form:
        case "json":
            print(as_json(figures))
        case "csv":
            print(as_csv(figures), end="")
        case "table":
            print_table(figures, wide_console(), plant)


def print_table(figures: Sequence[Figures], console: Console, plant: Plant) -> None:
    """Print one line per row of figures; times are local to the site, dashes are divisions by nothing."""
    rows = [row.to_dict() for row in figures]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = [column for column in _COLUMNS if any(column.shown(row) for row in rows)]
    for column in columns:
        table.add_column(column.title, justify="left" if column.text else "right", no_wrap=True)
    for figure, row in zip(figures, rows, strict=True):
        table.add_row(
            *(plain(column.cell(figure, row, plant.sites[figure.place.site].timezone)) for column in columns)
        )
    console.print(table)
    for row in rows:
        for warning in row["warnings"]:
            console.print(
                f"[yellow]{plain(_name(row))}, {row['start']}: {plain(warning)}[/]", highlight=False
            )


def plain(text: str) -> str:
    """Return a cell for a table of rich: names of products and reasons are neither markup nor controls."""
    return escape(printable(text))


class _Column(NamedTuple):
    title: str
    cell: Callable[[Figures, dict[str, Any], tzinfo], str]
    shown: Callable[[dict[str, Any]], bool] = lambda _: True
    text: bool = False


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name in _NESTED:
            flat |= {f"{name}.{key}": item for key, item in value.items()}
        elif name == "bounds":
            for ratio, (least, most) in (value or {}).items():
                flat |= {f"bounds.{ratio}.least": least, f"bounds.{ratio}.most": most}
        elif name == "warnings":
            flat[name] = "; ".join(value)
        elif name not in _LISTS:
            flat[name] = value
    return flat


def _name(row: dict[str, Any]) -> str:
    return "/".join(row[level] for level in ("site", "area", "line", "machine") if level in row)


def percent(value: float | None) -> str:
    """Return a ratio with two decimals, or a dash where it divides by nothing."""
    return _DASH if value is None else f"{value * 100:.2f} %"


def clock(secs: float) -> str:
    """Return a duration as h:mm:ss."""
    minutes, rest = divmod(abs(round(secs)), 60)
    return f"{'-' if secs < 0 else ''}{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _between(bounds: dict[str, list[float | None]] | None) -> str:
    """Return the least and the most that OEE may be where part of the time is unknown."""
    return "" if bounds is None else " and ".join(map(percent, bounds["oee"]))


def _window(figure: Figures, zone: tzinfo) -> str:
    start, end = (
        (_EPOCH + timedelta(microseconds=instant)).astimezone(zone)
        for instant in (figure.window.start_us, figure.window.end_us)
    )
    same_day = start.date() == end.date()
    return (
        f"{start:%Y-%m-%d %H:%M} - {end:%H:%M}" if same_day else f"{start:%Y-%m-%d %H:%M} - {end:%m-%d %H:%M}"
    )


def _said(key: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: row.get(key) not in (None, "", 0, 0.0)


def _ratio(key: str) -> Callable[[Figures, dict[str, Any], tzinfo], str]:
    return lambda _figure, row, _zone: percent(row[key])


def _time(key: str) -> Callable[[Figures, dict[str, Any], tzinfo], str]:
    return lambda _figure, row, _zone: clock(row[key])


def _plain(key: str) -> Callable[[Figures, dict[str, Any], tzinfo], str]:
    return lambda _figure, row, _zone: str(row.get(key) if row.get(key) is not None else _DASH)


_COLUMNS: Final = (
    _Column("where", lambda _figure, row, _zone: _name(row), text=True),
    _Column("date", _plain("production_date"), _said("production_date"), text=True),
    _Column("shift", lambda _figure, row, _zone: row["shift"] or _OUTSIDE, _said("shift"), text=True),
    _Column("crew", _plain("crew"), _said("crew"), text=True),
    _Column("product", _plain("product"), _said("product"), text=True),
    _Column("order", _plain("order"), _said("order"), text=True),
    _Column("window", lambda figure, _row, zone: _window(figure, zone), text=True),
    _Column("planned", _time("planned_production_secs")),
    _Column("run", _time("run_secs")),
    _Column("unknown", _time("unknown_secs"), _said("unknown_secs")),
    _Column("total", _plain("total_units")),
    _Column("good", _plain("good_units")),
    _Column("off", _plain("off_quality_units")),
    _Column("unplanned", _plain("unplanned_units"), _said("unplanned_units")),
    _Column("A", _ratio("availability")),
    _Column("P", _ratio("performance")),
    _Column("Q", _ratio("quality")),
    _Column("OEE", _ratio("oee")),
    _Column(
        "OEE between", lambda _figure, row, _zone: _between(row["bounds"]), lambda row: bool(row["bounds"])
    ),
)
