"""What is read and what is refused of telemetry."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import telemetry
from contract.states import MachineState
from contract.telemetry import ExtendedTelemetry, Refusal, Telemetry

NOW_US = 1_625_011_500_000_000
TOPIC = "oee/v1/berlin/packaging/line-1/filler-1/telemetry"
BACKLOG = "oee/v1/berlin/gateways/gw-packaging/backlog"
PLAIN: dict[str, Any] = {
    "epochtime": 1625011200.25,
    "site": "berlin",
    "area": "packaging",
    "line": "line-1",
    "machine": "filler-1",
    "state": "running",
    "total_units": 48210,
    "off_quality_units": 131,
    "gateway": "gw-packaging",
    "sequence": 918273,
}


def text(**changes: Any) -> bytes:
    return json.dumps(PLAIN | changes).encode()


def read_one(payload: bytes, topic: str = TOPIC) -> Telemetry | Refusal:
    (item,) = telemetry.decode_message(topic, payload, now_us=NOW_US)
    return item


def test_the_example_of_the_contract_is_read() -> None:
    record = read_one(text())
    assert isinstance(record, Telemetry)
    assert record.epoch_us == 1_625_011_200_250_000
    assert str(record.machine_key) == "berlin/packaging/line-1/filler-1"
    assert record.state is MachineState.RUNNING
    assert (record.total_units, record.off_quality_units, record.sequence) == (48210, 131, 918273)


def test_what_is_written_is_read_back() -> None:
    record = Telemetry(
        **PLAIN,
        good_units=48079,
        reason_code="E017",
        product="SKU:7",
        order='A\\"1',
        operator="Ana",
        ideal_run_rate=203.5,
        data_quality="uncertain",
        status="UncertainLastUsableValue",
        tags={"speed": 1.5, "mode": "auto", "on": True, "n": 3},
    )
    assert read_one(telemetry.encode(record)) == record


def test_unknown_keys_are_accepted_and_kept() -> None:
    payload = text(shift_lead="Kim", vendor={"a": [1, 2.5]})
    record = read_one(payload)
    assert isinstance(record, ExtendedTelemetry)
    assert telemetry.extras_of(record) == {"shift_lead": "Kim", "vendor": {"a": [1, 2.5]}}
    assert json.loads(telemetry.encode(record)) == json.loads(payload)


def test_a_key_called_extras_is_only_a_key() -> None:
    record = read_one(text(extras={"extras": 1}))
    assert isinstance(record, Telemetry)
    assert telemetry.extras_of(record) == {"extras": {"extras": 1}}
    assert json.loads(telemetry.encode(record))["extras"] == {"extras": 1}


def test_a_default_spelled_out_is_read() -> None:
    assert read_one(text(data_quality="good")) == read_one(text())


REFUSED = {
    "not JSON": (b"state=running", "value"),
    "empty": (b"", ""),
    "not UTF-8": (text().replace(b"filler-1", b"filler-\xff"), ""),
    "two objects": (text() + b"," + text(), "not one JSON object"),
    "an array": (b"[" + text() + b"]", ""),
    "NaN": (text().replace(b"48210", b"NaN"), ""),
    "Infinity": (text().replace(b"1625011200.25", b"Infinity"), ""),
    "a float beyond all": (text(tags={"x": 1}).replace(b'"x": 1', b'"x": 1e999'), ""),
    "a number as string": (text(total_units="48210"), "total_units"),
    "a boolean as number": (text(total_units=True), "total_units"),
    "a fraction of a unit": (text(total_units=1.5), "total_units"),
    "a negative count": (text(total_units=-1), "total_units"),
    "an integer beyond 2^53": (text(total_units=2**53 + 1), "2^53"),
    "an integer of 5,000 digits": (text().replace(b"48210", b"9" * 5000), ""),
    "an unknown integer beyond 2^53": (text(more=2**60), "2^53"),
    "a key twice": (text().replace(b'"state"', b'"state": "idle", "state"'), "stands twice"),
    "an unknown key twice": (text(x=1).replace(b'"x"', b'"x": 2, "x"'), "stands twice"),
    "a tag twice": (text(tags={"x": 1}).replace(b'"x"', b'"x": 2, "x"'), "stands twice"),
    "a key twice behind an escape": (
        text(product="a:b").replace(b'"a:b"', b'"a\\u003ab"').replace(b'"line"', b'"line": "x", "line"'),
        "stands twice",
    ),
    "nesting deeper than 4": (text(x=[[[[[1]]]]]), "nested"),
    "nesting of 100,000": (text().replace(b"48210", b"[" * 50_000 + b"]" * 50_000), "nested"),
    "more than 128 kB": (text(product="x" * 131_072), "bytes"),
    "an unknown state": (text(state="sleeping"), "sleeping"),
    "a missing key": (text().replace(b'"sequence"', b'"sequences"'), "sequence"),
    "a null": (text(product=None), "product"),
    "a level with a slash": (text(machine="filler/1"), "machine"),
    "a level with a wildcard": (text(line="+"), "line"),
    "a gateway of no name": (text(gateway=""), "gateway"),
    "another machine than the topic's": (text(machine="filler-2"), "the topic of"),
    "a moment too far ahead": (text(epochtime=NOW_US / 1e6 + 301), "further ahead"),
    "a moment before 1970": (text(epochtime=-1.0), "epochtime"),
    "milliseconds for seconds": (text(epochtime=1625011200250.0), "epochtime"),
    "a lone surrogate": (text(product="x").replace(b'"x"', b'"\\ud800"'), ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_whole_with_its_reason(name: str) -> None:
    payload, reason = REFUSED[name]
    item = read_one(payload)
    assert isinstance(item, Refusal), item
    assert reason in item.reason
    assert item.reason
    assert item.payload == payload


FINE_OR_HOPELESS_IN_A_BACKLOG = {
    "empty",
    "two objects",
    "another machine than the topic's",
    "more than 128 kB",
}


@pytest.mark.parametrize("name", sorted(set(REFUSED) - FINE_OR_HOPELESS_IN_A_BACKLOG))
def test_neighbours_of_what_is_refused_are_read(name: str) -> None:
    bad, _ = REFUSED[name]
    items = telemetry.decode_message(
        BACKLOG, b"[" + b",".join([text(), bad, text(machine="capper-1")]) + b"]", now_us=NOW_US
    )
    assert [type(item) for item in items] == [Telemetry, Refusal, Telemetry]


@pytest.mark.parametrize("payload", [b"", b"[", b"[]]", b"{}", b"[1}", b"null", b'["', b"[,]", b"[[]"])
def test_what_is_no_backlog_yields_no_telemetry(payload: bytes) -> None:
    items = telemetry.decode_message(BACKLOG, payload, now_us=NOW_US)
    assert items
    assert all(isinstance(item, Refusal) for item in items)


def test_an_empty_backlog_holds_nothing() -> None:
    assert telemetry.decode_message(BACKLOG, b"[]", now_us=NOW_US) == []


def test_a_moment_just_within_the_allowance_is_read() -> None:
    assert isinstance(read_one(text(epochtime=NOW_US / 1e6 + 299)), Telemetry)


def test_a_backlog_of_another_gateway_is_refused_member_by_member() -> None:
    payload = b"[" + text() + b"," + text(gateway="gw-2") + b"," + text(site="rome") + b"]"
    good, *bad = telemetry.decode_message(BACKLOG, payload, now_us=NOW_US)
    assert isinstance(good, Telemetry)
    assert [isinstance(item, Refusal) and "gateway" in item.reason for item in bad] == [True, True]


@pytest.mark.parametrize(
    "topic",
    [
        "oee/v1/berlin/packaging/line-1/filler-1/oee",
        "oee/v1/berlin/gateways/gw-packaging/status",
        "oee/v2/berlin/packaging/line-1/filler-1/telemetry",
        "telemetry",
        "",
        "oee/v1/berlin/packaging/line-1/filler-1/telemetry/x",
        "oee/v1/berlin/pack aging/line-1/filler-1/telemetry",
    ],
)
def test_a_topic_that_carries_no_telemetry_is_refused(topic: str) -> None:
    assert isinstance(read_one(text(), topic), Refusal)


def test_backlogs_are_cut_to_size_in_order() -> None:
    encoded = [text(sequence=n) for n in range(50)]
    batches = list(telemetry.backlog_batches(encoded, 1_000))
    assert [line for batch in batches for line in batch] == encoded
    assert all(len(telemetry.encode_backlog(batch)) <= 1_000 for batch in batches)


def test_a_record_too_large_for_a_backlog_travels_alone() -> None:
    small, large = text(), text(product="x" * 200)
    batches = list(telemetry.backlog_batches([small, large, small], len(small) + 10))
    assert batches == [[small], [large], [small]]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_bytes_of_any_kind_never_raise(payload: bytes) -> None:
    for topic in (TOPIC, BACKLOG):
        for item in telemetry.decode_message(topic, payload, now_us=NOW_US):
            assert isinstance(item, Refusal)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*telemetry.KNOWN_FIELDS, "more"]), json_values))
def test_values_of_any_kind_never_raise_and_are_never_bent(changes: dict[str, Any]) -> None:
    payload = json.dumps(PLAIN | changes).encode()
    item = read_one(payload)
    if isinstance(item, Telemetry):
        told = json.loads(payload)
        told.pop("data_quality", None)
        written = json.loads(telemetry.encode(item))
        written.pop("data_quality", None)
        assert written == told


@settings(deadline=None)
@given(st.integers(0, len(text()) - 1), st.binary(min_size=0, max_size=3))
def test_text_bent_anywhere_never_raises(place: int, instead: bytes) -> None:
    payload = text()[:place] + instead + text()[place + 1 :]
    read_one(payload)
    telemetry.decode_message(BACKLOG, b"[" + text() + b"," + payload + b"]", now_us=NOW_US)


@settings(deadline=None)
@given(st.text(max_size=80))
def test_topics_of_any_kind_never_raise(topic: str) -> None:
    telemetry.decode_message(topic, text(), now_us=NOW_US)


@given(st.integers(1, 2**53))
def test_microseconds_survive_the_way_through_seconds(us: int) -> None:
    if us < 9_000_000_000_000_000:
        assert telemetry.epoch_us(us / 1e6) == us


def test_reading_one_by_one_agrees_with_reading_at_once() -> None:
    payload = b"[" + b",".join(text(sequence=n, total_units=n) for n in range(100)) + b"]"
    at_once = telemetry.decode_many(payload)
    singly = [
        telemetry.decode_one(bytes(raw)) for raw in msgspec.json.decode(payload, type=list[msgspec.Raw])
    ]
    assert list(at_once) == singly
