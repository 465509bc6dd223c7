"""How everything does, as a letter: what needs somebody first, then gateways, jobs and disks."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from html import escape
from pathlib import Path
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from cloud.oee.calendar import instant
from cloud.plant import Plant
from cloud.plant_tables import WEEKDAYS
from cloud.results import letters
from cloud.results.config import HealthTable
from cloud.results.letters import Letter
from cloud.store.port import Store
from cloud.views import ChannelView, GatewayView, HealthView, JobView, RefusedRow

_DAY_US: Final = 86_400_000_000
_SCARCE: Final = 0.1
"""Share of a disk below which its free space is scarce."""
_UNKNOWN: Final = 0.01
"""Share of a machine's planned time from which on time without data is worth a word."""
_ROWS: Final = 50
_LATELY_SECS: Final = 7 * 86_400.0
"""For how long it is told that something was never sent."""

_STYLE: Final = "font-family:Arial,sans-serif;font-size:14px;color:#1d2430"
_CELL: Final = "padding:4px 12px 4px 0;border-bottom:1px solid #dfe4ea;text-align:left;vertical-align:top"


class Disk(NamedTuple):
    """Where something is kept, and the room there [bytes]."""

    what: str
    free: int
    total: int


class Unknown(NamedTuple):
    """Time without data of a machine within the last day's closed shifts [s]."""

    machine: str
    secs: float
    planned_secs: float


class Facts(NamedTuple):
    """Everything that a letter on health says."""

    site: str
    health: HealthView
    gateways: Sequence[GatewayView]
    jobs: Sequence[JobView]
    outlets: Sequence[ChannelView]
    refused: Sequence[RefusedRow]
    unknown: Sequence[Unknown]
    disks: Sequence[Disk]
    open_alerts: int


class Digest:
    """The letters of one table."""

    def __init__(
        self,
        table: HealthTable,
        store: Store,
        *,
        facts: Callable[[], Facts],
        zone: Callable[[], ZoneInfo],
        now_us: Callable[[], int],
    ) -> None:
        self.table = table
        self._store = store
        self._facts = facts
        self._zone = zone
        self._now_us = now_us
        self._note = f"health:{table.name}"

    def run(self) -> str:
        """Write the letter that is due, of several missed ones the last; return its title, '' for nothing."""
        now_us = self._now_us()
        slot_us = self._last_slot_us(now_us)
        note = self._store.note(self._note)
        if note is None:  # begins with the next one
            self._store.set_note(self._note, msgspec.json.encode(slot_us))
            return ""
        done_us = msgspec.json.decode(note, type=int)
        if done_us >= slot_us and done_us - slot_us < _DAY_US:
            return ""
        letter = msgspec.structs.replace(self.letter(now_us), key=f"health {slot_us}")
        self._store.queue_deliveries(
            self.table.channels(), letters.encode(letter), self._note, msgspec.json.encode(slot_us)
        )
        return letter.title

    def letter(self, now_us: int) -> Letter:
        """Return the letter as it would be now."""
        title, html = written(self._facts(), now_us, self._zone())
        return Letter(title=title, html=html, made_epochtime=now_us / 1e6)

    def _last_slot_us(self, now_us: int) -> int:
        """Return when a letter was due last, whether or not it was written; 0 when never."""
        zone = self._zone()
        today = datetime.fromtimestamp(now_us / 1e6, zone).date()
        for back in range(9):
            day = today - timedelta(days=back)
            slot_us = instant(zone, datetime.combine(day, self.table.at))
            if slot_us <= now_us and WEEKDAYS[day.weekday()] in self.table.days:
                return slot_us
        return 0


def unknown_time(store: Store, plant: Plant, now_us: int) -> list[Unknown]:
    """Return each machine's time without data in the shifts that began within the last day and are closed."""
    found = []
    for key in plant.machines:
        rows = [item.revision.figures for item in store.closed_between(str(key), now_us - _DAY_US, now_us)]
        secs = sum(row["unknown_secs"] for row in rows)
        found.append(Unknown(str(key), secs, sum(row["planned_production_secs"] for row in rows)))
    return found


def disks(folders: Mapping[str, Path]) -> list[Disk]:
    """Return the room where things are kept, by what is kept there; without folders that do not exist."""
    return [
        Disk(what, usage.free, usage.total)
        for what, folder in folders.items()
        if folder.is_dir()
        for usage in [shutil.disk_usage(folder)]
    ]


def problems(facts: Facts, now_us: int) -> list[str]:
    """Return what needs somebody."""
    lately = now_us / 1e6 - _LATELY_SECS
    return [
        *_own_problems(facts.health),
        *(text for gateway in facts.gateways for text in _gateway_problems(gateway)),
        *(f"job {job.name} failed: {job.error}" for job in facts.jobs if job.error),
        *(f"{outlet.name} takes nothing: {outlet.fault}" for outlet in facts.outlets if outlet.fault),
        *(
            f"{outlet.name}: {outlet.dropped} never sent, the last of them within a week"
            for outlet in facts.outlets
            if outlet.last_dropped_epochtime is not None and outlet.last_dropped_epochtime >= lately
        ),
        *_refused_problems(facts.refused),
        *(
            f"{item.machine}: no data for {item.secs / 60:.0f} min of {item.planned_secs / 60:.0f} min"
            for item in facts.unknown
            if item.planned_secs and item.secs > _UNKNOWN * item.planned_secs
        ),
        *(
            f"disk of {disk.what}: {disk.free / 1e9:.1f} GB free of {disk.total / 1e9:.1f} GB"
            for disk in facts.disks
            if disk.free < _SCARCE * disk.total
        ),
    ]


