"""What the service answers, without a broker and with the clock as an argument."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud import plant as plants
from cloud.config import CloudConfig
from cloud.errors import CloudError, ConfigError, CorrectionError, UnknownMachineError
from cloud.live import Live
from cloud.oee.corrections import Correction
from cloud.oee.rollup import Level
from cloud.opening import open_store
from cloud.service import Cloud
from cloud.store.port import Arrivals
from cloud.views import ShiftRow
from contract.delivery import Alert
from contract.machine_key import MachineKey
from contract.states import MachineState
from contract.telemetry import Telemetry

PLANT = """
[site]
name = "berlin"
timezone = "UTC"

[calendar.three-shift]
shifts = [
  { name = "1", start = "06:00", end = "14:00" },
  { name = "2", start = "14:00", end = "22:00" },
  { name = "3", start = "22:00", end = "06:00" },
]

[reason.jam]
name = "Jam at infeed"
category = "breakdown"

[reason.cleaning]
name = "Cleaning"
category = "planned"

[[machine]]
area = "packaging"
line = "line-1"
name = "filler-1"
calendar = "three-shift"
ideal_run_rate = 60.0
idle_alert_secs = 300
"""
SHIFT, HOUR, SEC = 1_625_032_800, 3600, 1_000_000
KEY = MachineKey("berlin", "packaging", "line-1", "filler-1")
SCOPE, LINE = str(KEY), "berlin/packaging/line-1"


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> int:
        return round(self.now * SEC)


class Rig:
    """A service whose turns are taken by hand."""

    def __init__(self, folder: Path, now: float = SHIFT) -> None:
        (folder / "plant.toml").write_text(PLANT)
        self.config = CloudConfig.model_validate(
            {
                "cloud": {
                    "data_dir": str(folder / "store"),
                    "plant": str(folder / "plant.toml"),
                    "shift_close_grace_secs": 0.0,
                    "revision_settle_secs": 0.0,
                }
            }
        )
        self.plant = plants.load(folder / "plant.toml")
        self.clock = Clock(now)
        self._sequence = 0
        self.start()

    def start(self) -> None:
        self.store = open_store(self.config)
        self.cloud = Cloud(self.config, self.plant, self.store, now_us=self.clock)

    def restart(self) -> None:
        self.store.close()
        self.start()

    def run(self, from_: float, to: float, state: MachineState = MachineState.RUNNING, **fields: Any) -> None:
        """Let the machine do something from one instant to another, making a unit a second when it runs."""
        records = []
        at = from_
        while at < to:
            self._sequence += 1
            records.append(
                Telemetry(
                    epochtime=at,
                    **KEY._asdict(),
                    state=state,
                    gateway="gw",
                    sequence=self._sequence,
                    total_units=int(at - SHIFT + HOUR)
                    if state is MachineState.RUNNING
                    else int(from_ - SHIFT + HOUR),
                    off_quality_units=0,
                    **fields,
                )
            )
            at += 10
        self.cloud._present.add(self.store.append(Arrivals(records)))

    def turn(self, now: float) -> None:
        """Take one turn at an instant, and another so that late stretches are read again."""
        for self.clock.now in (now, now + 2.5):
            self.cloud._present.look()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.store.close()


def correction(kind: Any, from_: float, to: float, **fields: Any) -> Correction:
    return Correction(
        machine=SCOPE,
        kind=kind,
        from_us=round(from_ * SEC),
        to_us=round(to * SEC),
        who="Ana",
        when_us=0,
        **fields,
    )


def day(rig: Rig) -> None:
    """Let a shift pass with a stop of half an hour in its second hour."""
    rig.run(SHIFT, SHIFT + HOUR)
    rig.run(SHIFT + HOUR, SHIFT + 1.5 * HOUR, MachineState.STOPPED)
    rig.run(SHIFT + 1.5 * HOUR, SHIFT + 9 * HOUR)
    rig.turn(SHIFT + 9 * HOUR)


def test_the_board_shows_lines_and_machines_with_their_running_shift(rig: Rig) -> None:
    rig.run(SHIFT, SHIFT + HOUR)
    rig.turn(SHIFT + HOUR)
    board = rig.cloud.board()
    assert (board.site, board.timezone) == ("berlin", "UTC")
    assert board.shift is not None
    assert board.shift.name == "1"
    ((line,),) = [board.lines]
    (view,) = line.machines
    assert view.state == "running"
    assert view.figures is not None
    assert view.figures["availability"] == pytest.approx(1, abs=0.01)
    assert line.figures is not None
    assert line.figures["total_units"] == view.total_units
    assert view.verdicts["availability"] == "good"


def test_the_shift_table_holds_closed_and_running_shifts_of_every_level(rig: Rig) -> None:
    day(rig)
    for level in ("machine", "line", "area", "site"):
        rows = rig.cloud.shift_table(SHIFT * SEC, (SHIFT + 12 * HOUR) * SEC, level)
        assert [row["shift"] for row in rows] == ["1", "2"], level
        assert rows[0]["run_secs"] == 7.5 * HOUR
    assert rig.cloud.shift_table((SHIFT + 20 * HOUR) * SEC, (SHIFT + 21 * HOUR) * SEC, "site") == []


@pytest.mark.parametrize("level", ["machine", "line"])
def test_a_shift_that_is_over_is_in_the_table_before_it_is_closed(rig: Rig, level: Level) -> None:
    day(rig)
    rig.run(SHIFT + 9 * HOUR, SHIFT + 17 * HOUR)

    def table(now: float) -> list[ShiftRow]:
        rig.turn(now)
        rows = rig.cloud.shift_table(SHIFT * SEC, (SHIFT + 24 * HOUR) * SEC, level)
        asked = rig.cloud.figures(SHIFT * SEC, (SHIFT + 24 * HOUR) * SEC, every="shift", level=level)
        assert [row | {"target_units": 0} for row in rows[:-1]] == [
            row | {"target_units": 0} for row in asked[:-1]
        ]
        return rows

    over = table(SHIFT + 16 * HOUR + 20)
    assert [(row["shift"], row["revision"]) for row in over] == [("1", 1), ("2", 0), ("3", 0)]
    closed = table(SHIFT + 17 * HOUR)
    assert [(row["shift"], row["revision"]) for row in closed] == [("1", 1), ("2", 1), ("3", 0)]
    assert over[1] | {"revision": 1} == closed[1]


@pytest.mark.parametrize("level", ["area", "site"])
def test_the_shift_of_an_area_or_site_is_being_closed_until_its_lines_are_closed(
    rig: Rig, level: Level
) -> None:
    day(rig)
    rig.run(SHIFT + 9 * HOUR, SHIFT + 17 * HOUR)
    span = (SHIFT * SEC, (SHIFT + 24 * HOUR) * SEC)

    def revisions(now: float) -> list[tuple[str, int]]:
        rig.turn(now)
        table = [(row["shift"], row["revision"]) for row in rig.cloud.shift_table(*span, level)]
        asked = rig.cloud.figures(*span, every="shift", level=level)
        assert [(row["shift"], row["revision"]) for row in asked] == table
        return table

    assert revisions(SHIFT + 16 * HOUR + 20) == [("1", 1), ("2", 0), ("3", 0)]
    assert revisions(SHIFT + 17 * HOUR) == [("1", 1), ("2", 1), ("3", 0)]


@pytest.mark.parametrize("level", ["machine", "line"])
def test_what_a_clock_that_was_ahead_has_closed_hides_no_running_shift(rig: Rig, level: Level) -> None:
    day(rig)
    rig.turn(SHIFT + 9 * HOUR + 7 * 24 * HOUR)
    rig.run(SHIFT + 9 * HOUR, SHIFT + 10 * HOUR)
    rig.turn(SHIFT + 10 * HOUR)
    span = (SHIFT * SEC, (SHIFT + 24 * HOUR) * SEC)
    table = rig.cloud.shift_table(*span, level)
    asked = rig.cloud.figures(*span, every="shift", level=level)
    for rows in (table, asked):
        assert [(row["shift"], row["revision"]) for row in rows] == [("1", 1), ("2", 0)]
        assert rows[-1]["run_secs"] == pytest.approx(2 * HOUR, abs=20)
    assert rig.cloud._present.last_closed[SCOPE]["start"] > table[-1]["start"]  # until the next is closed
    rig.restart()
    assert rig.cloud._present.last_closed[SCOPE]["start"] == table[0]["start"]
    rig.run(SHIFT + 10 * HOUR, SHIFT + 17 * HOUR)
    rig.turn(SHIFT + 17 * HOUR)
    assert rig.cloud._present.last_closed[SCOPE]["start"] == table[-1]["start"]


def test_the_first_shift_of_all_is_in_the_table_before_it_is_closed(rig: Rig) -> None:
    assert rig.cloud.shift_table(SHIFT * SEC, (SHIFT + 9 * HOUR) * SEC, "line") == []
    rig.run(SHIFT, SHIFT + 8 * HOUR + 20)
    rig.turn(SHIFT + 8 * HOUR + 20)
    rows = rig.cloud.shift_table(SHIFT * SEC, (SHIFT + 9 * HOUR) * SEC, "line")
    assert [(row["shift"], row["revision"]) for row in rows] == [("1", 0), ("2", 0)]
    assert rows[0]["run_secs"] == 8 * HOUR


def test_the_timeline_is_whole_and_never_beyond_now(rig: Rig) -> None:
    day(rig)
    view = rig.cloud.timeline(KEY, SHIFT * SEC, (SHIFT + 24 * HOUR) * SEC)
    assert view.to_epochtime == rig.clock.now
    assert [segment.state for segment in view.segments][:3] == ["running", "stopped", "running"]
    assert view.segments[0].start_epochtime == SHIFT
    assert rig.cloud.timeline(KEY, (SHIFT + 50 * HOUR) * SEC, (SHIFT + 51 * HOUR) * SEC).segments == []
    with pytest.raises(UnknownMachineError):
        rig.cloud.timeline(KEY._replace(machine="none"), 0, 1)


def test_a_stop_gets_its_reason_and_the_closed_shift_a_revision(rig: Rig) -> None:
    day(rig)
    rig.cloud.classify(
        KEY, (SHIFT + HOUR) * SEC, round((SHIFT + 1.5 * HOUR) * SEC), reason="jam", comment="stuck", by="Ana"
    )
    view = rig.cloud.timeline(KEY, SHIFT * SEC, (SHIFT + 2 * HOUR) * SEC)
    assert [segment.reason_name for segment in view.segments] == [None, "Jam at infeed", None]
    rig.turn(SHIFT + 9 * HOUR + 10)
    first, second = rig.cloud.revisions(SCOPE, SHIFT * SEC)
    assert first.figures["losses"]["other_stop"] == 0.5 * HOUR
    assert second.figures["losses"]["breakdown"] == 0.5 * HOUR
    assert second.why == "classify by Ana"
    assert [each.revision for each in rig.cloud.revisions(LINE, SHIFT * SEC)] == [1, 2]
    rig.turn(SHIFT + 9 * HOUR + 60)
    assert len(rig.cloud.revisions(SCOPE, SHIFT * SEC)) == 2


def test_a_reason_is_moved_split_and_taken_back(rig: Rig) -> None:
    day(rig)
    begin, end = (SHIFT + HOUR) * SEC, round((SHIFT + 1.5 * HOUR) * SEC)
    middle = begin + 600 * SEC
    rig.cloud.classify(KEY, begin, end, reason="jam", comment=None, by="Ana")
    rig.cloud.classify(KEY, middle, end, reason="cleaning", comment=None, by="Ben")

    def shown() -> list[tuple[str | None, float]]:
        view = rig.cloud.timeline(KEY, begin, end)
        return [
            (segment.reason, segment.end_epochtime - segment.start_epochtime) for segment in view.segments
        ]

    assert shown() == [("jam", 600), ("cleaning", 1200)]
    rig.cloud.classify(KEY, begin, end, reason=None, comment=None, by="Ana")
    assert shown() == [(None, 1800)]
    assert [item.kind for item in rig.cloud.corrections()] == ["classify", "move", "void", "void"]


def test_no_more_off_quality_is_taken_away_than_a_shift_has(rig: Rig) -> None:
    """Neither of what its counter says nor of what was found later, alone or together."""
    day(rig)
    whole = (SHIFT, SHIFT + 8 * HOUR)
    with pytest.raises(
        CorrectionError,
        match=r"1 units cannot be taken away from shift 1 of 2021-06-30: it has 0 off-quality units",
    ):
        rig.cloud.correct(correction("off_quality", *whole, units=-1))
    rig.cloud.correct(correction("off_quality", *whole, units=100))
    rig.cloud.correct(correction("off_quality", *whole, units=-70))
    with pytest.raises(CorrectionError, match=r"31 units cannot .* it has 30 off-quality units"):
        rig.cloud.correct(correction("off_quality", SHIFT, SHIFT + 1, units=-31))
    rig.cloud.correct(correction("off_quality", SHIFT, SHIFT + 1, units=-30))
    rig.turn(SHIFT + 9 * HOUR + 10)
    assert rig.cloud.revisions(SCOPE, SHIFT * SEC)[-1].figures["off_quality_units"] == 0


def test_corrections_outlive_a_restart_and_reach_the_running_shift(rig: Rig) -> None:
    rig.run(SHIFT, SHIFT + HOUR)
    rig.turn(SHIFT + HOUR)
    rig.cloud.correct(correction("off_quality", SHIFT, SHIFT + HOUR, units=100))
    rig.turn(SHIFT + HOUR + 5)
    assert rig.cloud.board().lines[0].machines[0].off_quality_units == 100
    rig.restart()
    assert rig.cloud.board().lines[0].machines[0].off_quality_units == 100


def test_a_planned_stop_entered_afterwards_lowers_planned_time(rig: Rig) -> None:
    day(rig)
    rig.cloud.correct(
        correction("planned_stop", SHIFT + HOUR, SHIFT + 1.5 * HOUR, reason="cleaning", why="was agreed")
    )
    rig.turn(SHIFT + 9 * HOUR + 10)
    revision = rig.cloud.revisions(SCOPE, SHIFT * SEC)[-1]
    assert revision.figures["planned_production_secs"] == 7.5 * HOUR
    assert revision.figures["availability"] == 1.0
    assert revision.why == "planned stop by Ana"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (correction("classify", SHIFT + HOUR, SHIFT + 2 * HOUR, reason="nonsense"), "not a reason"),
        (correction("classify", SHIFT + 2 * HOUR, SHIFT + HOUR, reason="jam"), "before it begins"),
        (correction("classify", SHIFT + 90 * HOUR, SHIFT + 91 * HOUR, reason="jam"), "not begun"),
        (correction("off_quality", SHIFT, SHIFT + HOUR), "number of units"),
    ],
)
def test_a_correction_that_may_not_be_made_is_refused_and_leaves_nothing(
    rig: Rig, wrong: Correction, text: str
) -> None:
    day(rig)
    with pytest.raises(CorrectionError, match=text):
        rig.cloud.correct(wrong)
    assert rig.cloud.corrections() == []


def test_an_idle_machine_raises_one_alert_as_soon_as_it_is_heard_to_stand_too_long(rig: Rig) -> None:
    rig.run(SHIFT, SHIFT + 100)
    rig.run(SHIFT + 100, SHIFT + 401, MachineState.IDLE)
    for now in range(SHIFT + 380, SHIFT + 500):
        rig.clock.now = now
        rig.cloud._present.look()
    (alert,) = rig.cloud.alerts(open_only=False)
    assert alert.since_epochtime == SHIFT + 100
    assert alert.raised_epochtime == SHIFT + 400
    rig.restart()
    rig.turn(SHIFT + 510)
    assert rig.cloud.alerts() == [alert]
    assert len(rig.store.events(10)) == 1


def test_an_alert_is_acknowledged_once_somebody_says_so(rig: Rig) -> None:
    rig.run(SHIFT, SHIFT + 400, MachineState.STOPPED)
    rig.turn(SHIFT + 400)
    (alert,) = rig.cloud.alerts()
    seen = rig.cloud.acknowledge(alert.id, "Ana", "on my way")
    assert (seen.state, seen.acknowledged_by) == ("acknowledged", "Ana")
    rig.run(SHIFT + 410, SHIFT + 420)
    rig.turn(SHIFT + 420)
    assert rig.cloud.alerts() == []
    (past,) = rig.cloud.alerts(open_only=False)
    assert past.state == "cleared"
    assert past.note == "on my way"
    with pytest.raises(CloudError, match="not an open alert"):
        rig.cloud.acknowledge(alert.id, "Ben")


def test_data_that_come_late_wake_nobody(rig: Rig) -> None:
    rig.run(SHIFT, SHIFT + 100)
    rig.run(SHIFT + 5000, SHIFT + 5100)
    rig.turn(SHIFT + 5100)
    rig.run(SHIFT + 100, SHIFT + 5000, MachineState.IDLE)
    rig.turn(SHIFT + 5105)
    assert rig.cloud.alerts(open_only=False) == []


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    config = CloudConfig.model_validate({"cloud": {"data_dir": str(tmp_path / "store")}})
    with pytest.raises(ConfigError, match="cannot be written"):
        open_store(config)


def test_each_change_of_an_alert_is_queued_once_for_the_channels_that_want_it(tmp_path: Path) -> None:
    """Also over a restart, which tells nobody anything again."""
    (tmp_path / "alerts.toml").write_text("""
