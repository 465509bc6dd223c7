from itertools import permutations

from cloud.oee.records import ABSENT, UNKNOWN, Names, from_telemetry
from contract.delivery import Gap
from tests.support.telemetry import MACHINES, rows, telemetry


def test_bad_readings_tell_no_state_and_no_count():
    names = Names()
    found = from_telemetry(
        [telemetry(1, 5.0, total_units=7, reason_code=3, product="A", data_quality="bad")], names
    )
    assert (found.state[0], found.total[0], found.reason[0]) == (UNKNOWN, ABSENT, ABSENT)
    assert names.texts[found.product[0]] == "A"


def test_a_gap_is_unknown_from_where_it_begins():
    key = MACHINES[0]
    gap = Gap(
        site=key.site,
        area=key.area,
        line=key.line,
        machine=key.machine,
        gateway="gw",
        sequence=2,
        from_epochtime=3.5,
        to_epochtime=9.0,
        cause="x",
    )
    found = from_telemetry([telemetry(1, 1.0), gap], Names())
    assert found.time_us.tolist() == [1_000_000, 3_500_000]
    assert found.state.tolist() == [0, UNKNOWN]


def test_gateways_are_ordered_by_name_not_by_arrival():
    items = [telemetry(1, 5.0, gateway="b", total_units=1), telemetry(9, 5.0, gateway="a", total_units=2)]
    for order in permutations(items):
        assert from_telemetry(order, Names()).total.tolist() == [2, 1]


def test_of_contradicting_repetitions_the_same_one_is_kept_in_any_order():
    items = [
        telemetry(1, 5.0, "idle", total_units=1, product="B"),
        telemetry(1, 5.0, "idle", total_units=1, product="A"),
        telemetry(1, 4.0, "stopped", total_units=3),
        telemetry(2, 6.0),
    ]
    found = set()
    for order in permutations(items):
        names = Names()
        kept = from_telemetry(order, names)
        found.add(tuple((row[1], row[2], row[3]) for row in rows(kept)))
    assert found == {((4_000_000, 2, 3), (6_000_000, 0, ABSENT))}


def test_the_same_sequence_of_two_sites_is_two_records():
    other = MACHINES[0]._replace(site="paris")
    found = from_telemetry([telemetry(1, 5.0), telemetry(1, 5.0, machine=other)], Names())
    assert len(found) == 2


def test_codes_are_texts():
    names = Names()
    found = from_telemetry([telemetry(1, 1.0, reason_code=17), telemetry(2, 2.0, reason_code="17")], names)
    assert found.reason[0] == found.reason[1]
