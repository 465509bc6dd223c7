"""Whatever of the store has moved to the history, readers see the same records."""

import random
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from cloud.store import rows
from cloud.store.parquet import US_PER_DAY, History
from cloud.store.port import Arrivals
from cloud.store.sqlite import SqliteStore
from cloud.store.tiers import TieredStore
from contract.delivery import Gap
from contract.states import MachineState
from contract.telemetry import Telemetry

START = 1_624_924_800  # 2021-06-29 00:00 UTC
MACHINES = ("capper", "filler", "packer")
DAYS = (date(2021, 6, 29), date(2021, 6, 30), date(2021, 7, 1))


def telemetry(seed: int, count: int, *, first_sequence: int = 1) -> list[Telemetry]:
    """Return records of three machines over four days, in no order; the packer is away on the second day."""
    dice = random.Random(seed)
    found = []
    for sequence in range(first_sequence, first_sequence + count):
        machine = dice.choice(MACHINES)
        secs = dice.randrange(4 * 86_400)
        if machine == "packer" and secs // 86_400 == 1:
            secs += 86_400
        found.append(
            Telemetry(
                epochtime=START + secs,
                site="berlin",
                area="packaging",
                line="line-1",
                machine=machine,
                gateway=dice.choice(["gw-1", "gw-2"]),
                sequence=sequence,
                state=dice.choice(list(MachineState)),
                **dice.choice([{}, {"total_units": sequence}, {"tags": {"speed": 1.5}, "reason_code": 5}]),
            )
        )
    return found


def gap(sequence: int) -> Gap:
    return Gap(
        site="berlin",
        area="packaging",
        line="line-1",
        machine="filler",
        gateway="gw-1",
        sequence=sequence,
        from_epochtime=START + 90_000,
        to_epochtime=START + 90_060,
        cause="PLC silent",
    )


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "plain.sqlite3")) as store:
        yield store


@pytest.fixture
def tiered(tmp_path: Path) -> Iterator[TieredStore]:
    with closing(TieredStore(tmp_path / "tiered.sqlite3", History(tmp_path / "history"))) as store:
        yield store


def told(store: SqliteStore, from_us: int = 0, to_us: int = 2**60) -> list[Telemetry | Gap]:
    """Return what a store holds, as it came."""
    table = store.read_table(range(len(store.names.all("machine"))), from_us, to_us)
    return rows.to_telemetry(table, store.names)


def assert_same(tiered: TieredStore, plain: SqliteStore) -> None:
    dice = random.Random(7)
    assert told(tiered) == told(plain)
    for key in plain.names.all("machine"):
        one, other = plain.names.find("machine", key), tiered.names.find("machine", key)
        assert tiered.extent(other) == plain.extent(one)
        for _ in range(8):
            at_us = (START + dice.randrange(-100, 5 * 86_400)) * 1_000_000
            end_us = at_us + dice.randrange(1, US_PER_DAY)
            assert tiered.next_time(other, at_us) == plain.next_time(one, at_us)
            before, expected = tiered.read_before([other], at_us), plain.read_before([one], at_us)
            np.testing.assert_array_equal(before["sequence"], expected["sequence"])
            after, expected = tiered.read_after([other], at_us), plain.read_after([one], at_us)
            np.testing.assert_array_equal(after["sequence"], expected["sequence"])
            np.testing.assert_array_equal(
                tiered.read([other], at_us, end_us)["sequence"], plain.read([one], at_us, end_us)["sequence"]
            )


def test_archived_days_are_read_as_if_they_had_not_moved(plain: SqliteStore, tiered: TieredStore) -> None:
    for store in (plain, tiered):
        store.append(Arrivals(telemetry(1, 400), [gap(1000)]))
    moved = tiered.archive(date(2021, 7, 2), limit=10)
    assert [(each.site, each.day) for each in moved] == [("berlin", day) for day in DAYS]
    assert [partition.day for partition in tiered.history.partitions()] == list(DAYS)
    assert_same(tiered, plain)


def test_late_records_of_archived_days_are_read_with_them(plain: SqliteStore, tiered: TieredStore) -> None:
    for store in (plain, tiered):
        store.append(Arrivals(telemetry(1, 300)))
    tiered.archive(date(2021, 7, 2), limit=10)
    for store in (plain, tiered):
        store.append(Arrivals(telemetry(2, 100, first_sequence=500)))
    assert_same(tiered, plain)
    tiered.archive(date(2021, 7, 2), limit=10)
    assert_same(tiered, plain)


def test_a_repeated_record_of_an_archived_day_is_not_stored_again(tiered: TieredStore) -> None:
    items = telemetry(1, 100)
    tiered.append(Arrivals(items))
    tiered.archive(date(2021, 7, 2), limit=10)
    assert tiered.append(Arrivals(items)).repeated == 100
    assert len(told(tiered)) == 100


def test_what_stands_on_both_sides_is_read_once(plain: SqliteStore, tiered: TieredStore) -> None:
    """As after a crash between writing the file and deleting the chunks."""
    for store in (plain, tiered):
        store.append(Arrivals(telemetry(1, 200)))
    with closing(TieredStore(tiered._path, tiered.history)) as other:
        for _ in other.history.partitions():
            raise AssertionError
        for day in DAYS:
            other.history.add("berlin", day, other._tables("berlin", day, []))
    assert_same(tiered, plain)
    tiered.archive(date(2021, 7, 2), limit=10)
    assert_same(tiered, plain)


def test_archiving_goes_day_by_day(tiered: TieredStore) -> None:
    tiered.append(Arrivals(telemetry(1, 100)))
    assert [each.day for each in tiered.archive(date(2021, 7, 1), limit=1)] == [DAYS[0]]
    assert [each.day for each in tiered.archive(date(2021, 7, 1), limit=1)] == [DAYS[1]]
    assert tiered.archive(date(2021, 7, 1), limit=1) == []


def test_the_newest_chunk_stays_so_that_marks_go_on_growing(tiered: TieredStore) -> None:
    tiered.live_from_us[0] = 2**60
    tiered.append(Arrivals(telemetry(1, 1)))
    (before,) = tiered.dirty()
    tiered.archive(date(2022, 1, 1), limit=10)
    late = telemetry(1, 1, first_sequence=2)
    tiered.append(Arrivals(late))
    (after,) = tiered.dirty()
    assert after.mark > before.mark


def test_a_history_from_elsewhere_brings_its_names(tmp_path: Path, tiered: TieredStore) -> None:
    tiered.append(Arrivals(telemetry(1, 50)))
    tiered.archive(date(2022, 1, 1), limit=10)
    with closing(TieredStore(tmp_path / "new.sqlite3", tiered.history)) as other:
        other.append(
            Arrivals(
                [
                    item
                    for item in telemetry(3, 200, first_sequence=900)
                    if item.epochtime > START + 3 * 86_400
                ]
            )
        )
        assert {(i.gateway, i.sequence) for i in told(tiered)} <= {
            (i.gateway, i.sequence) for i in told(other)
        }


def test_forgotten_days_are_gone(tiered: TieredStore) -> None:
    tiered.append(Arrivals(telemetry(1, 100)))
    tiered.archive(date(2021, 7, 2), limit=10)
    tiered.history.forget("berlin", date(2021, 7, 1))
    assert min(item.epochtime for item in told(tiered) if isinstance(item, Telemetry)) >= START + 2 * 86_400
