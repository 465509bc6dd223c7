"""Rules over a real store and real telemetry, with an injected clock and restarts in between."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud import plant as plants
from cloud.alerts.config import load
from cloud.alerts.desk import AlertDesk, Errand
from cloud.errors import CloudError
from cloud.evaluation import Evaluation
from cloud.live import Live
from cloud.store.port import Arrivals
from cloud.store.sqlite import SqliteStore
from cloud.views import MuteView
from contract.delivery import Alert, ConnectionStatus, Status
from contract.machine_key import MachineKey
from contract.states import MachineState
from contract.telemetry import Telemetry

RUNNING, IDLE, STOPPED, FAULTED = (
    MachineState.RUNNING,
    MachineState.IDLE,
    MachineState.STOPPED,
    MachineState.FAULTED,
)
SEC = 1_000_000
PLANT = """
[site]
name = "berlin"
timezone = "Europe/Berlin"

[calendar.shifts]
shifts = [
  { name = "1", start = "06:00", end = "14:00", breaks = [ { start = "10:00", minutes = 30 } ] },
  { name = "2", start = "14:00", end = "22:00" },
  { name = "3", start = "22:00", end = "06:00" },
]
planned_stops = [ { start = 2021-06-30T12:00:00, minutes = 45, reason = "maintenance" } ]
holidays = [ { date = 2021-07-03, name = "Founding day" } ]
rotation = { crews = ["A", "B", "C"], pattern = { A = "1", B = "2", C = "3" }, from = 2021-06-28 }

[reason.maintenance]
name = "Maintenance"
category = "planned"

[reason.jam]
name = "Jam at infeed"
category = "breakdown"
codes = [17]

