"""Every count of the gateway is a metric, named as Prometheus wants it."""

import re

import msgspec
import pytest

from contract.delivery import ConnectionStatus
from gateway.forward import ForwardCounters
from gateway.health import ConnectionHealth, Health, OutboxHealth, UplinkHealth
from gateway.metrics import metrics
from gateway.sources.port import SourceCounters

NOT_NUMBERS = {"status", "name", "kind", "last_error", "alarm", "dropped"}


def numbered(struct, first):
    """A number of its own for each field that is one, so that no two can be mistaken for each other."""
    fields = [f.name for f in msgspec.structs.fields(struct) if f.name not in NOT_NUMBERS]
    return {name: first + place for place, name in enumerate(fields)}


CONNECTION = numbered(ConnectionHealth, 1000)
UPLINK = numbered(UplinkHealth, 2000) | {"connected": True, "store_silent": True}
OUTBOX = numbered(OutboxHealth, 3000)


@pytest.fixture
def text() -> str:
    status = ConnectionStatus(
        name="plc-1",
        endpoint="opc.tcp://p",
        state="connected",
        since_epochtime=1.7e9,
        items_wanted=7001,
        items_live=7002,
        last_value_epochtime=1_700_000_123.5,
    )
    return metrics(
        Health(
            site="plant",
            gateway="edge",
            version="1",
            pid=1,
            running_secs=4000.5,
            resident_bytes=4001,
            records=4002,
            problems=["one"],
            connections=[ConnectionHealth(status=status, **CONNECTION)],
            uplinks=[UplinkHealth(name="up", kind="mqtt", last_error=None, **UPLINK)],
            outbox=OutboxHealth(alarm=None, dropped={"full": 5001, "age": 5002}, **OUTBOX),
        )
    ).decode()


@pytest.mark.parametrize(
    "number",
    [
        *CONNECTION.values(),
        *(number for number in UPLINK.values() if number is not True),
        *OUTBOX.values(),
        *(4001, 4002, 5001, 5002, 7001, 7002),
    ],
)
def test_every_number_of_the_health_is_a_metric(text, number):
    assert len(re.findall(rf" {number}\.0$", text, re.MULTILINE)) == 1


def test_every_counter_is_part_of_the_health():
    assert set(SourceCounters.__struct_fields__) <= set(ConnectionHealth.__struct_fields__)
    assert set(ForwardCounters.__struct_fields__) <= set(UplinkHealth.__struct_fields__)


def test_names_have_units_and_counts_end_in_total(text):
    names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert all(name.startswith("oee_gateway_") for name in names)
    for name in names:
        assert (kinds[name] == "counter") == name.endswith("_total"), name
        assert not re.search(r"_(secs|ms|us|kb|mb)(_|$)", name), name
    assert 'oee_gateway_connection_damaged_messages_total{connection="plc-1"}' in text
    assert 'oee_gateway_connection_last_value_timestamp_seconds{connection="plc-1"} 1.7000001235e+09' in text


def test_every_metric_says_what_it_is(text):
    described = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))
    assert set(described) == set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert all(words.endswith(".") for words in described.values())
