"""The oracle: what the factory really did, logged before it is shown, and its figures by integer arithmetic.

Nothing here is shared with the product. The rules are the defaults of the OEE definitions: breaks and planned
stops lie outside planned production time, idle and changeover count against availability, stops shorter than
two minutes against performance, and units belong to the instant at which the counter showed them.

The log is JSON Lines. The first row describes the factory (`kind` = "factory"); later starts add others, and
the first counts. Every other row is one write of one tag:

    {"machine": "line-1/filler-1", "tag": "TotalUnits", "n": 17, "at_us": 1625011200000000, "value": 48210,
     "status": 0, "made": 3210}

n counts the writes of this tag since the start; `made` (counters only) are the units really counted since
the origin, whatever the counter shows. With a bad status `value` is null and `actual` tells what nobody could
see. A row with `"served": false` was never written: the server was away. In the present `logged_us` tells
when the row was logged, just before the write; and of what a restarted server writes late, because it booted.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple

from contract.states import MachineState
from simulator.factory import Factory, Tagged, describe, timetable_of
from simulator.machine import PLC_STATES
from simulator.timetable import US_PER_SEC, Window, iso, windows

SMALL_STOP_SECS: Final = 120
_STATES: Final = {code: state for state, code in PLC_STATES.items()}
_MINUTE_US: Final = 60 * US_PER_SEC
_DAY_US: Final = 86_400 * US_PER_SEC
_FOR_EVER_US: Final = 2**62
_STANDING: Final = (
    MachineState.STOPPED,
    MachineState.IDLE,
    MachineState.FAULTED,
)


class Row(NamedTuple):
    """One write of one tag."""

    machine: str
    tag: str
    n: int
    at_us: int
    value: int | float | str | None
    status: int = 0
    made: int | None = None
    served: bool = True
    actual: int | float | str | None = None

    def to_json(self, logged_us: int | None = None) -> str:
        """Write the row as one line."""
        logged = "" if logged_us is None else f',"logged_us":{logged_us}'
        made = "" if self.made is None else f',"made":{self.made}'
        served = "" if self.served else ',"served":false'
        value = self.value if type(self.value) is int else json.dumps(self.value)
        actual = "" if self.actual is None else f',"actual":{json.dumps(self.actual)}'
        return (
            f'{{"machine":"{self.machine}","tag":"{self.tag}","n":{self.n},"at_us":{self.at_us},'
            f'"value":{value},"status":{self.status}{made}{served}{actual}{logged}}}\n'
        )


class TagWriter:
    """Turns moments into the writes of single tags: only what changed, all of it at first."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str], tuple[Any, int]] = {}
        self._written: dict[tuple[str, str], int] = defaultdict(int)

    def rows(self, tagged: Tagged, *, served: bool = True, whole: bool = False) -> list[Row]:
        """Return the writes that a moment needs; all tags when `whole`."""
        moment = tagged.moment
        machine = f"{tagged.line}/{tagged.machine}"
        status = moment.status
        tags: tuple[tuple[str, Any, int | None], ...] = (
            ("State", PLC_STATES[moment.state], None),
            ("TotalUnits", moment.total_units, moment.made),
            ("OffQualityUnits", moment.off_quality_units, moment.spoiled),
            ("FaultCode", moment.fault_code, None),
            ("Product", moment.product, None),
            ("Speed", moment.speed, None),
        )
        found = []
        for tag, value, made in tags:
            key = (machine, tag)
            shown = (value, status)
            if not whole and self._shown.get(key) == shown:
                continue
            self._shown[key] = shown
            self._written[key] += 1
            visible, actual = (None, value) if status >> 31 else (value, None)
            n = self._written[key]
            found.append(Row(machine, tag, n, moment.at_us, visible, status, made, served, actual))
        return found


