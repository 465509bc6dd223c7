"""Simulated factory, OPC UA, gateway, mosquitto, cloud: what is stored is what happened, to the unit."""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from simulator.timetable import windows
from simulator.truth import Truth
from tests.support import judge, kept
from tests.support.whole_system import WholeSystem

HISTORY_HOURS = 7.0
"""At least two and a half shifts of the demo's two hours, so three that are touched, whenever it starts."""
pytestmark = pytest.mark.slow


def true_figures(system: WholeSystem) -> list[dict[str, Any]]:
    """Return the true figures of every shift that began and ended while the factory ran."""
    truth = Truth.from_log(system.truth_log)
    from_us, to_us = truth.span_us()
    whole = {
        (shift.start_us, shift.end_us)
        for shift in windows(truth.timetable, from_us, to_us)
        if shift.start_us >= from_us and shift.end_us <= to_us - 5_000_000
    }
    found = truth.figures(from_us, to_us)
    return [figures.to_dict() for figures in found if (figures.start_us, figures.end_us) in whole]


def played_share(system: WholeSystem) -> float:
    """Return how much of its past the factory has shown, the line that is furthest behind, from 0 to 1."""
    path = system.folder / "factory" / "factory.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    lines = known.get("lines", {})
    if len(lines) < len(system.scenario.factory.lines):
        return 0.0
    at_us = min(line["at_us"] for line in lines.values())
    return float((at_us - known["origin_us"]) / (HISTORY_HOURS * 3600 * kept.US))


def assert_all_true(system: WholeSystem) -> None:
    verdict = judge.judge(
        judge.read_moments(system.truth_log), kept.read_store(system.folder / "cloud" / "store.sqlite3")
    )
    assert not verdict.faults, str(verdict)
    assert verdict.covered == 0, str(verdict)
    assert verdict.moments > 20_000
    closed = kept.read_closed_shifts(system.folder / "cloud" / "store.sqlite3")
    expected = true_figures(system)
    shifts = {figures["start"] for figures in expected}
    assert len(shifts) >= 2
    assert any(figures["off_quality_units"] for figures in expected)
    assert judge.compare_figures(closed, expected) == []


def counters_were_reset(system: WholeSystem) -> bool:
    moments = judge.read_moments(system.truth_log).values()
    return any(
        (after.shown.total_units or 0) < (before.shown.total_units or 0)
        for machine in moments
        for before, after in itertools.pairwise(machine)
    )


def test_three_shifts_arrive_to_the_unit(tmp_path: Path) -> None:
    with WholeSystem(tmp_path, "demo", history_hours=HISTORY_HOURS) as system:
        system.start()
        system.wait_until(system.is_live, "the past is played", 80)
        time.sleep(3)
        system.stop_in_order()
        assert counters_were_reset(system)
        assert_all_true(system)


def test_nothing_is_lost_when_everything_is_killed_midway(tmp_path: Path) -> None:
    """Broker and cloud side, then the gateway, each without a warning, while the past is played."""
    with WholeSystem(tmp_path, "demo", seed=2, history_hours=HISTORY_HOURS) as system:
        system.start()
        system.wait_until(lambda: played_share(system) > 0.15, "a part is played", 60)
        system.broker.kill()
        system.cloud.kill()
        time.sleep(1.5)
        system.broker.start()
        system.cloud.start()
        system.wait_until(lambda: played_share(system) > 0.5, "half is played", 60)
        system.gateway.kill()
        time.sleep(1.5)
        system.gateway.start()
        system.wait_until(system.is_live, "the past is played", 80)
        time.sleep(2)
        system.stop_in_order()
        assert_all_true(system)
