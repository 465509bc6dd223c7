"""Figures of any window for pages and the read API: the same sums as everywhere, with the units asked for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from math import fsum
from typing import Final, Literal
from zoneinfo import ZoneInfo

from cloud.errors import UnknownMachineError
from cloud.evaluation import Evaluation
from cloud.live import Picture
from cloud.oee.calendar import ShiftWindow, shifts_between
from cloud.oee.figures import Figures, Place
from cloud.oee.frame import Window
from cloud.oee.rollup import Level, place_of, rolled_up, speaks_for
from cloud.oee.totals import Group, Totals, totals
from cloud.plant import Machine, Plant
from cloud.report import scope_of
from cloud.settled import DaySums, Settled
from cloud.shown import cycle_of_made_us, segments_of
from cloud.store.port import Store
from cloud.store.rows import ABSENT
from cloud.views import LineView, MachineView, ShiftRow, TimelineView
from contract.machine_key import MachineKey

_DAY_US: Final = 86_400_000_000
_DEPTH: Final[Mapping[Level, int]] = {"site": 1, "area": 2, "line": 3, "machine": 4}

Every = Literal["shift", "hour", "day", "week", "month", "range"]


def figures(
    plant: Plant,
    store: Store,
    now_us: int,
    *,
    from_us: int,
    to_us: int,
    every: Every,
    level: Level,
    place: tuple[str, ...] = (),
    product: str | None = None,
    settled: Settled | None = None,
) -> list[ShiftRow]:
    """Return the figures of each window of [from_us, to_us) [us since 1970], oldest first, until now.

    every: shifts and hours are those that touch the range; days, weeks, months and the whole `range` are
        sums of the production days whose date lies in it
    place: one to four levels from the site down; only rows of it
    product: only what was made of it, and the time in which it was
    settled: whoever keeps the sums of days that are over; None: they are made from the records

    Each row is the flat object that `oee compute --format json` prints, with `target_units`: the good units
    that the OEE target asks for in its planned production time until now. Closed shifts of machines and lines
    are as their newest revision keeps them, without that; what is not all closed yet has revision 0.
    """
    if len(plant.by_timezone) > 1:
        parts = [
            figures(
                part,
                store,
                now_us,
                from_us=from_us,
                to_us=to_us,
                every=every,
                level=level,
                place=place,
                product=product,
                settled=settled,
            )
            for part in plant.by_timezone
        ]
        return sorted(chain.from_iterable(parts), key=lambda row: str(row["start"]))
    machines = [key for key in plant.machines if tuple(key)[: len(place)] == place]
    to_us = min(to_us, now_us)
    if not machines or to_us <= from_us:
        return []
    kept: dict[tuple[str, int], ShiftRow] = {}
    revised = every == "shift" and level in ("machine", "line") and product is None
    if revised:
        kept = _kept(store, {"/".join(key[: _DEPTH[level]]) for key in machines}, from_us, to_us, now_us)
        from_us = max(from_us, _all_closed_until(kept, machines, level))
        if to_us <= from_us:
            return sorted(kept.values(), key=lambda row: str(row["start"]))
    if every == "hour" or product is not None or revised:
        found = _of_records(plant, store, now_us, machines, (from_us, to_us), every, product)
    else:
        days = (settled or Settled(store)).days(plant, machines, from_us, to_us, now_us)
        found = _of_settled(days, plant.machines[machines[0]].timezone, (from_us, to_us), every)
    made = [
        row
        for row in rolled_up(found, plant, level=level, revision=0 if revised else 1)
        if (scope_of(row), row.window.start_us) not in kept
    ]
    rows = [
        {**row.to_dict(), "target_units": _target_units(row, found, plant, level)}
        for row in _as_of(made, plant, store, now_us)
    ]
    return sorted([*kept.values(), *rows], key=lambda row: str(row["start"]))


def _of_records(
    plant: Plant,
    store: Store,
    now_us: int,
    machines: Sequence[MachineKey],
    between_us: tuple[int, int],
    every: Every,
    product: str | None,
) -> dict[Group, Totals]:
    """Return the sums of each machine and window, made from the records of the whole range."""
    evaluation = Evaluation(plant, store)
    whole, _ = evaluation.timeline(machines, *between_us, now_us)
    sums = totals(
        whole,
        plant,
        evaluation.names,
        by="hour" if every == "hour" else "shift" if every == "shift" else "day",
        split="none" if product is None else "product",
    )
    chosen = [(group, total) for group, total in sums.items() if product is None or group.product == product]
    if every not in ("shift", "hour"):
        return _of_days(chosen, every, *_dates(plant.machines[machines[0]].timezone, between_us))
    return {
        Group(group.machine, group.window): total
        for group, total in chosen
        if _touches(group.window, between_us)
    }


def _of_settled(
    days: Iterable[DaySums], zone: ZoneInfo, between_us: tuple[int, int], every: Every
) -> dict[Group, Totals]:
    """Return the sums of each machine and window out of those of its days."""
    if every == "shift":
        return {
            group: total
            for sums in days
            for group, total in sums.shifts.items()
            if _touches(group.window, between_us)
        }
    chosen = chain.from_iterable(sums.day.items() for sums in days)
    return _of_days(chosen, every, *_dates(zone, between_us))


def _touches(window: Window, between_us: tuple[int, int]) -> bool:
    return window.start_us < between_us[1] and window.end_us > between_us[0]


def _dates(zone: ZoneInfo, between_us: tuple[int, int]) -> tuple[date, date]:
    """Return the local dates of the first and the last instant."""
    first, last = (
        datetime.fromtimestamp(at_us / 1e6, UTC).astimezone(zone).date()
        for at_us in (between_us[0], between_us[1] - 1)
    )
    return first, last


def timeline(
    plant: Plant, store: Store, now_us: int, machine_key: MachineKey, from_us: int, to_us: int
) -> TimelineView:
    """Return a machine's states in [from_us, to_us) [us since 1970], without holes, never beyond now.

    Raises UnknownMachineError.
    """
    if machine_key not in plant.machines:
        raise UnknownMachineError(f"{machine_key} is not in the plant")
    to_us = max(from_us, min(to_us, now_us))
    segments = []
    if to_us > from_us:
        evaluation = Evaluation(plant, store)
        whole, frame = evaluation.timeline([machine_key], from_us, to_us, now_us)
        index = evaluation.names.machine(machine_key)
        segments = segments_of(whole.cells, index, frame, (from_us, to_us), evaluation)
    return TimelineView(
        **machine_key._asdict(),
        from_epochtime=from_us / 1e6,
        to_epochtime=to_us / 1e6,
        segments=segments,
    )


def shift_table(
    plant: Plant,
    store: Store,
    settled: Settled,
    picture: Picture,
    now_us: int,
    *,
    from_us: int,
    to_us: int,
    level: Level,
) -> list[ShiftRow]:
    """Return the shifts that touch [from_us, to_us), oldest first, of all places of a level.

    Closed shifts of machines and lines are as their newest revision says, running ones as in the picture;
    those that are over and being closed have revision 0, too. Areas and sites keep no revisions: theirs is 1
    once the shift is closed on all their lines.
    """
    if level in ("machine", "line"):
        return _stored_table(plant, store, picture, from_us, to_us, level)
    found: dict[Group, Totals] = {}
    for part in plant.by_timezone if from_us < now_us else ():
        days = settled.days(part, list(part.machines), from_us, min(to_us, now_us), now_us)
        found |= _of_settled(days, next(iter(part.sites.values())).timezone, (from_us, to_us), "shift")
    rows = _as_of(rolled_up(found, plant, level=level), plant, store, now_us)
    return sorted((row.to_dict() for row in rows), key=lambda row: str(row["start"]))


def _as_of(rows: Sequence[Figures], plant: Plant, store: Store, now_us: int) -> list[Figures]:
    """Return rows as they are shown: what still runs or is not all closed has revision 0."""
    ended = [row for row in rows if row.revision and now_us - _DAY_US < row.window.end_us <= now_us]
    unclosed = {
        line: _unclosed(store, line, members, now_us - _DAY_US, now_us)
        for line, members in plant.lines.items()
        if any(_is_within(line, row.place) for row in ended)
    }
    return [
        replace(row, revision=0)
        if row.window.end_us > now_us
        or any(
            window.start_us < row.window.end_us and row.window.start_us < window.end_us
            for line, windows in unclosed.items()
            if _is_within(line, row.place)
            for window in windows
        )
        else row
        for row in rows
    ]


def _is_within(line: tuple[str, str, str], place: Place) -> bool:
    """Tell whether a line is part of a place, or the place of the line."""
    return all(own == other for own, other in zip(line, filter(None, place), strict=False))


def _of_days(
    chosen: Iterable[tuple[Group, Totals]], every: Every, first: date, last: date
) -> dict[Group, Totals]:
    """Sum the production days from the first to the last by the period that each lies in."""
    spans: dict[tuple[MachineKey, date | None], tuple[int, int, Totals]] = {}
    for group, total in chosen:
        day, window = group.window.production_date, group.window
        if day is None or not first <= day <= last:
            continue
        key = (group.machine, _period(day, every))
        start_us, end_us, before = spans.get(key, (window.start_us, window.end_us, Totals()))
        spans[key] = (min(start_us, window.start_us), max(end_us, window.end_us), before + total)
    return {
        Group(machine, Window(start_us, end_us, period)): total
        for (machine, period), (start_us, end_us, total) in spans.items()
    }


def _period(day: date, every: Every) -> date | None:
    """Return the first day of the period that a day lies in; the whole range has none."""
    match every:
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "range":
            return None
        case _:
            return day


def _kept(
    store: Store, scopes: Iterable[str], from_us: int, to_us: int, now_us: int
) -> dict[tuple[str, int], ShiftRow]:
    """Return the closed shifts that touch [from_us, to_us), by scope and start.

    Not what a clock that was ahead has closed before its end.
    """
    return {
        (scope, shift.start_us): shift.revision.figures
        for scope in scopes
        for shift in store.closed_between(scope, from_us - _DAY_US, to_us)
        if from_us < shift.end_us <= now_us
    }


def _all_closed_until(
    kept: Mapping[tuple[str, int], ShiftRow], machines: Iterable[MachineKey], level: Level
) -> int:
    """Return the instant until which every shift of every scope is closed; 0 when one has none."""
    ends = dict.fromkeys(("/".join(key[: _DEPTH[level]]) for key in machines), 0)
    for (scope, _), row in kept.items():
        ends[scope] = max(ends[scope], round(datetime.fromisoformat(row["end"]).timestamp() * 1e6))
    return min(ends.values(), default=0)


def _target_units(row: Figures, found: Mapping[Group, Totals], plant: Plant, level: Level) -> float:
    """Return the good units that the OEE targets of a row's machines ask for in their planned time."""
    return fsum(  # the same in any order
        float(plant.machines[group.machine].targets.oee)
        * total.planned_us
        / float(cycle_of_made_us(plant.machines[group.machine], total))
        for group, total in found.items()
        if _is_part_of(group, row, plant, level)
    )