[[channel]]
name = "all"
kind = "apprise"
url = "json://127.0.0.1"
[[channel]]
name = "other-line"
kind = "apprise"
url = "json://127.0.0.1"
places = ["berlin/packaging/line-2"]
""")
    rig = Rig(tmp_path)
    settings = rig.config.cloud.model_copy(update={"alerts": tmp_path / "alerts.toml"})
    rig.config = rig.config.model_copy(update={"cloud": settings})
    rig.restart()
    rig.run(SHIFT, SHIFT + 100)
    rig.run(SHIFT + 100, SHIFT + 500, MachineState.IDLE)
    rig.turn(SHIFT + 450)
    rig.restart()
    rig.turn(SHIFT + 460)
    rig.run(SHIFT + 500, SHIFT + 600)
    rig.turn(SHIFT + 600)
    told = [msgspec.json.decode(each.payload, type=Alert) for each in rig.store.deliveries("all", 10)]
    assert [each.event for each in told] == ["raised", "cleared"]
    assert rig.store.deliveries("other-line", 10) == []
    rig.store.close()


def test_what_comes_for_a_locked_shift_is_listed_and_counts_once_the_plant_says_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    try:
        day(rig)
        locked = PLANT.replace("[calendar", "[definitions]\nlock_after_days = 1\n[calendar", 1)
        (tmp_path / "plant.toml").write_text(locked)
        now = SHIFT + 3 * 24 * HOUR
        rig.turn(now)
        assert rig.cloud._take_changed(rig.cloud._plant_file)
        rig.turn(now + 60)
        before = rig.cloud.revisions(SCOPE, SHIFT * SEC)
        assert rig.cloud.after_lock(SCOPE, SHIFT * SEC) is None
        rig.run(SHIFT + 1.1 * HOUR, SHIFT + 1.2 * HOUR, MachineState.FAULTED)
        rig.turn(now + 120)
        for scope in (SCOPE, LINE):
            late = rig.cloud.after_lock(scope, SHIFT * SEC)
            assert late is not None
            assert late.records == 36
            assert now <= late.first_epochtime <= late.last_epochtime <= now + 120
        assert rig.cloud.revisions(SCOPE, SHIFT * SEC) == before
        (tmp_path / "plant.toml").write_text(PLANT)
        assert rig.cloud._take_changed(rig.cloud._plant_file)
        rig.turn(now + 180)
        rig.turn(now + 240)
        assert rig.cloud.after_lock(SCOPE, SHIFT * SEC) is None
        *_, last = rig.cloud.revisions(SCOPE, SHIFT * SEC)
        assert (last.revision, last.why) == (before[-1].revision + 1, "late data")
        assert last.figures["losses"]["breakdown"] > 0
    finally:
        rig.store.close()


def test_what_comes_while_a_changed_plant_is_taken_is_shown(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.run(SHIFT, SHIFT + HOUR)
    rig.turn(SHIFT + HOUR)

    class Interrupted(Live):
        """Has read the store when another record is stored, of which the one before is told."""

        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            rig.run(SHIFT + HOUR + 10, SHIFT + HOUR + 20, MachineState.FAULTED)

    monkeypatch.setattr("cloud.present.Live", Interrupted)
    rig.clock.now = SHIFT + HOUR + 15
    rig.cloud._present.renew()
    rig.turn(SHIFT + HOUR + 16)
    [line] = rig.cloud.board().lines
    assert [machine.state for machine in line.machines] == ["faulted"]
