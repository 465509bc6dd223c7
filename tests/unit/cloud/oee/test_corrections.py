from datetime import date

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.compute import figures_of
from cloud.errors import CorrectionError
from cloud.oee.corrections import Correction, check, decode, encode, in_force, touched
from cloud.oee.records import Names, from_telemetry
from contract.machine_key import MachineKey
from tests.support.line_plant import plant_of, plant_text
from tests.support.telemetry import MACHINES, SEC, telemetry

SHIFT = 1625025600  # 30 June 2021, 06:00 in Berlin
HOUR = 3600
PLANT = plant_of(plant_text({"max_gap_secs": 86400}, machines=("filler",)))


def correction(kind, start=0.0, end=8.0, **said):
    return Correction(
        machine=str(said.pop("machine", MACHINES[0])),
        kind=kind,
        from_us=round((SHIFT + start * HOUR) * SEC),
        to_us=round((SHIFT + end * HOUR) * SEC),
        who="Ann",
        when_us=0,
        **said,
    )


def shift(items, *corrections):
    names = Names(list(MACHINES))
    (row, *_) = figures_of(
        from_telemetry(items, names),
        PLANT,
        names,
        since=date(2021, 6, 30),
        until=date(2021, 7, 1),
        corrections=corrections,
    )
    return row


ITEMS = [
    telemetry(1, SHIFT, "running", total_units=0),
    telemetry(2, SHIFT + 2 * HOUR, "stopped", total_units=7000),
    telemetry(3, SHIFT + 3 * HOUR, "running", total_units=7000),
    telemetry(4, SHIFT + 8 * HOUR, "stopped", total_units=20_000),
]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["classify", "move", "planned_stop", "off_quality", "comment"]),
            st.integers(-60, 500),
            st.integers(1, 200),
            st.sampled_from(["jam", "cip"]),
        ),
        max_size=5,
    )
)
def test_whatever_is_said_afterwards_time_and_units_stay_whole(said):
    corrections = [
        correction(
            kind,
            start / 60,
            (start + minutes) / 60,
            number=number,
            why="because",
            reason=None if kind in ("off_quality", "comment") else reason,
            units=minutes if kind == "off_quality" else None,
        )
        for number, (kind, start, minutes, reason) in enumerate(said, start=1)
    ]
    before, after = shift(ITEMS), shift(ITEMS, *corrections)
    assert after.totals.calendar_us == before.totals.calendar_us
    assert after.totals.made.total + after.totals.unplanned_total == 20_000
    voids = [correction("void", number=100 + item.number, voids=item.number) for item in corrections]
    assert shift(ITEMS, *corrections, *voids).to_dict() == before.to_dict()


def test_off_quality_without_any_units_is_shown_with_a_warning():
    row = shift([telemetry(1, SHIFT, "running")], correction("off_quality", number=1, units=5)).to_dict()
    assert (row["off_quality_units"], row["good_units"]) == (5, -5)
    assert row["warnings"]


def test_a_correction_survives_its_own_text():
    made = correction("classify", reason="jam", why="saw it")
    assert decode(encode(made), 7) == msgspec.structs.replace(made, number=7)


@pytest.mark.parametrize("units", [10**9 + 1, -(10**9) - 1, 10**20])
def test_units_that_no_machine_makes_are_refused_and_break_no_sums(units):
    """They would overflow the sums of every shift for as long as the correction stands."""
    with pytest.raises(CorrectionError, match=r"not a correction: .*\$\.units"):
        decode(encode(correction("off_quality", units=units)), 1)


@pytest.mark.parametrize("text", [b"{}", b"[]", b'{"machine":"a"}', b"\xff"])
def test_what_is_no_correction_is_refused(text):
    with pytest.raises(CorrectionError, match="not a correction"):
        decode(text, 1)


def test_a_void_touches_what_the_voided_one_touched():
    first = correction("classify", 1, 2, number=1, reason="jam")
    void = correction("void", 0, 0, number=2, voids=1)
    assert touched(void, [first]) == touched(first, [])
    assert in_force([void, first]) == []


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (correction("classify", 2, 1, reason="jam"), "ends before it begins"),
        (correction("classify"), "needs a reason"),
        (correction("off_quality"), "number of units"),
        (correction("off_quality", units=0), "number of units"),
        (correction("classify", reason="jam", units=3), "has no units: it says reason alone"),
        (correction("off_quality", units=3, reason="jam"), "has no reason: it says units and product alone"),
        (correction("planned_stop", 1, 2, order="A1"), "has no order"),
        (correction("comment", why="x", product="cola"), "has no product: it says why alone"),
        (correction("comment"), "needs its text"),
        (
            correction("comment", why="x", machine=MachineKey("a", "b", "c", "d")),
            "a/b/c/d is not in the plant",
        ),
        (correction("comment", 2000, 2001, why="x"), "has not begun yet"),
    ],
)
def test_what_may_not_be_said(made, message):
    with pytest.raises(CorrectionError, match=message):
        check(made, [], PLANT, now_us=(SHIFT + 100 * HOUR) * SEC)


def test_what_touches_may_stand_beside():
    first = correction("classify", 1, 2, number=1, reason="jam")
    second = correction("classify", 2, 3, number=2, reason="cip")
    check(second, [first], PLANT, now_us=(SHIFT + 100 * HOUR) * SEC)
    check(correction("move", 1, 3, reason="cip"), [first, second], PLANT, now_us=(SHIFT + 100 * HOUR) * SEC)
