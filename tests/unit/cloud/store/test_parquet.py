"""The history in Parquet: complete, sorted, each record once, replaced as a whole."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cloud.errors import HistoryError
from cloud.oee import records as record_format
from cloud.oee.records import Names
from cloud.store import rows
from cloud.store.parquet import FILE, History, day_of, day_start_us
from cloud.store.parquet_columns import FOR_FIGURES, SCHEMA, rows_of, table_of
from contract.delivery import Gap
from contract.machine_key import MachineKey
from contract.states import MachineState
from contract.telemetry import ExtendedTelemetry, Telemetry

DAY = date(2021, 6, 30)
NOON = 1_625_054_400.0
FULL: dict[str, Any] = {
    "total_units": 5,
    "off_quality_units": 1,
    "good_units": 4,
    "reason_code": 17,
    "product": "SKU-7",
    "order": "A1",
    "operator": "Ann",
    "ideal_run_rate": 203.5,
    "data_quality": "uncertain",
    "status": "UncertainLastUsableValue",
    "tags": {"speed": 1.5, "ok": True, "name": "x"},
}


def said(secs: float = 0, machine: str = "filler-1", **fields: Any) -> Telemetry:
    said.sequence += 1
    defaults: dict[str, Any] = {
        "site": "berlin",
        "area": "packaging",
        "line": "line-1",
        "gateway": "gw",
        "state": MachineState.RUNNING,
        "sequence": said.sequence,
    }
    return Telemetry(epochtime=NOON + secs, machine=machine, **(defaults | fields))


said.sequence = 0


def gap(secs: float, sequence: int) -> Gap:
    return Gap(
        site="berlin",
        area="packaging",
        line="line-1",
        machine="filler-1",
        gateway="gw",
        sequence=sequence,
        from_epochtime=NOON + secs,
        to_epochtime=NOON + secs + 7.25,
        cause="PLC silent",
    )


def arrow(items: Sequence[Telemetry | Gap]) -> pa.Table:
    """Return a table by machine, as the store hands it out."""
    names = rows.Names()
    telemetry = rows.from_telemetry([item for item in items if isinstance(item, Telemetry)], names)
    gaps = rows.from_gaps([item for item in items if isinstance(item, Gap)], names)
    both = np.concatenate([telemetry.rows, gaps.rows])
    order = sorted(range(len(both)), key=lambda row: names.name("machine", both["machine"][row]))
    return table_of(rows.Table(both[order], telemetry.rest | gaps.rest), names)


def stored(history: History) -> list[Telemetry | Gap]:
    """Return all that a history holds, in its order."""
    names = rows.Names()
    found: list[Telemetry | Gap] = []
    for partition in history.partitions():
        for table in history.tables(partition):
            found += rows.to_telemetry(rows_of(table, partition.site, names), names)
    return found


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


def test_records_come_back_whole(history: History) -> None:
    items = [
        said(0),
        said(1, **FULL),
        said(2, reason_code="17", data_quality="bad", state=MachineState.FAULTED),
        said(3, reason_code="'#17", product="", gateway="other"),
        gap(4, 1_000_000),
        ExtendedTelemetry(
            epochtime=NOON + 5,
            site="berlin",
            area="packaging",
            line="line-1",
            machine="filler-1",
            gateway="gw",
            state=MachineState.IDLE,
            sequence=2**53,
            extras={"shift_lead": "Bo", "n": [1, {"a": None}]},
        ),
    ]
    history.add("berlin", DAY, [arrow(items)])
    assert stored(history) == items


def test_a_file_is_sorted_by_machine_and_time(history: History) -> None:
    items = [said(secs, machine) for secs in (5, 1, 3) for machine in ("filler-2", "filler-1")]
    history.add("berlin", DAY, [arrow(items)])
    assert stored(history) == sorted(items, key=lambda item: (item.machine, item.epochtime))


def test_a_repeated_record_changes_nothing(history: History) -> None:
    items = [said(secs) for secs in range(10)]
    history.add("berlin", DAY, [arrow([*items, *items[:3]])])
    history.add("berlin", DAY, [arrow(items[5:])])
    assert stored(history) == items


def test_records_at_one_moment_are_all_kept(history: History) -> None:
    """Two gateways, and two records of one; in the order of gateway and sequence."""
    items = [said(1, gateway="b"), said(1, gateway="a", sequence=9), said(1, gateway="a", sequence=8)]
    history.add("berlin", DAY, [arrow(items)])
    assert stored(history) == items[::-1]


def test_late_records_take_their_place(history: History) -> None:
    early = [said(secs, machine) for machine in ("b", "d") for secs in (0, 10)]
    late = [said(5, machine) for machine in ("a", "b", "c", "e")]
    history.add("berlin", DAY, [arrow(early)])
    history.add("berlin", DAY, [arrow(late)])
    assert stored(history) == sorted([*early, *late], key=lambda item: (item.machine, item.epochtime))


def test_late_records_rewrite_only_their_partition(history: History) -> None:
    days = [DAY, date(2021, 7, 1)]
    for place, day in enumerate(days):
        history.add("berlin", day, [arrow([said(86_400 * place)])])
    before = [partition.path.stat().st_ino for partition in history.partitions()]
    history.add("berlin", days[1], [arrow([said(86_401)])])
    after = [partition.path.stat().st_ino for partition in history.partitions()]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]


def test_a_reader_of_the_old_file_is_not_disturbed(history: History) -> None:
    history.add("berlin", DAY, [arrow([said(0)])])
    (partition,) = history.partitions()
    with partition.path.open("rb") as file:
        history.add("berlin", DAY, [arrow([said(1)])])
        assert pq.read_table(file).num_rows == 1
    assert pq.ParquetFile(partition.path).metadata.num_rows == 2


def test_an_interrupted_rewrite_leaves_the_old_file(history: History) -> None:
    history.add("berlin", DAY, [arrow([said(0)])])

    def broken() -> Any:
        yield arrow([said(1, "a")])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        history.add("berlin", DAY, broken())
    assert len(stored(history)) == 1
    history.add("berlin", DAY, [arrow([said(1)])])
    assert len(stored(history)) == 2
    assert [path.name for path in history.partitions()[0].path.parent.iterdir()] == [FILE]


def test_machines_out_of_order_are_refused(history: History) -> None:
    with pytest.raises(ValueError, match="packaging/line-1/a comes after packaging/line-1/b"):
        history.add("berlin", DAY, [arrow([said(0, "b")]), arrow([said(0, "a")])])
    assert history.partitions() == []


def test_a_row_group_holds_whole_machines(tmp_path: Path) -> None:
    history = History(tmp_path, rows_per_group=250)
    items = [said(secs / 10, machine) for machine in "abcde" for secs in range(100)]
    partition = history.add("berlin", DAY, [arrow(items[:300]), arrow(items[300:])])
    with pq.ParquetFile(partition.path) as file:
        groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    assert groups == [200, 200, 100]
    assert stored(history) == items
    (found,) = history.tables(partition, machines=[MachineKey("berlin", "packaging", "line-1", "d")])
    assert len(found) == 100


def test_single_machines_can_be_read(history: History) -> None:
    history.add("berlin", DAY, [arrow([said(0, machine) for machine in "abc"])])
    (partition,) = history.partitions()
    keys = [MachineKey("berlin", "packaging", "line-1", machine) for machine in "bz"]
    tables = list(history.tables(partition, machines=keys, columns=["time"]))
    assert [(table.column_names, len(table)) for table in tables] == [(["time"], 1)]
    other = [MachineKey("paris", "packaging", "line-1", "b")]
    assert list(history.tables(partition, machines=other)) == []


def test_records_for_figures_equal_those_of_the_telemetry(history: History) -> None:
    items = [
        said(0, "b", **FULL),
        said(1, "b"),
        gap(2, 77_777),
        said(3, "a", data_quality="bad", total_units=3, reason_code=5),
        said(4, "a", gateway="other", good_units=8),
    ]
    history.add("berlin", DAY, [arrow(items)])
    names = Names()
    found = history.records(names, 0, 2**60)
    expected = record_format.from_telemetry(items, names)
    for (name, column), (_, wanted) in zip(found.columns(), expected.columns(), strict=True):
        np.testing.assert_array_equal(column, wanted, err_msg=name)


def test_a_scan_keeps_the_order_of_the_names_that_are_known(history: History) -> None:
    history.add("berlin", DAY, [arrow([said(secs, machine) for machine in "abc" for secs in (0, 1)])])
    names = Names([MachineKey("berlin", "packaging", "line-1", machine) for machine in "ca"])
    (found,) = history.scan(names, 0, 2**60)
    assert found.machine.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.time_us.tolist() == [int(NOON * 1e6) + step for _ in "abc" for step in (0, 1_000_000)]


def test_a_scan_ends_where_it_is_told_to(history: History) -> None:
    history.add("berlin", DAY, [arrow([said(secs) for secs in range(5)])])
    start = int(NOON * 1e6)
    found = history.records(Names(), start + 1_000_000, start + 3_000_000)
    assert found.time_us.tolist() == [start + 1_000_000, start + 2_000_000]


def days(*items: tuple[int, float, dict[str, Any]]) -> dict[date, list[Telemetry]]:
    """Return one machine's records by day; each item says on which day, when, and what."""
    found: dict[date, list[Telemetry]] = {}
    for number, secs, fields in items:
        found.setdefault(date(2021, 6, 30 - number), []).append(said(secs - number * 86_400, **fields))
    return found


