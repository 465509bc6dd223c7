"""Lists how closed shifts came to be as they are, as `oee report --history` and `--diff` show it."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, tzinfo
from itertools import groupby
from typing import Any, Final, Literal

from rich import box
from rich.table import Table

from cloud.oee.figures import iso_utc
from cloud.plant import Plant
from cloud.render import clock, percent, plain
from cloud.report import Difference, Shift

Row = dict[str, Any]
_DASH: Final = "\N{EN DASH}"
_RATIOS: Final = frozenset(
    ("availability", "performance", "quality", "oee", "teep", "utilisation", "nee", "scrap_ratio")
) | {"first_pass_yield"}
_OF_TIME: Final = ("losses.",)
_FIRST: Final = ("oee", "availability", "performance", "quality")
_SAME_AGAIN: Final = ("iso22400.", "six_big_losses.", "teep", "nee", "scrap_ratio", "first_pass_yield")
"""What follows from the factors, losses and units, or is one of them under another name."""


def history_rows(shifts: Iterable[Shift]) -> list[Row]:
    """Return one flat object per revision."""
    return [
        {
            **_shift(shift.scope, each.figures),
            "revision": each.revision,
            "made": iso_utc(round(each.made_epochtime * 1e6)),
            "why": each.why,
            **{key: each.figures[key] for key in ("total_units", "oee")},
            "after_lock": 0 if shift.after_lock is None else shift.after_lock.records,
            "after_lock_last": None if shift.after_lock is None else iso_utc(shift.after_lock.last_us),
        }
        for shift in shifts
        for each in shift.revisions
    ]


def difference_rows(differences: Iterable[Difference]) -> list[Row]:
    """Return one flat object per figure that a revision changed."""
    return [
        {
            **_shift(item.scope, item.after.figures),
            "revision": f"{item.before.revision} → {item.after.revision}",
            "why": item.after.why,
            "figure": key,
            "before": before,
            "after": after,
        }
        for item in differences
        for key, before, after in item.changes
    ]


def render_rows(rows: Sequence[Row], form: Literal["json", "csv"]) -> str:
    """Return rows as a JSON array of objects, or as CSV with a heading."""
    if form == "json":
        return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["scope"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def history_table(rows: Sequence[Row], plant: Plant) -> Table:
    """Return revisions as a table for people, times local to the site."""
    table = _table("revision", "made", "why", "total", "OEE")
    is_locked = any(row["after_lock"] for row in rows)
    if is_locked:
        table.add_column("came after the lock, in no figure", no_wrap=True)
    for row in rows:
        zone = _zone(row, plant)
        late = f"{row['after_lock']} records, last {_local(row['after_lock_last'], zone)}"
        table.add_row(
            *_place(row, zone),
            str(row["revision"]),
            _local(row["made"], zone),
            plain(row["why"]),
            str(row["total_units"]),
            percent(row["oee"]),
            *((late if row["after_lock"] else "",) if is_locked else ()),
        )
    return table


def difference_table(rows: Sequence[Row], plant: Plant) -> Table:
    """Return changes as a table for people; times as h:mm:ss.

    The factors come first; what tells the same under other names is left to JSON and CSV.
    """
    table = _table("revision", "why", "figure", "before", "after")
    for (*_, revision, why), of_one in groupby(rows, key=_revision):
        told = [row for row in of_one if not row["figure"].startswith(_SAME_AGAIN)]
        told.sort(key=lambda row: _FIRST.index(row["figure"]) if row["figure"] in _FIRST else len(_FIRST))
        for number, row in enumerate(told):
            place = (*_place(row, _zone(row, plant)), revision, plain(why))
            key = row["figure"]
            table.add_row(
                *(place if number == 0 else [""] * len(place)),
                key.removesuffix("_secs").replace("_", " "),
                *_before_and_after(key, row["before"], row["after"]),
                end_section=number == len(told) - 1,
            )
    return table


def _revision(row: Row) -> tuple[Any, ...]:
    return row["scope"], row["start"], row["revision"], row["why"]


def _before_and_after(key: str, before: Any, after: Any) -> tuple[str, str]:
    """Return two values as people read them; two ratios with as many decimals as tell them apart."""
    for decimals in range(2, 12):
        shown = _shown(key, before, decimals), _shown(key, after, decimals)
        if shown[0] != shown[1]:
            break
    return shown


def _table(*further: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    numbers = ("total", "OEE", "before", "after")
    for name in ("where", "date", "shift", "start", *further):
        table.add_column(name, no_wrap=True, justify="right" if name in numbers else "left")
    return table


def _shift(scope: str, figures: Row) -> Row:
    return {"scope": scope, **{key: figures[key] for key in ("production_date", "shift", "start")}}


def _place(row: Row, zone: tzinfo) -> Iterator[str]:
    yield from (row["scope"], row["production_date"] or _DASH, row["shift"], _local(row["start"], zone))


def _zone(row: Row, plant: Plant) -> tzinfo:
    return plant.sites[row["scope"].split("/")[0]].timezone


def _local(moment: str | None, zone: tzinfo) -> str:
    return _DASH if moment is None else f"{datetime.fromisoformat(moment).astimezone(zone):%Y-%m-%d %H:%M}"


def _shown(key: str, value: Any, decimals: int) -> str:
    if value is None:
        return _DASH
    if key in _RATIOS:
        return f"{value * 100:.{decimals}f} %"
    if key.endswith("_secs") or key.startswith(_OF_TIME):
        return clock(value)
    return f"{value:.{decimals}f}" if isinstance(value, float) else str(value)
