"""A small factory for the simulator's own tests."""

from dataclasses import replace

import pytest

from simulator import scenarios
from simulator.factory import Factory, Run
from simulator.scenarios import Scenario
from simulator.timetable import US_PER_SEC

ORIGIN_US = 1_790_000_040 * US_PER_SEC
"""2026-09-21 14:14 UTC."""


@pytest.fixture
def scenario() -> Scenario:
    """Return a lively day of one line."""
    return scenarios.build("demo", lines=1)


@pytest.fixture
def factory(scenario: Scenario) -> Factory:
    return replace(scenario.factory, tick_us=US_PER_SEC)


@pytest.fixture
def run(factory: Factory) -> Run:
    return Run(factory=factory, origin_us=ORIGIN_US)
