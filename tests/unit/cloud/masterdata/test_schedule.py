"""Shifts of single dates from a planning system: laid over the calendars before they begin, never after."""

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from cloud.masterdata.config import MasterDataTable
from cloud.masterdata.schedule import Schedule, entries_of, preview, scheduled
from cloud.oee.calendar import shifts_between
from cloud.plant import Plant
from tests.support.plants import only, plant, us
from tests.support.turns import HOUR, Turns

TWO_SHIFTS = """
shifts = [
  { name = "1", start = "06:00", end = "14:00", days = ["mon", "tue", "wed", "thu", "fri"] },
  { name = "2", start = "14:00", end = "22:00", days = ["mon", "tue", "wed", "thu", "fri"] },
]
exceptions = [ { date = 2021-06-30, shift = "2", start = "14:00", end = "20:00" } ]
"""
BASE = plant(TWO_SHIFTS)
HEAD = "ref,calendar,date,shift,start,end,crew,cancelled,deleted\n"
NOON = us("2021-06-28T12:00", "Europe/Berlin")  # a Monday, in its first shift


class Notes:
    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def note(self, name: str) -> bytes | None:
        return self.kept.get(name)

    def set_note(self, name: str, body: bytes) -> None:
        self.kept[name] = body


class Planning:
    """A folder with one file of rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes = Notes()
        self.now_us = NOON
        self.changes = 0
        self.table = MasterDataTable(name="mes", kind="shift", folder=folder)
        self.start()

    def start(self) -> None:
        self.schedule = Schedule(
            self.table,
            self.notes,
            base=lambda: BASE,
            plant=lambda: self.plant,
            changed=self._changed,
            now_us=lambda: self.now_us,
        )

    def _changed(self) -> None:
        self.changes += 1

    @property
    def plant(self) -> Plant:
        return scheduled(BASE, entries_of(self.notes, "mes").values())

    def says(self, *rows: str) -> str:
        (self.folder / "plan.csv").write_text(HEAD + "\n".join(rows) + "\n")
        return self.schedule.run()

    def shifts(self, day: str) -> list[tuple[str, str, str, str]]:
        zone = ZoneInfo("Europe/Berlin")
        found = shifts_between(only(self.plant), us(f"{day}T00:00"), us(f"{day}T23:00"))
        return [
            (
                window.name,
                *(
                    datetime.fromtimestamp(at / 1e6, zone).strftime("%H:%M")
                    for at in (window.start_us, window.end_us)
                ),
                window.crew,
            )
            for window in found
        ]


@pytest.fixture
def planning(tmp_path: Path) -> Planning:
    return Planning(tmp_path)


def test_shifts_are_cancelled_moved_and_added(planning: Planning) -> None:
    done = planning.says(
        "a,main,2021-06-29,1,,,,yes,",
        "b,,2021-06-29,2,15:00,23:30,B,,",
        "c,plant/main,2021-07-03,overtime,08:00:00,12:00:00,A,0,",
        "d,main,2021-06-30,2,14:00,21:00,,,",
    )
    assert done == "4 new"
    assert planning.shifts("2021-06-29") == [("2", "15:00", "23:30", "B")]
    assert planning.shifts("2021-07-03") == [("overtime", "08:00", "12:00", "A")]
    assert planning.shifts("2021-06-30") == [("1", "06:00", "14:00", ""), ("2", "14:00", "21:00", "")]
    assert planning.changes == 1
    assert planning.schedule.run() == ""


def test_what_is_changed_or_taken_back_before_it_begins_holds_no_more(planning: Planning) -> None:
    planning.says("a,,2021-06-29,1,,,,yes,", "b,,2021-07-03,overtime,08:00,12:00,,,")
    assert planning.says("a,,2021-06-29,1,07:00,13:00,,,", "b,,2021-07-03,overtime,08:00,12:00,,,yes") == (
        "1 changed, 1 taken back"
    )
    assert planning.shifts("2021-06-29")[0] == ("1", "07:00", "13:00", "")
    assert planning.shifts("2021-07-03") == []


def test_a_shift_that_has_begun_stays_what_it_is(planning: Planning) -> None:
    planning.says("a,,2021-06-29,1,07:00,13:00,,,")
    assert planning.says("b,,2021-06-28,1,,,,yes,", "c,,2021-06-28,extra,05:00,06:00,,,") == "2 refused"
    assert all("has begun" in row.problem for row in planning.schedule.refused())
    planning.now_us = us("2021-06-29T10:00", "Europe/Berlin")
    assert planning.says("a,,2021-06-29,1,07:00,13:00,,,yes") == "1 refused"
    planning.start()
    assert planning.shifts("2021-06-29")[0] == ("1", "07:00", "13:00", "")


def test_shifts_that_would_overlap_are_refused_until_there_is_room(planning: Planning) -> None:
    assert planning.says("a,,2021-06-29,1,06:00,15:00,,,", "b,,2021-06-29,2,15:00,22:00,,,") == (
        "1 new, 1 refused"
    )
    assert "overlaps" in planning.schedule.refused()[0].problem
    assert planning.schedule.run() == "1 new"
    assert [shift[1:3] for shift in planning.shifts("2021-06-29")] == [("06:00", "15:00"), ("15:00", "22:00")]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("a,none,2021-06-29,1,,,,yes,", "is 0 calendars"),
        ("a,,tomorrow,1,,,,yes,", "is not a date"),
        ("a,,9999-12-31,1,,,,yes,", "is not a date"),
        ("a,,0001-01-01,1,,,,yes,", "is not a date"),
        ("a,,2021-06-29,1,06:00,,,,", "alone"),
        ("a,,2021-06-29,9,,,,,", "say start and end"),
        ("a,,2021-06-29,1,6 o'clock,14:00,,,", "start: "),
        ("a,,,1,06:00,14:00,,,", "date is empty"),
    ],
)
def test_a_bad_row_is_refused_alone(planning: Planning, row: str, problem: str) -> None:
    assert planning.says(row, "b,,2021-07-03,overtime,08:00,12:00,,,") == "1 new, 1 refused"
    (refused,) = planning.schedule.refused()
    assert problem in refused.problem


def test_a_row_of_a_shift_that_is_long_over_is_passed_by_and_told_once(planning: Planning) -> None:
    old, new = "a,,2021-06-18,2,15:00,23:00,,,", "b,,2021-07-03,overtime,08:00,12:00,,,"
    assert planning.says(old, new) == "1 new, 1 passed by"
    assert planning.schedule.refused() == []
    assert planning.says(old, new) == ""
    assert planning.says(old, new, "c,,2021-01-05,1,,,,yes,") == "2 passed by"
    outcome = preview(planning.table, planning.notes, BASE, NOON)
    assert [row.ref for row in outcome.passed] == ["a", "c"]
    assert "over 7 days ago" in outcome.passed[0].problem


def test_a_preview_changes_nothing(planning: Planning) -> None:
    (planning.folder / "plan.csv").write_text(HEAD + "a,,2021-06-29,1,,,,yes,\n")
    outcome = preview(planning.table, planning.notes, BASE, NOON)
    assert [change.ref for change in outcome.changes] == ["a"]
    assert planning.shifts("2021-06-29")[0][0] == "1"


def test_the_service_works_by_the_schedule_over_restarts_and_changes_of_the_plant(tmp_path: Path) -> None:
    start = datetime(2021, 6, 28, 6, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    folder = tmp_path / "cloud"
    (folder / "plan").mkdir(parents=True)
    (folder / "masterdata.toml").write_text('[[source]]\nname = "mes"\nkind = "shift"\nfolder = "plan"\n')
    turns = Turns(folder, "", now=start, masterdata="masterdata.toml")
    (folder / "plan" / "p.csv").write_text(HEAD + "a,,2021-06-28,2,14:00,18:00,,,\n")
    turns.sync()
    for minute in range(0, 17 * 60, 10):
        turns.say("berlin/packaging/line-1/filler-1", start + minute * 60, minute)
    turns.restart()
    (folder / "plant.toml").touch()
    assert turns.cloud._take_changed(turns.cloud._plant_file)
    closed = turns.close(start + 13 * HOUR)
    spans = [(shift.end_us - shift.start_us) / 3.6e9 for shift in closed if shift.scope.endswith("filler-1")]
    assert spans == [8.0, 4.0]
    turns.stop()