[[machine]]
area = "packaging"
line = "line-1"
name = "filler-1"
calendar = "shifts"
ideal_run_rate = 60.0
idle_alert_secs = 300
"""
CHANNEL = """
[[channel]]
name = "all"
kind = "apprise"
url = "json://127.0.0.1"
"""
SIX = 1_625_025_600  # 2021-06-30 06:00 in Berlin, shift 1 begins
MINUTE, HOUR = 60, 3600
KEY = MachineKey("berlin", "packaging", "line-1", "filler-1")


class Rig:
    """A desk over a store, with a machine that does what it is told to."""

    def __init__(self, folder: Path, rules: str = "") -> None:
        self.folder = folder
        (folder / "alerts.toml").write_text(rules + CHANNEL)
        self.plant = plants.loads(PLANT)
        self.now = float(SIX)
        self.watching_since: float | None = SIX
        self._sequence = 0
        self._units = 0
        self._off = 0
        self.store = SqliteStore(folder / "store")
        self.start()

    def start(self) -> None:
        self.live = Live(Evaluation(self.plant, self.store), round(self.now * SEC))
        self.desk = AlertDesk(
            load(self.folder / "alerts.toml"), self.plant, self.store, self.folder, round(self.now * SEC)
        )

    def restart(self) -> None:
        self.store.close()
        self.store = SqliteStore(self.folder / "store")
        self.start()

    def records(
        self,
        from_: float,
        to: float,
        state: MachineState,
        *,
        per_sec: float = 1.0,
        rejects: float = 0.0,
        every: int = 5,
        **fields: Any,
    ) -> list[Telemetry]:
        """Return what the machine says from one instant to another."""
        found = []
        at = from_
        while at < to:
            self._sequence += 1
            found.append(
                Telemetry(
                    epochtime=at,
                    **KEY._asdict(),
                    state=state,
                    gateway="gw",
                    sequence=self._sequence,
                    total_units=self._units,
                    off_quality_units=self._off,
                    **fields,
                )
            )
            if state is RUNNING:
                self._units += round(per_sec * every)
                self._off += round(rejects * every)
            at += every
        return found

    def take(self, records: Sequence[Telemetry]) -> None:
        self.live.add(self.store.append(Arrivals(records)).fresh)

    def look(self, at: float) -> None:
        self.now = at
        picture = self.live.look(round(at * SEC))
        since = None if self.watching_since is None else round(self.watching_since * SEC)
        self.desk.judge(picture, self.live, since, round(at * SEC))

    def play(self, to: float, state: MachineState, *, step: int = 10, **fields: Any) -> None:
        """Let the machine do something until an instant, and look once at each record."""
        while self.now < to:
            self.take(self.records(self.now, self.now + step, state, every=step, **fields))
            self.look(self.now)
            self.now += step

    def silent(self, to: float, *, step: int = 10) -> None:
        """Look until an instant while nothing is said."""
        while self.now < to:
            self.look(self.now)
            self.now += step

    def say(self, online: bool = True, **keys: Any) -> None:
        status = Status(gateway="gw", site="berlin", online=online, epochtime=self.now, **keys)
        self.store.set_status(status, round(self.now * SEC))

    @property
    def told(self) -> list[Alert]:
        return [msgspec.json.decode(each.payload, type=Alert) for each in self.store.deliveries("all", 1000)]

    @property
    def events(self) -> list[tuple[str, str]]:
        return [(each.rule, each.event) for each in self.told]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.store.close()


def with_rules(folder: Path, **rules: str) -> Rig:
    """Return a rig with rules by name, each given by its lines."""
    text = "".join(f'[[rule]]\nname = "{name}"\n{lines}\n' for name, lines in rules.items())
    return Rig(folder, text)


def test_without_rules_a_machine_is_watched_as_the_plant_says(rig: Rig) -> None:
    rig.play(SIX + 100, RUNNING)
    rig.play(SIX + 500, IDLE)
    (alert,) = rig.desk.open_alerts()
    assert (alert.rule, alert.kind, alert.since_epochtime) == ("idle", "idle", SIX + 100)
    assert alert.raised_epochtime == SIX + 400
    rig.play(SIX + 600, RUNNING)
    assert rig.events == [("idle", "raised"), ("idle", "cleared")]
    assert rig.told[1].message == "filler-1 on line-1 runs again since 06:08:20; it lasted 6 min"
    assert rig.desk.open_alerts() == []


def test_time_in_which_a_machine_was_not_heard_of_raises_nothing(rig: Rig) -> None:
    rig.play(SIX + 100, RUNNING)
    rig.play(SIX + 390, IDLE)
    rig.silent(SIX + 405)
    assert rig.events == []
    rig.play(SIX + 425, IDLE)
    assert rig.events == [("idle", "raised")]


def test_an_outage_alone_raises_no_idle_alert_and_clears_none(rig: Rig) -> None:
    rig.play(SIX + 100, RUNNING)
    rig.play(SIX + 300, IDLE)
    rig.silent(SIX + 3000)
    assert rig.events == []
    rig.play(SIX + 3250, IDLE)
    assert rig.events == []
    rig.play(SIX + 3350, IDLE)
    assert rig.events == [("idle", "raised")]
    rig.silent(SIX + 5000)
    rig.play(SIX + 5100, IDLE)
    assert rig.events == [("idle", "raised")]


@pytest.mark.parametrize(
    ("begin", "raised"),
    [
        (10 * HOUR - 200 - 6 * HOUR, 10.5 * HOUR + 100 - 6 * HOUR),
        (12 * HOUR - 200 - 6 * HOUR, None),
        (14 * HOUR - 200 - 6 * HOUR, 14 * HOUR + 100 - 6 * HOUR),
    ],
    ids=["break", "planned stop", "change of shift"],
)
def test_breaks_and_planned_stops_do_not_count(rig: Rig, begin: float, raised: float | None) -> None:
    rig.now = SIX + begin - 100
    rig.start()
    rig.play(SIX + begin, RUNNING, step=20)
    rig.play(SIX + begin + 2500, IDLE, step=20)
    found = [each.epochtime - SIX for each in rig.told if each.event == "raised"]
    assert found == ([] if raised is None else [pytest.approx(raised, abs=20)])


def test_nothing_is_raised_on_a_holiday(rig: Rig) -> None:
    holiday = SIX + 3 * 86_400
    rig.now = holiday
    rig.start()
    rig.play(holiday + 1200, IDLE, step=20)
    assert rig.events == []


@pytest.mark.parametrize("night", [1_635_627_600, 1_616_886_000], ids=["autumn", "spring"])
def test_nights_of_a_change_of_clocks_count_real_time(rig: Rig, night: int) -> None:
    """23:00 in Berlin before the clocks change at 02:00 and 03:00; the machine stands over the change."""
    begin = night + 2.9 * HOUR
    rig.now = begin - 100
    rig.start()
    rig.play(begin, RUNNING, step=20)
    rig.play(begin + 280, IDLE, step=20)
    assert rig.events == []
    rig.play(begin + 1000, IDLE, step=20)
    assert rig.events == [("idle", "raised")]
    assert rig.told[0].epochtime - rig.told[0].since_epochtime == 300


def test_a_restart_at_every_look_changes_nothing(tmp_path: Path) -> None:
    rig = with_rules(tmp_path, slow='kind = "idle"\nescalate = [{ after_secs = 120, level = 3 }]')
    rig.play(SIX + 100, RUNNING, step=20)
    for _ in range(40):
        rig.play(rig.now + 20, IDLE, step=20)
        rig.restart()
    for _ in range(5):
        rig.play(rig.now + 20, RUNNING, step=20)
        rig.restart()
    assert rig.events == [("slow", "raised"), ("slow", "escalated"), ("slow", "cleared")]
    assert rig.told[0].epochtime - rig.told[0].since_epochtime == 300
    assert rig.told[1].message.startswith("Nobody has answered: filler-1 on line-1 has been idle")
    rig.store.close()


def test_a_rule_of_kind_idle_takes_the_place_of_the_plants(tmp_path: Path) -> None:
    rig = with_rules(tmp_path, quick='kind = "idle"\nmachines = ["filler-*"]\nafter_secs = 60')
    rig.play(SIX + 100, RUNNING)
    rig.play(SIX + 600, IDLE)
    assert rig.events == [("quick", "raised")]
    rig.store.close()


def test_a_rule_for_other_machines_leaves_the_plants(tmp_path: Path) -> None:
    rig = with_rules(tmp_path, quick='kind = "idle"\nmachines = ["capper-*"]\nafter_secs = 60')
    rig.play(SIX + 100, RUNNING)
    rig.play(SIX + 600, IDLE)
    assert rig.events == [("idle", "raised")]
    rig.store.close()


def test_a_fault_is_told_at_once_with_its_name_and_advice(tmp_path: Path) -> None:
    rig = with_rules(
        tmp_path, jams='kind = "fault"\ncodes = ["jam"]\nlevel = 2\nadvice = "Clear the infeed."'
    )
    rig.play(SIX + 100, RUNNING)
    rig.play(SIX + 105, FAULTED, step=5, reason_code=18)
    rig.play(SIX + 120, FAULTED, step=5, reason_code=17)
    (told,) = rig.told
    assert told.message == "filler-1 on line-1 has been down since 06:01:45: Jam at infeed"
    assert (told.level, told.kind, told.advice) == (2, "fault", "Clear the infeed.")
    rig.store.close()


def test_late_records_correct_the_times_of_an_alert_and_wake_nobody(rig: Rig) -> None:
    rig.play(SIX + 100, RUNNING)
    rig.play(SIX + 500, IDLE)
    rig._sequence += 1000
    gap = rig.now
    rig.silent(gap + 600)
    rig.play(gap + 700, RUNNING)
    (alert,) = rig.desk.alerts()
    assert (alert.state, alert.ended_epochtime) == ("cleared", gap + 600)
    before = rig.events
    rig._sequence -= 1000
    late = rig.records(gap, gap + 50, IDLE) + rig.records(gap + 50, gap + 600, RUNNING)
    rig.take(late)
    for second in range(10):
        rig.look(gap + 700 + second)
    (alert,) = rig.desk.alerts()
    assert alert.ended_epochtime == gap + 50
    assert alert.cleared_epochtime == pytest.approx(gap + 600, abs=20)
    assert rig.events == before == [("idle", "raised"), ("idle", "cleared")]


def test_late_records_of_a_stand_that_is_over_wake_nobody(rig: Rig) -> None:
    rig.play(SIX + 100, RUNNING)
    rig.silent(SIX + 2000)
    rig._sequence += 1000
    rig.play(SIX + 2100, RUNNING)
    rig._sequence -= 900
    rig.take(rig.records(SIX + 100, SIX + 2000, IDLE))
    for second in range(10):
        rig.look(SIX + 2100 + second)
    assert rig.events == []


def test_a_slow_machine_is_told_once_a_window_of_running_is_slow(tmp_path: Path) -> None:
    rig = with_rules(
        tmp_path, slow='kind = "speed"\nbelow_percent = 80\nwindow_secs = 120\nclear_after_secs = 0'
    )
    rig.play(SIX + 300, RUNNING)
    assert rig.events == []
    rig.play(SIX + 600, RUNNING, per_sec=0.6)
    (told,) = rig.told
    # a fifth of the window's units are missing after half of it
    assert told.epochtime - SIX - 300 == pytest.approx(60, abs=15)
    rig.play(SIX + 1000, RUNNING)
    assert rig.events == [("slow", "raised"), ("slow", "cleared")]
    rig.store.close()


def test_rejects_are_told_also_when_the_service_is_restarted_in_the_middle(tmp_path: Path) -> None:
    rig = with_rules(
        tmp_path, scrap='kind = "rejects"\nabove_percent = 10\nwindow_secs = 120\nclear_after_secs = 0'
    )
    rig.play(SIX + 300, RUNNING)
    rig.play(SIX + 340, RUNNING, rejects=0.2)
    rig.restart()
    rig.play(SIX + 400, RUNNING, rejects=0.2)
    (told,) = rig.told
    assert told.epochtime - SIX - 300 == pytest.approx(60, abs=15)
    assert "rejects of" in told.message
    rig.restart()
    rig.play(SIX + 600, RUNNING)
    assert rig.events == [("scrap", "raised"), ("scrap", "cleared")]
    rig.store.close()


def test_rejects_that_come_late_wake_nobody(tmp_path: Path) -> None:
    rig = with_rules(tmp_path, scrap='kind = "rejects"\nabove_percent = 10\nwindow_secs = 120')
    rig.play(SIX + 300, RUNNING)
    rig.silent(SIX + 900)
    late = rig.records(SIX + 300, SIX + 900, RUNNING, rejects=0.4)
    rig.play(SIX + 950, RUNNING)
    rig.take(late)
    rig.play(SIX + 1400, RUNNING)
    assert rig.events == []
    rig.store.close()


def test_oee_of_machine_and_line_is_told_once_a_shift(tmp_path: Path) -> None:
    rig = with_rules(
        tmp_path, oee='kind = "oee"\nbelow_percent = 50\nafter_secs = 600\nof = ["machine", "line"]'
    )
    rig.play(SIX + 200, RUNNING, step=10)
    rig.play(SIX + 590, FAULTED, step=10)
    assert rig.events == []
    rig.play(SIX + 700, FAULTED, step=10)
    assert rig.events == [("oee", "raised")] * 2
    first, second = sorted(rig.told, key=lambda alert: alert.place)
    assert (first.place, second.place) == ("berlin/packaging/line-1", str(KEY))
    assert "in shift 1 is" in first.message
    rig.store.close()


def test_a_machine_without_data_is_told_and_cleared(tmp_path: Path) -> None:
    rig = with_rules(tmp_path, dark='kind = "no_data"\nafter_secs = 60\nclear_after_secs = 0')
    rig.play(SIX + 100, RUNNING)
    rig.silent(SIX + 300)
    (told,) = rig.told
    assert told.message == f"filler-1 on line-1 has sent no data since {told_clock(told)}"
    rig.play(SIX + 400, RUNNING)
    assert rig.events == [("dark", "raised"), ("dark", "cleared")]
    rig.store.close()


def told_clock(alert: Alert) -> str:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    return f"{datetime.fromtimestamp(int(alert.since_epochtime), ZoneInfo('Europe/Berlin')):%H:%M:%S}"


def test_our_own_absence_is_nobodys_fault(tmp_path: Path) -> None:
    connected = [ConnectionStatus(name="plc-1", endpoint="e", state="connected", since_epochtime=SIX)]
    rig = with_rules(
        tmp_path,
        dark='kind = "no_data"\nafter_secs = 60',
        offline='kind = "gateway"\nafter_secs = 30',
        plc='kind = "plc"\nafter_secs = 30',
    )
    rig.say(connections=connected)
    rig.play(SIX + 55, RUNNING)
    rig.watching_since = None
    rig.silent(SIX + 1000, step=20)
    assert rig.events == []
    rig.restart()
    rig.watching_since = SIX + 1000
    rig.say(connections=connected)
    rig.play(SIX + 1050, RUNNING)
    assert rig.events == []
    rig.store.close()


def test_a_gateway_that_goes_and_comes_is_told_and_its_connection_only_by_itself(tmp_path: Path) -> None:
    rig = with_rules(
        tmp_path,
        offline='kind = "gateway"\nafter_secs = 30\nclear_after_secs = 0',
        plc='kind = "plc"\nafter_secs = 20\nclear_after_secs = 0\nconnections = ["plc-*"]',
    )

    def plc(state: Any, since: float) -> list[ConnectionStatus]:
        return [
            ConnectionStatus(name="plc-1", endpoint="e", state=state, since_epochtime=since),
            ConnectionStatus(name="other", endpoint="e", state="failed", since_epochtime=since),
        ]

    for second in range(0, 60, 5):
        rig.now = SIX + second
        rig.say(connections=plc("silent" if second >= 10 else "connected", SIX + 10))
        rig.look(rig.now)
    assert rig.events == [("plc", "raised")]
    assert (rig.told[0].connection, rig.told[0].since_epochtime) == ("plc-1", SIX + 10)
    rig.say(online=False)
    rig.silent(SIX + 85)
    assert rig.events == [("plc", "raised")]
    rig.restart()
    rig.silent(SIX + 95)
    assert rig.events == [("plc", "raised"), ("offline", "raised")]
    rig.say(connections=plc("connected", SIX + 90))
    rig.look(rig.now)
    assert rig.events[2:] == [("offline", "cleared"), ("plc", "cleared")] or rig.events[2:] == [
        ("plc", "cleared"),
        ("offline", "cleared"),
    ]
    topics = {event.topic for event in rig.store.events(100)}
    assert topics == {"oee/v1/berlin/gateways/gw/alert"}
    rig.store.close()


def test_backlog_and_disks_are_told(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path)
    percent = 100 * free.free / free.total
    rig = with_rules(
        tmp_path,
        backlog='kind = "backlog"\nabove_records = 100\nafter_secs = 10\nclear_after_secs = 0',
        edge='kind = "disk"\nof = ["gateway"]\nafter_secs = 0',
        here='kind = "disk"\nof = ["service"]\nafter_secs = 0\n'
        f"free_below_percent = {min(100, percent + 5):.3f}",
    )
    for second in range(0, 30, 5):
        rig.now = SIX + second
        rig.say(backlog_records=101, disk_free_bytes=5_000_000, disk_total_bytes=100_000_000)
        rig.look(rig.now)
    assert sorted(rig.events) == [("backlog", "raised"), ("edge", "raised"), ("here", "raised")]
    assert {each.rule: each.place for each in rig.told} == {
        "backlog": "berlin/gateways/gw",
        "edge": "berlin/gateways/gw",
        "here": "berlin",
    }
    rig.say(backlog_records=80, disk_free_bytes=13_000_000, disk_total_bytes=100_000_000)
    rig.look(rig.now + 1)
    assert ("backlog", "cleared") in rig.events
    rig.store.close()


@pytest.mark.parametrize("said", [{}, {"disk_free_bytes": 5}, {"disk_total_bytes": 5}])
def test_a_gateway_that_tells_less_of_its_disk_holds_up_no_other_rule(
    tmp_path: Path, said: dict[str, int]
) -> None:
    rig = with_rules(
        tmp_path,
        backlog='kind = "backlog"\nabove_records = 100\nafter_secs = 10',
        edge='kind = "disk"\nof = ["gateway"]\nafter_secs = 0',
    )
    for second in range(0, 30, 5):
        rig.now = SIX + second
        rig.say(backlog_records=101, **said)
        rig.look(rig.now)
    assert rig.events == [("backlog", "raised")]
    rig.store.close()


def test_a_mute_from_beside_the_service_holds_at_once_and_over_a_restart(rig: Rig) -> None:
    rig.play(SIX + 100, RUNNING)
    beside = SqliteStore(rig.folder / "store")
    mute = MuteView(
        id=0,
        place="berlin/packaging",
        from_epochtime=rig.now,
        until_epochtime=SIX + 1000,
        who="Ana",
        why="overhaul",
    )
    kept = beside.add_mute(mute)
    rig.play(SIX + 600, IDLE)
    rig.restart()
    rig.play(SIX + 700, IDLE)
    assert rig.events == []
    assert [each.why for each in rig.desk.mutes(round(rig.now * SEC))] == ["overhaul"]
    assert beside.lift_mute(kept.id, "Ben", round(rig.now * SEC)) is not None
    assert beside.lift_mute(kept.id, "Ben", round(rig.now * SEC)) is None
    rig.play(SIX + 710, IDLE)
    assert rig.events == [("idle", "raised")]
    beside.close()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"place": "berlin/packaging/line-9"}, "no site, line, machine or gateway"),
        ({"place": ""}, "no site, line, machine or gateway"),
        ({"until_epochtime": SIX}, "in the future"),
        ({"until_epochtime": SIX + 40 * 86_400}, "within 31 days"),
        ({"why": "  "}, "say who mutes, and why"),
        ({"who": ""}, "say who mutes, and why"),
    ],
)
def test_a_mute_that_may_not_be_said_is_refused(rig: Rig, changes: dict[str, Any], text: str) -> None:
    said: dict[str, Any] = {
        "id": 0,
        "place": "berlin",
        "from_epochtime": SIX,
        "until_epochtime": SIX + 60,
        "who": "Ana",
        "why": "work",
    }
    with pytest.raises(CloudError, match=text):
        rig.desk.mute(MuteView(**(said | changes)), SIX * SEC)
    assert rig.desk.mutes(SIX * SEC) == []


def test_an_open_alert_shows_that_it_is_muted_and_for_how_long(rig: Rig) -> None:
    rig.play(SIX + 405, STOPPED)
    said = MuteView(id=0, place=str(KEY), from_epochtime=0, until_epochtime=SIX + 500, who="Ana", why="work")
    rig.desk.mute(said, round(rig.now * SEC))
    rig.look(SIX + 410)
    assert rig.desk.open_alerts()[0].muted_until_epochtime == SIX + 500
    rig.look(SIX + 500)
    assert rig.desk.open_alerts()[0].muted_until_epochtime is None


def test_an_acknowledgement_from_beside_the_service_is_told(rig: Rig) -> None:
    rig.play(SIX + 405, STOPPED)
    (alert,) = rig.desk.open_alerts()
    for errand in (
        Errand(alert="none", by="Ana"),
        Errand(alert=alert.id, by="Ana", note="on my way"),
    ):
        rig.store.add_errand(msgspec.json.encode(errand))
    rig.store.add_errand(b"nonsense")
    rig.look(SIX + 410)
    assert rig.store.errands() == []
    (seen,) = rig.desk.open_alerts()
    assert (seen.state, seen.acknowledged_by, seen.note) == ("acknowledged", "Ana", "on my way")
    assert rig.events == [("idle", "raised"), ("idle", "acknowledged")]


def test_who_is_on_call_is_told_and_who_comes_on_call_hears_of_it(tmp_path: Path) -> None:
    rig = Rig(
        tmp_path,
        "".join(
            f'[[channel]]\nname = "{name}"\nkind = "apprise"\nurl = "json://127.0.0.1"\n{keys}\n'
            for name, keys in (
                ("early", 'shifts = ["1"]'),
                ("late", 'shifts = ["2"]'),
                ("crew-a", 'crews = ["A"]'),
                ("crew-b", 'crews = ["B"]'),
                ("boss", "min_level = 2"),
            )
        ),
    )

    def heard(channel: str) -> list[str]:
        found = rig.store.deliveries(channel, 100)
        return [msgspec.json.decode(each.payload, type=Alert).event for each in found]

    rig.now = SIX + 8 * HOUR - 600
    rig.start()
    rig.play(SIX + 8 * HOUR - 500, RUNNING, step=20)
    rig.play(SIX + 8 * HOUR - 20, IDLE, step=20)
    assert (heard("early"), heard("late"), heard("boss")) == (["raised"], [], [])
    assert (heard("crew-a"), heard("crew-b")) == (["raised"], [])
    rig.play(SIX + 8 * HOUR + 60, IDLE, step=20)
    assert (heard("early"), heard("late")) == (["raised"], ["raised"])
    assert (heard("crew-a"), heard("crew-b")) == (["raised"], ["raised"])
    rig.play(SIX + 8 * HOUR + 200, RUNNING, step=20)
    assert (heard("early"), heard("late"), heard("boss")) == (["raised", "cleared"],) * 2 + ([],)
    rig.store.close()


def test_what_a_rule_no_longer_covers_is_cleared_by_the_reload(tmp_path: Path) -> None:
    rig = with_rules(tmp_path, quick='kind = "idle"\nafter_secs = 60')
    rig.play(SIX + 200, IDLE)
    assert rig.events == [("quick", "raised")]
    (tmp_path / "alerts.toml").write_text(CHANNEL)
    rig.desk.take(load(tmp_path / "alerts.toml"), rig.plant)
    rig.play(SIX + 220, IDLE)
    assert rig.events == [("quick", "raised"), ("quick", "cleared")]
    assert rig.told[-1].message.startswith("filler-1 on line-1 is not watched any more")
    rig.store.close()
