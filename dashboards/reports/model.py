"""Everything that one report says, gathered once for every format of it.

A report is of a place (machine, line, area or site) and a stretch of time, mostly a shift.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Final, NamedTuple

from cloud.oee import corrections
from cloud.oee.rollup import Level
from cloud.shown import targets_of, verdicts
from cloud.views import AlertView, BoardView, Category, LossLevel, Revision, Segment, ShiftRow, TimelineView
from contract.machine_key import MachineKey
from dashboards import words
from dashboards.charts import losses
from dashboards.charts.losses import ParetoRow, Step
from dashboards.port import CloudReader

if TYPE_CHECKING:
    from cloud.questions import Every

_US: Final = 1_000_000
_EARLIER_SECS: Final = 4 * 86_400
_LAST_SHIFTS: Final = 6
_CHILD: Final[dict[str, Level]] = {"site": "line", "area": "line", "line": "machine", "machine": "machine"}
_LEVELS: Final[tuple[Level, ...]] = ("site", "area", "line", "machine")


class Stop(NamedTuple):
    """One stop of one machine [s since 1970]."""

    machine: MachineKey
    start: float
    end: float
    state: str
    category: Category
    loss: str
    reason: str | None
    reason_name: str | None

    @property
    def secs(self) -> float:
        """Return how long it lasted."""
        return self.end - self.start

    @property
    def is_explained(self) -> bool:
        """Tell whether nobody need be asked why: there is a reason, or the machine's state says enough."""
        return self.reason is not None or self.loss in ("changeover", "planned_stop")


class Comment(NamedTuple):
    """What somebody said of a stretch of a machine's time [s since 1970]."""

    machine: MachineKey
    start: float
    end: float
    text: str
    reason: str | None
    """The reason's name that was given with it."""
    who: str
    said: float


@dataclass(frozen=True)
class Report:
    """One place in one stretch of time, finished."""

    place: tuple[str, ...]
    level: Level
    title: str
    start: float
    end: float
    now: float
    zone: tzinfo
    shift: str | None
    production_date: str | None
    row: ShiftRow
    """The place's own figures."""
    children: list[ShiftRow]
    """The figures of what stands in it; of a machine none."""
    hours: list[ShiftRow]
    timelines: list[TimelineView]
    earlier: list[ShiftRow]
    """The shifts before, oldest first, this one last."""
    alerts: list[AlertView]
    comments: list[Comment]
    revisions: list[Revision]
    targets: dict[str, float]
    """Of OEE and its factors; empty where plant.toml knows no machine of the place."""

    @property
    def verdicts(self) -> dict[str, LossLevel]:
        """Return how OEE and its factors stand to their targets, judged as the board's are."""
        return judged(self.row, self.targets)

    @property
    def until(self) -> float:
        """Return the end, or now when that is sooner."""
        return min(self.end, self.now)

    @property
    def heading(self) -> str:
        """Return what the report is called: in a window's title and in file names."""
        return (
            f"Shift report {self.place[-1]}, {self.title}"
            if self.shift
            else f"{self.place[-1]}, {self.title}"
        )

    @property
    def steps(self) -> list[Step]:
        """Return the waterfall."""
        return losses.waterfall(self.row)

    def pareto(self, *, by_group: bool = False, by_count: bool = False) -> list[ParetoRow]:
        """Return the stops by what they cost."""
        return losses.pareto(self.row, by_group=by_group, by_count=by_count)

    @property
    def stops(self) -> list[Stop]:
        """Return the stops in planned production time, longest first."""
        found = [stop for view in self.timelines for stop in stops(view)]
        return sorted(found, key=lambda stop: (-stop.secs, stop.start))

    @property
    def before(self) -> ShiftRow | None:
        """Return the shift before this one."""
        return self.earlier[-2] if len(self.earlier) > 1 else None

    @property
    def revision(self) -> int:
        """Return the number of the figures' revision; 0 until the shift is closed."""
        return int(self.row.get("revision") or 0)


