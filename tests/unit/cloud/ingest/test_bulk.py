"""Telemetry read in bulk: the same records and refusals as by the contract's reader, message by message."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.ingest.message import Message, receive
from cloud.store import rows
from cloud.store.rows import Names
from contract.telemetry import MAX_MESSAGE_BYTES, Refusal, Telemetry, decode_message, encode

NOW_US = 1_790_000_000_000_000
MAX_FUTURE_SECS = 300.0
MACHINE = "oee/v1/plant/hall/line-1/press/telemetry"
BACKLOG = "oee/v1/plant/gateways/gw-1/backlog"


def record(**changes: Any) -> dict[str, Any]:
    """Return a record as JSON's objects."""
    return {
        "epochtime": 1_790_000_000.25,
        "site": "plant",
        "area": "hall",
        "line": "line-1",
        "machine": "press",
        "state": "running",
        "gateway": "gw-1",
        "sequence": 7,
    } | changes


TEXTS = st.sampled_from(["A", "a:b", 'say "x"', "\\", "ü", ""])
RECORDS = st.builds(
    lambda changes: record(**changes),
    st.fixed_dictionaries(
        {},
        optional={
            "epochtime": st.sampled_from(
                [1_790_000_000.123456, 1_790_000_299.9, 1_790_000_300.1, 5, -1, "1"]
            ),
            "machine": st.sampled_from(["press", "oven", "a b", ""]),
            "site": st.sampled_from(["plant", "elsewhere"]),
            "gateway": st.sampled_from(["gw-1", "gw-2"]),
            "state": st.sampled_from(["running", "faulted", "flying"]),
            "sequence": st.sampled_from([0, 1, 2**53, 2**53 + 2, -1, 1.5]),
            "total_units": st.sampled_from([0, 12, -1, None]),
            "off_quality_units": st.sampled_from([0, 3]),
            "good_units": st.just(9),
            "reason_code": st.one_of(st.sampled_from([17, "17", -3, None]), TEXTS),
            "product": TEXTS,
            "order": TEXTS,
            "operator": TEXTS,
            "ideal_run_rate": st.sampled_from([90, 0.5, 0, 1e10]),
            "data_quality": st.sampled_from(["good", "uncertain", "bad", "odd"]),
            "status": TEXTS,
            "tags": st.dictionaries(TEXTS, st.sampled_from([1, 1.5, True, "x:y", None]), max_size=2),
            "surprise": st.sampled_from([1, {"a": [1, 2]}]),
        },
    ),
)
PAYLOADS = st.one_of(
    RECORDS.map(msgspec.json.encode),
    st.lists(RECORDS, max_size=4).map(msgspec.json.encode),
    RECORDS.map(lambda item: msgspec.json.encode(item)[:-1] + b',"sequence":8}'),
    RECORDS.map(lambda item: msgspec.json.encode(item) + b"," + msgspec.json.encode(item)),
    RECORDS.map(lambda item: msgspec.json.encode(item).replace(b"press", b"pr\\u0065ss")),
    st.sampled_from([b"", b"[", b"null", b"[]", b"[null]", b"{}", b"\xff", b"[" * 9000]),
)
MESSAGES = st.lists(
    st.builds(Message, st.sampled_from([MACHINE, BACKLOG, MACHINE.replace("press", "oven")]), PAYLOADS),
    max_size=5,
)


def one_by_one(messages: list[Message]) -> tuple[list[bytes], list[tuple[str, str, bytes]]]:
    """Return what the contract's reader takes and refuses."""
    taken: list[bytes] = []
    refused: list[tuple[str, str, bytes]] = []
    for message in messages:
        for item in decode_message(
            message.topic, message.payload, now_us=NOW_US, max_future_secs=MAX_FUTURE_SECS
        ):
            match item:
                case Telemetry():
                    taken.append(encode(item))
                case Refusal(reason, payload):
                    refused.append((message.topic, reason, payload))
    return sorted(taken), sorted(refused)


def in_bulk(messages: list[Message]) -> tuple[list[bytes], list[tuple[str, str, bytes]]]:
    """Return what is stored and refused when all messages are read at once."""
    arrivals = receive(messages, NOW_US, MAX_FUTURE_SECS).arrivals
    names = Names()
    tables = [rows.placed(draft, names) for draft in arrivals.drafts]
    tables.append(rows.from_telemetry(arrivals.records, names))
    found = [item for table in tables for item in rows.to_telemetry(table, names)]
    letters = [(letter.topic, letter.reason, letter.payload) for letter in arrivals.dead_letters]
    return sorted(encode(item) for item in found if isinstance(item, Telemetry)), sorted(letters)


@given(MESSAGES)
def test_everything_is_taken_or_refused_as_one_by_one(messages: list[Message]) -> None:
    taken, refused = one_by_one(messages)
    stored, letters = in_bulk(messages)
    assert letters == refused
    if len({(item["gateway"], item["sequence"]) for item in map(msgspec.json.decode, taken)}) == len(taken):
        assert stored == taken  # what stands beside the columns is kept by gateway and sequence


def test_what_is_regular_is_read_in_bulk() -> None:
    items = [
        record(sequence=number, total_units=number, reason_code=17, tags={"x": 1}) for number in range(9)
    ]
    messages = [
        Message(BACKLOG, msgspec.json.encode(items)),
        Message(MACHINE, msgspec.json.encode(record(sequence=20, operator="Kim", data_quality="bad"))),
    ]
    arrivals = receive(messages, NOW_US, MAX_FUTURE_SECS).arrivals
    assert not arrivals.records
    assert not arrivals.dead_letters
    assert [len(draft.rows) for draft in arrivals.drafts] == [10]


def test_an_odd_message_does_not_slow_its_neighbours() -> None:
    messages = [
        Message(BACKLOG, msgspec.json.encode([record(sequence=1), record(sequence=2)])),
        Message(BACKLOG, msgspec.json.encode([record(sequence=3, product="a:b")])),
        Message(BACKLOG, msgspec.json.encode([record(sequence=4, gateway="gw-2")])),
        Message(BACKLOG, msgspec.json.encode([record(sequence=5)])),
    ]
    arrivals = receive(messages, NOW_US, MAX_FUTURE_SECS).arrivals
    assert [draft.rows["sequence"].tolist() for draft in arrivals.drafts] == [[1, 2, 5]]
    assert [item.sequence for item in arrivals.records] == [3]
    assert [letter.reason for letter in arrivals.dead_letters] == [
        "the body is of gateway plant/gw-2, the topic of plant/gw-1"
    ]


def test_a_refused_record_names_no_machine() -> None:
    messages = [Message(BACKLOG, msgspec.json.encode([record(machine="ghost", gateway="gw-9")]))]
    names = Names()
    for draft in receive(messages, NOW_US, MAX_FUTURE_SECS).arrivals.drafts:
        rows.placed(draft, names)
    assert names.all("machine") == []


@pytest.mark.parametrize("channel", [MACHINE, BACKLOG])
def test_a_message_that_is_too_large_is_refused_whole(channel: str) -> None:
    payload = msgspec.json.encode([record()]) + b" " * MAX_MESSAGE_BYTES
    arrivals = receive([Message(channel, payload)], NOW_US, MAX_FUTURE_SECS).arrivals
    assert [letter.payload for letter in arrivals.dead_letters] == [payload]
