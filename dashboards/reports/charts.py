"""The charts of reports and pages, from figures rows."""

from collections.abc import Callable, Sequence

from markupsafe import Markup

from cloud.views import ShiftRow
from dashboards import words
from dashboards.charts import plot
from dashboards.charts.plot import Band, Part
from dashboards.reports import model

FACTORS = (
    ("oee", "OEE"),
    ("availability", "Availability"),
    ("performance", "Performance"),
    ("quality", "Quality"),
)


def hourly(
    rows: Sequence[ShiftRow],
    clock: Callable[[float], str],
    *,
    end: float | None = None,
    height: int = 260,
    paper_width: float | None = None,
) -> Markup:
    """Draw good and off-quality units per hour with the target, which is lower where a break lies.

    end: until when room is left for the hours to come [s since 1970]
    """
    bands = []
    for row in rows:
        begin = clock(model.instant(row["start"]))
        good, off, target = row["good_units"], row["off_quality_units"], row.get("target_units")
        until = clock(model.instant(row["end"]))
        tip = f"{begin}–{until}: {words.number(good)} good, {words.number(off)} off quality"
        if target is not None:
            tip += f", target {words.number(target)}"
        parts = (Part("c-good", good, tip), Part("c-off", off, tip))
        caption = words.number(good) if len(rows) <= 12 and paper_width is None else None
        bands.append(Band(begin, "", parts, caption=caption, target=target))
    coming = model.instant(rows[-1]["end"]) if rows else 0.0
    while end is not None and rows and coming < end - 1:
        bands.append(Band(clock(coming), "", ()))
        coming += 3600
    return plot.columns(
        bands, label="Good and off-quality units per hour", height=height, paper_width=paper_width
    )


def by_shift(rows: Sequence[ShiftRow], *, height: int = 260, paper_width: float | None = None) -> Markup:
    """Draw good and off-quality units of each shift as stacked columns, with OEE as a line above."""
    bands = []
    for row in rows:
        name = f"Shift {row['shift']}, {words.iso_day(row.get('production_date'))}"
        good, off = row["good_units"], row["off_quality_units"]
        parts = (
            Part("c-good", good, f"{name}: {words.number(good)} good units"),
            Part("c-off", off, f"{name}: {words.number(off)} off-quality units"),
        )
        oee = model.ratio(row, "oee")
        tip = f"{name}: OEE {words.with_percent(oee)}"
        bands.append(Band(model.short_shift(row), model.short_day(row), parts, line=oee, line_tip=tip))
    return plot.columns(
        bands, label="Good units by shift with OEE", line_name="OEE", height=height, paper_width=paper_width
    )


def per_shift(
    rows: Sequence[ShiftRow],
    factor: str,
    name: str,
    target: float | None,
    *,
    paper_width: float | None = None,
) -> Markup:
    """Draw one ratio of each shift as columns from 0 to 100 %, with its target."""
    bands = []
    for row in rows:
        value = model.ratio(row, factor)
        tip = (
            f"Shift {row['shift']}, {words.iso_day(row.get('production_date'))}: {words.with_percent(value)}"
        )
        parts = (Part("c-ratio", value, tip),) if value is not None else ()
        caption = words.percent(value) if len(rows) <= 14 else None
        bands.append(
            Band(model.short_shift(row), model.short_day(row), parts, caption=caption, target=target)
        )
    return plot.columns(
        bands, label=f"{name} per shift, percent", percent=True, height=210, paper_width=paper_width
    )
