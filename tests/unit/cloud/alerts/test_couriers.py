"""All channels together: mail and webhook on loopback, one that nobody answers, and a file that changes."""

import asyncio
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud import plant as plants
from cloud.alerts.channels import Courier, Couriers
from cloud.alerts.config import ChannelTable
from cloud.alerts.life import Event
from cloud.config import CloudConfig
from cloud.errors import ConfigError
from cloud.opening import open_store
from cloud.service import Cloud
from cloud.store.sqlite import SqliteStore
from cloud.views import AlertView
from contract.delivery import Alert
from tests.support.patience import until
from tests.support.ports import free_port

T0 = 1_625_184_000


class Mailbox(socketserver.ThreadingTCPServer):
    """Takes mail by the least of SMTP."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Postman)
        self.mails: list[str] = []


class Postman(socketserver.StreamRequestHandler):
    server: Mailbox

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline().strip():
            if line.upper() == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                text = b""
                while (part := self.rfile.readline()) != b".\r\n":
                    text += part
                self.server.mails.append(text.decode())
            self.wfile.write(b"221 bye\r\n" if line.upper() == b"QUIT" else b"250 ok\r\n")


class Webhook(HTTPServer):
    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Taker)
        self.titles: list[str] = []


class Taker(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        self.server.titles.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["title"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def serve() -> Iterator[Callable[[socketserver.BaseServer], None]]:
    running: list[tuple[socketserver.BaseServer, threading.Thread]] = []

    def begin(server: socketserver.BaseServer) -> None:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))

    yield begin
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def channel(name: str, url: str, **keys: Any) -> ChannelTable:
    return ChannelTable.model_validate({"name": name, "kind": "apprise", "url": url, "title": "{id}"} | keys)


def queue(store: SqliteStore, number: int, *channels: str, level: int = 1) -> None:
    said = Alert(
        id=str(number),
        event="raised",
        rule="idle",
        site="berlin",
        area="packaging",
        line="line-1",
        machine="filler-1",
        epochtime=T0 + number,
        since_epochtime=T0,
        message="filler-1 on line-1 has been idle since 02:00:00",
        level=level,
    )
    view = AlertView(
        id=str(number),
        rule="idle",
        site="berlin",
        state="open",
        level=1,
        message="stands",
        since_epochtime=T0,
        raised_epochtime=T0,
    )
    store.save_alert(view, "topic", msgspec.json.encode(said), channels)


async def test_a_channel_that_nobody_answers_loses_nothing_and_holds_up_nobody(
    store: SqliteStore, serve: Callable[[socketserver.BaseServer], None]
) -> None:
    mailbox, webhook, port = Mailbox(), Webhook(), free_port()
    serve(mailbox)
    serve(webhook)
    host = f"127.0.0.1:{mailbox.server_address[1]}"
    tables = [
        channel("dead", f"json://127.0.0.1:{port}", retry_max_secs=1.0),
        channel("hook", f"json://127.0.0.1:{webhook.server_port}"),
        channel("mail", f"mailto://{host}?from=oee@plant.test&to=team@plant.test&mode=insecure"),
    ]
    for number in range(5):
        queue(store, number, "dead", "hook", "mail")
    couriers = Couriers(store, now_us=lambda: (T0 + 10) * 1_000_000)
    wanted = [str(number) for number in range(5)]
    async with asyncio.TaskGroup() as group:
        couriers.take(tables, group)
        assert await until(lambda: webhook.titles == wanted and len(mailbox.mails) == 5)
        assert "Subject: 0" in mailbox.mails[0]
        assert await until(lambda: {each.name: each for each in couriers.views()}["dead"].fault is not None)
        dead = {each.name: each for each in couriers.views()}["dead"]
        assert (dead.waiting, dead.sent, dead.oldest_epochtime) == (5, 0, T0)
        back = Webhook(port)
        serve(back)
        assert await until(lambda: back.titles == wanted)
        assert await until(lambda: [(each.sent, each.waiting) for each in couriers.views()] == [(5, 0)] * 3)
        couriers.take([], group)
    assert {each.name: each.sent for each in store.channels()} == {"dead": 5, "hook": 5, "mail": 5}


def test_what_is_urgent_does_not_wait_in_quiet_hours(store: SqliteStore) -> None:
    took: list[str] = []

    class Box:
        def send(self, alert: Alert, title: str, body: str) -> None:
            took.append(alert.id)

    quiet = channel("c", "json://127.0.0.1", quiet=[{"from": "00:00", "to": "06:00"}], quiet_below_level=3)
    for number in range(120):
        queue(store, number, "c", level=3 if number % 50 == 0 else 2)
    now = T0 + 3600
    courier = Courier(quiet, store, now_us=lambda: now * 1_000_000, opener=lambda _: Box())
    courier.turn()
    assert took == ["0", "50", "100"]
    assert (courier.view.waiting, courier.view.sent) == (117, 3)
    now = T0 + 7 * 3600
    courier.turn()
    assert len(took) == 120
    again = Courier(quiet, store, now_us=lambda: now * 1_000_000, opener=lambda _: Box())
    assert (again.view.sent, again.view.waiting) == (120, 0)


async def test_what_came_and_went_in_quiet_hours_is_told_in_one_message_or_not_at_all(
    store: SqliteStore,
) -> None:
    def change(number: int, event: Event, after_secs: float) -> None:
        """Let an alert change, with a message for both channels; it opens when raised."""
        epochtime = T0 + after_secs
        said = Alert(
            id=f"a{number}",
            event=event,
            rule="idle",
            kind="idle",
            site="berlin",
            epochtime=epochtime,
            since_epochtime=T0,
            message=f"{number} {event}",
        )
        view = AlertView(
            id=said.id,
            rule="idle",
            site="berlin",
            area="",
            line="",
            machine="",
            level=1,
            state="cleared" if event == "cleared" else "open",
            message=said.message,
            since_epochtime=T0,
            raised_epochtime=T0,
        )
        store.save_alert(view, "topic", msgspec.json.encode(said), ["sums", "silent"])

    night = {"from": "00:00", "to": "06:00"}
    took: dict[str, list[tuple[str, str]]] = {"sums": [], "silent": []}

    class Box:
        def __init__(self, name: str) -> None:
            self.name = name

        def send(self, alert: Alert, title: str, body: str) -> None:
            took[self.name].append((title, body))

    now = 0.0
    couriers = [
        Courier(
            ChannelTable(
                name=name,
                kind="apprise",
                url="json://127.0.0.1",
                title="{message}",
                quiet=[night],
                quiet_summary=name == "sums",
                timezone="UTC",
            ),
            store,
            now_us=lambda: round((T0 + now) * 1e6),
            opener=lambda table: Box(table.name),
        )
        for name in took
    ]
    assert couriers[0].channel.is_quiet(T0 * 1_000_000)
    for number in range(1, 61):  # more than are looked at together, their ends behind all beginnings
        change(number, "raised", number)
    change(99, "raised", 100)
    for number in range(1, 61):
        change(number, "cleared", 600 + number)
    change(98, "cleared", 700)  # told of before the quiet hours
    now = 3600.0
    for courier in couriers:
        courier.turn()
    assert took == {"sums": [], "silent": []}
    now = 6 * 3600.0
    for courier in couriers:
        courier.turn()
        assert courier.backlog() == 0
    alone = [title for title, _ in took["silent"]]
    assert alone == ["99 raised", "98 cleared"]
    (first, body), *others = took["sums"]
    assert first == "60 alerts came and went in quiet hours"
    assert "berlin idle: 1 cleared" in body
    assert "and 40 more" in body
    assert [title for title, _ in others] == alone


PLANT = """
[site]
name = "berlin"
timezone = "UTC"
[calendar.days]
shifts = [ { name = "1", start = "06:00", end = "14:00" } ]
[[machine]]
area = "packaging"
line = "line-1"
name = "filler-1"
calendar = "days"
ideal_run_rate = 60.0
"""
WRONG = """
[escalation]
steps = [{ after_secs = 600, level = 3 }, { after_secs = 500, level = 2 }]
[[rule]]
name = "a"
kind = "speed"
codes = [1]
[[rule]]
name = "a"
kind = "backlog"
[[rule]]
name = "b"
kind = "oee"
of = ["service"]
[[rule]]
name = "c"
kind = "idel"
[[channel]]
name = "x"
kind = "apprise"
url = "json://127.0.0.1"
rules = ["nonsense"]
min_level = 5
max_level = 4
"""
RIGHT = """
[[rule]]
name = "quick"
kind = "idle"
after_secs = 5
[[channel]]
name = "x"
kind = "apprise"
url = "json://127.0.0.1"
"""


async def test_a_changed_file_is_taken_when_valid_and_refused_with_all_its_faults_when_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "plant.toml").write_text(PLANT)
    alerts = tmp_path / "alerts.toml"
    alerts.write_text("")
    config = CloudConfig.model_validate(
        {"cloud": {"data_dir": str(tmp_path / "store"), "alerts": str(alerts), "plant_check_secs": 0.02}}
    )
    store = open_store(config)
    cloud = Cloud(config, plants.load(tmp_path / "plant.toml"), store)
    with ThreadPoolExecutor(1) as looking:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(cloud._watch_files(asyncio.get_running_loop(), looking, group))
            alerts.write_text(WRONG)
            assert await until(lambda: bool(cloud.health().alert_faults))
            told = "\n".join(cloud.health().alert_faults)
            for key in (
                "escalation.escalate",
                "rule[a].codes",
                "rule[a].name: stands twice",
                "rule[a]: names no limit",
                "rule[b].of",
                "rule[c].kind",
                "channel[x].rules",
                "channel[x].max_level",
            ):
                assert key in told
            assert cloud._desk.config.rule == ()
            alerts.write_text(RIGHT)
            assert await until(lambda: not cloud.health().alert_faults)
            assert await until(lambda: [each.name for each in cloud.health().channels] == ["x"])
            assert [rule.name for rule in cloud._desk.config.rule] == ["quick"]
            watching.cancel()
            cloud._couriers.take([], group)
    store.close()
    alerts.write_text(WRONG)
    with pytest.raises(ConfigError):
        Cloud(config, plants.load(tmp_path / "plant.toml"), open_store(config))