def gather(
    cloud: CloudReader,
    board: BoardView,
    place: tuple[str, ...],
    *,
    start: float,
    end: float,
    zone: tzinfo,
    title: str,
    is_shift: bool = True,
    product: str | None = None,
) -> Report | None:
    """Ask the cloud side for everything that a report says; None when nothing is known of that time."""
    from_us, to_us = round(start * _US), round(end * _US)
    level = _LEVELS[len(place) - 1]
    every: Every = "shift" if is_shift else "range"
    rows = cloud.figures(from_us, to_us, every=every, level=level, place=place, product=product)
    row = _of_window(rows, start, is_shift=is_shift)
    if row is None:
        return None
    child = _CHILD[level]
    children: Sequence[ShiftRow] = ()
    if level != "machine":
        children = cloud.figures(from_us, to_us, every=every, level=child, place=place, product=product)
        if is_shift:
            children = [other for other in children if instant(other["start"]) == start]
    machines = [
        MachineKey(machine.site, machine.area, machine.line, machine.machine)
        for line in board.lines
        for machine in line.machines
        if (machine.site, machine.area, machine.line, machine.machine)[: len(place)] == place
    ]
    hours = (
        cloud.figures(from_us, to_us, every="hour", level=level, place=place, product=product)
        if is_shift
        else []
    )
    earlier_us = from_us - _EARLIER_SECS * _US
    earlier = cloud.figures(earlier_us, to_us, every="shift", level=level, place=place) if is_shift else []
    return Report(
        place=place,
        level=level,
        title=title,
        start=start,
        end=end,
        now=board.generated_epochtime,
        zone=zone,
        shift=row.get("shift") if is_shift else None,
        production_date=row.get("production_date"),
        row=row,
        children=_as_in_the_plant(children, machines),
        hours=[hour for hour in hours if instant(hour["start"]) < board.generated_epochtime],
        timelines=[cloud.timeline(key, from_us, to_us) for key in machines] if is_shift else [],
        earlier=[other for other in earlier if instant(other["start"]) <= start][-_LAST_SHIFTS:],
        alerts=[alert for alert in cloud.alerts(open_only=False) if _touches(alert, place, start, end)],
        comments=comments(cloud, place, from_us, to_us),
        revisions=cloud.revisions("/".join(place), from_us) if is_shift else [],
        targets=targets(cloud, machines),
    )


def comments(cloud: CloudReader, place: tuple[str, ...], from_us: int, to_us: int) -> list[Comment]:
    """Return what people said in words of a place's time in [from_us, to_us), and did not take back."""
    found = []
    for said in corrections.in_force(cloud.corrections()):
        key = said.machine_key
        spoken = said.kind in ("classify", "move", "comment") and said.why
        if spoken and key[: len(place)] == place and said.from_us < to_us and said.to_us > from_us:
            site = cloud.plant.sites.get(key.site)
            reason = site.reasons.get(said.reason or "") if site else None
            found.append(
                Comment(
                    key,
                    said.from_us / _US,
                    said.to_us / _US,
                    said.why,
                    reason.name if reason else said.reason,
                    said.who,
                    said.when_us / _US,
                )
            )
    return sorted(found, key=lambda comment: (comment.start, comment.said))


def _as_in_the_plant(rows: Sequence[ShiftRow], machines: Sequence[MachineKey]) -> list[ShiftRow]:
    """Return rows in the order in which plant.toml names their machines; what it lacks comes last."""
    order: dict[tuple[str, ...], int] = {}
    for index, key in enumerate(machines):
        for depth in range(1, 5):
            order.setdefault(tuple(key)[:depth], index)
    return sorted(rows, key=lambda row: order.get(place_of(row), len(order)))


