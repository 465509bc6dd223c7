"""Figures computed from telemetry files against the simulated factory's own truth, which shares no code."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud import compute, plant
from simulator import configuration, offline, scenarios
from simulator.factory import Run
from simulator.scenarios import Scenario
from simulator.timetable import US_PER_SEC, iso, windows
from simulator.truth import Figures, Truth

ORIGIN_US = 1_790_000_040 * US_PER_SEC
IDEAL_PER_SEC = 203 / 60
SPAN_US = 17 * 3600 * US_PER_SEC
BLIND = "bad-quality"
EXACT = [name for name in scenarios.names() if name not in (BLIND, "plc-lost")]
RATIOS = ("availability", "performance", "quality", "oee")


def played(scenario: Scenario, folder: Path) -> list[tuple[Figures, dict[str, Any]]]:
    """Return the true figures and the computed ones of every whole shift and machine."""
    from_us, to_us = scenario.span_us or (ORIGIN_US, ORIGIN_US + SPAN_US)
    shown = list(offline.moments(Run(factory=scenario.factory, origin_us=from_us), to_us))
    with (folder / "telemetry.jsonl").open("wb") as file:
        for record in offline.told(scenario.factory, shown, to_us):
            file.write(msgspec.json.encode(record) + b"\n")
    (folder / "plant.toml").write_text(configuration.plant_toml(scenario))
    computed = compute.compute(plant.load(folder / "plant.toml"), [folder / "telemetry.jsonl"])
    assert not computed.refused
    found = {(figures["machine"], figures["start"]): figures for figures in map(_as_json, computed.figures)}
    truth = Truth.from_moments(scenario.factory, shown).figures(from_us, to_us)
    whole = {(shift.start_us, shift.end_us) for shift in windows(scenario.factory.timetable, from_us, to_us)}
    return [
        (true, found[true.machine, iso(true.start_us)])
        for true in truth
        if (true.start_us, true.end_us) in whole
    ]


def _as_json(figures: Any) -> dict[str, Any]:
    return dict(figures.to_dict())


@pytest.mark.parametrize("name", EXACT)
def test_every_figure_is_the_true_one(name: str, tmp_path: Path) -> None:
    """Units and times are equal, ratios to a billionth, in every kind of day; clocks may change meanwhile."""
    shifts = played(scenarios.build(name, lines=1), tmp_path)
    assert len(shifts) >= 4
    for true, computed in shifts:
        told = true.to_dict()
        for key in ("total_units", "good_units", "off_quality_units", "unplanned_units"):
            assert computed[key] == told[key], (name, true.machine, true.shift, key)
        for key in ("planned_production_secs", "running_secs", "run_secs"):
            assert computed[key] == told[key], (name, true.machine, true.shift, key)
        assert computed["losses"]["small_stops"] == told["small_stop_secs"]
        assert computed["losses"]["planned_stop"] == told["planned_stop_secs"]
        assert computed["losses"]["break"] == told["break_secs"]
        assert computed["unknown_secs"] == 0
        for key in RATIOS:
            assert computed[key] == pytest.approx(told[key], rel=1e-9), (name, true.machine, true.shift, key)


def test_the_truth_lies_within_the_bounds_where_values_were_bad(tmp_path: Path) -> None:
    """Only units made in the dark may move, to the moment at which they show."""
    shifts = played(scenarios.build(BLIND, lines=1), tmp_path)
    unknown = 0
    for true, computed in shifts:
        told = true.to_dict()
        unseen = computed["unknown_secs"] * IDEAL_PER_SEC + 4
        assert abs(computed["total_units"] - told["total_units"]) <= unseen
        assert abs(computed["off_quality_units"] - told["off_quality_units"]) <= unseen
        if computed["unknown_secs"] == 0:
            continue
        unknown += 1
        for key in RATIOS:
            least, most = computed["bounds"][key]
            assert least - 1e-9 <= told[key] <= most + 1e-9, (true.machine, true.shift, key)
    assert unknown >= 4
