"""Figures of lines, areas, sites, days, crews and products: sums of times and units, never of ratios."""

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, NamedTuple

from cloud.oee.figures import Figures, Place
from cloud.oee.frame import By, Window
from cloud.oee.records import Names
from cloud.oee.totals import Group, Split, Timeline, Totals, summed, totals
from cloud.plant import Machine, Plant, Reason
from contract.machine_key import MachineKey

Level = Literal["machine", "line", "area", "site"]
Per = Literal["shift", "hour", "day", "week", "month", "range", "crew", "product", "order"]
_NO_REMARKS: Mapping[MachineKey, tuple[str, ...]] = MappingProxyType({})
_DEPTH: dict[Level, int] = {"site": 1, "area": 2, "line": 3, "machine": 4}


class _Row(NamedTuple):
    """What is summed into one row of figures; windows of several calendars meet by name."""

    place: Place
    production_date: date | None
    shift: str | None
    hour: tuple[int, int, int] | None
    crew: str | None
    product: str | None
    order: str | None


def figures(
    whole: Timeline,
    plant: Plant,
    names: Names,
    *,
    per: Per = "shift",
    level: Level = "machine",
    wanted: Callable[[Window], bool] = lambda _: True,
    outside_shifts: bool = False,
    revision: int = 1,
    remarks: Mapping[MachineKey, tuple[str, ...]] = _NO_REMARKS,
) -> list[Figures]:
    """Return the figures of a timeline, sorted by place, time and split.

    per: weeks and months are of wanted production days; crew gives one row each over all wanted shifts,
        product and order over the whole range
    wanted: which windows to take; all by default
    outside_shifts: whether what a machine made outside all shifts has a row of its own per production day,
        which names no shift, so that the rows hold all that was made
    remarks: further warnings of machines
    """
    by, split = _windows_of(per)
    found = totals(whole, plant, names, by=by, split=split)
    if outside_shifts and per == "shift":
        outside = totals(whole, plant, names, by="outside")
        found |= {group: sums for group, sums in outside.items() if _made_any(sums)}
    taken = {group: sums for group, sums in found.items() if wanted(group.window)}
    return rolled_up(taken, plant, level=level, per=per, revision=revision, remarks=remarks)


def _made_any(sums: Totals) -> bool:
    """Tell whether anything was made."""
    return bool(sums.unplanned_total or sums.unplanned_off or sums.made.total or sums.made.off)


def rolled_up(
    found: Mapping[Group, Totals],
    plant: Plant,
    *,
    level: Level,
    per: Per = "shift",
    revision: int = 1,
    remarks: Mapping[MachineKey, tuple[str, ...]] = _NO_REMARKS,
) -> list[Figures]:
    """Return the figures of totals of single machines, summed to a level."""
    rows: dict[_Row, tuple[Window, list[Totals]]] = {}
    for group, sums in found.items():
        machine = plant.machines[group.machine]
        if not speaks_for(machine, plant, level):
            continue
        row = _row(group, level, per)
        window = _window(group.window, per)
        before, others = rows.get(row, (window, []))
        others.append(sums)
        rows[row] = (window if before == window else _both(before, window), others)
    places = _places_of(plant)
    return [
        Figures(
            place=row.place,
            window=window,
            totals=summed(sums),
            cap_performance=row.place in places.capped,
            product=row.product,
            order=row.order,
            revision=revision,
            reasons=_reasons(plant, row.place),
            remarks=tuple(
                remark
                for key, said in remarks.items()
                if place_of(key, level) == row.place
                for remark in said
            ),
        )
        for row, (window, sums) in sorted(rows.items(), key=lambda item: _order(places, *item))
    ]


def place_of(key: MachineKey, level: Level) -> Place:
    """Return the machine itself, or the line, area or site that it is of."""
    return Place(*key[: _DEPTH[level]])


def _windows_of(per: Per) -> tuple[By, Split]:
    match per:
        case "crew":
            return "shift", "none"
        case "product" | "order":
            return "range", per
        case "week" | "month":
            return "day", "none"
        case _:
            return per, "none"


def speaks_for(machine: Machine, plant: Plant, level: Level) -> bool:
    """Tell whether a machine's figures are part of the level's: all of them, or the bottleneck alone."""
    if level == "machine" or machine.definitions.line_from == "machines":
        return True
    return machine.bottleneck or not any(other.bottleneck for other in plant.lines[machine.key[:3]])


def _row(group: Group, level: Level, per: Per) -> _Row:
    window = _window(group.window, per)
    if per == "crew":
        return _Row(place_of(group.machine, level), None, None, None, window.crew or "", None, None)
    return _Row(
        place=place_of(group.machine, level),
        production_date=window.production_date,
        shift=window.shift,
        hour=None if window.hour is None else (window.hour, window.fold, window.start_us),
        crew=None,
        product=group.product,
        order=group.order,
    )


def _window(window: Window, per: Per) -> Window:
    """Return a window as its row names it: a week or month by its first day, a crew by none."""
    day = window.production_date
    if per == "crew":
        return window._replace(production_date=None, shift=None)
    if per == "week" and day is not None:
        return window._replace(production_date=day - timedelta(days=day.weekday()))
    if per == "month" and day is not None:
        return window._replace(production_date=day.replace(day=1))
    return window


def _both(one: Window, other: Window) -> Window:
    return one._replace(
        start_us=min(one.start_us, other.start_us),
        end_us=max(one.end_us, other.end_us),
        crew=one.crew if one.crew == other.crew else None,
    )


def _reasons(plant: Plant, place: Place) -> Mapping[str, Reason]:
    site = plant.sites.get(place.site)
    return site.reasons if site else MappingProxyType({})


class _Places:
    """Where each place stands in the order of the plant's files, and which cap performance."""

    def __init__(self, plant: Plant) -> None:
        self.position: dict[Place, int] = {}
        uncapped: set[Place] = set()
        for index, (key, machine) in enumerate(plant.machines.items()):
            for level in _DEPTH:
                place = place_of(key, level)
                self.position.setdefault(place, index)
                if not machine.definitions.cap_performance:
                    uncapped.add(place)
        self.capped = self.position.keys() - uncapped
        """A place caps when all its machines do."""


@lru_cache(maxsize=4)
def _places_of(plant: Plant) -> _Places:
    return _Places(plant)


def _order(places: _Places, row: _Row, found: tuple[Window, list[Totals]]) -> tuple[object, ...]:
    return places.position[row.place], found[0].start_us, row.crew or "", row.product or "", row.order or ""
