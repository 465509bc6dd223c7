"""Sites of several time zones in one plant: a date is each site's own day."""

import io
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cloud import commands_files, questions
from cloud import plant as plants
from cloud.compute import compute
from cloud.oee.figures import Figures
from cloud.plant import Plant
from cloud.render import print_table
from cloud.report import last_days, report
from cloud.store.port import Arrivals
from cloud.store.sqlite import SqliteStore
from contract.states import MachineState
from contract.telemetry import Telemetry, encode
from tests.support.plants import THREE_SHIFTS, plant_text, us

ZONES = {"berlin": "Europe/Berlin", "tokyo": "Asia/Tokyo", "york": "America/New_York"}
DAY, NEXT = date(2021, 6, 30), date(2021, 7, 1)
SEC = 1_000_000


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    folder = tmp_path / "plants"
    folder.mkdir()
    for site, zone in ZONES.items():
        text = plant_text(THREE_SHIFTS, zone=zone, top="[definitions]\nmax_gap_secs = 3600")
        (folder / f"{site}.toml").write_text(text.replace('name = "plant"', f'name = "{site}"'))
    return plants.load(folder)


def telemetry() -> list[Telemetry]:
    """Return three days of a machine of each site that makes a unit a minute."""
    begin = us("2021-06-29T00:00") // SEC
    return [
        Telemetry(
            epochtime=float(begin + minute * 60),
            site=site,
            area="packaging",
            line="line-1",
            machine="filler-1",
            state=MachineState.RUNNING,
            gateway=site,
            sequence=minute + 1,
            total_units=minute,
        )
        for site in ZONES
        for minute in range(0, 3 * 1440 + 1, 30)
    ]


def rows_of(
    way: str, plant: Plant, folder: Path, since: Any, until: Any, per: Any = "shift", level: Any = "machine"
) -> list[Figures]:
    if way == "files":
        path = folder / "telemetry.jsonl"
        path.write_bytes(b"\n".join(map(encode, telemetry())))
        return compute(plant, [path], since=since, until=until, per=per, level=level).figures
    with closing(SqliteStore(folder / "store")) as store:
        store.append(Arrivals(telemetry()))
        now_us = us("2021-07-03T00:00")
        return report(plant, store, since=since, until=until, now_us=now_us, per=per, level=level)


@pytest.mark.parametrize("way", ["files", "store"])
def test_a_date_is_each_sites_own_day(way: str, plant: Plant, tmp_path: Path) -> None:
    rows = rows_of(way, plant, tmp_path, DAY, NEXT)
    assert [(row.place.site, row.window.shift) for row in rows] == [(s, n) for s in ZONES for n in "123"]
    starts = {row.place.site: row.window.start_us for row in rows if row.window.shift == "1"}
    assert starts == {site: us("2021-06-30T06:00", zone) for site, zone in ZONES.items()}
    whole = rows_of(way, plant, tmp_path, DAY, NEXT, per="range", level="site")
    assert {row.place.site: row.window.start_us for row in whole} == {
        site: us("2021-06-30T00:00", zone) for site, zone in ZONES.items()
    }
    assert {row.to_dict()["total_units"] for row in whole} == {1440}


@pytest.mark.parametrize("way", ["files", "store"])
def test_a_local_moment_is_each_sites_own(way: str, plant: Plant, tmp_path: Path) -> None:
    since, until = datetime(2021, 6, 30, 6), datetime(2021, 6, 30, 14)  # noqa: DTZ001
    rows = rows_of(way, plant, tmp_path, since, until)
    assert [(row.place.site, row.window.shift) for row in rows] == [(site, "1") for site in ZONES]


def test_pages_ask_for_each_sites_days(plant: Plant, tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "store")) as store:
        store.append(Arrivals(telemetry()))
        span = {
            "from_us": us("2021-06-30T00:00", "Asia/Tokyo"),
            "to_us": us("2021-07-01T00:00", "Asia/Tokyo"),
        }
        rows = questions.figures(plant, store, us("2021-07-03T00:00"), every="day", level="site", **span)
    days = {(row["site"], row["production_date"]) for row in rows}
    assert ("tokyo", "2021-06-30") in days
    assert ("tokyo", "2021-06-29") not in days
    assert {("york", "2021-06-29"), ("york", "2021-06-30")} <= days


def test_people_read_each_site_in_its_own_time(plant: Plant, tmp_path: Path) -> None:
    shown = Console(file=io.StringIO(), width=240)
    print_table(rows_of("files", plant, tmp_path, DAY, NEXT), shown, plant)
    assert shown.file.getvalue().count("2021-06-30 06:00 - 14:00") == 3


def test_yesterday_and_today_are_those_of_any_site(plant: Plant) -> None:
    assert last_days(plant, us("2021-06-30T16:00")) == (date(2021, 6, 29), date(2021, 7, 2))


def test_the_calendar_lists_each_sites_own_day(
    plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "plants"
    assert commands_files.calendar(folder, since="2021-06-30", until="2021-07-01", form="csv") == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == 9
    assert sum("2021-06-30T06:00:00+09:00" in line for line in lines) == 1
    only = "tokyo/packaging/line-1/filler-1"
    assert (
        commands_files.calendar(folder, since="2021-06-30", until="2021-07-01", machine=only, form="csv") == 0
    )
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert commands_files.calendar(folder, since="2021-07-01", until="2021-06-30") == 2
    assert "not after the beginning" in capsys.readouterr().err
    assert commands_files.calendar(folder, machine="tokyo/packaging/line-1/none") == 2
    assert "is not in the plant" in capsys.readouterr().err