def written(facts: Facts, now_us: int, zone: tzinfo) -> tuple[str, str]:
    """Return the title and the HTML of the letter."""
    found = problems(facts, now_us)
    state = "all well" if not found else "1 problem" if len(found) == 1 else f"{len(found)} problems"
    title = f"{facts.site}: OEE health, {state}"

    def at(epochtime: float | None) -> str:
        return (
            "never"
            if epochtime is None
            else datetime.fromtimestamp(epochtime, zone).strftime("%d %b %H:%M:%S")
        )

    summary = (
        f"the service runs since {at(facts.health.started_epochtime)}; "
        f"{facts.open_alerts} open alerts, {facts.health.dead_letters} dead letters."
    )
    parts = [
        f"<h1 style='font-size:20px;margin:0 0 4px'>{escape(title)}</h1>",
        f"<p>{at(now_us / 1e6)}; {summary}</p>",
        _list("What needs somebody", found),
        _table(
            "Gateways",
            ("Gateway", "State", "Connections", "Backlog", "Dropped", "Last record"),
            (
                (
                    f"{view.site}/{view.gateway}",
                    "never heard of"
                    if view.status is None
                    else "online"
                    if view.status.online
                    else "offline",
                    ", ".join(f"{item.name} {item.state}" for item in view.connections),
                    "" if view.status is None else f"{view.status.backlog_records}",
                    "" if view.status is None else f"{view.status.dropped_records}",
                    at(view.last_record_epochtime),
                )
                for view in facts.gateways
            ),
        ),
        _table(
            "Time without data in the last day's closed shifts",
            ("Machine", "min", "of planned min"),
            (
                (item.machine, f"{item.secs / 60:.1f}", f"{item.planned_secs / 60:.0f}")
                for item in facts.unknown
                if item.secs
            ),
        ),
        _table(
            "Jobs",
            ("Job", "Last", "Took s", "Runs", "Failures", "Result"),
            (
                (
                    job.name,
                    at(job.last_epochtime),
                    "" if job.took_secs is None else f"{job.took_secs:.1f}",
                    str(job.runs),
                    str(job.failures),
                    job.error or job.result,
                )
                for job in facts.jobs
            ),
        ),
        _table(
            "Sent",
            ("To", "Waiting", "Sent", "Failures", "Dropped"),
            (
                (view.name, str(view.waiting), str(view.sent), str(view.failures), str(view.dropped))
                for view in facts.outlets
            ),
        ),
        _table(
            "Master data refused",
            ("Source", "Row", "Why", "Since"),
            ((row.source, row.ref, row.problem, at(row.since_epochtime)) for row in facts.refused[:_ROWS]),
        ),
        _table(
            "Disks",
            ("Of", "Free GB", "Total GB"),
            ((disk.what, f"{disk.free / 1e9:.1f}", f"{disk.total / 1e9:.1f}") for disk in facts.disks),
        ),
    ]
    return title, f"<div style='{_STYLE}'>{''.join(parts)}</div>"


def _own_problems(health: HealthView) -> Iterator[str]:
    if health.broker != "connected" or health.broker_fault:
        why = f": {health.broker_fault}" if health.broker_fault else ""
        yield f"the broker {health.broker_url} is {health.broker}{why}"
    if health.store_fault:
        yield f"the store cannot be written: {health.store_fault}"
    for what, faults in (
        ("plant", health.plant_faults),
        ("alerts.toml", health.alert_faults),
        ("results.toml", health.results_faults),
        ("masterdata.toml", health.masterdata_faults),
    ):
        yield from (f"the changed {what} is refused: {fault}" for fault in faults)
    yield from health.clock_warnings


def _gateway_problems(view: GatewayView) -> Iterator[str]:
    name, status = f"gateway {view.site}/{view.gateway}", view.status
    if status is None:
        yield f"{name} never said how it is"
        return
    if not status.online:
        yield f"{name} is offline"
    if status.dropped_records:
        yield f"{name} dropped {status.dropped_records} records"
    for connection in view.connections:
        if connection.state not in ("connected", "stopped"):
            yield f"{name}: PLC {connection.name} is {connection.state}"


def _refused_problems(refused: Sequence[RefusedRow]) -> Iterator[str]:
    for source in sorted({row.source for row in refused}):
        yield f"{source}: {sum(row.source == source for row in refused)} rows of master data refused"


def _list(title: str, items: Sequence[str]) -> str:
    if not items:
        return "<p><b>Nothing needs anybody.</b></p>"
    lines = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f"<h2 style='font-size:16px'>{escape(title)}</h2><ul>{lines}</ul>"


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [
        f"<tr>{''.join(f'<td style={_CELL!r}>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    ]
    if not lines:
        return ""
    names = "".join(f"<th style={_CELL!r}>{escape(name)}</th>" for name in head)
    return (
        f"<h2 style='font-size:16px'>{escape(title)}</h2>"
        f"<table style='border-collapse:collapse;font-size:13px'><tr>{names}</tr>{''.join(lines)}</table>"
    )
