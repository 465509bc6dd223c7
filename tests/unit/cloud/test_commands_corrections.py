"""`oee corrections ...` beside a service: through its store alone."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from cloud import commands_corrections as commands
from cloud import plant as plants
from cloud.clock import clock_us
from cloud.commands import import_telemetry
from cloud.commands_corrections import Amounts, Span
from cloud.compute import compute
from cloud.config import load
from cloud.correcting import Corrections
from cloud.errors import CorrectionError
from cloud.oee.corrections import Correction
from cloud.opening import open_store
from cloud.report import report
from cloud.service import Cloud
from cloud.store.sqlite import SqliteStore

PLANT = """
[site]
name = "berlin"
timezone = "Europe/Berlin"
[definitions]
max_gap_secs = 86400
lock_after_days = {lock}
[calendar.days]
shifts = [
  {{ name = "1", start = "06:00", end = "14:00" }},
  {{ name = "2", start = "14:00", end = "22:00" }},
]
[reason.jam]
name = "Jam"
category = "breakdown"
[[machine]]
area = "packaging"
line = "line-1"
name = "filler-1"
calendar = "days"
ideal_run_rate = 60.0
"""
FILLER = "berlin/packaging/line-1/filler-1"
SIX = 1625025600
"""06:00 in Berlin on 30 June 2021."""
HOUR = 3600
STOP = Span("2021-06-30T07:00", "2021-06-30T08:00")


def record(sequence: int, at: int, state: str, total: int) -> str:
    place = {"site": "berlin", "area": "packaging", "line": "line-1", "machine": "filler-1"}
    told = {"epochtime": at, "state": state, "total_units": total, "gateway": "gw", "sequence": sequence}
    return json.dumps(place | told)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A shift of 30 June 2021 that stood from 07:00 to 08:00, in a store."""
    (tmp_path / "plant.toml").write_text(PLANT.format(lock=0))
    path = tmp_path / "cloud.toml"
    path.write_text('[cloud]\ndata_dir = "store"\nplant = "plant.toml"\nrevision_settle_secs = 0\n')
    records = [
        record(1, SIX, "running", 0),
        record(2, SIX + HOUR, "stopped", 3600),
        record(3, SIX + 2 * HOUR, "running", 3600),
        record(4, SIX + 9 * HOUR, "running", 28_800),
    ]
    (tmp_path / "day.jsonl").write_text("\n".join(records))
    assert import_telemetry([tmp_path / "day.jsonl"], path) == 0
    return path


@pytest.fixture
def store(config: Path) -> Iterator[SqliteStore]:
    opened = open_store(load(config))
    yield opened
    opened.close()


def add(config: Path, kind: str, span: Span, **said: object) -> int:
    return commands.add(config, kind, FILLER, span, Amounts(**said), why="seen", by="Ana")  # type: ignore[arg-type]


def test_what_is_said_beside_a_service_is_in_its_figures_and_in_revisions(
    config: Path, store: SqliteStore
) -> None:
    settings = load(config)
    now_us = (SIX + 50 * HOUR) * 1_000_000
    cloud = Cloud(settings, plants.load(settings.cloud.plant), store, now_us=lambda: now_us)
    cloud._present.look()
    (first,) = cloud.revisions(FILLER, SIX * 1_000_000)
    assert first.figures["losses"]["other_stop"] == HOUR
    assert add(config, "classify", STOP, reason="jam") == 0
    cloud._present.look()
    last = cloud.revisions(FILLER, SIX * 1_000_000)[-1]
    assert (last.revision, last.why) == (2, "classify by Ana")
    assert last.figures["losses"]["breakdown"] == HOUR
    (kept,) = cloud.corrections()
    assert (kept.who, kept.why, kept.reason) == ("Ana", "seen", "jam")
    assert clock_us() - kept.when_us < 60_000_000
    assert commands.take_back(config, kept.number, why="it was not", by="Ben") == 0
    cloud._present.look()
    again = cloud.revisions(FILLER, SIX * 1_000_000)[-1]
    assert again.why == "correction taken back by Ben"
    assert again.figures == first.figures | {"revision": 3}


def test_the_running_shift_hears_of_it_too(config: Path, store: SqliteStore) -> None:
    settings = load(config)
    now_us = (SIX + 9 * HOUR) * 1_000_000  # in the second shift, which has run for an hour
    cloud = Cloud(settings, plants.load(settings.cloud.plant), store, now_us=lambda: now_us)
    span = Span("2021-06-30T14:00", "2021-06-30T15:00")
    assert add(config, "off_quality", span, units=12) == 0
    cloud._present.look()
    assert cloud.board().lines[0].machines[0].off_quality_units == 12


def test_a_shift_can_be_named_instead_of_moments(config: Path, store: SqliteStore) -> None:
    assert add(config, "off_quality", Span(shift="2021-06-30/1"), units=120) == 0
    ((_, text),) = store.corrections()
    found = json.loads(text)
    assert (found["from_us"], found["to_us"]) == (SIX * 1_000_000, (SIX + 8 * HOUR) * 1_000_000)
    plant = plants.load(config.with_name("plant.toml"))
    day = {"since": date(2021, 6, 30), "until": date(2021, 7, 1), "now_us": clock_us()}
    row = report(plant, store, **day)[0].to_dict()  # type: ignore[arg-type]
    assert row["off_quality_units"] == 120