def times(stretches: Any) -> list[float]:
    return [time_us / 1e6 - NOON for records in stretches for time_us in records.time_us.tolist()]


KEY = MachineKey("berlin", "packaging", "line-1", "filler-1")


def test_what_was_counted_last_before_an_instant_is_found_however_long_ago(history: History) -> None:
    counted = {"total_units": 5}
    told = days((9, 0, counted), (9, 1, counted), (9, 2, {}), (4, 0, {}), (0, 0, {}), (0, 9, counted))
    for day, items in told.items():
        history.add("berlin", day, [arrow(items)])
    found = times(history.before(Names(), int((NOON + 5) * 1e6), [KEY]))
    assert found == [1 - 9 * 86_400, 2 - 9 * 86_400, -4 * 86_400, 0]


def test_every_counter_is_looked_for_on_the_last_day_that_has_any(history: History) -> None:
    told = days(
        (1, 0, {"good_units": 1, "total_units": 1}),
        (0, 0, {"off_quality_units": 1}),
        (0, 1, {"total_units": 1}),
    )
    for day, items in told.items():
        history.add("berlin", day, [arrow(items)])
    assert times(history.before(Names(), int((NOON + 5) * 1e6), [KEY])) == [0, 1]


def test_of_a_machine_that_never_counts_the_last_day_is_found(history: History) -> None:
    for day, items in days((9, 0, {}), (4, 0, {}), (4, 1, {}), (0, 9, {})).items():
        history.add("berlin", day, [arrow(items)])
    names = Names()
    assert times(history.before(names, int((NOON + 5) * 1e6), [KEY])) == [-4 * 86_400, 1 - 4 * 86_400]
    assert times(history.after(names, int((NOON + 5) * 1e6), [KEY])) == []