class TruthLog:
    """Appends rows to a file; they have reached the operating system when `write` returns.

    fsync: reach the disk too, for tests that take the power away
    """

    def __init__(self, path: Path, factory: Factory, origin_us: int, *, fsync: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._fsync = fsync
        header = {"kind": "factory", "origin_us": origin_us, **describe(factory)}
        self._append(json.dumps(header).encode() + b"\n")

    def write(self, rows: Iterable[Row], logged_us: int | None = None) -> None:
        """Append rows, all at once; logged_us: [us] now, where that says something."""
        lines = "".join(row.to_json(logged_us) for row in rows)
        if lines:
            self._append(lines.encode())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, lines: bytes) -> None:
        self._file.write(lines)
        if self._fsync:
            os.fsync(self._file.fileno())


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a log as they stand; a torn last line, as a kill leaves it, is left out."""
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield json.loads(line)


class Count(NamedTuple):
    """Units that showed at an instant; state and product are those under which they were made."""

    at_us: int
    total: int
    off_quality: int
    state: MachineState
    product: str


@dataclass(kw_only=True)
class History:
    """What one machine did: when each state began, and each count, in order of time."""

    line: str
    machine: str
    ideal_run_rates: dict[str, float]
    states: list[tuple[int, MachineState]] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    last_us: int = 0

    @property
    def stands_since_us(self) -> int | None:
        """Return since when the machine stands at the end of what is known [us]; None when it does not."""
        intervals = _intervals(self)
        return intervals[-1].whole[0] if intervals and intervals[-1].state in _STANDING else None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One machine in one shift, exact: times [us], units, ratios as fractions, None for a zero denominator.

    planned_us: planned production time: the shift without breaks and planned stops, by calendar or state
    standing_us: planned time by state, small stops left out
    run_us: in state running
    small_stops: counted where the first planned instant of the stop lies
    ideal_us, ideal_good_us: what units in planned time, and the good ones, would have taken at the ideal rate
    """

    line: str
    machine: str
    shift: str
    production_date: str
    start_us: int
    end_us: int
    planned_us: int
    break_us: int
    planned_stop_us: int
    run_us: int
    standing_us: dict[MachineState, int]
    small_stop_us: int
    small_stops: int
    total_units: int
    off_quality_units: int
    unplanned_units: int
    ideal_us: Fraction
    ideal_good_us: Fraction

    @property
    def good_units(self) -> int:
        """Return units of good quality."""
        return self.total_units - self.off_quality_units

    @property
    def availability(self) -> Fraction | None:
        """Return the share of planned time in which the machine ran, small stops not held against it."""
        return _ratio(self.run_us + self.small_stop_us, self.planned_us)

    @property
    def performance(self) -> Fraction | None:
        """Return the ideal time of what was made over the time that remained for it."""
        return _ratio(self.ideal_us, self.run_us + self.small_stop_us)

    @property
    def quality(self) -> Fraction | None:
        """Return good units over all units; units of several products are weighted by their ideal times."""
        return _ratio(self.ideal_good_us, self.ideal_us)

    @property
    def oee(self) -> Fraction | None:
        """Return the product of the three; nothing made in planned time is 0."""
        return _ratio(self.ideal_good_us, self.planned_us)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON has them: seconds and ratios as numbers."""
        return {
            "line": self.line,
            "machine": self.machine,
            "shift": self.shift,
            "production_date": self.production_date,
            "start": iso(self.start_us),
            "end": iso(self.end_us),
            "planned_production_secs": self.planned_us / US_PER_SEC,
            "break_secs": self.break_us / US_PER_SEC,
            "planned_stop_secs": self.planned_stop_us / US_PER_SEC,
            "running_secs": self.run_us / US_PER_SEC,
            "run_secs": (self.run_us + self.small_stop_us) / US_PER_SEC,
            "standing_secs": {state.value: us / US_PER_SEC for state, us in self.standing_us.items()},
            "small_stop_secs": self.small_stop_us / US_PER_SEC,
            "small_stops": self.small_stops,
            "total_units": self.total_units,
            "good_units": self.good_units,
            "off_quality_units": self.off_quality_units,
            "unplanned_units": self.unplanned_units,
            "availability": _number(self.availability),
            "performance": _number(self.performance),
            "quality": _number(self.quality),
            "oee": _number(self.oee),
        }


class Truth:
    """What a factory really did, and its figures per shift."""

    def __init__(self, described: dict[str, Any]) -> None:
        self._before: dict[str, _Seen] = {}
        self.timetable = timetable_of(described)
        self.histories = {
            f"{entry['line']}/{entry['name']}": History(
                line=entry["line"], machine=entry["name"], ideal_run_rates=entry["ideal_run_rates"]
            )
            for entry in described["machines"]
        }

    @classmethod
    def from_log(cls, path: Path) -> "Truth":
        """Read the truth back from a log alone; raise ValueError where it does not begin with its factory."""
        rows = read_log(path)
        header = next(rows, None)
        if header is None or header.get("kind") != "factory":
            raise ValueError(f"{path} does not begin with a row of kind 'factory'")
        truth = cls(header)
        truth._replay(row for row in rows if "kind" not in row)
        return truth

    @classmethod
    def from_moments(cls, factory: Factory, moments: Iterable[Tagged]) -> "Truth":
        """Take the truth from the model itself, with no log."""
        truth = cls(json.loads(json.dumps(describe(factory))))
        for line, machine, moment in moments:
            seen = _Seen(moment.state, moment.product, moment.made, moment.spoiled)
            truth._observe(f"{line}/{machine}", seen, moment.at_us)
        return truth

    def figures(self, from_us: int, to_us: int) -> list[Figures]:
        """Return the figures of each machine and shift that touch [from_us, to_us), cut to that span."""
        shifts = windows(self.timetable, from_us, to_us)
        earliest = min((shift.start_us for shift in shifts), default=from_us)
        before = windows(self.timetable, earliest - _DAY_US, earliest)
        planned = [span for window in (*before, *shifts) for span in _planned(window)]
        return [
            _figures(history, intervals, window, (from_us, to_us), planned)
            for history in self.histories.values()
            for intervals in [_intervals(history)]
            for window in shifts
        ]

    def span_us(self) -> tuple[int, int]:
        """Return the first and last instant of which anything is known."""
        begun = [history.states[0][0] for history in self.histories.values() if history.states]
        ended = [history.last_us for history in self.histories.values()]
        return min(begun, default=0), max(ended, default=0)

    def _replay(self, rows: Iterable[dict[str, Any]]) -> None:
        """Read rows: the writes of one machine at one instant are one moment."""
        known: dict[str, dict[str, Any]] = defaultdict(dict)
        for row in rows:
            now = known[row["machine"]]
            if now and row["at_us"] < now["at_us"]:
                continue  # played a second time after a restart
            if now and row["at_us"] != now["at_us"]:
                self._settle(row["machine"], now)
            now["at_us"] = row["at_us"]
            if row.get("made") is not None:
                now[row["tag"] + ".made"] = row["made"]
            actual = row.get("actual", row["value"])
            now[row["tag"]] = actual
        for machine, now in known.items():
            self._settle(machine, now)

    def _settle(self, machine: str, now: dict[str, Any]) -> None:
        seen = _Seen(
            _STATES[now["State"]], now["Product"], now["TotalUnits.made"], now["OffQualityUnits.made"]
        )
        self._observe(machine, seen, now["at_us"])

    def _observe(self, machine: str, seen: "_Seen", at_us: int) -> None:
        history = self.histories[machine]
        was = self._before.get(machine)
        if was is not None and (seen.made, seen.spoiled) != (was.made, was.spoiled):
            more = seen.made - was.made, seen.spoiled - was.spoiled
            history.counts.append(Count(at_us, *more, was.state, was.product))
        if not history.states or history.states[-1][1] is not seen.state:
            history.states.append((at_us, seen.state))
        history.last_us = at_us
        self._before[machine] = seen


class _Seen(NamedTuple):
    state: MachineState
    product: str
    made: int
    spoiled: int


class _Interval(NamedTuple):
    """A time in one state, and the whole stretch of standing that it is part of; of running: itself."""

    start_us: int
    end_us: int
    state: MachineState
    whole: tuple[int, int]


def _figures(
    history: History,
    intervals: list[_Interval],
    window: Window,
    span: tuple[int, int],
    planned: list[tuple[int, int]],
) -> Figures:
    start_us, end_us = max(window.start_us, span[0]), min(window.end_us, span[1])
    pauses = _union([*window.breaks, *window.planned_stops])
    break_us = _length(_clip(_union(window.breaks), start_us, end_us))
    paused_us = _length(_clip(pauses, start_us, end_us))
    time_us: dict[MachineState, int] = defaultdict(int)
    small_stop_us = 0
    small: set[tuple[int, int]] = set()
    for interval in intervals:
        inside = _without(max(interval.start_us, start_us), min(interval.end_us, end_us), pauses)
        begin_us, until_us = interval.whole
        if interval.state in _STANDING and until_us - begin_us < SMALL_STOP_SECS * US_PER_SEC:
            small_stop_us += inside
            first = min((max(a, begin_us) for a, _ in _clip(planned, begin_us, until_us)), default=None)
            if inside and first is not None and start_us <= first:
                small.add(interval.whole)
        else:
            time_us[interval.state] += inside
    small_stops = len(small)
    run_us = time_us.pop(MachineState.RUNNING, 0)
    stopped_us = time_us.pop(MachineState.PLANNED_STOP, 0)
    total = off_quality = unplanned = 0
    made: dict[str, list[int]] = {}
    for count in history.counts:
        if not start_us < count.at_us <= end_us:
            continue
        outside = any(a < count.at_us <= b for a, b in pauses)
        if outside or count.state is MachineState.PLANNED_STOP:
            unplanned += count.total
            continue
        total += count.total
        off_quality += count.off_quality
        of_product = made.setdefault(count.product, [0, 0])
        of_product[0] += count.total
        of_product[1] += count.total - count.off_quality
    ideal_us = ideal_good_us = Fraction(0)
    for product, (units, good_units) in made.items():
        rate = Fraction(repr(float(history.ideal_run_rates[product])))
        ideal_us += units * _MINUTE_US / rate
        ideal_good_us += good_units * _MINUTE_US / rate
    return Figures(
        line=history.line,
        machine=history.machine,
        shift=window.shift,
        production_date=window.date,
        start_us=start_us,
        end_us=end_us,
        planned_us=end_us - start_us - paused_us - stopped_us,
        break_us=break_us,
        planned_stop_us=paused_us - break_us + stopped_us,
        run_us=run_us,
        standing_us=dict(time_us),
        small_stop_us=small_stop_us,
        small_stops=small_stops,
        total_units=total,
        off_quality_units=off_quality,
        unplanned_units=unplanned,
        ideal_us=ideal_us,
        ideal_good_us=ideal_good_us,
    )


def _intervals(history: History) -> list[_Interval]:
    """Return the states one after the other; the last one goes on to the end of what is known, and beyond."""
    if not history.states:
        return []
    ends = [at_us for at_us, _ in history.states[1:]] + [_FOR_EVER_US]
    found: list[_Interval] = []
    standing: list[_Interval] = []
    for (start_us, state), end_us in zip(history.states, ends, strict=True):
        if standing and state not in _STANDING:
            found += _whole(standing)
            standing = []
        interval = _Interval(start_us, end_us, state, (start_us, end_us))
        (standing if state in _STANDING else found).append(interval)
    return found + _whole(standing)


def _whole(standing: list[_Interval]) -> list[_Interval]:
    """Return neighbouring intervals as the parts of one stop."""
    return [part._replace(whole=(standing[0].start_us, standing[-1].end_us)) for part in standing]


def _planned(window: Window) -> list[tuple[int, int]]:
    """Return the planned production time of a shift."""
    spans, at_us = [], window.start_us
    for begin_us, until_us in _clip(
        _union([*window.breaks, *window.planned_stops]), window.start_us, window.end_us
    ):
        spans.append((at_us, begin_us))
        at_us = until_us
    return [(a, b) for a, b in [*spans, (at_us, window.end_us)] if a < b]


def _union(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start_us, end_us in sorted(spans):
        if joined and start_us <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end_us))
        else:
            joined.append((start_us, end_us))
    return joined


def _clip(spans: Iterable[tuple[int, int]], start_us: int, end_us: int) -> list[tuple[int, int]]:
    return [(max(a, start_us), min(b, end_us)) for a, b in spans if a < end_us and b > start_us]


def _length(spans: Iterable[tuple[int, int]]) -> int:
    return sum(b - a for a, b in spans)


def _without(start_us: int, end_us: int, spans: list[tuple[int, int]]) -> int:
    """Return how much of [start_us, end_us) lies outside the spans."""
    return end_us - start_us - _length(_clip(spans, start_us, end_us)) if end_us > start_us else 0


def _ratio(over: int | Fraction, under: int | Fraction) -> Fraction | None:
    return Fraction(over) / under if under else None


def _number(ratio: Fraction | None) -> float | None:
    return None if ratio is None else float(ratio)
