"""A cloud side for pages: a small seeded plant with finished views, alive as its clock runs.

Implements the port that pages read (`dashboards.port`). It is for looking at pages and for their tests; its
figures are consistent with each other, but the product's truth is the simulator's, not this.

`python -m tests.support.demo_cloud` serves the pages on a port of its own.
"""

import asyncio
import random
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from cloud import plant as plant_file
from cloud.errors import CloudError
from cloud.oee.corrections import Correction
from cloud.oee.figures import pareto
from cloud.oee.rollup import Level
from cloud.oee.totals import Stops
from cloud.plant import Plant
from cloud.questions import Every
from cloud.views import (
    AfterLockView,
    AlertView,
    BoardView,
    Category,
    GatewayView,
    HealthView,
    LineView,
    LossLevel,
    MachineView,
    MuteView,
    RefusedRow,
    Revision,
    Segment,
    ShiftRow,
    ShiftView,
    TimelineView,
    Update,
)
from contract.delivery import ConnectionStatus, Status
from contract.machine_key import MachineKey

SITE = "demo-plant"
AREA = "packaging"
ZONE = ZoneInfo("Europe/Berlin")
US = 1_000_000
DAYS_BACK = 12
SHIFTS = (("1", 6, 14), ("2", 14, 22), ("3", 22, 30))
REASONS: dict[str, list[tuple[str | None, str | None]]] = {
    "faulted": [
        ("jam-infeed", "Jam at infeed"),
        ("motor-trip", "Motor trip"),
        ("sensor-fault", "Sensor fault"),
        (None, None),
    ],
    "stopped": [("no-operator", "No operator"), ("e-stop", "Emergency stop"), (None, None)],
    "idle": [("blocked", "Blocked downstream"), ("starved", "Waiting for material"), (None, None)],
    "changeover": [("size-change", "Size change")],
}
OEE_TARGET = 0.80


class _Stretch(NamedTuple):
    start: float
    end: float
    state: str
    reason: str | None
    reason_name: str | None
    speed: float
    reject_rate: float


class _Machine(NamedTuple):
    key: MachineKey
    seed: int
    ideal_per_min: float
    trouble: float


def _keys() -> list[_Machine]:
    machines = []
    for line in (1, 2):
        for index, name in enumerate(("filler", "capper", "labeller", "packer")):
            key = MachineKey(SITE, AREA, f"line-{line}", f"{name}-{line}")
            machines.append(
                _Machine(key, line * 100 + index, 203.0 - 8 * index, 0.6 + 0.25 * index + 0.3 * (line - 1))
            )
    return machines


def plant_toml() -> str:
    """Return the demo plant's plant.toml."""
    lines = [
        f'[site]\nname = "{SITE}"\ntimezone = "{ZONE.key}"\n',
        "[calendar.three-shift]\nshifts = [",
        *(
            f'  {{ name = "{name}", start = "{start:02d}:00", end = "{end % 24:02d}:00" }},'
            for name, start, end in SHIFTS
        ),
        "]\n",
    ]
    groups = {"faulted": ("Mechanical", "breakdown"), "stopped": ("Organisation", "other_stop")}
    groups |= {"idle": ("Material", "idle"), "changeover": ("Changeover", "changeover")}
    for state, reasons in REASONS.items():
        group, category = groups[state]
        for key, name in reasons:
            if key:
                lines.append(f'[reason.{key}]\nname = "{name}"\ngroup = "{group}"\ncategory = "{category}"\n')
    lines += [
        f'[[machine]]\narea = "{AREA}"\nline = "{machine.key.line}"\nname = "{machine.key.machine}"\n'
        f'calendar = "three-shift"\nideal_run_rate = {machine.ideal_per_min}\n'
        "targets = { oee = 0.80, availability = 0.90, performance = 0.90, quality = 0.98 }\n"
        for machine in _keys()
    ]
    return "\n".join(lines)


