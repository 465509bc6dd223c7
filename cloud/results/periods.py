"""Which shifts, days and weeks of a place are over and closed. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from typing import Final, NamedTuple

from cloud.oee.calendar import ShiftWindow, shifts_between
from cloud.plant import Machine, Plant
from cloud.results.config import Every, is_in

_DAY_US: Final = 86_400_000_000
_MARGIN_US: Final = 9 * _DAY_US
"""How far around a range calendars are laid out, so that every week that touches it is whole."""

Line = tuple[str, str, str]


class Period(NamedTuple):
    """One shift, production day or week of a place, [start_us, end_us)."""

    place: tuple[str, ...]
    """`site/area/line/machine` from the left."""
    every: Every
    start_us: int
    end_us: int
    first: date
    last: date
    """Production dates."""
    shift: str | None
    crews: frozenset[str]
    ends: Mapping[Line, int]
    """By line: when its last shift of the period ends [us]."""

    @property
    def key(self) -> str:
        """Return how the period is known again."""
        return f"{'/'.join(self.place)}|{self.first}|{self.shift or ''}"


def periods(plant: Plant, place: tuple[str, ...], every: Every, from_us: int, to_us: int) -> list[Period]:
    """Return the periods of a place that end in (from_us, to_us], in order."""
    found: defaultdict[tuple[date, str | None], list[tuple[Line, ShiftWindow]]] = defaultdict(list)
    for machine in _calendars_of(plant, place):
        for window in shifts_between(machine, from_us - _MARGIN_US, to_us + _MARGIN_US):
            day = window.production_date
            match every:
                case "shift":
                    key: tuple[date, str | None] = (day, window.name)
                case "day":
                    key = (day, None)
                case "week":
                    key = (day - timedelta(days=day.weekday()), None)
            found[key].append((machine.key[:3], window))
    made = [_period(place, every, key, windows) for key, windows in found.items()]
    return sorted(
        (period for period in made if from_us < period.end_us <= to_us),
        key=lambda period: (period.end_us, period.start_us),
    )


def is_closed(period: Period, span_of: Callable[[str], tuple[int, int] | None]) -> bool:
    """Tell whether every line that has figures of a period has them all.

    span_of: the beginning of the first and the end of the last closed shift of a scope; None without any
    """
    spans = {line: span for line in period.ends if (span := span_of("/".join(line))) is not None}
    known = {line: span for line, span in spans.items() if span[0] < period.end_us}
    return bool(known) and all(span[1] >= period.ends[line] for line, span in known.items())


def scopes(plant: Plant, place: tuple[str, ...]) -> list[str]:
    """Return the scopes of closed shifts, `site/area/line[/machine]`, inside a place."""
    names = ["/".join(line) for line in plant.lines] + list(map(str, plant.machines))
    return [name for name in names if is_in(name, ["/".join(place)])]


def _calendars_of(plant: Plant, place: tuple[str, ...]) -> Iterable[Machine]:
    """Return one machine of each line and calendar in a place: the others have the same shifts."""
    found: dict[tuple[Line, str], Machine] = {}
    for key, machine in plant.machines.items():
        if tuple(key)[: len(place)] == place:
            found.setdefault((key[:3], machine.calendar.name), machine)
    return found.values()


def _period(
    place: tuple[str, ...],
    every: Every,
    key: tuple[date, str | None],
    windows: Iterable[tuple[Line, ShiftWindow]],
) -> Period:
    ends: defaultdict[Line, int] = defaultdict(int)
    shifts = []
    for line, window in windows:
        ends[line] = max(ends[line], window.end_us)
        shifts.append(window)
    return Period(
        place=place,
        every=every,
        start_us=min(window.start_us for window in shifts),
        end_us=max(window.end_us for window in shifts),
        first=key[0] if every == "week" else min(window.production_date for window in shifts),
        last=key[0] + timedelta(days=6)
        if every == "week"
        else max(window.production_date for window in shifts),
        shift=key[1],
        crews=frozenset(window.crew for window in shifts if window.crew),
        ends=dict(ends),
    )
