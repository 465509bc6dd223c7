"""Rows of other systems, read strictly."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from cloud.masterdata.config import MasterDataTable
from cloud.masterdata.rows import OPEN_END_US, BadRow, Said, read_row
from tests.support.plants import plant

PLANT = plant(machines=("filler-1", "capper-1"))
RATES = MasterDataTable(name="mes", kind="ideal_rate", url="sqlite://", query="...")
LAB = MasterDataTable(name="lab", kind="off_quality", url="sqlite://", query="...")


def said(row: dict[str, Any], table: MasterDataTable = RATES) -> Said:
    found = read_row(row, table, PLANT)
    assert isinstance(found, Said), found
    return found


def problem(row: dict[str, Any], table: MasterDataTable = RATES) -> str:
    found = read_row(row, table, PLANT)
    assert isinstance(found, BadRow), found
    return found.problem


def test_a_rate_holds_from_its_moment_on_when_no_end_is_said() -> None:
    found = said({"ref": 7, "machine": "filler-1", "from": "2026-11-23T06:00:00", "rate": "203.5"})
    assert found.ref == "7"
    assert found.correction.machine == "plant/packaging/line-1/filler-1"
    assert found.correction.rate == 203.5
    # 06:00 in Berlin in November is 05:00 UTC
    assert found.correction.from_us == int(datetime(2026, 11, 23, 5, tzinfo=UTC).timestamp()) * 1_000_000
    assert found.correction.to_us == OPEN_END_US


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 11, 23, 5, tzinfo=UTC),
        datetime(2026, 11, 23, 6),  # noqa: DTZ001  as databases give it
        "2026-11-23 06:00:00",
        "2026-11-23T05:00:00Z",
        1795410000,
        Decimal("1795410000.0"),
    ],
)
def test_a_moment_may_be_written_in_many_ways(moment: Any) -> None:
    row = {"ref": "r", "machine": "filler-1", "from": moment, "rate": 60}
    assert said(row).correction.from_us == 1_795_410_000_000_000


@pytest.mark.parametrize("zone", ["America/New_York", "UTC", "Pacific/Auckland"])
@pytest.mark.parametrize(
    "end",
    [
        datetime(9999, 12, 31, 23, 59, 59),  # noqa: DTZ001  as databases give it
        "9999-12-31",
        "2200-06-01T00:00:00",
        Decimal("1e30"),
        1e300,
        float("inf"),
    ],
)
def test_an_end_that_never_comes_is_none(end: Any, zone: str) -> None:
    table = RATES.model_copy(update={"timezone": zone})
    row = {"ref": "r", "machine": "filler-1", "from": "0001-01-01", "to": end, "rate": 60}
    found = said(row, table).correction
    assert (found.from_us, found.to_us) == (0, OPEN_END_US)
    assert "ends before it begins" in problem(row | {"from": end}, table)


def test_columns_and_machines_may_be_called_otherwise() -> None:
    table = MasterDataTable(
        name="mes",
        kind="ideal_rate",
        url="sqlite://",
        query="...",
        columns={"rate": "units_per_min", "machine": "workplace"},
        machines={"WP-1": "plant/packaging/line-1/capper-1"},
    )
    row = {"ref": "r", "workplace": "WP-1", "from": 1795410000, "units_per_min": 90}
    assert said(row, table).correction.machine == "plant/packaging/line-1/capper-1"


def test_off_quality_needs_whole_units_and_no_end() -> None:
    found = said({"ref": "q", "machine": "filler-1", "from": 1795410000, "units": 12.0}, LAB)
    assert found.correction.units == 12
    assert found.correction.to_us == found.correction.from_us


def test_a_deleted_row_says_so() -> None:
    row = {"ref": "r", "machine": "filler-1", "from": 1795410000, "rate": 60, "deleted": True}
    assert said(row).is_deleted
    assert not said(row | {"deleted": "0"}).is_deleted


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"machine": "mixer"}, "not in the plant"),
        ({"machine": None}, "empty or missing"),
        ({"from": "yesterday"}, "not a moment"),
        ({"to": 1795400000}, "ends before it begins"),
        ({"rate": 0}, "not a rate"),
        ({"rate": -5}, "not a rate"),
        ({"rate": "fast"}, "not a number"),
        ({"rate": float("nan")}, "empty or missing"),
        ({"rate": "1e400"}, "not a rate"),
        ({"ref": ""}, "empty or missing"),
    ],
)
def test_a_bad_row_says_what_is_wrong(change: dict[str, Any], words: str) -> None:
    row = {"ref": "r", "machine": "filler-1", "from": 1795410000, "rate": 60} | change
    assert words in problem(row)


@pytest.mark.parametrize("units", ["1000000001", "-1e10", "1e99999", 10**30])
def test_units_that_no_machine_makes_are_refused(units: Any) -> None:
    """They would overflow the sums of every shift for as long as they stand."""
    row = {"ref": "r", "machine": "filler-1", "from": "2026-11-23T06:00:00", "units": units}
    assert "more than any machine makes: 1,000,000,000 at most" in problem(row, LAB)


def test_a_column_that_a_kind_has_not_is_nothing_that_it_says() -> None:
    """Such as the reason of a reject, which is none of the plant's for a stop."""
    row = {"ref": "r", "machine": "filler-1", "from": "2026-11-23T06:00:00", "units": 5}
    plain = said(row, LAB).correction
    assert said(row | {"reason": "leaking cap", "rate": "n/a", "order": "A1"}, LAB).correction == plain
