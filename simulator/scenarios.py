"""The factories to choose from: each a way in which things go."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from contract.states import MachineState
from simulator.factory import Factory, Line
from simulator.machine import Machine, Product, Stop
from simulator.timetable import US_PER_SEC, PlannedStop, Shift, Timetable

REASONS: Final[dict[int, tuple[str, str, str]]] = {
    11: ("Jam at infeed", "Mechanical", "breakdown"),
    12: ("Guard open", "Mechanical", "breakdown"),
    21: ("Drive overload", "Electrical", "breakdown"),
    22: ("Sensor lost", "Electrical", "breakdown"),
    31: ("No material", "Logistics", "idle"),
    32: ("Outfeed full", "Logistics", "idle"),
}
"""Fault code -> name, group and loss category."""

_KINDS: Final = ("filler", "capper", "labeller", "packer")
_PRODUCTS: Final = (
    Product(name="SKU-1", ideal_run_rate=203.0),
    Product(name="SKU-2", ideal_run_rate=180.0),
    Product(name="SKU-3", ideal_run_rate=150.0),
)
_THREE_SHIFTS: Final = (
    Shift(name="1", start="06:00", end="14:00", breaks=(("10:00", 30),)),
    Shift(name="2", start="14:00", end="22:00", breaks=(("18:00", 30),)),
    Shift(name="3", start="22:00", end="06:00", breaks=(("02:00", 30),)),
)
_DEMO_SHIFTS: Final = tuple(
    Shift(name=f"{hour // 2 + 1}", start=f"{hour:02}:00", end=f"{(hour + 2) % 24:02}:00")
    for hour in range(0, 24, 2)
)

_FAULT: Final = Stop(
    state=MachineState.FAULTED, weight=2, mean_secs=260, shortest_secs=20, codes=(11, 12, 21, 22)
)
_SMALL: Final = Stop(state=MachineState.FAULTED, weight=3, mean_secs=25, shortest_secs=3, codes=(11, 12))
_IDLE: Final = Stop(state=MachineState.IDLE, weight=3, mean_secs=70, shortest_secs=5, codes=(31, 32))
_STOPPED: Final = Stop(state=MachineState.STOPPED, weight=1, mean_secs=150, shortest_secs=10)
_CLEANING: Final = Stop(state=MachineState.PLANNED_STOP, weight=0.15, mean_secs=600, shortest_secs=300)
_MIXTURE: Final = (_FAULT, _SMALL, _IDLE, _STOPPED, _CLEANING)


@dataclass(frozen=True, kw_only=True)
class Outage:
    """The PLC is gone for a while, so long after going live [s]."""

    after_secs: float
    secs: float


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A named factory and what happens around it.

    history_secs: past that is played first unless the caller says otherwise
    idle_soon: machine that is made to stand idle soon after each start
    idle_alert_secs: threshold that the generated plant.toml gives to alerts
    outages: only while live
    span_us: [us] a fixed time in the past that is played, after which the run is over
    """

    name: str
    summary: str
    factory: Factory
    history_secs: float = 4 * 3600.0
    idle_soon: str | None = None
    idle_alert_secs: float = 300.0
    outages: tuple[Outage, ...] = ()
    span_us: tuple[int, int] | None = None


def names() -> list[str]:
    """Return the names that `build` knows."""
    return list(_SCENARIOS)


def summaries() -> dict[str, str]:
    """Return one line for each scenario."""
    return {name: build(name).summary for name in _SCENARIOS}


def build(
    name: str,
    *,
    seed: int = 1,
    site: str = "demo-plant",
    area: str = "packaging",
    lines: int = 2,
    timezone: str | None = None,
    tick_us: int | None = None,
) -> Scenario:
    """Return a scenario; raise ValueError for an unknown name.

    timezone: of the timetable; None: as the scenario has it
    tick_us: [us] raster of every event; None: as the scenario has it
    """
    name = name.replace("_", "-")
    if name not in _SCENARIOS:
        raise ValueError(f"scenario {name!r} is unknown: use one of {', '.join(_SCENARIOS)}")
    scenario = _SCENARIOS[name](lines)
    factory = replace(scenario.factory, seed=seed, site=site, area=area, scenario=name)
    if timezone is not None:
        factory = replace(factory, timetable=replace(factory.timetable, timezone=timezone))
    if tick_us is not None:
        factory = replace(factory, tick_us=tick_us)
    return replace(scenario, factory=factory)


def _factory(
    lines: int, shifts: tuple[Shift, ...] = _THREE_SHIFTS, timezone: str = "UTC", **behaviour: Any
) -> Factory:
    """Return lines of four machines that behave alike but for what follows from their place."""
    return Factory(
        lines=tuple(
            Line(
                name=f"line-{number}",
                machines=tuple(
                    _machine(f"{kind}-{number}", place, behaviour) for place, kind in enumerate(_KINDS)
                ),
            )
            for number in range(1, lines + 1)
        ),
        timetable=Timetable(name="shifts", timezone=timezone, shifts=shifts),
    )


def _machine(name: str, place: int, behaviour: dict[str, Any]) -> Machine:
    usual: dict[str, Any] = {
        "name": name,
        "products": _PRODUCTS[:1],
        "stops": _MIXTURE,
        "counter_start": 1000 * (place + 1),
        "starved_after_secs": 45.0 if place else 0.0,
        "works_breaks": place == len(_KINDS) - 1,
    }
    return Machine(**{**usual, **behaviour})


