"""A factory: lines of machines, their timetable, and what all of them do from a moment on."""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from contract.machine_key import MachineKey
from contract.states import MachineState
from simulator import machine as machines
from simulator.machine import Machine, Moment, Stretch
from simulator.timetable import US_PER_SEC, PlannedStop, Shift, Timetable


@dataclass(frozen=True, kw_only=True)
class Line:
    """Machines in the order in which the product passes them; one PLC and one OPC UA server."""

    name: str
    machines: tuple[Machine, ...]


@dataclass(frozen=True, kw_only=True)
class Factory:
    """A site's area of lines.

    tick_us: [us] raster of every event; divides a minute
    """

    site: str = "demo-plant"
    area: str = "packaging"
    lines: tuple[Line, ...]
    timetable: Timetable
    tick_us: int = US_PER_SEC
    seed: int = 1
    scenario: str = "good-day"

    def __post_init__(self) -> None:
        if self.tick_us <= 0 or 60 * US_PER_SEC % self.tick_us:
            raise ValueError(f"tick_us = {self.tick_us}: must divide a minute")

    def key(self, line: str, machine: str) -> MachineKey:
        """Return a machine's place in the plant."""
        return MachineKey(self.site, self.area, line, machine)


class Forced(NamedTuple):
    """A time for which a machine is made to stand idle, whatever its own process says [us]."""

    machine: str
    start_us: int
    end_us: int


class Tagged(NamedTuple):
    """A moment, and whose it is."""

    line: str
    machine: str
    moment: Moment


@dataclass(frozen=True, kw_only=True)
class Run:
    """A factory from its origin on: the only things that what happens depends on.

    origin_us: [us] on the tick; every counter starts here
    forced: idle times laid over the machines' own behaviour, in order of time
    """

    factory: Factory
    origin_us: int
    forced: tuple[Forced, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.origin_us % self.factory.tick_us:
            raise ValueError(f"origin_us = {self.origin_us}: not on the tick of {self.factory.tick_us} us")

    def behaviour(self, line: Line, place: int) -> Iterator[Stretch]:
        """Yield a machine's stretches: its own process, under the timetable and the machine before it."""
        factory = self.factory
        machine = line.machines[place]
        shown = machines.stretches(machine, factory.seed, self.origin_us, factory.tick_us)
        if place > 0 and machine.starved_after_secs > 0:
            after_us = round(machine.starved_after_secs) * US_PER_SEC
            upstream = self.behaviour(line, place - 1)
            shown = machines.overlay(shown, machines.starved(upstream, after_us), machines.is_running)
        if not machine.works_breaks:
            shown = machines.overlay(shown, machines.closed(factory.timetable, self.origin_us))
        idle = [
            Stretch(forced.start_us, forced.end_us, MachineState.IDLE)
            for forced in self.forced
            if forced.machine == machine.name
        ]
        return machines.overlay(shown, idle)

    def machine_moments(self, line: Line, place: int, from_us: int | None = None) -> Iterator[Moment]:
        """Yield when the tags of a line's machine change, for ever, beginning with all of them at from_us."""
        factory = self.factory
        machine = line.machines[place]
        raster = (factory.seed, self.origin_us, factory.tick_us)
        shown = machines.moments(machine, self.behaviour(line, place), *raster, from_us=from_us)
        return machines.unreadable(machine, shown, *raster)

    def line_moments(self, line: Line, from_us: int | None = None) -> Iterator[Tagged]:
        """Yield the moments of all machines of a line in order of time."""

        def tagged(place: int) -> Iterator[Tagged]:
            name = line.machines[place].name
            return (Tagged(line.name, name, moment) for moment in self.machine_moments(line, place, from_us))

        streams = [tagged(place) for place in range(len(line.machines))]
        return heapq.merge(*streams, key=lambda item: item.moment.at_us)


def describe(factory: Factory) -> dict[str, Any]:
    """Return what the truth of a log needs to know of its factory, as JSON has it."""
    return {
        "site": factory.site,
        "area": factory.area,
        "seed": factory.seed,
        "scenario": factory.scenario,
        "tick_us": factory.tick_us,
        "timetable": {
            "name": factory.timetable.name,
            "timezone": factory.timetable.timezone,
            "shifts": [
                {"name": s.name, "start": s.start, "end": s.end, "breaks": s.breaks, "days": s.days}
                for s in factory.timetable.shifts
            ],
            "planned_stops": [
                {"start": stop.start, "minutes": stop.minutes, "reason": stop.reason}
                for stop in factory.timetable.planned_stops
            ],
        },
        "machines": [
            {
                "line": line.name,
                "name": machine.name,
                "ideal_run_rates": {made.name: made.ideal_run_rate for made in machine.products},
            }
            for line in factory.lines
            for machine in line.machines
        ],
    }


def timetable_of(described: Mapping[str, Any]) -> Timetable:
    """Read the timetable back from `describe`."""
    table = described["timetable"]
    return Timetable(
        name=table["name"],
        timezone=table["timezone"],
        shifts=tuple(
            Shift(
                name=s["name"],
                start=s["start"],
                end=s["end"],
                breaks=tuple((start, minutes) for start, minutes in s["breaks"]),
                days=tuple(s["days"]),
            )
            for s in table["shifts"]
        ),
        planned_stops=tuple(PlannedStop(**stop) for stop in table["planned_stops"]),
    )
