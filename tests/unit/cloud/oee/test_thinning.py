"""Records that are left out change nothing."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.oee.records import Names, Records
from cloud.oee.thinning import thinned
from cloud.oee.timeline import build
from contract.telemetry import Telemetry
from tests.support.telemetry import MACHINES, any_rules, as_records, cuts, joined, rules, telemetry, whole

EDGES = cuts(*range(0, 4000, 90))
_PART = 20
"""Fewer records than are worth a look."""


@st.composite
def runs(draw: st.DrawFn) -> list[Telemetry]:
    """Draw machines that mostly only count on, and now and then do something else."""
    items: list[Telemetry] = []
    for key in MACHINES[: draw(st.integers(1, 2))]:
        time, total, off = 0.5, draw(st.sampled_from([0, 65_000])), 0
        for _ in range(draw(st.integers(1, 8))):
            said = draw(
                st.fixed_dictionaries({}, optional={"product": st.just("A"), "reason_code": st.just(5)})
            )
            state = draw(st.sampled_from(["running", "running", "idle", "unknown", "changeover"]))
            with_total, with_off = draw(st.booleans()), draw(st.booleans())
            quality = draw(st.sampled_from(["good", "good", "good", "bad"]))
            every = draw(st.sampled_from([1, 3]))
            for number in range(draw(st.integers(1, 40))):
                total, off = total + 7, off + number % 2
                if with_total and number % every == 0:
                    said["total_units"] = total % 65_536
                if with_off:
                    said["off_quality_units"] = off
                items.append(telemetry(len(items), time, state, machine=key, data_quality=quality, **said))
                time += draw(st.sampled_from([0.25, 1, 1, 1, 1, 1, 5, 5, 31])) if number % 5 == 0 else 1
            total = draw(st.sampled_from([total, total, 0, total - 2]))
    return items


def in_parts(records: Records) -> list[Records]:
    """Return the records in stretches of time that are too short to be thinned."""
    bounds = np.unique(records.time_us)[::_PART].tolist()
    return [
        records.take((records.time_us >= low) & (records.time_us < high))
        for low, high in zip(bounds, [*bounds[1:], 2**62], strict=True)
    ]


@settings(max_examples=150, deadline=None)
@given(runs(), any_rules())
def test_the_timeline_is_that_of_all_records(items: list[Telemetry], how: dict[str, object]) -> None:
    names = Names()
    records = as_records(items, names)
    chosen = rules(names, **how)
    expected = whole(joined(in_parts(records), chosen, EDGES, []), 0, 4000, chosen, EDGES)
    assert whole(build(records, chosen, EDGES), 0, 4000, chosen, EDGES) == expected


def test_of_a_long_run_the_first_and_the_last_record_of_each_interval_are_kept() -> None:
    names = Names()
    items = [telemetry(number, 1.0 + number, total_units=number) for number in range(200)]
    found = thinned(as_records(items, names), rules(names), EDGES)
    assert (found.records.time_us // 1_000_000).tolist() == [1, 90, 91, 180, 181, 200]
    assert found.bridged.tolist() == [True, False, True, False, True, False]


def test_silence_is_kept() -> None:
    names = Names()
    items = [telemetry(number, 1.0 + number + 31 * (number >= 40)) for number in range(80)]
    found = thinned(as_records(items, names), rules(names), EDGES)
    assert (found.records.time_us // 1_000_000).tolist() == [1, 40, 72, 90, 91, 111]


def test_few_records_are_left_alone() -> None:
    names = Names()
    records = as_records([telemetry(number, 1.0 + number) for number in range(20)], names)
    assert thinned(records, rules(names), EDGES).records is records
    assert len(thinned(records, rules(names), EDGES, least=2).records) == 2


def test_records_of_rules_that_look_further_back_are_left_alone() -> None:
    names = Names()
    records = as_records([telemetry(number, 1.0 + number) for number in range(80)], names)
    for how in ({"hold": True}, {"jitter": 1}, {"startup_us": 1}):
        assert thinned(records, rules(names, **how), EDGES).records is records
