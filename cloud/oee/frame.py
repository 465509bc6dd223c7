"""The calendars of many machines over one range, as columns of intervals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal, NamedTuple

import numpy as np

from cloud.oee.calendar import Grid, StopWindow, Widen, build_grid
from cloud.oee.columns import Codes, Indexes, Ints
from cloud.oee.pieces import Cuts
from cloud.oee.records import ABSENT, Names
from cloud.plant import Plant
from contract.machine_key import MachineKey

By = Literal["shift", "hour", "day", "range", "outside"]
"""`outside` is what of each production day lies outside all shifts."""
NO_WINDOW: Final = -1


class Window(NamedTuple):
    """What one row of figures is of, in time: [start_us, end_us)."""

    start_us: int
    end_us: int
    production_date: date | None
    shift: str | None = None
    crew: str | None = None
    hour: int | None = None
    fold: int = 0
    """1 for the part of an hour that the clock shows a second time."""


@dataclass(frozen=True, eq=False)
class Frame:
    """The intervals of all distinct grids one after the other."""

    cuts: Cuts
    """The edges of each grid, and which grid each machine has."""
    machines: Indexes
    """Those that the frame is for, ascending."""
    grids: tuple[Grid, ...]
    offset: Ints
    """Where each grid's intervals begin."""
    grid: Indexes
    """By interval: its grid, and where in it; so are all that follow."""
    place: Indexes
    start_us: Ints
    end_us: Ints
    category: Codes
    stop_reason: Indexes
    """Index of the text of a planned stop's reason, or ABSENT."""

    @property
    def from_us(self) -> int:
        """Return the first instant of any grid."""
        return min(grid.start_us for grid in self.grids)

    @property
    def to_us(self) -> int:
        """Return the first instant after all grids."""
        return max(grid.end_us for grid in self.grids)

    @classmethod
    def over(
        cls,
        plant: Plant,
        names: Names,
        from_us: int,
        to_us: int,
        *,
        machines: Iterable[MachineKey] | None = None,
        widen: Widen = "day",
        cuts: Mapping[MachineKey, Sequence[int]] | None = None,
        planned_stops: Mapping[MachineKey, Sequence[StopWindow]] | None = None,
    ) -> "Frame":
        """Return the frame of machines of the plant, by default all.

        cuts: further edges per machine, such as those of corrections
        planned_stops: per machine, entered afterwards
        """
        keys = list(plant.machines if machines is None else machines)
        indexes = [names.machine(key) for key in keys]
        of_machine = np.zeros(len(names.machines), dtype=np.int32)
        found: dict[tuple[int, tuple[int, ...]], int] = {}
        grids: list[Grid] = []
        edges: list[Ints] = []
        for key, index in zip(keys, indexes, strict=True):
            stops = tuple((planned_stops or {}).get(key, ()))
            grid = build_grid(plant, key, from_us, to_us, widen=widen, planned_stops=stops)
            extra = tuple(sorted(set((cuts or {}).get(key, ()))))
            of_machine[index] = found.setdefault((id(grid), extra), len(grids))
            if of_machine[index] == len(grids):
                grids.append(grid)
                edges.append(_with_cuts(grid.edges, extra))
        sizes = np.array([len(each) - 1 for each in edges], dtype=np.int64)
        places = [
            np.searchsorted(grid.edges, each[:-1], side="right") - 1
            for grid, each in zip(grids, edges, strict=True)
        ]
        return cls(
            cuts=Cuts(tuple(edges), of_machine),
            machines=np.array(sorted(indexes), dtype=np.int32),
            grids=tuple(grids),
            offset=np.cumsum(sizes) - sizes,
            grid=np.repeat(np.arange(len(grids), dtype=np.int32), sizes),
            place=_joined(places).astype(np.int32),
            start_us=_joined([each[:-1] for each in edges]),
            end_us=_joined([each[1:] for each in edges]),
            category=_joined([grid.category[at] for grid, at in zip(grids, places, strict=True)]).astype(
                np.int8
            ),
            stop_reason=_joined(
                [_reasons(grid, names)[at] for grid, at in zip(grids, places, strict=True)]
            ).astype(np.int32),
        )

    def intervals(self, machine: Indexes, at_us: Ints) -> Ints:
        """Return the interval that holds each instant, -1 outside."""
        group = self.cuts.of_machine[machine]
        found = np.full(len(machine), -1, dtype=np.int64)
        for index in np.unique(group):
            rows, edges = np.flatnonzero(group == index), self.cuts.edges[index]
            place = np.searchsorted(edges, at_us[rows], side="right") - 1
            inside = (place >= 0) & (place < len(edges) - 1)
            found[rows[inside]] = place[inside] + self.offset[index]
        return found

    def windows(self, by: By) -> tuple[list[Window], Indexes]:
        """Return the windows of all grids, and for each interval the index of its own, or NO_WINDOW."""
        windows: list[Window] = []
        of_interval: list[Indexes] = []
        for number, grid in enumerate(self.grids):
            place = self.place[self.grid == number]
            found, index = _windows(grid, by)
            here = index[place]
            of_interval.append(np.where(here == NO_WINDOW, NO_WINDOW, here + len(windows)).astype(np.int32))
            windows += found
        return windows, _joined(of_interval).astype(np.int32)


def _with_cuts(edges: Ints, extra: Sequence[int]) -> Ints:
    inside = np.array([cut for cut in extra if edges[0] < cut < edges[-1]], dtype=np.int64)
    return np.union1d(edges, inside)


def _reasons(grid: Grid, names: Names) -> Indexes:
    indexes = np.array([*map(names.text, grid.reasons), ABSENT], dtype=np.int32)
    return indexes[grid.planned_stop_reason]


def _joined(columns: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(columns) if columns else np.empty(0, dtype=np.int64)


def _windows(grid: Grid, by: By) -> tuple[list[Window], Indexes]:
    match by:
        case "shift":
            return [
                Window(shift.start_us, shift.end_us, shift.production_date, shift.name, shift.crew or None)
                for shift in grid.shifts
            ], grid.shift
        case "hour":
            return [
                Window(hour.start_us, hour.end_us, hour.date, hour=hour.hour, fold=hour.fold)
                for hour in grid.hours
            ], grid.hour
        case "day":
            return [Window(day.start_us, day.end_us, day.date) for day in grid.days], grid.day
        case "outside":
            outside = np.where(grid.shift == NO_WINDOW, grid.day, NO_WINDOW)
            return [Window(day.start_us, day.end_us, day.date) for day in grid.days], outside
        case "range":
            whole = Window(grid.start_us, grid.end_us, None)
            return [whole], np.zeros(len(grid.category), dtype=np.int32)