def stops(view: TimelineView) -> Iterable[Stop]:
    """Return the stops of a timeline in planned production time; what was cut at an hour is one stop."""
    key = MachineKey(view.site, view.area, view.line, view.machine)
    last: Stop | None = None
    for segment in view.segments:
        if segment.category != "production" or segment.state in ("running", "unknown"):
            continue
        if last and last.end >= segment.start_epochtime - 1e-6 and _same(last, segment):
            last = last._replace(end=segment.end_epochtime)
            continue
        if last:
            yield last
        last = Stop(
            key,
            segment.start_epochtime,
            segment.end_epochtime,
            segment.state,
            segment.category,
            segment.loss,
            segment.reason,
            segment.reason_name,
        )
    if last:
        yield last


def instant(text: object) -> float:
    """Return the instant that a figures row writes as ISO UTC [s since 1970]."""
    return datetime.fromisoformat(str(text)).timestamp()


def name_of(row: ShiftRow) -> str:
    """Return the name of what a row is of."""
    return str(row.get("machine") or row.get("line") or row.get("area") or row["site"])


def place_of(row: ShiftRow) -> tuple[str, ...]:
    """Return the place that a row is of."""
    return tuple(str(row[level]) for level in _LEVELS if row.get(level))


def has_records(row: ShiftRow) -> bool:
    """Tell whether anything is known of a row's time; of one without a record no percentage is shown."""
    unknown = float(row.get("unknown_secs") or 0)
    return (
        not unknown
        or unknown < float(row.get("planned_production_secs") or 0) - 1e-3
        or bool(row["total_units"])
    )


def ratio(row: ShiftRow, name: str) -> float | None:
    """Return a ratio of a row as screens show it: none where nothing is known of its time."""
    value = row[name]
    return None if value is None or not has_records(row) else float(value)


def standing(row: ShiftRow, now: float) -> str:
    """Return how final a row is: `running`, `being closed`, or the number of its revision.

    Machines and lines keep revisions; what is summed of them, and what was made of one product, is `closed`.
    """
    if instant(row["end"]) > now:
        return "running"
    revision = row.get("revision")
    if revision == 0:
        return "being closed"
    return "closed" if row.get("line") is None or row.get("product") is not None else str(revision or "")


def short_shift(row: ShiftRow) -> str:
    """Return a shift's name for an axis: `22 Nov` stands below it."""
    return f"S{row['shift']}" if len(str(row["shift"])) < 3 else str(row["shift"])


def short_day(row: ShiftRow) -> str:
    """Return a production date for an axis: `22 Nov`."""
    text = words.iso_day(row.get("production_date"))
    return " ".join(text.split(" ")[1:3])


def _same(stop: Stop, segment: Segment) -> bool:
    return (stop.state, stop.loss, stop.reason) == (segment.state, segment.loss, segment.reason)


def _of_window(rows: Sequence[ShiftRow], start: float, *, is_shift: bool) -> ShiftRow | None:
    if not is_shift:
        return rows[0] if rows else None
    return next((row for row in rows if abs(instant(row["start"]) - start) < 1), None)


def _touches(alert: AlertView, place: tuple[str, ...], start: float, end: float) -> bool:
    where = (alert.site, alert.area, alert.line, alert.machine)
    return (
        where[: len(place)] == place
        and alert.raised_epochtime < end
        and (alert.cleared_epochtime is None or alert.cleared_epochtime > start)
    )


def judged(row: ShiftRow, targets: dict[str, float]) -> dict[str, LossLevel]:
    """Return how OEE and its factors stand to their targets; nothing is said of a row without a record."""
    return verdicts(row if has_records(row) else None, targets)


def targets(cloud: CloudReader, machines: Iterable[MachineKey]) -> dict[str, float]:
    """Return the targets of a place as the board judges it: the mean of its machines'."""
    known = [cloud.plant.machines[key] for key in machines if key in cloud.plant.machines]
    return targets_of(known) if known else {}