def _is_part_of(group: Group, row: Figures, plant: Plant, level: Level) -> bool:
    window, own = group.window, row.window
    return (
        place_of(group.machine, level) == row.place
        and (window.production_date, window.shift) == (own.production_date, own.shift)
        and own.start_us <= window.start_us < own.end_us
        and speaks_for(plant.machines[group.machine], plant, level)
    )


def _stored_table(
    plant: Plant, store: Store, picture: Picture, from_us: int, to_us: int, level: Level
) -> list[ShiftRow]:
    views: Mapping[str, MachineView | LineView]
    if level == "machine":
        scopes = list(map(str, plant.machines))
        views = {str(key): view for key, view in picture.machines.items()}
    else:
        scopes = list(map("/".join, plant.lines))
        views = {"/".join(line): view for line, view in picture.lines.items()}
    # Asked first: what is closed meanwhile is found closed.
    rows = _being_closed(plant, store, picture.at_us, from_us, to_us, level)
    for scope in scopes:
        figures = views[scope].figures if scope in views else None
        if figures is not None and _starts_before(figures, to_us):
            rows[scope, str(figures["start"])] = figures
        for shift in store.closed_between(scope, from_us - _DAY_US, to_us):
            if from_us < shift.end_us <= picture.at_us:  # a clock that was ahead has closed what still runs
                rows[scope, str(shift.revision.figures["start"])] = shift.revision.figures
    return sorted(rows.values(), key=lambda row: str(row["start"]))


