"""Topics, the other messages and their schemas."""

import json

import jsonschema
import msgspec
import pytest

from contract import delivery, schema, topics
from contract.delivery import Gap, Status
from contract.machine_key import MachineKey
from contract.telemetry import Refusal

NOW_US = 1_625_011_500_000_000
GAP_TOPIC = "oee/v1/berlin/gateways/gw/gap"
GAP = Gap(
    site="berlin",
    area="packaging",
    line="line-1",
    machine="filler-1",
    gateway="gw",
    sequence=7,
    from_epochtime=1625011000.5,
    to_epochtime=1625011100.0,
    cause="PLC did not answer",
)


@pytest.mark.parametrize("name", schema.MESSAGES)
def test_the_schema_file_is_what_the_struct_says(name: str) -> None:
    assert (schema.FOLDER / f"{name}.schema.json").read_text(encoding="utf-8") == schema.render(name)


@pytest.mark.parametrize("name", schema.MESSAGES)
def test_the_schema_is_a_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema.build(name))


def test_the_schema_accepts_and_refuses_as_the_reader_does() -> None:
    validator = jsonschema.Draft202012Validator(schema.build("gap"))
    told = msgspec.to_builtins(GAP)
    assert validator.is_valid(told)
    assert not validator.is_valid(told | {"machine": "a/b"})
    assert not validator.is_valid(told | {"sequence": -1})


def test_topics_are_parsed_as_they_are_built() -> None:
    key = MachineKey("berlin", "packaging", "line-1", "filler-1")
    assert topics.parse(topics.machine_topic(key, "oee")) == topics.MachineTopic(key, "oee")
    assert topics.parse(topics.gateway_topic("berlin", "gw", "gap")) == topics.GatewayTopic(
        "berlin", "gw", "gap"
    )


def test_a_topic_with_a_bad_level_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="may not stand"):
        topics.gateway_topic("berlin", "#", "status")
    with pytest.raises(ValueError, match="bytes"):
        topics.machine_topic(MachineKey("x" * 64, "x" * 64, "x" * 64, "x" * 64), "telemetry")


def test_a_machine_key_is_read_as_it_is_written() -> None:
    key = MachineKey.parse("berlin/packaging/line-1/filler-1")
    assert str(key) == "berlin/packaging/line-1/filler-1"
    for wrong in ("", "a/b/c", "a/b/c/d/e", "a/b/c/d e", "a//c/d"):
        with pytest.raises(ValueError, match="is not"):
            MachineKey.parse(wrong)


def test_a_gap_is_read_as_it_is_written() -> None:
    assert delivery.decode_gap(GAP_TOPIC, msgspec.json.encode(GAP), now_us=NOW_US) == GAP
    assert GAP.from_us == 1_625_011_000_500_000


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gateway": "other"}, "the topic is"),
        ({"to_epochtime": 1625010000.0}, "before it begins"),
        ({"to_epochtime": 1625099999.0}, "further ahead"),
        ({"sequence": True}, "sequence"),
        ({"machine": "a b"}, "machine"),
        ({"cause": 3}, "cause"),
    ],
)
def test_a_gap_is_refused_with_its_reason(changes: dict[str, object], reason: str) -> None:
    payload = json.dumps(msgspec.to_builtins(GAP) | changes).encode()
    item = delivery.decode_gap(GAP_TOPIC, payload, now_us=NOW_US)
    assert isinstance(item, Refusal)
    assert reason in item.reason
    assert item.payload == payload


def test_a_status_is_read_or_refused() -> None:
    status = Status(gateway="gw", site="berlin", online=True, epochtime=1625011000.0, first_sequence=5)
    topic = "oee/v1/berlin/gateways/gw/status"
    assert delivery.decode_status(topic, msgspec.json.encode(status)) == status
    for bad in (b"", b"{}", b"[]", b'{"gateway":"gw","gateway":"gw"}', b"\xff"):
        assert isinstance(delivery.decode_status(topic, bad), Refusal)
    assert isinstance(
        delivery.decode_status("oee/v1/rome/gateways/gw/status", msgspec.json.encode(status)), Refusal
    )


COMMAND = delivery.Command(
    id="7f0c",
    site="berlin",
    gateway="gw",
    connection="plc-1",
    action="stop",
    requested_by="anna",
    epochtime=1_625_011_500.0,
    expires_epochtime=1_625_011_560.0,
)


def test_a_command_is_read_as_it_was_written() -> None:
    topic = topics.gateway_topic("berlin", "gw", "command")
    assert delivery.decode_command(topic, msgspec.json.encode(COMMAND)) == COMMAND


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gateway": "other"}, "the topic is"),
        ({"action": "format"}, "Invalid enum"),
        ({"requested_by": "anna\nroot"}, "regex"),
        ({"requested_by": "anna\n"}, "regex"),
        ({"requested_by": "anna\u2028root"}, "regex"),
        ({"requested_by": "anna\x9b2J"}, "regex"),
        ({"id": "7f0c\n"}, "regex"),
        ({"connection": "plc-1\n"}, "regex"),
        ({"requested_by": ""}, "length"),
        ({"id": "x" * 200}, "length"),
        ({"connection": "plc/1"}, "regex"),
        ({"expires_epochtime": 1_625_011_500.0}, "expire"),
        ({"expires_epochtime": 1_625_099_999.0}, "expire"),
        ({"epochtime": "now"}, "Expected"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused(change: dict, said: str) -> None:
    topic = topics.gateway_topic("berlin", "gw", "command")
    payload = json.dumps(msgspec.to_builtins(COMMAND) | change).encode()
    refused = delivery.decode_command(topic, payload)
    assert isinstance(refused, Refusal)
    assert said in refused.reason


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"id":"a","id":"b"}'])
def test_nonsense_is_no_command(payload: bytes) -> None:
    topic = topics.gateway_topic("berlin", "gw", "command")
    assert isinstance(delivery.decode_command(topic, payload), Refusal)


def test_alerts_of_lines_gateways_and_sites_have_topics_of_their_own() -> None:
    line, site = (
        topics.line_topic("berlin", "packaging", "line-1", "alert"),
        topics.site_topic("berlin", "alert"),
    )
    assert topics.parse(line) == topics.PlaceTopic("berlin", "packaging", "line-1", "alert")
    assert topics.parse(site) == topics.PlaceTopic("berlin", "", "", "alert")
    of_gateway = topics.gateway_topic("berlin", "gw", "alert")
    assert topics.parse(of_gateway) == topics.GatewayTopic("berlin", "gw", "alert")
    for wrong in ("oee/v1/berlin/gateways/alert", "oee/v1/berlin/packaging/line-1/oee", "oee/v1/alert"):
        with pytest.raises(ValueError, match="is not a topic"):
            topics.parse(wrong)


def test_an_alert_of_a_machine_reads_as_it_always_did() -> None:
    """The fields of other subjects are absent from it, and one that lacks them is read."""
    said = (
        b'{"id":"1","event":"raised","rule":"idle","site":"berlin","area":"packaging","line":"line-1",'
        b'"machine":"filler-1","epochtime":2.0,"since_epochtime":1.0,"message":"stands"}'
    )
    alert = delivery.decode(said, delivery.Alert)
    assert alert.place == "berlin/packaging/line-1/filler-1"
    assert msgspec.json.encode(alert) == said
