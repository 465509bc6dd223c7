"""The terminal knows of the factory what MQTT tells it."""

import msgspec

from contract import topics
from contract.delivery import Alert, Receipt, Result, Status
from contract.machine_key import MachineKey
from oee.watch import Heard

KEY = MachineKey("demo-plant", "packaging", "line-1", "filler-1")
RECEIPT = topics.gateway_topic("demo-plant", "gw", "receipt")


def _alert(**changes: object) -> Alert:
    about = {"site": KEY.site, "area": KEY.area, "line": KEY.line, "machine": KEY.machine}
    fields = {"id": "a1", "event": "raised", "rule": "idle", "epochtime": 1000.0, "since_epochtime": 990.0}
    return Alert(**{**about, **fields, "message": "filler-1 is idle", **changes})


def test_an_alert_is_told_once_however_often_it_is_delivered() -> None:
    heard = Heard("demo-plant", since=900.0)
    payload = msgspec.json.encode(_alert())
    topic = topics.machine_topic(KEY, "alert")
    assert heard.take(topic, payload, 0.0) == _alert()
    assert heard.take(topic, payload, 0.1) is None
    assert list(heard.alerts) == [_alert()]


def test_alerts_of_an_earlier_run_or_another_site_are_left_out() -> None:
    heard = Heard("demo-plant", since=2000.0)
    assert heard.take(topics.machine_topic(KEY, "alert"), msgspec.json.encode(_alert()), 0.0) is None
    elsewhere = _alert(site="berlin", epochtime=3000.0)
    assert heard.take(topics.machine_topic(KEY, "alert"), msgspec.json.encode(elsewhere), 0.0) is None


def test_results_are_kept_by_machine() -> None:
    heard = Heard("demo-plant", since=0.0)
    result = Result(epochtime=1.0, current={"oee": 0.7}, closed={"oee": 0.6})
    heard.take(topics.machine_topic(KEY, "oee"), msgspec.json.encode(result), 0.0)
    later = Result(epochtime=2.0, current={"oee": 0.8})
    heard.take(topics.machine_topic(KEY, "oee"), msgspec.json.encode(later), 1.0)
    assert heard.current == {KEY: {"oee": 0.8}}
    assert heard.closed == {KEY: {"oee": 0.6}}


def test_receipts_tell_how_fast_records_are_stored() -> None:
    heard = Heard("demo-plant", since=0.0)
    for at_secs, through in ((0.0, 1_000_000), (1.0, 1_000_040), (2.0, 1_000_100)):
        heard.take(RECEIPT, msgspec.json.encode(Receipt(stored_through=through)), at_secs)
    assert heard.stored_records == 100, "what lay in the store before is not counted"
    assert heard.records_per_sec(2.0) == 20.0
    assert heard.records_per_sec(60.0) == 0.0


def test_messages_that_are_not_of_the_contract_are_left_alone() -> None:
    heard = Heard("demo-plant", since=0.0)
    deep = b'{"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for topic, payload in (
        ("zigbee/lamp", b"on"),
        (RECEIPT, b"{"),
        (RECEIPT, b"[]"),
        (RECEIPT, deep),
        ("oee/v1/x", b""),
    ):
        assert heard.take(topic, payload, 0.0) is None


def test_the_gateways_status_is_the_latest_heard() -> None:
    heard = Heard("demo-plant", since=0.0)
    status = Status(gateway="gw", site="demo-plant", online=True, epochtime=5.0)
    heard.take(topics.gateway_topic("demo-plant", "gw", "status"), msgspec.json.encode(status), 0.0)
    assert heard.status == status
