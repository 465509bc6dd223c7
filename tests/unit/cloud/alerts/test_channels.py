"""Couriers: nothing lost, nothing out of order, nobody held up; and the doors against real receivers."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud import commands_alerts
from cloud.alerts.channels import Courier, open_door
from cloud.alerts.config import ChannelTable
from cloud.errors import NotificationError
from cloud.store.sqlite import SqliteStore
from cloud.views import AlertView
from contract.delivery import Alert

T0 = 1_625_184_000


class Clock:
    def __init__(self) -> None:
        self.now = float(T0)

    def __call__(self) -> int:
        return round(self.now * 1e6)


class Letterbox:
    """A door that is open or shut."""

    def __init__(self) -> None:
        self.is_open = True
        self.took: list[str] = []

    def send(self, alert: Alert, title: str, body: str) -> None:
        if not self.is_open:
            raise NotificationError("shut")
        self.took.append(alert.id)


def said(number: int, at: float = T0) -> Alert:
    return Alert(
        id=str(number),
        event="raised",
        rule="idle",
        site="berlin",
        area="packaging",
        line="line-1",
        machine="filler-1",
        epochtime=at,
        since_epochtime=at - 60,
        message="stands",
    )


def queue(store: SqliteStore, *alerts: Alert, channel: str = "c") -> None:
    for alert in alerts:
        view = AlertView(
            id=alert.id,
            rule="idle",
            site="berlin",
            area="packaging",
            line="line-1",
            machine="filler-1",
            state="open",
            level=1,
            message="stands",
            since_epochtime=T0,
            raised_epochtime=T0,
        )
        store.save_alert(view, "topic", msgspec.json.encode(alert), [channel])


def table(**changes: Any) -> ChannelTable:
    return ChannelTable.model_validate({"name": "c", "kind": "apprise", "url": "json://127.0.0.1"} | changes)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store")
    yield opened
    opened.close()


def test_alerts_are_sent_in_order_and_once(store: SqliteStore) -> None:
    box, clock = Letterbox(), Clock()
    courier = Courier(table(), store, now_us=clock, opener=lambda _: box)
    queue(store, *map(said, range(120)))
    courier.turn()
    courier.turn()
    assert box.took == [str(number) for number in range(120)]
    assert (courier.view.sent, courier.view.failures, courier.view.dropped) == (120, 0, 0)


def test_a_shut_channel_is_asked_at_growing_intervals_and_loses_nothing(
    tmp_path: Path, store: SqliteStore
) -> None:
    box, clock = Letterbox(), Clock()
    box.is_open = False
    courier = Courier(table(retry_max_secs=5.0), store, now_us=clock, opener=lambda _: box)
    queue(store, said(1), said(2))
    assert [courier.turn() for _ in range(5)] == [1, 2, 4, 5, 5]
    box.is_open = True
    again = SqliteStore(tmp_path / "store")
    Courier(table(), again, now_us=clock, opener=lambda _: box).turn()
    again.close()
    courier.turn()
    assert box.took == ["1", "2"]


@pytest.mark.parametrize(("age_secs", "took"), [(60.0, ["1"]), (60.1, [])])
def test_what_is_too_old_is_dropped_and_counted(store: SqliteStore, age_secs: float, took: list[str]) -> None:
    box, clock = Letterbox(), Clock()
    clock.now += age_secs
    courier = Courier(table(max_age_secs=60.0), store, now_us=clock, opener=lambda _: box)
    queue(store, said(1))
    courier.turn()
    assert box.took == took
    assert courier.view.dropped == 1 - len(took)
    assert store.deliveries("c", 1) == []


def test_messages_wait_for_the_end_of_quiet_hours(store: SqliteStore) -> None:
    box, clock = Letterbox(), Clock()
    courier = Courier(
        table(quiet=[{"from": "22:00", "to": "06:00"}]), store, now_us=clock, opener=lambda _: box
    )
    queue(store, said(1))
    courier.turn()
    assert box.took == []
    clock.now += 6 * 3600
    courier.turn()
    assert box.took == ["1"]


def test_a_slow_channel_holds_up_no_other(store: SqliteStore) -> None:
    box, released = Letterbox(), threading.Event()

    class Slow(Letterbox):
        def send(self, alert: Alert, title: str, body: str) -> None:
            released.wait(10)

    slow = Courier(table(name="slow"), store, now_us=Clock(), opener=lambda _: Slow())
    quick = Courier(table(name="quick"), store, now_us=Clock(), opener=lambda _: box)
    queue(store, said(1), channel="slow")
    queue(store, said(2), channel="quick")

    async def both() -> None:
        tasks = [asyncio.create_task(each.run()) for each in (slow, quick)]
        until = time.monotonic() + 5
        while not box.took and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        released.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(both())
    assert box.took == ["2"]


class Receiver(HTTPServer):
    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), Hook)


class Hook(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_gets_the_words(receiver: Receiver) -> None:
    door = open_door(table(url=f"json://127.0.0.1:{receiver.server_port}"))
    door.send(said(1), "title", "body")
    assert [(body["title"], body["message"]) for body in receiver.bodies] == [("title", "body")]


def test_a_refusal_is_an_error_that_tells_no_secret(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 500
    door = open_door(table(url=f"json://user:hidden@127.0.0.1:{receiver.server_port}/secret"))
    with pytest.raises(NotificationError) as caught:
        door.send(said(1), "title", "body")
    with pytest.raises(NotificationError) as unknown:
        open_door(table(url="nothing-like-it://hidden"))
    for told in (str(caught.value), str(unknown.value), caplog.text):
        assert "hidden" not in told
        assert "secret" not in told


@pytest.mark.parametrize("suffix", ["", ".fifo"])
def test_sns_gets_attributes_to_filter_by(monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        place: dict[str, Any] = {"region_name": "eu-central-1", "endpoint_url": f"http://{host}:{port}"}
        sns, sqs = boto3.client("sns", **place), boto3.client("sqs", **place)
        fifo = {"FifoTopic": "true"} if suffix else {}
        topic = sns.create_topic(Name=f"oee{suffix}", Attributes=fifo)["TopicArn"]
        queue_url = sqs.create_queue(
            QueueName=f"oee{suffix}", Attributes={"FifoQueue": "true"} if suffix else {}
        )["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn["QueueArn"])
        channel = ChannelTable(name="aws", kind="sns", topic_arn=topic, endpoint_url=place["endpoint_url"])
        open_door(channel).send(said(1), "Abfüller\n\x1b\0steht", "body")
        (message,) = sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=5)["Messages"]
        sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
        body = json.loads(message["Body"])
        assert (body["Subject"], body["Message"]) == ("Abf?ller steht", "body")
        found = {key: value["Value"] for key, value in body["MessageAttributes"].items()}
        assert found == {
            "site": "berlin",
            "area": "packaging",
            "line": "line-1",
            "machine": "filler-1",
            "place": "berlin/packaging/line-1/filler-1",
            "rule": "idle",
            "event": "raised",
            "level": "1",
        }
        of_gateway = Alert(
            id="2",
            event="cleared",
            rule="offline",
            kind="gateway",
            site="berlin",
            gateway="gw-1",
            epochtime=T0,
            since_epochtime=T0,
            message="gateway gw-1 is online again",
        )
        open_door(channel).send(of_gateway, "title", "body")
        (message,) = sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=5)["Messages"]
        found = {key: item["Value"] for key, item in json.loads(message["Body"])["MessageAttributes"].items()}
        assert found == {
            "site": "berlin",
            "gateway": "gw-1",
            "place": "berlin/gateways/gw-1",
            "rule": "offline",
            "kind": "gateway",
            "event": "cleared",
            "level": "1",
        }
    finally:
        server.stop()
    with pytest.raises(NotificationError):
        open_door(channel).send(said(1), "title", "body")


def test_the_test_command_tells_each_channel_apart(
    receiver: Receiver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cloud.toml").write_text('[cloud]\nalerts = "alerts.toml"\n')
    (tmp_path / "alerts.toml").write_text(f"""
[[channel]]
name = "hook"
kind = "apprise"
url = "json://127.0.0.1:{receiver.server_port}"
[[channel]]
name = "nobody"
kind = "apprise"
url_env = "OEE_NO_SUCH_VARIABLE"
""")
    assert commands_alerts.try_channels(tmp_path / "cloud.toml") == 1
    told = capsys.readouterr()
    assert told.out == "hook: sent\n"
    assert "OEE_NO_SUCH_VARIABLE" in told.err
    assert commands_alerts.try_channels(tmp_path / "cloud.toml", "hook") == 0
    assert [body["title"] for body in receiver.bodies] == ["the service at test: test raised"] * 2
    assert commands_alerts.try_channels(tmp_path / "cloud.toml", "pigeon") == 2
    (tmp_path / "cloud.toml").write_text("")
    assert commands_alerts.try_channels(tmp_path / "cloud.toml") == 2