def _demo(lines: int) -> Scenario:
    factory = _factory(
        lines,
        _DEMO_SHIFTS,
        products=_PRODUCTS,
        run_mean_secs=900.0,
        changeover_every_secs=9000.0,
        changeover_mean_secs=420.0,
        startup_rejects=12,
        reset_every_secs=7200.0,
        works_breaks=False,
    )
    return Scenario(
        name="demo",
        summary="everything that happens in a factory; one machine stands idle soon after the start",
        factory=replace(factory, tick_us=2 * US_PER_SEC),
        # With the usual seed no other machine stands for long in the ten minutes that follow: one alert.
        history_secs=4 * 3600.0 + 1140.0,
        idle_soon=f"labeller-{lines}",
        idle_alert_secs=35.0,
    )


def _good_day(lines: int) -> Scenario:
    stops = (replace(_SMALL, weight=4), replace(_IDLE, weight=1, mean_secs=30))
    return Scenario(
        name="good-day",
        summary="long runs at nearly full speed, few rejects",
        factory=_factory(lines, stops=stops, run_mean_secs=1500.0, slowest=0.96, reject_rate=0.003),
    )


def _small_stops(lines: int) -> Scenario:
    return Scenario(
        name="small-stops",
        summary="machines that stand for a few seconds every minute",
        factory=_factory(lines, stops=(_SMALL, replace(_IDLE, mean_secs=20)), run_mean_secs=60.0),
    )


def _changeovers(lines: int) -> Scenario:
    return Scenario(
        name="changeovers",
        summary="three products in turn, with startup rejects after each change",
        factory=_factory(
            lines,
            products=_PRODUCTS,
            changeover_every_secs=1800.0,
            startup_rejects=25,
            run_mean_secs=600.0,
        ),
    )


def _counter_reset(lines: int) -> Scenario:
    return Scenario(
        name="counter-reset",
        summary="somebody sets the counters to zero now and then",
        factory=_factory(lines, reset_every_secs=2400.0),
    )


def _rollover(lines: int) -> Scenario:
    return Scenario(
        name="rollover",
        summary="16-bit counters that run over every few hours",
        factory=_factory(lines, counter_bits=16, counter_start=60_000, reject_rate=0.02),
    )


def _plc_lost(lines: int) -> Scenario:
    return Scenario(
        name="plc-lost",
        summary="the PLC is gone twice while the machines go on",
        factory=_factory(lines),
        history_secs=600.0,
        outages=(Outage(after_secs=10, secs=8), Outage(after_secs=40, secs=15)),
    )


def _bad_quality(lines: int) -> Scenario:
    return Scenario(
        name="bad-quality",
        summary="values turn bad for a minute or two, counters go on unseen",
        factory=_factory(lines, bad_every_secs=1500.0, bad_secs=90.0),
    )


def _idle_machine(lines: int) -> Scenario:
    return Scenario(
        name="idle-machine",
        summary="one machine stands idle soon after the start",
        factory=_factory(lines, stops=(replace(_SMALL, mean_secs=8),), run_mean_secs=900.0),
        history_secs=600.0,
        idle_soon="filler-1",
        idle_alert_secs=15.0,
    )


def _maintenance(lines: int) -> Scenario:
    scenario = _span(lines, "2026-03-17T05:00", "2026-03-17T23:00")
    factory = scenario.factory
    stops = (PlannedStop(start="2026-03-17T12:00", minutes=45),)
    return replace(
        scenario,
        name="maintenance",
        summary="one day with planned maintenance, breaks that some machines work through, and changeovers",
        factory=replace(factory, timetable=replace(factory.timetable, planned_stops=stops)),
    )


def _autumn_night(lines: int) -> Scenario:
    return replace(
        _span(lines, "2025-10-25T21:00", "2025-10-26T15:00"),
        name="autumn-night",
        summary="the night on which clocks go back: a shift of nine hours",
    )


def _spring_night(lines: int) -> Scenario:
    return replace(
        _span(lines, "2026-03-28T21:00", "2026-03-29T15:00"),
        name="spring-night",
        summary="the night on which clocks go forward: a shift of seven hours",
    )


def _span(lines: int, start: str, end: str) -> Scenario:
    zone = ZoneInfo("Europe/Berlin")
    from_us, to_us = (
        round(datetime.fromisoformat(at).replace(tzinfo=zone).timestamp()) * US_PER_SEC for at in (start, end)
    )
    factory = _factory(
        lines,
        timezone="Europe/Berlin",
        products=_PRODUCTS,
        changeover_every_secs=7200.0,
        reset_every_secs=9000.0,
    )
    return Scenario(
        name="span",
        summary="",
        factory=factory,
        history_secs=(to_us - from_us) / US_PER_SEC,
        span_us=(from_us, to_us),
    )


_SCENARIOS: Final[dict[str, Callable[[int], Scenario]]] = {
    "demo": _demo,
    "good-day": _good_day,
    "small-stops": _small_stops,
    "changeovers": _changeovers,
    "counter-reset": _counter_reset,
    "rollover": _rollover,
    "plc-lost": _plc_lost,
    "bad-quality": _bad_quality,
    "idle-machine": _idle_machine,
    "maintenance": _maintenance,
    "autumn-night": _autumn_night,
    "spring-night": _spring_night,
}
