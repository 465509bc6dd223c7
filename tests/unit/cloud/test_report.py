"""Reports from the store are the figures that files give, and closed shifts as they were kept."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cloud import commands_report, commands_work
from cloud import plant as plants
from cloud.closing import Closing
from cloud.compute import compute
from cloud.errors import CloudError
from cloud.evaluation import Evaluation
from cloud.oee.figures import iso_utc
from cloud.plant import Plant
from cloud.report import differences, history, last_days, report
from cloud.revision_report import difference_table
from cloud.store.port import Arrivals
from cloud.store.sqlite import SqliteStore
from contract.states import MachineState
from contract.telemetry import Telemetry, encode

PLANT = """
[site]
name = "berlin"
timezone = "Europe/Berlin"

[calendar.three-shift]
shifts = [
  { name = "1", start = "06:00", end = "14:00", breaks = [ { start = "10:00", minutes = 30 } ] },
  { name = "2", start = "14:00", end = "22:00" },
  { name = "3", start = "22:00", end = "06:00" },
]

[[machine]]
area = "packaging"
line = "line-1"
name = "filler-1"
calendar = "three-shift"
ideal_run_rate = 60.0

[[machine]]
area = "packaging"
line = "line-1"
name = "capper-1"
calendar = "three-shift"
ideal_run_rate = 50.0
"""
T0 = int(datetime(2021, 6, 30, 4, tzinfo=UTC).timestamp())
"""06:00 in Berlin: a shift begins."""
HOUR, SEC = 3600, 1_000_000
SCOPE = "berlin/packaging/line-1/filler-1"
END = date(2021, 7, 2)
UNSAID = {"since": None, "until": None}


def telemetry() -> list[Telemetry]:
    records = []
    for number, machine in enumerate(("filler-1", "capper-1")):
        total = 0
        for second in range(0, 48 * HOUR + 1, 10):
            stands = (second // 900 + number) % 7 == 0
            total += 0 if stands else 9
            records.append(
                Telemetry(
                    epochtime=float(T0 + second),
                    site="berlin",
                    area="packaging",
                    line="line-1",
                    machine=machine,
                    state=MachineState.STOPPED if stands else MachineState.RUNNING,
                    gateway="gw",
                    sequence=number * 10**6 + second,
                    total_units=total,
                    off_quality_units=second // 1000,
                )
            )
    return records


@pytest.fixture(scope="module")
def records() -> list[Telemetry]:
    return telemetry()


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    (tmp_path / "plant.toml").write_text(PLANT)
    return plants.load(tmp_path / "plant.toml")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    (tmp_path / "store").mkdir()
    opened = SqliteStore(tmp_path / "store" / "store.sqlite3")
    yield opened
    opened.close()


def close(plant: Plant, store: SqliteStore, now: int) -> None:
    closing = Closing(Evaluation(plant, store), grace_us=0, settle_us=0)
    while not closing.step(now * SEC).is_done:
        pass


NOW = T0 + 60 * HOUR


@pytest.mark.parametrize("per", ["shift", "hour", "day", "week", "month", "range", "crew", "product"])
@pytest.mark.parametrize("level", ["machine", "line", "site"])
def test_the_store_gives_the_figures_of_the_files(
    tmp_path: Path, plant: Plant, store: SqliteStore, records: list[Telemetry], per: str, level: str
) -> None:
    path = tmp_path / "telemetry.jsonl"
    path.write_bytes(b"\n".join(map(encode, records)))
    store.append(Arrivals(records))
    span = {"since": date(2021, 6, 30), "until": END, "per": per, "level": level}
    from_store = report(plant, store, now_us=NOW * SEC, **span)
    from_files = compute(plant, [path], **span).figures
    assert from_store
    assert [row.to_dict() for row in from_store] == [row.to_dict() for row in from_files]


def test_nothing_that_is_still_to_come_is_reported(
    plant: Plant, store: SqliteStore, records: list[Telemetry]
) -> None:
    store.append(Arrivals([item for item in records if item.epochtime <= T0 + 10 * HOUR]))
    rows = report(
        plant, store, since=date(2021, 6, 30), until=END, now_us=(T0 + 10 * HOUR) * SEC, level="line"
    )
    assert [(row.window.shift, row.to_dict()["calendar_secs"]) for row in rows] == [
        ("1", 16 * HOUR),
        ("2", 4 * HOUR),
    ]
    with pytest.raises(CloudError, match="still to come"):
        report(plant, store, since=END, until=date(2021, 7, 3), now_us=T0 * SEC)


def test_closed_shifts_are_reported_as_they_were_kept(
    tmp_path: Path, plant: Plant, store: SqliteStore, records: list[Telemetry]
) -> None:
    store.append(Arrivals(records))
    close(plant, store, NOW)
    (tmp_path / "plant.toml").write_text(PLANT.replace("60.0", "120.0"))
    changed = plants.load(tmp_path / "plant.toml")
    span = {"since": date(2021, 6, 30), "until": END, "now_us": NOW * SEC}
    before = [row.to_dict() for row in report(plant, store, **span)]
    after = [row.to_dict() for row in report(changed, store, **span)]
    assert after == before
    days = [row.to_dict() for row in report(changed, store, per="day", **span)]
    assert days[0]["performance"] < 0.7


def test_revisions_their_history_and_what_they_changed(
    plant: Plant, store: SqliteStore, records: list[Telemetry]
) -> None:
    late = {
        item.sequence
        for item in records
        if item.machine == "filler-1" and 2 * HOUR <= item.epochtime - T0 < 3 * HOUR
    }
    store.append(Arrivals([item for item in records if item.sequence not in late]))
    close(plant, store, NOW)
    store.append(Arrivals([item for item in records if item.sequence in late]))
    close(plant, store, NOW + 60)
    span = (date(2021, 6, 30), END)
    shifts = {shift.scope: shift for shift in list(history(plant, store, *span, "machine"))[::-1]}
    assert [each.revision for each in shifts[SCOPE].revisions] == [1, 2]
    found = [item for item in differences(history(plant, store, *span, "machine")) if item.changes]
    assert [item.scope for item in found] == [SCOPE]
    changed = {key: (before, after) for key, before, after in found[0].changes}
    assert changed["unknown_secs"][0] > 3000
    assert changed["unknown_secs"][1] == 0
    assert "losses.no_data" in changed
    assert "revision" not in changed
    first = report(plant, store, since=span[0], until=span[1], now_us=NOW * SEC, revision=1)
    second = report(plant, store, since=span[0], until=span[1], now_us=NOW * SEC, revision=2)
    assert len(first) == 12
    assert [row.to_dict()["shift"] for row in second] == ["1"]
    with pytest.raises(CloudError, match="revisions"):
        report(plant, store, since=span[0], until=span[1], now_us=NOW * SEC, per="day", revision=1)


@pytest.mark.parametrize("level", ["machine", "line"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"06:00"', '"05:00"'),
        ('calendar = "three-shift"', 'calendar = "day"'),
        ('name = "capper-1"', 'name = "capper-2"'),
    ],
)
def test_closed_shifts_stay_when_their_calendar_or_their_machine_is_another(
    plant: Plant, store: SqliteStore, records: list[Telemetry], level: Any, old: str, new: str
) -> None:
    """They stand in the report as they were kept, and no windows of the new calendar beside them."""
    store.append(Arrivals(records))
    close(plant, store, NOW)
    span = {"since": date(2021, 6, 30), "until": date(2021, 7, 1), "now_us": NOW * SEC, "level": level}
    before = [row.to_dict() for row in report(plant, store, **span)]
    day = '[calendar.day]\nshifts = [ { name = "d", start = "07:00", end = "19:00" } ]\n'
    changed = plants.loads(PLANT.replace(old, new) + day)
    rows = [row for row in report(changed, store, **span) if row.to_dict().get("machine") != "capper-2"]
    found = [row.to_dict() for row in rows if row.window.shift is not None]
    assert sorted(found, key=str) == sorted(before, key=str)
    for row in rows:
        assert (iso_utc(row.window.start_us), iso_utc(row.window.end_us)) == (
            row.to_dict()["start"],
            row.to_dict()["end"],
        )
    assert len(list(history(changed, store, span["since"], span["until"], level))) == len(before)


def test_by_default_yesterday_and_today_are_reported(plant: Plant) -> None:
    just_after_midnight = int(datetime(2021, 6, 30, 22, 30, tzinfo=UTC).timestamp()) * SEC
    assert last_days(plant, just_after_midnight) == (date(2021, 6, 30), date(2021, 7, 2))


def test_the_command_prints_every_form(
    tmp_path: Path,
    plant: Plant,
    store: SqliteStore,
    records: list[Telemetry],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "cloud.toml"
    config.write_text('[cloud]\ndata_dir = "store"\n')
    store.append(Arrivals(records))
    close(plant, store, NOW)
    capsys.readouterr()
    span = {"since": "2021-06-30", "until": "2021-07-02"}
    assert commands_report.report(config, **span, form="json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 12
    assert commands_report.report(config, **span, form="csv", level="line") == 0
    assert len(capsys.readouterr().out.splitlines()) == 7
    assert commands_report.report(config, **span) == 0
    assert "filler-1" in capsys.readouterr().out
    assert commands_report.report(config, **span, history=True, form="json") == 0
    assert {row["why"] for row in json.loads(capsys.readouterr().out)} == {"shift ended"}
    assert commands_report.report(config, **span, diff=True) == 0
    capsys.readouterr()
    assert commands_report.report(config, since="tomorrow") == 2
    assert "neither a date" in capsys.readouterr().err
    assert commands_report.report(tmp_path / "none.toml") == 2
    assert commands_work.jobs(config) == 0
    assert "history" in capsys.readouterr().out


def test_people_read_revisions_in_local_time_percent_and_hours(
    tmp_path: Path,
    plant: Plant,
    store: SqliteStore,
    records: list[Telemetry],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "cloud.toml"
    config.write_text('[cloud]\ndata_dir = "store"\n')
    late = [item for item in records if 2 * HOUR <= item.epochtime - T0 < 3 * HOUR]
    store.append(Arrivals([item for item in records if item not in late]))
    close(plant, store, NOW)
    store.append(Arrivals(late))
    close(plant, store, NOW + 60)
    span = {"since": "2021-06-30", "until": "2021-07-01", "level": "line"}
    capsys.readouterr()
    assert commands_report.report(config, **span, history=True) == 0
    shown = capsys.readouterr().out
    assert "berlin/packaging/line-1" in shown
    assert "2021-06-30 06:00" in shown
    assert "late data" in shown
    assert "after the lock" not in shown
    assert commands_report.report(config, **span, diff=True) == 0
    shown = capsys.readouterr().out
    assert "1 → 2" in shown
    assert re.search(r"unknown +1:\d\d:\d\d +0:00:00", shown)
    assert re.search(r"availability +\d+\.\d\d % +\d+\.\d\d %", shown)
    assert shown.index(" availability ") < shown.index(" performance ") < shown.index(" unknown ")
    assert "iso22400" not in shown
    assert shown.count("1 → 2") == 1


def test_two_ratios_that_differ_never_read_the_same(plant: Plant) -> None:
    shift = {"scope": SCOPE, "production_date": "2021-06-30", "shift": "1", "start": "2021-06-30T04:00:00Z"}
    row = {**shift, "revision": "1 → 2", "why": "late data"}
    rows = [{**row, "figure": "quality", "before": 0.9966170, "after": 0.9966182}]
    console = Console(width=200)
    with console.capture() as shown:
        console.print(difference_table(rows, plant))
    assert "99.6617 %   99.6618 %" in shown.get()


def test_one_shift_and_one_place_are_shown_alone(
    tmp_path: Path,
    plant: Plant,
    store: SqliteStore,
    records: list[Telemetry],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "cloud.toml"
    config.write_text('[cloud]\ndata_dir = "store"\n')
    late = [item for item in records if 2 * HOUR <= item.epochtime - T0 < 3 * HOUR]
    store.append(Arrivals([item for item in records if item not in late]))
    close(plant, store, NOW)
    store.append(Arrivals(late))
    close(plant, store, NOW + 60)
    capsys.readouterr()

    def shown(**asked: Any) -> list[Any]:
        assert commands_report.report(config, form="json", **asked) == 0
        found: list[Any] = json.loads(capsys.readouterr().out)
        return found

    one: dict[str, Any] = {"shift": "2021-06-30/1", "place": SCOPE}
    assert [(row["machine"], row["shift"]) for row in shown(**one)] == [("filler-1", "1")]
    assert [row["revision"] for row in shown(**one, history=True)] == [1, 2]
    assert {row["scope"] for row in shown(**one, diff=True)} == {SCOPE}
    line = shown(shift="2021-06-30/1", place="berlin/packaging/", level="line", history=True)
    assert {row["scope"] for row in line} == {"berlin/packaging/line-1"}
    assert len(shown(shift="2021-06-30/1")) == 2


def test_history_and_report_mean_the_same_shifts_where_nights_belong_to_the_next_day(
    tmp_path: Path, store: SqliteStore, records: list[Telemetry]
) -> None:
    path = tmp_path / "nights.toml"
    path.write_text(PLANT + '[definitions]\nproduction_date = "next_day"\n')
    plant = plants.load(path)
    store.append(Arrivals(records))
    close(plant, store, NOW)
    span = {"since": date(2021, 7, 1), "until": date(2021, 7, 2)}
    reported = [row.to_dict()["start"] for row in report(plant, store, **span, now_us=NOW * SEC)]
    revised = [
        each.revisions[-1].figures["start"] for each in history(plant, store, *span.values(), "machine")
    ]
    assert revised == reported
    assert revised[0] == "2021-06-30T20:00:00Z"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"revision": 9}, "no shift from 2021-06-30 until 2021-07-02 has a revision 9"),
        ({"history": True, "level": "site"}, "only shifts of machines and lines are closed and revised"),
        ({"since": "2999-01-01", "until": "2999-01-02"}, "still to come"),
        ({"since": "2999-01-01", "until": None}, "still to come"),
        ({"since": "2021-07-02", "until": "2021-07-01"}, "the end is not after the beginning"),
        ({"history": True, "diff": True}, "say either --history or --diff"),
        ({"diff": True, "per": "week"}, "only shifts are revised: --diff goes with --by shift"),
        ({"history": True, "revision": 1}, "--history shows all revisions: leave --revision out"),
        ({"place": "berlin/packing"}, "berlin/packing is not in the plant; berlin has: packaging"),
        ({"place": "rome"}, "rome is not in the plant; there is: berlin"),
        ({"place": f"{SCOPE}/x"}, f"{SCOPE} has: nothing below"),
        ({"place": SCOPE, "level": "line"}, f"{SCOPE} lies below a line: use --level machine"),
        ({"shift": "2021-06-30/1"}, "say either --shift or --from and --to"),
        ({"shift": "2021-06-30/9"} | UNSAID, "2021-06-30 has no shift '9'; there are: 1, 2"),
        ({"shift": "2021-06-30"} | UNSAID, "'2021-06-30' names no shift: such as 2021-06-30/1"),
        ({"shift": "2021-06-30/2", "diff": True} | UNSAID, "no shift 2021-06-30/2 is closed"),
        ({"shift": "2021-06-30/1", "per": "day"} | UNSAID, "--shift goes with --by shift"),
        (
            {"shift": "2021-06-30/1", "revision": 9, "place": SCOPE} | UNSAID,
            f"no shift 2021-06-30/1 has a revision 9 at {SCOPE}: see --history",
        ),
    ],
)
def test_what_there_is_not_is_told(
    tmp_path: Path,
    plant: Plant,
    store: SqliteStore,
    records: list[Telemetry],
    capsys: pytest.CaptureFixture[str],
    asked: dict[str, Any],
    said: str,
) -> None:
    config = tmp_path / "cloud.toml"
    config.write_text('[cloud]\ndata_dir = "store"\n')
    store.append(Arrivals(records[:2000]))
    close(plant, store, T0 + 9 * HOUR)
    assert commands_report.report(config, **{"since": "2021-06-30", "until": "2021-07-02", **asked}) == 2
    assert said in capsys.readouterr().err
