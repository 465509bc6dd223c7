"""The list of shifts that `oee calendar` prints."""

import csv
import io
import json

import pytest
from rich.console import Console

from cloud.calendar_report import calendar_rows, calendar_table, render_calendar
from cloud.errors import UnknownMachineError
from cloud.plant import Plant, loads
from contract.machine_key import MachineKey
from tests.support.plants import plant_text, us

CALENDAR = """
shifts = [
  { name = "1", start = "06:00", end = "14:00", breaks = [ { start = "10:00", minutes = 30 } ] },
  { name = "3", start = "22:00", end = "06:00" },
]
rotation = { crews = ["A", "B"], pattern = "13", from = 2021-01-04 }
exceptions = [ { date = 2021-03-28, shift = "1", cancelled = true },
               { date = 2021-03-28, shift = "x", start = "10:00", end = "12:00" } ]
planned_stops = [ { start = "2021-03-27T09:00", minutes = 60, machines = ["b"] } ]
"""
START, END = us("2021-03-27", "Europe/Berlin"), us("2021-03-29", "Europe/Berlin")


def factory() -> Plant:
    return loads(plant_text(CALENDAR, machines=("a", "b", "c")))


def test_machines_that_agree_in_a_shift_share_its_row() -> None:
    rows = calendar_rows(factory(), START, END)
    assert [(row.shift, row.planned_minutes, len(row.machines)) for row in rows] == [
        ("1", 450, 2),
        ("1", 390, 1),
        ("3", 420, 3),
        ("x", 120, 3),
        ("3", 480, 3),
    ]
    assert rows[1].machines == ("packaging/line-1/b",)


def test_a_row_says_local_times_with_their_offset() -> None:
    night = calendar_rows(factory(), START, END)[2]
    assert (night.start, night.end) == ("2021-03-27T22:00:00+01:00", "2021-03-28T06:00:00+02:00")
    assert (night.production_date, night.crew, night.shift_minutes) == ("2021-03-27", "B", 420)


def test_only_shifts_that_start_in_the_range_are_listed() -> None:
    rows = calendar_rows(factory(), us("2021-03-27T23:00"), us("2021-03-28T08:00"))
    assert rows == []


def test_single_machines_can_be_asked_for() -> None:
    found = factory()
    rows = calendar_rows(found, START, END, [MachineKey("plant", "packaging", "line-1", "b")])
    assert {row.machines for row in rows} == {("packaging/line-1/b",)}
    with pytest.raises(UnknownMachineError):
        calendar_rows(found, START, END, [MachineKey("plant", "packaging", "line-1", "z")])


def test_json_holds_every_column() -> None:
    rows = calendar_rows(factory(), START, END)
    found = json.loads(render_calendar(rows, "json"))
    assert found[0]["break_minutes"] == 30
    assert found[0]["machines"] == ["packaging/line-1/a", "packaging/line-1/c"]


def test_csv_holds_every_row() -> None:
    rows = calendar_rows(factory(), START, END)
    found = list(csv.DictReader(io.StringIO(render_calendar(rows, "csv"))))
    assert [row["shift"] for row in found] == ["1", "1", "3", "x", "3"]
    assert found[0]["machines"] == "packaging/line-1/a packaging/line-1/c"


def test_the_table_marks_what_differs_from_the_ordinary_week() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(calendar_table(calendar_rows(factory(), START, END)))
    text = console.export_text()
    assert "x *" in text
    assert "Sun 28 Mar 10:00" in text
    assert "* differs from the ordinary week" in text
    assert "crew -: none is planned" in text
    for heading in ("length [min]", "breaks [min]", "planned [min]"):
        assert heading in text