def _being_closed(
    plant: Plant, store: Store, now_us: int, from_us: int, to_us: int, level: Level
) -> dict[tuple[str, str], ShiftRow]:
    """Return the shifts that are over and not closed yet, by scope and start, as far as their records tell.

    What ended more than a day ago is being caught up with, a day at a time; it is told of when it is closed.
    """
    oldest_us = max(from_us, now_us - _DAY_US)
    rows: dict[tuple[str, str], ShiftRow] = {}
    for line, members in plant.lines.items():
        ended = [
            window for window in _unclosed(store, line, members, oldest_us, now_us) if window.start_us < to_us
        ]
        if not ended:
            continue
        since_us = max(oldest_us, _closed_until(store, line, members, now_us))
        ended_us = max(window.end_us for window in ended)
        keys = [machine.key for machine in members]
        found = _of_records(plant, store, now_us, keys, (since_us, ended_us), "shift", None)
        for row in rolled_up(found, plant, level=level, revision=0):
            if since_us < row.window.end_us <= now_us and row.window.start_us < to_us:
                figures = row.to_dict()
                rows[scope_of(row), figures["start"]] = figures
    return rows


def _unclosed(
    store: Store, line: tuple[str, str, str], members: Sequence[Machine], oldest_us: int, now_us: int
) -> list[ShiftWindow]:
    """Return the shifts of a line's machines that ended after an instant and are not closed yet."""
    since_us = max(oldest_us, _closed_until(store, line, members, now_us))
    if since_us >= now_us:
        return []
    windows = {window for machine in members for window in shifts_between(machine, since_us, now_us)}
    return [window for window in windows if since_us < window.end_us <= now_us]


def _closed_until(store: Store, line: tuple[str, str, str], members: Iterable[Machine], now_us: int) -> int:
    """Return until when a line's shifts are closed: its first record where none is, now where it has none."""
    span = store.closed_span("/".join(line))
    if span is not None:
        return min(span[1], now_us)
    numbers = (store.names.find("machine", tuple(machine.key)) for machine in members)
    extents = (store.extent(number) for number in numbers if number != ABSENT)
    return min((extent[0] for extent in extents if extent is not None), default=now_us)


def _starts_before(figures: ShiftRow, to_us: int) -> bool:
    return datetime.fromisoformat(figures["start"]) < datetime.fromtimestamp(to_us / 1e6, UTC)