def breaks_of(shift: ShiftView) -> list[tuple[float, float]]:
    """Return the breaks of a shift: one of half an hour in its middle, one of a quarter late."""
    start = shift.start_epochtime
    return [(start + 4 * 3600, start + 4.5 * 3600), (start + 6.5 * 3600, start + 6.75 * 3600)]


@lru_cache(maxsize=4096)
def shift_at(moment: int) -> ShiftView:
    """Return the shift that runs at a moment [whole s since 1970]."""
    local = datetime.fromtimestamp(moment, ZONE)
    day = local.date() if local.hour >= 6 else local.date() - timedelta(days=1)
    for name, start_hour, end_hour in SHIFTS:
        start, end = _wall(day, start_hour), _wall(day, end_hour)
        if start <= moment < end:
            return ShiftView(
                name=name,
                production_date=day.isoformat(),
                start_epochtime=start,
                end_epochtime=end,
                calendar="three-shift",
                crew="ABC"[int(name) - 1],
            )
    raise AssertionError(local)


def _wall(day: date, hour: int) -> float:
    moment = datetime(day.year, day.month, day.day, tzinfo=ZONE) + timedelta(days=hour // 24)
    return moment.replace(hour=hour % 24).timestamp()


class DemoCloud:
    """The plant at `clock()` [s since 1970]; everything is a function of the seeds and that moment."""

    def __init__(self, clock: Callable[[], float] = time.time, *, tick_secs: float = 1.0) -> None:
        self.clock = clock
        self.tick_secs = tick_secs
        self.machines = _keys()
        self.by_key = {machine.key: machine for machine in self.machines}
        self.alert_notes: dict[str, tuple[str, str, float]] = {}
        self.muted: list[MuteView] = []
        self.broker: str = "connected"
        self.products = ["SKU-7", "SKU-12"]
        self._began = shift_at(int(clock())).start_epochtime - DAYS_BACK * 86_400
        self._plant = plant_file.loads(plant_toml())
        self._corrections: list[Correction] = []
        self.said: dict[MachineKey, list[tuple[float, float, str | None, str | None, str]]] = {}
        self._stretches = {machine.key: self._life(machine) for machine in self.machines}
        self._starts = {key: [part.start for part in life] for key, life in self._stretches.items()}
        self._wake: set[asyncio.Event] = set()

    def _life(self, machine: _Machine) -> list[_Stretch]:
        dice = random.Random(machine.seed)
        now, parts = self._began + dice.uniform(0, 30), []
        parts.append(_Stretch(self._began, now, "running", None, None, 0.9, 0.01))
        while now < self._began + (DAYS_BACK + 3) * 86_400:
            run = dice.expovariate(1 / (1500 / machine.trouble)) + 40
            parts.append(
                _Stretch(
                    now, now + run, "running", None, None, dice.uniform(0.78, 0.99), dice.uniform(0.002, 0.03)
                )
            )
            now += run
            kind = dice.choices(["idle", "faulted", "stopped", "changeover", "unknown"], [42, 26, 14, 12, 2])[
                0
            ]
            mean = {"idle": 170, "faulted": 420, "stopped": 300, "changeover": 1100, "unknown": 240}[kind]
            stop = min(3000.0, dice.expovariate(1 / mean) + 12)
            key, name = dice.choice(REASONS[kind]) if kind in REASONS else (None, None)
            parts.append(_Stretch(now, now + stop, kind, key, name, 0, 0))
            now += stop
        return parts

    def _between(self, key: MachineKey, start: float, end: float) -> list[_Stretch]:
        life = self._stretches[key]
        first = max(0, bisect_right(self._starts[key], start) - 1)
        found = []
        for part in life[first:]:
            if part.start >= end:
                break
            if part.end > start:
                found.append(part._replace(start=max(start, part.start), end=min(end, part.end)))
        return found

    def rename_product(self, name: str) -> None:
        """Let the PLCs say another product, whatever it is called."""
        self.products = [name, name]

    def segments(self, key: MachineKey, start: float, end: float) -> list[Segment]:
        """Return the states from start to end, cut at breaks."""
        found = []
        for part in self._between(key, start, min(end, self.clock())):
            moment = part.start
            while moment < part.end:
                shift = shift_at(int(moment))
                edges = sorted({edge for pair in breaks_of(shift) for edge in pair} | {shift.end_epochtime})
                stop = min(part.end, next(edge for edge in edges if edge > moment))
                category: Category = "production"
                if any(since <= moment < until for since, until in breaks_of(shift)):
                    category = "break"
                found.append(
                    Segment(
                        start_epochtime=moment,
                        end_epochtime=stop,
                        state=part.state,
                        category=category,
                        loss=_loss(part, category),
                        reason=part.reason,
                        reason_name=part.reason_name,
                        product=self.products[0 if moment < shift.start_epochtime + 10_000 else 1],
                    )
                )
                moment = stop
        for since, until, reason, _, _ in self.said.get(key, ()):
            found = [piece for segment in found for piece in self._said_of(segment, since, until, reason)]
        return found

    def _said_of(self, segment: Segment, since: float, until: float, reason: str | None) -> list[Segment]:
        if segment.state in ("running", "unknown"):
            return [segment]
        start, end = segment.start_epochtime, segment.end_epochtime
        cuts = sorted({start, end, *(cut for cut in (since, until) if start < cut < end)})
        pieces = []
        for left, right in pairwise(cuts):
            inside = since <= left + 1e-6 and right <= until + 1e-6
            pieces.append(
                replace(
                    segment,
                    start_epochtime=left,
                    end_epochtime=right,
                    reason=reason if inside else segment.reason,
                    reason_name=self._plant.reason(reason).name if inside and reason else segment.reason_name,
                )
            )
        return pieces

    def machine_figures(self, key: MachineKey, start: float, end: float) -> dict[str, Any]:
        """Return the flat figures object of a machine in [start, end) until now."""
        machine = self.by_key[key]
        stop = min(end, self.clock())
        losses: dict[str, float] = dict.fromkeys(LOSSES, 0.0)
        total = off = 0.0
        slow = 0.0
        speeds = {part.start: part for part in self._between(key, start, stop)}
        marks = sorted(speeds)
        for segment in self.segments(key, start, stop):
            length = segment.end_epochtime - segment.start_epochtime
            if segment.category == "break":
                losses["break"] += length
            elif segment.state == "running":
                part = speeds[marks[bisect_right(marks, segment.start_epochtime + 1e-6) - 1]]
                made = length / 60 * machine.ideal_per_min * part.speed
                total += made
                off += made * part.reject_rate
                slow += length * (1 - part.speed)
            else:
                losses[segment.loss] += length
        total, off = int(total), int(off)
        stops = self._stops(key, start, stop)
        planned = max(0.0, stop - start - losses["break"])
        run = planned - sum(losses[name] for name in LOSSES if name != "break")
        losses["reduced_speed"] = max(0.0, run - total * 60 / machine.ideal_per_min)
        losses["rejects"] = off * 60 / machine.ideal_per_min
        losses["value_adding"] = max(0.0, run - losses["reduced_speed"] - losses["rejects"])
        row = _figures_row(
            key._asdict(),
            shift_at(int(start)),
            start,
            end,
            planned,
            run,
            losses,
            total,
            off,
            machine.ideal_per_min,
        )
        return row | _told(row, stops, self._plant)

    def line_figures(self, line: str, start: float, end: float) -> dict[str, Any]:
        """Return the sums of a line's machines."""
        rows = [
            self.machine_figures(machine.key, start, end)
            for machine in self.machines
            if machine.key.line == line
        ]
        losses = {name: sum(row["losses"][name] for row in rows) for name in rows[0]["losses"]}
        planned, run = (sum(row[name] for row in rows) for name in ("planned_production_secs", "run_secs"))
        total, off = (sum(row[name] for row in rows) for name in ("total_units", "off_quality_units"))
        keys = {"site": SITE, "area": AREA, "line": line, "machine": None}
        row = _figures_row(keys, shift_at(int(start)), start, end, planned, run, losses, total, off, 191.0)
        return row | _told(row, [stop for other in rows for stop in other["told"]], self._plant)

    def _stops(self, key: MachineKey, start: float, end: float) -> list[dict[str, Any]]:
        found: dict[tuple[str, str | None], dict[str, Any]] = {}
        for part in self.segments(key, start, end):
            if part.state in ("running", "unknown") or part.category != "production":
                continue
            reason = self._plant.site.reasons.get(part.reason or "")
            entry = found.setdefault(
                (part.loss, part.reason),
                {
                    "bucket": part.loss,
                    "reason": part.reason,
                    "reason_name": part.reason_name,
                    "group": reason and reason.group,
                    "secs": 0.0,
                    "count": 0,
                },
            )
            entry["secs"] += part.end_epochtime - part.start_epochtime
            entry["count"] += 1
        return list(found.values())

    # the port

    def board(self) -> BoardView:
        now = self.clock()
        shift = shift_at(int(now))
        lines = []
        for line in ("line-1", "line-2"):
            figures = self.line_figures(line, shift.start_epochtime, shift.end_epochtime)
            lines.append(
                LineView(
                    site=SITE,
                    area=AREA,
                    line=line,
                    figures=figures,
                    verdicts=_verdicts(figures),
                    machines=[
                        self._machine(machine, shift) for machine in self.machines if machine.key.line == line
                    ],
                )
            )
        return BoardView(
            site=SITE,
            generated_epochtime=now,
            timezone=ZONE.key,
            shift=shift,
            lines=lines,
            alerts=self.alerts(open_only=True),
            health=self._health(),
        )

    def _machine(self, machine: _Machine, shift: ShiftView) -> MachineView:
        now = self.clock()
        segments = self.segments(machine.key, shift.start_epochtime, now)
        last = segments[-1]
        part = self._between(machine.key, now - 0.001, now)[-1]
        since = self._stretches[machine.key][bisect_right(self._starts[machine.key], now) - 1].start
        figures = self.machine_figures(machine.key, shift.start_epochtime, shift.end_epochtime)
        breaks = sum(min(now, until) - since for since, until in breaks_of(shift) if since < now)
        per_sec = machine.ideal_per_min * OEE_TARGET / 60
        return MachineView(
            **machine.key._asdict(),
            state=part.state,
            state_since_epochtime=since,
            reason=last.reason,
            reason_name=last.reason_name,
            product=last.product,
            category=last.category,
            shift=shift,
            figures=figures,
            target_units=per_sec * (8 * 3600 - 2700),
            target_units_now=per_sec * (now - shift.start_epochtime - breaks),
            good_units=figures["good_units"],
            off_quality_units=figures["off_quality_units"],
            total_units=figures["total_units"],
            verdicts=_verdicts(figures),
            last_data_epochtime=since if part.state == "unknown" else now - (machine.seed % 4),
            alerts=[alert for alert in self.alerts(open_only=True) if alert.machine == machine.key.machine],
        )

    def timeline(self, machine_key: MachineKey, from_us: int, to_us: int) -> TimelineView:
        start, end = from_us / US, min(to_us / US, self.clock())
        return TimelineView(
            **machine_key._asdict(),
            from_epochtime=start,
            to_epochtime=end,
            segments=self.segments(machine_key, start, end) if machine_key in self.by_key else [],
        )

    def shift_table(self, from_us: int, to_us: int, level: str) -> list[ShiftRow]:
        rows = []
        moment = int(max(from_us / US, self._began))
        while moment < min(to_us / US, self.clock()):
            shift = shift_at(moment)
            bounds = shift.start_epochtime, shift.end_epochtime
            if level == "line":
                rows += [self.line_figures(line, *bounds) for line in ("line-1", "line-2")]
            else:
                rows += [self.machine_figures(machine.key, *bounds) for machine in self.machines]
            moment = int(shift.end_epochtime)
        return rows

    @property
    def plant(self) -> Plant:
        return self._plant

    def figures_of(
        self, place: tuple[str, ...], level: str, start: float, end: float
    ) -> list[dict[str, Any]]:
        if level == "machine":
            inside = [machine for machine in self.machines if machine.key[: len(place)] == place]
            return [self.machine_figures(machine.key, start, end) for machine in inside]
        lines = [line for line in ("line-1", "line-2") if len(place) < 3 or place[2] == line]
        rows = [self.line_figures(line, start, end) for line in lines]
        if level == "line":
            return rows
        losses = {name: sum(row["losses"][name] for row in rows) for name in rows[0]["losses"]}
        planned, run = (sum(row[name] for row in rows) for name in ("planned_production_secs", "run_secs"))
        total, off = (sum(row[name] for row in rows) for name in ("total_units", "off_quality_units"))
        keys = {"site": SITE, "area": AREA if level == "area" else None, "line": None, "machine": None}
        whole = _figures_row(keys, shift_at(int(start)), start, end, planned, run, losses, total, off, 191.0)
        return [whole | _told(whole, [stop for row in rows for stop in row["told"]], self._plant)]

    def figures(
        self,
        from_us: int,
        to_us: int,
        *,
        every: Every,
        level: Level,
        place: tuple[str, ...] = (),
        product: str | None = None,
    ) -> list[ShiftRow]:
        start, end = max(from_us / US, self._began), min(to_us / US, self.clock() + 86_400)
        windows: list[tuple[float, float]] = []
        moment = start
        while every != "range" and moment < min(end, self.clock()):
            shift = shift_at(int(moment))
            local = datetime.fromtimestamp(moment, ZONE)
            following = {
                "hour": (moment // 3600 + 1) * 3600,
                "shift": shift.end_epochtime,
                "day": _wall(date.fromisoformat(shift.production_date) + timedelta(days=1), 6),
                "week": _wall(local.date() + timedelta(days=7 - local.weekday()), 6),
                "month": _wall((local.date().replace(day=1) + timedelta(days=32)).replace(day=1), 6),
            }[every]
            windows.append(
                (moment if every == "hour" else max(moment, shift.start_epochtime), min(following, end))
            )
            moment = following
        windows = windows or [(start, end)]
        return [row for window in windows for row in self.figures_of(place, level, *window)]

    def revisions(self, scope: str, start_us: int) -> list[Revision]:
        place = tuple(scope.split("/"))
        shift = shift_at(start_us // US)
        if shift.end_epochtime > self.clock():
            return []
        level = ("site", "area", "line", "machine")[len(place) - 1]
        row = self.figures_of(place, level, shift.start_epochtime, shift.end_epochtime)[0]
        return [Revision(revision=1, made_epochtime=shift.end_epochtime + 61, why="closed", figures=row)]

    def after_lock(self, scope: str, start_us: int) -> AfterLockView | None:
        return None

    def classify(
        self,
        machine_key: MachineKey,
        from_us: int,
        to_us: int,
        *,
        reason: str | None,
        comment: str | None,
        by: str,
    ) -> None:
        if reason is not None:
            self._plant.reason(reason)
        self.said.setdefault(machine_key, []).append((from_us / US, to_us / US, reason, comment, by))
        said = Correction(
            machine=str(machine_key),
            kind="classify",
            from_us=from_us,
            to_us=to_us,
            who=by,
            when_us=0,
            why=comment or "",
            reason=reason,
        )
        self.correct(said)

    def correct(self, correction: Correction) -> int:
        number = len(self._corrections) + 1
        when_us = round(self.clock() * US)
        self._corrections.append(replace(correction, number=number, when_us=when_us))
        return number

    def corrections(self) -> list[Correction]:
        return list(self._corrections)

    def acknowledge(self, alert_id: str, by: str, note: str = "") -> AlertView:
        for alert in self.alerts(open_only=True):
            if alert.id == alert_id:
                self.alert_notes[alert_id] = (by, note, self.clock())
                return next(alert for alert in self.alerts(open_only=True) if alert.id == alert_id)
        raise CloudError(f"{alert_id} is not an open alert")

    def mutes(self) -> list[MuteView]:
        return [mute for mute in self.muted if mute.end_epochtime > self.clock()]

    def mute(self, place: str, until_us: int, *, who: str, why: str, rules: Sequence[str] = ()) -> MuteView:
        if not why:
            raise CloudError("say who mutes, and why")
        self.muted.append(
            MuteView(
                id=len(self.muted) + 1,
                place=place,
                rules=list(rules),
                from_epochtime=self.clock(),
                until_epochtime=until_us / US,
                who=who,
                why=why,
            )
        )
        return self.muted[-1]

    def unmute(self, number: int, by: str) -> MuteView:
        for index, mute in enumerate(self.muted):
            if mute.id == number and mute.lifted_by is None:
                self.muted[index] = replace(mute, lifted_epochtime=self.clock(), lifted_by=by)
                return self.muted[index]
        raise CloudError(f"no mute {number} is in force")

    def alerts(self, open_only: bool) -> list[AlertView]:
        now = self.clock()
        found = []
        for machine in self.machines:
            for part in reversed(self._between(machine.key, now - 6 * 3600, now)):
                is_open = part.end >= now - 0.01
                if (
                    part.state in ("idle", "stopped")
                    and part.end - part.start > 240
                    and (is_open or not open_only)
                ):
                    found.append(self._alert(machine, part, is_open))
        return sorted(found, key=lambda alert: alert.raised_epochtime, reverse=True)

    def _alert(self, machine: _Machine, part: _Stretch, is_open: bool) -> AlertView:
        since = self._stretches[machine.key][
            bisect_right(self._starts[machine.key], part.end - 0.02) - 1
        ].start
        name = f"{machine.key.machine}-{int(since)}"
        by, note, when = self.alert_notes.get(name, (None, None, None))
        return AlertView(
            id=name,
            rule="idle",
            **machine.key._asdict(),
            state=("acknowledged" if by else "open") if is_open else "cleared",
            level=1,
            message=f"{machine.key.machine} on {machine.key.line} has been {part.state} for more than 4 min",
            since_epochtime=since,
            raised_epochtime=since + 240,
            acknowledged_by=by,
            note=note,
            acknowledged_epochtime=when,
            cleared_epochtime=None if is_open else part.end,
        )

    def gateways(self) -> list[GatewayView]:
        now = self.clock()
        connections = [
            ConnectionStatus(
                name=f"plc-{line}",
                endpoint=f"opc.tcp://192.168.10.1{line}:4840",
                state="connected",
                since_epochtime=now - 40_000,
                items_wanted=24,
                items_live=24,
            )
            for line in (1, 2)
        ]
        status = Status(
            gateway="gw-packaging",
            site=SITE,
            online=True,
            epochtime=now - 3,
            version="0.1.0",
            connections=connections,
        )
        return [
            GatewayView(
                gateway="gw-packaging",
                site=SITE,
                status=status,
                received_epochtime=now - 3,
                stored_through=918_273,
                last_record_epochtime=now - 1,
                connections=connections,
            )
        ]

    def ask_gateway(
        self, site: str, gateway: str, connection: str, action: Literal["start", "stop"], *, by: str
    ) -> str:
        del site, by
        return f"{action} {gateway}/{connection}"

    def refused_rows(self) -> list[RefusedRow]:
        return [
            RefusedRow(
                source="mes-shifts",
                ref="<b>2021-07-03</b>",
                problem="shift 1 of 2021-07-03 has begun",
                since_epochtime=self.clock() - 3000,
            )
        ]

    def dead_letters(self, limit: int = 100) -> list[dict[str, Any]]:
        letter = {
            "received_epochtime": self.clock() - 3000,
            "topic": "oee/v1/demo-plant/packaging/line-1/filler-9/telemetry",
            "reason": "the key 'state' stands twice",
            "payload": '{"epochtime": 1625011200, "state": "running", "state": "idle"}',
        }
        return [letter][:limit]

    async def subscribe(self) -> AsyncIterator[Update]:
        while True:
            await asyncio.sleep(self.tick_secs)
            board = self.board()
            yield Update(
                generated_epochtime=board.generated_epochtime,
                machines=[machine for line in board.lines for machine in line.machines],
                lines=board.lines,
                alerts=board.alerts,
                shift=board.shift,
                health=board.health,
            )

    def _health(self) -> HealthView:
        now = self.clock()
        return HealthView(
            started_epochtime=now - 90_000,
            broker=self.broker,  # type: ignore[arg-type]
            broker_since_epochtime=now - 90_000,
            broker_url="mqtt://localhost:1883",
            records_per_sec=7.9,
            records_stored=711_000,
            records_repeated=12,
            records_refused=0,
            dead_letters=0,
            last_data_epochtime=now - 0.4,
            queue_messages=0,
            clock_warnings=[],
            plant_faults=[],
        )


LOSSES = ("break", "planned_stop", "changeover", "breakdown", "other_stop", "idle", "small_stops", "no_data")


def _loss(part: _Stretch, category: str) -> str:
    if category == "break":
        return "break"
    if part.state == "unknown":
        return "no_data"
    if part.state in ("running", "changeover"):
        return part.state
    if part.end - part.start < 120:
        return "small_stops"
    return {"faulted": "breakdown", "stopped": "other_stop", "idle": "idle"}[part.state]


def _ratio(above: float, below: float) -> float | None:
    return above / below if below else None


def _figures_row(
    keys: dict[str, Any], shift: ShiftView, start: float, end: float, planned: float, run: float,
    losses: dict[str, float], total: int, off: int, ideal_per_min: float,
) -> dict[str, Any]:  # fmt: skip
    return {
        **{level: name for level, name in keys.items() if name is not None},
        "production_date": shift.production_date,
        "shift": shift.name,
        "start": datetime.fromtimestamp(start, UTC).isoformat(),
        "end": datetime.fromtimestamp(end, UTC).isoformat(),
        "planned_production_secs": planned,
        "run_secs": run,
        "unknown_secs": losses["no_data"],
        "losses": losses,
        "total_units": total,
        "good_units": total - off,
        "off_quality_units": off,
        "unplanned_units": 0,
        "target_units": planned / 60 * ideal_per_min * OEE_TARGET,
        "availability": _ratio(run, planned),
        "performance": _ratio(total * 60 / ideal_per_min, run),
        "quality": _ratio(total - off, total),
        "oee": _ratio((total - off) * 60 / ideal_per_min, planned),
        "teep": _ratio((total - off) * 60 / ideal_per_min, end - start),
        "warnings": [],
        "revision": 1,
    }


def _told(row: dict[str, Any], stops: list[dict[str, Any]], plant: Plant) -> dict[str, Any]:
    """Return the waterfall and the Pareto of a row."""
    left = sum(row["losses"].values())
    steps = []
    for name, secs in row["losses"].items():
        if name != "value_adding":
            left -= secs
            steps.append({"loss": name, "secs": secs, "left_secs": left})
    sums: dict[tuple[str, str | None], Stops] = {}
    for stop in stops:
        key = (stop["bucket"], stop["reason"])
        sums[key] = sums.get(key, Stops()).plus(Stops(round(stop["secs"] * US), stop["count"]))
    return {
        "calendar_secs": sum(row["losses"].values()),
        "waterfall": steps,
        "pareto": pareto(sums, plant.site.reasons),
        "stops": sum(stood.times for stood in sums.values()),
        "told": stops,
    }


def _verdicts(figures: dict[str, Any]) -> dict[str, LossLevel]:
    targets = {"oee": 0.80, "availability": 0.90, "performance": 0.90, "quality": 0.98}
    found: dict[str, LossLevel] = {}
    for name, target in targets.items():
        value = figures[name]
        found[name] = (
            "none"
            if value is None
            else "good"
            if value >= target
            else "warning"
            if value >= 0.85 * target
            else "bad"
        )
    return found


assert all(a < b for a, b in pairwise(hours for _, *hours in SHIFTS))


async def main(port: int) -> None:
    """Serve the pages of a demo plant until interrupted."""
    from dashboards.web.server import serve

    await serve(DemoCloud(), "127.0.0.1", port, on_ready=print)


if __name__ == "__main__":
    import sys

    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8080))
