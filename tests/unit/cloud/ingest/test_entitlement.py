"""Who may speak for which machine."""

import msgspec
import pytest

from cloud.ingest.entitlement import Entitlement, covers
from cloud.ingest.message import Message, Received, receive
from contract.delivery import Gap, Status
from contract.machine_key import MachineKey
from contract.states import MachineState
from contract.telemetry import Telemetry, decode_message, encode
from contract.topics import gateway_topic, machine_topic

FILLER = MachineKey("berlin", "packaging", "line-1", "filler-1")
CAPPER = MachineKey("berlin", "packaging", "line-2", "capper-2")
NOW_US = 1_625_011_200_000_000


def record(machine: MachineKey, gateway: str) -> Telemetry:
    return Telemetry(
        **machine._asdict(), epochtime=NOW_US / 1e6, state=MachineState.RUNNING, gateway=gateway, sequence=7
    )


def gap(machine: MachineKey, gateway: str) -> Gap:
    return Gap(
        **machine._asdict(),
        gateway=gateway,
        sequence=8,
        from_epochtime=1.0,
        to_epochtime=2.0,
        cause="PLC silent",
    )


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [
        ("berlin", {FILLER, CAPPER}),
        ("berlin/packaging/line-1", {FILLER}),
        ("berlin/packaging/line-2/capper-2", {CAPPER}),
        ("*/*/line-?/*-1", {FILLER}),
        ("b*", {FILLER, CAPPER}),
        ("BERLIN", set()),
        ("berlin/pack", set()),
        ("hamburg", set()),
    ],
)
def test_a_place_holds_what_lies_beneath_it(pattern: str, covered: set[MachineKey]) -> None:
    assert {machine for machine in (FILLER, CAPPER) if covers(pattern, machine)} == covered


def backlog(gateway: str, *records: Telemetry) -> Message:
    return Message(gateway_topic("berlin", gateway, "backlog"), msgspec.json.encode(records))


def live(one: Telemetry) -> Message:
    return Message(machine_topic(one.machine_key, "telemetry"), encode(one))


def stored(received: Received) -> list[tuple[str, str]]:
    """Return (gateway, machine) of all records, whichever way they were read."""
    found = [(one.gateway, one.machine) for one in received.arrivals.records]
    for draft in received.arrivals.drafts:
        found += [
            (draft.sources[place][4], draft.sources[place][3]) for place in draft.rows["machine"].tolist()
        ]
    return sorted(found)


def test_without_a_list_everybody_speaks_for_everything() -> None:
    received = receive([live(record(FILLER, "any")), backlog("some", record(CAPPER, "some"))], NOW_US, 60.0)
    assert stored(received) == [("any", "filler-1"), ("some", "capper-2")]
    assert not received.arrivals.dead_letters


def test_what_a_gateway_may_not_say_is_kept_with_the_reason_and_its_neighbours_are_stored() -> None:
    entitlement = Entitlement({"gw-1": ["berlin/packaging/line-1"], "gw-2": ["berlin/packaging/line-2"]})
    gaps = [gap(CAPPER, "gw-2"), gap(CAPPER, "gw-1")]
    messages = [
        live(record(FILLER, "gw-2")),
        live(record(FILLER, "gw-1")),
        live(record(FILLER, "gw-3")),
        backlog("gw-1", record(FILLER, "gw-1"), record(CAPPER, "gw-1")),
        *(Message(gateway_topic("berlin", one.gateway, "gap"), msgspec.json.encode(one)) for one in gaps),
        *(
            Message(
                gateway_topic("berlin", name, "status"),
                msgspec.json.encode(Status(gateway=name, site="berlin", online=True, epochtime=1.0)),
            )
            for name in ("gw-1", "gw-3")
        ),
    ]
    received = receive(messages, NOW_US, 60.0, entitlement)
    assert stored(received) == [("gw-1", "filler-1")] * 2
    assert [item.gateway for item in received.arrivals.gaps] == ["gw-2"]
    assert set(received.statuses) == {("berlin", "gw-1")}
    may_not = "gateway {} may not speak for {}: see gateways under [ingest] in cloud.toml"
    unknown = "gateway gw-3 is not among gateways under [ingest] in cloud.toml"
    assert sorted(letter.reason for letter in received.arrivals.dead_letters) == sorted(
        [
            may_not.format("gw-2", FILLER),
            may_not.format("gw-1", CAPPER),
            may_not.format("gw-1", CAPPER),
            unknown,
            unknown,
        ]
    )
    refused = next(letter for letter in received.arrivals.dead_letters if "gw-2" in letter.reason)
    assert decode_message(refused.topic, refused.payload, now_us=NOW_US) == [record(FILLER, "gw-2")]


def test_a_flood_of_names_does_not_change_an_answer() -> None:
    entitlement = Entitlement({"gw-1": ["berlin/packaging/line-1"]})
    for number in range(100_010):
        assert not entitlement.allows("gw-1", FILLER._replace(line=f"l-{number}"))
    assert entitlement.allows("gw-1", FILLER)