def test_what_is_counted_first_after_an_instant_is_found_however_late(history: History) -> None:
    counted = {"total_units": 5}
    told = days((9, 0, counted), (9, 2, {}), (4, 0, {}), (0, 0, {}), (0, 3, counted), (0, 9, counted))
    for day, items in told.items():
        history.add("berlin", day, [arrow(items)])
    found = times(history.after(Names(), int((NOON - 9 * 86_400 + 1) * 1e6), [KEY]))
    assert found == [2 - 9 * 86_400, -4 * 86_400, 0, 3]


def test_days_before_a_date_can_be_forgotten(history: History) -> None:
    for place in range(3):
        history.add(
            "berlin", day_of(day_start_us(DAY) + place * 86_400_000_000), [arrow([said(86_400 * place)])]
        )
    history.add("paris", DAY, [arrow([said(0, site="paris")])])
    assert [partition.day.day for partition in history.forget("berlin", date(2021, 7, 2))] == [30, 1]
    assert [(partition.site, partition.day.day) for partition in history.partitions()] == [
        ("berlin", 2),
        ("paris", 30),
    ]


def test_an_unreadable_file_is_an_error_that_names_it(history: History) -> None:
    history.add("berlin", DAY, [arrow([said(0)])])
    (partition,) = history.partitions()
    partition.path.write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(HistoryError, match=str(partition.path)):
        list(history.tables(partition))


