"""Who may speak for which machine."""

import pytest

from cloud.ingest.entitlement import Entitlement, covers
from cloud.store.port import Arrivals, DeadLetter
from contract.delivery import Gap
from contract.machine_key import MachineKey
from contract.states import MachineState
from contract.telemetry import Telemetry, decode_message

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


def test_without_a_list_everybody_speaks_for_everything() -> None:
    arrivals = Arrivals([record(FILLER, "any")], [gap(CAPPER, "any")])
    assert Entitlement({}).sift(arrivals, NOW_US) is arrivals
    assert Entitlement({}).knows("any")


def test_what_a_gateway_may_not_say_is_kept_with_the_reason_and_its_neighbours_are_stored() -> None:
    entitlement = Entitlement({"gw-1": ["berlin/packaging/line-1"], "gw-2": ["berlin/packaging/line-2"]})
    before = DeadLetter(NOW_US, "t", "not JSON", b"{")
    arrivals = Arrivals(
        [record(FILLER, "gw-1"), record(FILLER, "gw-2"), record(FILLER, "gw-3")],
        [gap(CAPPER, "gw-2"), gap(CAPPER, "gw-1")],
        [before],
    )
    sifted = entitlement.sift(arrivals, NOW_US)
    assert [item.gateway for item in sifted.records] == ["gw-1"]
    assert [item.gateway for item in sifted.gaps] == ["gw-2"]
    assert [letter.reason for letter in sifted.dead_letters] == [
        "not JSON",
        f"gateway gw-2 may not speak for {FILLER}: see gateways under [ingest] in cloud.toml",
        "gateway gw-3 is not among gateways under [ingest] in cloud.toml",
        f"gateway gw-1 may not speak for {CAPPER}: see gateways under [ingest] in cloud.toml",
    ]
    refused = sifted.dead_letters[1]
    assert decode_message(refused.topic, refused.payload, now_us=NOW_US) == [record(FILLER, "gw-2")]


def test_a_flood_of_names_does_not_change_an_answer() -> None:
    entitlement = Entitlement({"gw-1": ["berlin/packaging/line-1"]})
    for number in range(100_010):
        assert not entitlement.allows("gw-1", FILLER._replace(line=f"l-{number}"))
    assert entitlement.allows("gw-1", FILLER)
