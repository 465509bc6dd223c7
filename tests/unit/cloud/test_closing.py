"""Which shifts are closed and revised when, with the clock as an argument."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cloud.closing import Closing
from cloud.evaluation import Evaluation
from cloud.plant import Plant, loads
from cloud.store.port import Arrivals, ClosedShift
from cloud.store.sqlite import SqliteStore
from contract.states import MachineState
from contract.telemetry import Telemetry

SHIFT, HOUR, SEC = 1_625_032_800, 3600, 1_000_000
"""2021-06-30 06:00 UTC: a shift begins."""
LINE = "site/area/line"
MACHINES = """
[[machine]]
area = "area"
line = "line"
name = "m1"
calendar = "short"
ideal_run_rate = 60

[[machine]]
area = "area"
line = "line"
name = "m2"
calendar = "long"
ideal_run_rate = 60
"""
CALENDARS = """
[calendar.short]
shifts = [
  { name = "early", start = "06:00", end = "14:00" },
  { name = "late", start = "14:00", end = "22:00" },
]
[calendar.long]
shifts = [
  { name = "early", start = "06:00", end = "15:00" },
  { name = "late", start = "15:00", end = "22:00" },
]
"""


def plant(definitions: str = "", calendars: str = CALENDARS) -> Plant:
    return loads(
        f'[site]\nname = "site"\ntimezone = "UTC"\n[definitions]\n{definitions}\n{calendars}\n{MACHINES}'
    )


def ran(
    machine: str, from_: float, to: float, *, step: float = 30, first: int = 0, gateway: str = "gw"
) -> list[Telemetry]:
    """Return what a machine that makes a unit a second tells from one instant to another."""
    return [
        Telemetry(
            epochtime=from_ + number * step,
            site="site",
            area="area",
            line="line",
            machine=machine,
            state=MachineState.RUNNING,
            gateway=f"{gateway}-{machine}",
            sequence=first + number + 1,
            total_units=int(from_ + number * step - SHIFT + HOUR),
        )
        for number in range(round((to - from_) / step) + 1)
    ]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "store.sqlite3")) as opened:
        yield opened


def closed(store: SqliteStore, of: Plant, *instants: float) -> list[ClosedShift]:
    """Return what is closed or revised at successive instants, with one service that goes on."""
    made = Closing(Evaluation(of, store), grace_us=0, settle_us=0)
    found: list[ClosedShift] = []
    for now in instants:
        while True:
            step = made.step(round(now * SEC))
            found += step.shifts
            if step.is_done:
                break
    return found


def figures(store: SqliteStore, scope: str, start: float = SHIFT) -> list[dict[str, Any]]:
    return [each.figures for each in store.closed(scope, round(start * SEC))]


def test_a_line_closes_its_shift_when_it_has_ended_for_all_of_its_machines(store: SqliteStore) -> None:
    for machine in ("m1", "m2"):
        store.append(Arrivals(ran(machine, SHIFT, SHIFT + 10 * HOUR)))
    first = closed(store, plant(), SHIFT + 8.5 * HOUR)
    assert [shift.scope for shift in first] == [f"{LINE}/m1"]
    second = closed(store, plant(), SHIFT + 9.5 * HOUR)
    assert [shift.scope for shift in second if shift.start_us == SHIFT * SEC] == [f"{LINE}/m2", LINE]
    (line,) = figures(store, LINE)
    assert line["planned_production_secs"] == (8 + 9) * HOUR
    assert line["total_units"] == (8 + 9) * HOUR


def test_late_records_of_one_machine_revise_the_whole_line(store: SqliteStore) -> None:
    store.append(Arrivals(ran("m2", SHIFT, SHIFT + 10 * HOUR)))
    late = ran("m1", SHIFT, SHIFT + 10 * HOUR)
    store.append(Arrivals(late[:100] + late[300:]))
    service = plant()
    closed(store, service, SHIFT + 10 * HOUR)
    store.append(Arrivals(late[100:300]))
    revised = closed(store, service, SHIFT + 10.5 * HOUR, SHIFT + 11 * HOUR)
    assert [(shift.scope, shift.revision.revision) for shift in revised] == [(f"{LINE}/m1", 2), (LINE, 2)]
    before, after = figures(store, LINE)
    assert before["unknown_secs"] > 0
    assert after["unknown_secs"] == 0
    assert after["planned_production_secs"] == before["planned_production_secs"] == (8 + 9) * HOUR