def test_a_file_from_elsewhere_is_an_error_that_says_so(history: History) -> None:
    partition = history.add("berlin", DAY, [arrow([said(0)])])
    pq.write_table(arrow([said(0)]).replace_schema_metadata(None), partition.path)
    with pytest.raises(HistoryError, match="was not written by this program"):
        history.spans(partition)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryError, match="file"):
        History(tmp_path / "file" / "history").add("berlin", DAY, [arrow([said(0)])])


def test_duckdb_reads_the_files_without_us(history: History) -> None:
    for place in range(2):
        history.add(
            "berlin",
            day_of(day_start_us(DAY) + place * 86_400_000_000),
            [arrow([said(86_400 * place, **FULL)])],
        )
    found = duckdb.sql(
        f"""SELECT site, day::VARCHAR, machine,
                   epoch_us(time), state, total_units, reason_code, tags->>'speed'
            FROM read_parquet('{history.root}/*/*/*.parquet', hive_partitioning = true) ORDER BY time"""
    ).fetchall()
    assert found == [
        ("berlin", day, "filler-1", int((NOON + secs) * 1e6), "running", 5, "17", "1.5")
        for day, secs in (("2021-06-30", 0), ("2021-07-01", 86_400))
    ]


def test_what_the_documentation_says_to_duckdb_and_pandas_works(history: History) -> None:
    history.add("berlin", DAY, [arrow([said(0, **FULL), said(7200, **FULL)])])
    text = (Path(__file__).parents[4] / "docs" / "history.md").read_text()
    query = text[text.index("-- DuckDB") : text.index("ORDER BY ALL;")] + "ORDER BY ALL;"
    assert "read_parquet('history/" in query
    rows = duckdb.sql(query.replace("'history/", f"'{history.root}/")).fetchall()
    assert [(row[0], str(row[1]), *row[2:]) for row in rows] == [("filler-1", "2021-06-30", "running", 2.0)]
    assert len(pd.read_parquet(history.root)) == 2
    assert len(pd.read_parquet(history.root, filters=[("day", "=", "2021-06-30")])) == 2
    assert len(pd.read_parquet(history.root, filters=[("day", "=", "2021-07-01")])) == 0


def test_every_column_stands_in_the_documentation() -> None:
    text = (Path(__file__).parents[4] / "docs" / "history.md").read_text()
    for field in SCHEMA:
        assert f"| `{field.name}` |" in text, field.name
    assert set(FOR_FIGURES) < set(SCHEMA.names)


def test_days_are_utc() -> None:
    assert day_of(day_start_us(DAY)) == DAY
    assert day_of(day_start_us(DAY) - 1) == date(2021, 6, 29)
    assert day_start_us(date(2021, 7, 1)) - day_start_us(DAY) == 86_400_000_000
