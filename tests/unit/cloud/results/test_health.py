"""The letter on health: on time, once, with what needs somebody first."""

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from cloud.results.health import Disk, Facts, Unknown, problems, written
from cloud.views import ChannelView, GatewayView, HealthView, JobView, RefusedRow
from contract.delivery import ConnectionStatus, Status
from tests.support.mailbox import Mailbox
from tests.support.turns import DAY, HOUR, Turns

ZONE = ZoneInfo("Europe/Berlin")
T0 = datetime(2021, 6, 28, 6, tzinfo=ZONE).timestamp()  # a Monday
NOW_US = round(T0 * 1e6)


def test_a_letter_is_written_each_day_at_its_time_once(tmp_path: Path) -> None:
    with Mailbox() as mailbox:
        url = mailbox.url(to="all@example.com")
        text = f'[[health]]\nname = "h"\nurl = "{url}"\nat = "07:30"\ndays = ["mon", "tue", "thu"]\n'
        turns = Turns(tmp_path / "cloud", text, now=T0)
        sent = []
        for number in range(5 * 24):
            if number % 30 == 0:
                turns.restart()
            turns.turn(T0 + number * HOUR)
            turns.turn(T0 + number * HOUR - 600)
            if len(mailbox.mails) > len(sent):
                sent.append(datetime.fromtimestamp(turns.now, ZONE).strftime("%a %H:%M"))
        assert sent == ["Mon 07:50", "Tue 07:50", "Thu 07:50"]
        assert set(mailbox.titles) == {"berlin: OEE health, 1 problem"}
        turns.stop()


def test_of_missed_letters_the_last_is_written(tmp_path: Path) -> None:
    with Mailbox() as mailbox:
        text = f'[[health]]\nname = "h"\nurl = "{mailbox.url(to="all@example.com")}"\n'
        turns = Turns(tmp_path / "cloud", text, now=T0)
        turns.turn(T0)
        turns.restart()
        turns.turn(T0 + 5 * DAY)
        turns.turn(T0 + 5 * DAY + 60)
        turns.turn(T0 + 400 * DAY)
        turns.turn(T0 + 5 * DAY + 120)
        assert len(mailbox.mails) == 3
        turns.stop()


def health(**changes: object) -> HealthView:
    fields = {
        "started_epochtime": T0,
        "broker": "connected",
        "broker_since_epochtime": T0,
        "broker_url": "mqtt://127.0.0.1",
        "records_per_sec": 1.0,
        "records_stored": 1,
        "records_repeated": 0,
        "records_refused": 0,
        "dead_letters": 0,
        "last_data_epochtime": T0,
        "queue_messages": 0,
        "clock_warnings": [],
        "plant_faults": [],
    }
    return HealthView(**(fields | changes))


def gateway(*, online: bool, state: str = "connected") -> GatewayView:
    connection = ConnectionStatus(name="plc-1", endpoint="opc.tcp://plc", state=state, since_epochtime=T0)
    status = Status(gateway="gw", site="berlin", online=online, epochtime=T0, connections=[connection])
    return GatewayView(
        gateway="gw",
        site="berlin",
        status=status,
        received_epochtime=T0,
        stored_through=1,
        last_record_epochtime=T0,
        connections=[connection],
    )


def job(error: str) -> JobView:
    return JobView(
        name="backup",
        every_secs=60,
        last_epochtime=T0,
        next_epochtime=T0,
        took_secs=1,
        runs=1,
        failures=int(bool(error)),
        result="",
        error=error,
    )


def facts(*, well: bool) -> Facts:
    fault = None if well else "erp answered 500"
    return Facts(
        site="berlin",
        health=health()
        if well
        else health(broker="lost", plant_faults=["plant.toml: x"], store_fault="full"),
        gateways=[gateway(online=True)] if well else [gateway(online=False, state="failed")],
        jobs=[job("" if well else "no room")],
        outlets=[
            ChannelView(
                name="webhook:erp", kind="webhook", waiting=1, sent=0, failures=1, dropped=0, fault=fault
            )
        ],
        refused=[]
        if well
        else [RefusedRow(source="mes", ref="<b>7</b>", problem="no machine", since_epochtime=T0)],
        unknown=[Unknown("filler-1", 60.0 if well else 6000.0, 28_800.0)],
        disks=[Disk("the store", 50 if well else 5, 100)],
        open_alerts=0,
    )


def test_all_is_well_when_nothing_needs_anybody() -> None:
    assert problems(facts(well=True), NOW_US) == []
    title, html = written(facts(well=True), round(T0 * 1e6), ZONE)
    assert title == "berlin: OEE health, all well"
    assert "Nothing needs anybody" in html


@pytest.mark.parametrize(("days", "is_told"), [(1, True), (6.9, True), (7.1, False)])
def test_what_was_never_sent_is_told_for_a_week(days: float, is_told: bool) -> None:
    lost = ChannelView(
        name="sms", kind="apprise", waiting=0, dropped=2, last_dropped_epochtime=T0 - days * 86_400
    )
    found = problems(facts(well=True)._replace(outlets=[lost]), NOW_US)
    assert found == (["sms: 2 never sent, the last of them within a week"] if is_told else [])


def test_every_problem_is_told_and_nothing_of_it_is_markup() -> None:
    found = "\n".join(problems(facts(well=False), NOW_US))
    for part in (
        "broker",
        "plant",
        "written: full",
        "offline",
        "plc-1 is failed",
        "backup",
        "500",
        "mes",
        "disk",
    ):
        assert part in found, part
    assert "filler-1: no data for 100 min" in found
    title, html = written(facts(well=False), round(T0 * 1e6), ZONE)
    assert title.endswith("problems")
    assert "<b>7</b>" not in html
    assert "&lt;b&gt;7" in html
