"""`oee alerts ...` beside a service: through its store alone."""

from pathlib import Path

import pytest

from cloud import commands_alerts as commands
from cloud.store.sqlite import SqliteStore
from cloud.views import AlertView, ChannelView

PLANT = """
[site]
name = "berlin"
timezone = "Europe/Berlin"
[calendar.days]
shifts = [ { name = "1", start = "06:00", end = "14:00" } ]
[[machine]]
area = "packaging"
line = "line-1"
name = "filler-1"
calendar = "days"
ideal_run_rate = 60.0
"""
ALERTS = """
[[rule]]
name = "stands"
kind = "idle"
machines = ["capper-*"]
escalate = [{ after_secs = 60, level = 2 }]
[[channel]]
name = "hook"
kind = "apprise"
url = "json://127.0.0.1"
shifts = ["night"]
"""
LINE = "berlin/packaging/line-1"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "plant.toml").write_text(PLANT)
    (tmp_path / "alerts.toml").write_text(ALERTS)
    path = tmp_path / "cloud.toml"
    path.write_text('[cloud]\ndata_dir = "store"\nplant = "plant.toml"\nalerts = "alerts.toml"\n')
    path.with_name("store").mkdir()
    return path


def store_of(config: Path) -> SqliteStore:
    return SqliteStore(config.parent / "store" / "store.sqlite3")


def keep_alert(config: Path, number: int) -> None:
    store = store_of(config)
    view = AlertView(
        id=f"stands-filler-{number}",
        rule="stands",
        site="berlin",
        state="open",
        level=2,
        message="filler-1 on line-1 has been idle since 08:00:00",
        since_epochtime=1_625_032_800.0,
        raised_epochtime=1_625_032_860.0,
    )
    store.save_alert(view, "topic", b"{}")
    store.close()


def test_a_place_is_muted_listed_and_unmuted(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.mute(config, LINE, until=None, minutes=30, why="belt", by="Ana", rules=["stands"]) == 0
    assert capsys.readouterr().out.startswith(f"1: {LINE} is muted until 20")
    assert commands.show(config) == 0
    assert "belt" in capsys.readouterr().out
    assert commands.unmute(config, 1, by="Ben") == 0
    assert commands.unmute(config, 1, by="Ben") == 2
    assert "no mute 1 is in force" in capsys.readouterr().err
    assert commands.show(config) == 0
    assert "belt" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("place", "until", "minutes", "text"),
    [
        (LINE, None, None, "either --until or --minutes"),
        (LINE, "2030-01-01T06:00", 5, "either --until or --minutes"),
        (LINE, "2030-01-01", None, "name a moment"),
        (LINE, "soon", None, "neither a date"),
        (LINE, "2021-01-01T06:00", None, "in the future"),
        ("berlin/packaging/line-9", None, 5, "no site, line, machine or gateway"),
    ],
)
def test_a_mute_that_cannot_be_is_refused(
    config: Path,
    capsys: pytest.CaptureFixture[str],
    place: str,
    until: str | None,
    minutes: int | None,
    text: str,
) -> None:
    assert commands.mute(config, place, until=until, minutes=minutes, why="x", by="Ana") == 2
    assert text in capsys.readouterr().err


def test_an_alert_is_acknowledged_by_a_part_of_its_id(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_alert(config, 1)
    keep_alert(config, 2)
    assert commands.acknowledge(config, "filler", by="Ana") == 2
    assert commands.acknowledge(config, "capper", by="Ana") == 2
    assert commands.acknowledge(config, "filler-2", by="Ana", note="on my way") == 0
    store = store_of(config)
    (errand,) = store.errands()
    store.close()
    assert b"stands-filler-2" in errand.body
    assert commands.show(config, past=True) == 0
    assert "has been idle" in capsys.readouterr().out.replace("\n", " ")


def test_status_shows_rules_and_outboxes_and_fails_when_a_channel_takes_nothing(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.status(config) == 0
    told = capsys.readouterr()
    assert "stands" in told.out
    assert "no shift 'night'" in told.err
    assert "rule[stands]: covers no machine" in told.err
    store = store_of(config)
    store.save_channel(ChannelView(name="hook", kind="apprise", waiting=0, sent=7, fault="away"))
    store.close()
    assert commands.status(config) == 1
    assert "away" in capsys.readouterr().out
    (config.parent / "alerts.toml").write_text('[[rule]]\nname = "a"\nkind = "idel"\n')
    assert commands.status(config) == 2
    assert "rule[a].kind" in capsys.readouterr().err
