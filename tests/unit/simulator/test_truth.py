"""The oracle: its log and its figures."""

import itertools
from fractions import Fraction
from pathlib import Path

import pytest

from contract.states import MachineState
from simulator import offline, scenarios
from simulator.factory import Run, Tagged
from simulator.machine import Moment
from simulator.timetable import US_PER_SEC
from simulator.truth import Figures, Row, TagWriter, Truth, TruthLog, read_log

ORIGIN_US = 1_790_000_040 * US_PER_SEC
HOUR_US = 3600 * US_PER_SEC


def a_run(name: str) -> tuple[Run, int]:
    scenario = scenarios.build(name, lines=1)
    origin_us, end_us = scenario.span_us or (ORIGIN_US, ORIGIN_US + 90 * 60 * US_PER_SEC)
    return Run(factory=scenario.factory, origin_us=origin_us), min(end_us, origin_us + 90 * 60 * US_PER_SEC)


@pytest.mark.parametrize("name", scenarios.names())
def test_the_log_alone_gives_the_same_figures(name: str, tmp_path: Path) -> None:
    run, end_us = a_run(name)
    moments = list(offline.moments(run, end_us))
    log = TruthLog(tmp_path / "truth.jsonl", run.factory, run.origin_us)
    writer = TagWriter()
    for moment in moments:
        log.write(writer.rows(moment))
    log.close()
    read = Truth.from_log(tmp_path / "truth.jsonl")
    known = Truth.from_moments(run.factory, moments)
    assert read.figures(run.origin_us, end_us) == known.figures(run.origin_us, end_us)


@pytest.mark.parametrize("name", scenarios.names())
def test_every_second_and_every_unit_is_in_one_place(name: str) -> None:
    run, end_us = a_run(name)
    moments = list(offline.moments(run, end_us))
    last = {tagged.machine: tagged.moment for tagged in moments}
    made: dict[str, int] = dict.fromkeys(last, 0)
    for found in Truth.from_moments(run.factory, moments).figures(run.origin_us, end_us):
        assert found.planned_us == found.run_us + found.small_stop_us + sum(found.standing_us.values())
        assert found.end_us - found.start_us == found.planned_us + found.break_us + found.planned_stop_us
        made[found.machine] += found.total_units + found.unplanned_units
        if found.oee is not None and found.availability and found.performance and found.quality:
            assert found.oee == found.availability * found.performance * found.quality
    assert made == {machine: moment.made for machine, moment in last.items()}


def figures_of(*moments: tuple[float, MachineState, int, int]) -> Figures:
    """Return the figures of one machine from (seconds, state, made, spoiled), for the first hour."""
    factory = scenarios.build("good-day", lines=1).factory
    name = factory.lines[0].machines[0].name
    tagged = []
    for at, state, *made in moments:
        at_us = ORIGIN_US + round(at * US_PER_SEC)
        tagged.append(Tagged("line-1", name, Moment(at_us, state, 0, "SKU-1", 0.0, *made, *made)))
    return Truth.from_moments(factory, tagged).figures(ORIGIN_US, ORIGIN_US + HOUR_US)[0]


def test_a_worked_hour() -> None:
    found = figures_of(
        (0, MachineState.RUNNING, 0, 0),
        (1800, MachineState.FAULTED, 5000, 50),
        (1860, MachineState.RUNNING, 5000, 50),
        (2700, MachineState.IDLE, 7000, 100),
    )
    assert (found.planned_us, found.run_us) == (3600 * US_PER_SEC, 2640 * US_PER_SEC)
    assert (found.small_stops, found.small_stop_us) == (1, 60 * US_PER_SEC)
    assert found.availability == Fraction(2700, 3600)
    assert found.performance == Fraction(7000 * 60, 203 * 2700)
    assert found.quality == Fraction(6900, 7000)
    assert found.oee == Fraction(6900 * 60, 203 * 3600)


def test_a_stop_of_two_minutes_is_no_small_stop() -> None:
    for secs, small in ((119.999999, 1), (120.0, 0)):
        found = figures_of(
            (0, MachineState.RUNNING, 0, 0),
            (1000, MachineState.FAULTED, 1, 0),
            (1000 + secs, MachineState.RUNNING, 1, 0),
        )
        assert found.small_stops == small


def test_a_planned_stop_by_state_is_not_planned_time() -> None:
    found = figures_of(
        (0, MachineState.RUNNING, 0, 0),
        (600, MachineState.PLANNED_STOP, 100, 0),
        (1200, MachineState.RUNNING, 103, 0),
    )
    assert found.planned_us == 3000 * US_PER_SEC
    assert (found.total_units, found.unplanned_units) == (100, 3)


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    log = TruthLog(path, scenarios.build("good-day").factory, ORIGIN_US)
    log.write([Row("line-1/filler-1", "State", 1, ORIGIN_US, 1)])
    log.close()
    with path.open("ab") as file:
        file.write(b'{"machine":"line-1/fil')
    assert [row.get("tag") for row in read_log(path)] == [None, "State"]


def test_rows_are_what_changed(run: Run) -> None:
    writer = TagWriter()
    moments = list(itertools.islice(run.line_moments(run.factory.lines[0]), 500))
    rows = [row for tagged in moments for row in writer.rows(tagged)]
    shown: dict[tuple[str, str], object] = {}
    for row in rows:
        assert shown.get((row.machine, row.tag)) != (row.value, row.status)
        shown[row.machine, row.tag] = (row.value, row.status)
    assert len(shown) == 6 * 4


def test_a_log_without_its_factory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="does not begin"):
        Truth.from_log(tmp_path / "empty")