@pytest.mark.parametrize(
    ("kind", "span", "said", "told"),
    [
        ("classify", STOP, {"reason": "fire"}, "'fire' is not a reason of the plant: jam"),
        ("classify", Span("2021-06-30T07:00"), {"reason": "jam"}, "--from and --to, or --shift such as"),
        ("comment", Span(), {}, "say of which time"),
        ("off_quality", Span(*STOP[:2], shift="2021-06-30/1"), {"units": 1}, "either --shift or --from"),
        ("off_quality", Span(shift="2021-06-30/3"), {"units": 1}, "no shift '3' on 2021-06-30; there are: 1"),
        ("off_quality", Span(shift="1"), {"units": 1}, "'1' is neither a date"),
        ("off_quality", Span(shift="2021-06-30"), {"units": 1}, "names no shift"),
        ("off_quality", STOP, {}, "needs the number of units"),
        ("planned_stop", Span("2021-06-30T23:00", "2021-06-30T23:30"), {}, "no shift in this range"),
        ("comment", Span("0001-01-01", "2021-07-01"), {}, "neither a date"),
        ("ideal_rate", STOP, {"rate": float("nan")}, "needs the rate"),
        ("order", STOP, {"order": "x" * 300}, "length <= 256"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_and_leaves_nothing(
    config: Path,
    store: SqliteStore,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    span: Span,
    said: dict[str, object],
    told: str,
) -> None:
    assert add(config, kind, span, **said) == 2
    assert told in capsys.readouterr().err
    assert store.corrections() == []


def test_a_locked_period_stays_as_it_is(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.with_name("plant.toml").write_text(PLANT.format(lock=7))
    assert add(config, "classify", STOP, reason="jam") == 2
    assert "shift 1 of 2021-06-30 is locked" in capsys.readouterr().err


def test_of_two_that_say_two_things_at_once_one_is_refused(
    config: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second was judged before the first was kept: it is judged again."""
    plant = plants.load(config.with_name("plant.toml"))
    from_us, to_us = (SIX + HOUR) * 1_000_000, (SIX + 2 * HOUR) * 1_000_000
    mine = Correction(
        machine=FILLER, kind="classify", from_us=from_us, to_us=to_us, who="Ben", when_us=0, reason="jam"
    )
    made = Corrections(store, plant=lambda: plant, now_us=clock_us)
    plain_all = made.all

    def all_but_the_last() -> list[Correction]:
        monkeypatch.setattr(made, "all", plain_all)
        before = plain_all()
        assert add(config, "classify", STOP, reason="jam") == 0
        return before

    monkeypatch.setattr(made, "all", all_but_the_last)
    with pytest.raises(CorrectionError, match=r"overlaps correction 1 .*by Ana"):
        made.correct(mine)
    assert len(store.corrections()) == 1


def test_the_list_is_what_compute_reads(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(config, "classify", STOP, reason="jam")
    add(config, "comment", Span("2021-06-30T07:30"))
    capsys.readouterr()
    assert commands.show(config, form="json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [item["kind"] for item in said] == ["classify", "comment"]
    found = compute(
        plants.load(config.with_name("plant.toml")),
        [tmp_path / "day.jsonl"],
        corrections=[Correction(**item) for item in said],
    ).figures[0]
    assert found.to_dict()["losses"]["breakdown"] == HOUR


def test_the_list_is_of_a_place_and_a_time_and_keeps_what_was_taken_back(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(config, "classify", STOP, reason="jam")
    commands.take_back(config, 1, why="no [red]jam[/]\x1b[2J", by="Ben")

    def shown(**asked: object) -> str:
        capsys.readouterr()
        assert commands.show(config, **asked) == 0  # type: ignore[arg-type]
        return capsys.readouterr().out

    assert shown() == "nothing was corrected\n"
    table = shown(past=True)
    assert "takes 1 back" in table
    assert "[red]" in table
    assert "\x1b" not in table
    assert "classify jam" in shown(past=True, place="berlin/packaging/line-1", form="csv")
    assert shown(past=True, place="berlin/pack") == "nothing was corrected\n"
    assert shown(past=True, since="2021-07-01") == "nothing was corrected\n"
    assert shown(past=True, until="2021-06-30") == "nothing was corrected\n"
    assert shown(past=True, since="2021-06-30T07:59", until="2021-06-30T08:30") == table


def test_only_what_is_in_force_is_taken_back(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(config, "classify", STOP, reason="jam")
    assert commands.take_back(config, 9, why="?", by="Ana") == 2
    assert "there is no correction 9" in capsys.readouterr().err
    assert commands.take_back(config, 1, why="no", by="Ana") == 0
    assert commands.take_back(config, 1, why="no", by="Ana") == 2
    assert "taken back before" in capsys.readouterr().err
