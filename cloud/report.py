"""Figures out of the store: of any window from the records, of closed shifts as they were kept."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

from cloud.compute import Moment, instant_us
from cloud.errors import AskedError
from cloud.evaluation import Evaluation
from cloud.locks import forgotten_before
from cloud.oee.figures import Figures, Place
from cloud.oee.frame import Window
from cloud.oee.rollup import Level, Per, figures
from cloud.oee.totals import Totals
from cloud.plant import Plant
from cloud.store.port import AfterLock, ClosedShift, Store
from cloud.views import Revision
from contract.machine_key import MachineKey

_NOT_COMPARED = frozenset({"revision"})
_DAY_US = 86_400_000_000


@dataclass(frozen=True, eq=False)
class Kept(Figures):
    """Figures of a closed shift as one of its revisions holds them."""

    kept: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what was kept."""
        return dict(self.kept)


class Shift(NamedTuple):
    """All revisions of one closed shift."""

    scope: str
    revisions: list[Revision]
    after_lock: AfterLock | None
    """Records that arrived when it was locked."""


class Difference(NamedTuple):
    """What one revision changed."""

    scope: str
    before: Revision
    after: Revision
    changes: list[tuple[str, Any, Any]]
    """(key, value before, value after); keys of tables are joined by dots."""


def report(
    plant: Plant,
    store: Store,
    *,
    since: Moment,
    until: Moment,
    now_us: int,
    per: Per = "shift",
    level: Level = "machine",
    revision: int | None = None,
) -> list[Figures]:
    """Return the figures of [since, until), as far as that has come.

    Shifts of machines and lines are as their newest revision keeps them once they are closed, whatever the
    plant says by now of their calendar or of the machine; everything else is made from the records.

    revision: only closed shifts that have this revision, as it keeps them
    """
    if len(plant.by_timezone) > 1:
        return [
            row
            for part in plant.by_timezone
            for row in report(
                part,
                store,
                since=since,
                until=until,
                now_us=now_us,
                per=per,
                level=level,
                revision=revision,
            )
        ]
    evaluation = Evaluation(plant, store)
    from_us, to_us = span_us(plant, since, until)
    if from_us >= now_us:
        raise AskedError(f"nothing is known from {since} on: it is still to come")
    whole_range = per in ("range", "product", "order")
    whole, _ = evaluation.timeline(
        list(plant.machines), from_us, min(to_us, now_us), now_us, widen="none" if whole_range else "day"
    )

    def wanted(window: Window) -> bool:
        return whole_range or lies_within(window, plant, since, until)

    is_kept = per == "shift" and level in ("machine", "line")
    if not is_kept:
        _check_remembered(plant, store, since, from_us)
    found = figures(whole, plant, evaluation.names, per=per, level=level, wanted=wanted, outside_shifts=True)
    if not is_kept:
        if revision is not None:
            raise AskedError("only shifts of machines and lines have revisions: use --by shift")
        return found
    made: dict[str, list[Figures]] = {scope: [] for scope in scopes(plant, store, level)}
    for row in found:
        made.setdefault(scope_of(row), []).append(row)
    rows: list[Figures] = []
    for scope, of_scope in made.items():
        # A clock that was ahead may have closed what has not ended.
        closed = [shift for shift in _closed_near(store, scope, from_us, to_us) if shift.end_us <= now_us]
        if revision is None:
            rows += _together(of_scope, closed, wanted)
            continue
        rows += [
            _as_kept(None, shift._replace(revision=each))
            for shift in closed
            if wanted(_window_of(shift))
            for each in store.closed(scope, shift.start_us)
            if each.revision == revision
        ]
    return rows


def scopes(plant: Plant, store: Store, level: Level) -> list[str]:
    """Return the machines or lines of the plant, and those that it no longer has and shifts are kept of."""
    named = [str(key) for key in plant.machines]
    gone = (str(MachineKey(*key)) for key in store.names.all("machine") if key[0] in plant.sites)
    found = dict.fromkeys([*named, *(scope for scope in gone if store.closed_span(scope) is not None)])
    if level == "machine":
        return list(found)
    return list(dict.fromkeys(scope.rpartition("/")[0] for scope in found))


def history(plant: Plant, store: Store, since: Moment, until: Moment, level: Level) -> Iterator[Shift]:
    """Yield the closed shifts that `report` gives of [since, until), with all their revisions."""
    if level not in ("machine", "line"):
        raise AskedError(f"only shifts of machines and lines are closed and revised, not of a whole {level}")
    for part in plant.by_timezone:
        from_us, to_us = span_us(part, since, until)
        for scope in scopes(part, store, level):
            for shift in _closed_near(store, scope, from_us, to_us):
                if not lies_within(_window_of(shift), part, since, until):
                    continue
                late = after_lock(plant, store, scope, shift.start_us, shift.end_us)
                yield Shift(scope, store.closed(scope, shift.start_us), late)


def after_lock(plant: Plant, store: Store, scope: str, from_us: int, to_us: int) -> AfterLock | None:
    """Return what arrived of [from_us, to_us) of a machine or line when that was locked; None: nothing."""
    place = tuple(scope.split("/"))
    numbers = (
        store.names.find("machine", tuple(key)) for key in plant.machines if key[: len(place)] == place
    )
    return store.after_lock([number for number in numbers if number >= 0], from_us, to_us)


def differences(shifts: Iterable[Shift]) -> Iterator[Difference]:
    """Yield what each revision after the first changed."""
    for scope, revisions, _ in shifts:
        for before, after in pairwise(revisions):
            old, new = flat(before.figures), flat(after.figures)
            changes = [
                (key, old.get(key), new.get(key))
                for key in dict.fromkeys([*old, *new])
                if old.get(key) != new.get(key) and key not in _NOT_COMPARED
            ]
            yield Difference(scope, before, after, changes)


def flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return figures with the keys of their tables joined by dots; without lists, which repeat the rest."""
    found: dict[str, Any] = {}
    for key, value in figures.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif not isinstance(value, Sequence) or isinstance(value, str):
            found[prefix + key] = value
    return found


def _check_remembered(plant: Plant, store: Store, since: Moment, from_us: int) -> None:
    """Raise AskedError where records are gone: what is left would be told as if it were all."""
    for site in plant.sites:
        first = forgotten_before(store, site)
        if first is not None and from_us < instant_us(plant, first):
            raise AskedError(
                f"records of {site} from before {first} have left the history (keep_days): of the time since"
                f" {since} only shifts of machines and lines are kept; use --by shift, or --from {first}"
            )


def scope_of(row: Figures) -> str:
    """Return `site/area/line/machine` or less of a row of figures."""
    return "/".join(part for part in row.place if part is not None)


def span_us(plant: Plant, since: Moment, until: Moment) -> tuple[int, int]:
    """Return [since, until) as instants, of sites of one time zone; dates begin at local midnight."""
    from_us, to_us = (instant_us(plant, moment) for moment in (since, until))
    if to_us <= from_us:
        raise AskedError(f"nothing lies from {since} until {until}: the end is not after the beginning")
    return from_us, to_us


def lies_within(window: Window, plant: Plant, since: Moment, until: Moment) -> bool:
    """Tell whether a window is of [since, until); dates mean production dates, moments cut no window."""
    from_us, to_us = span_us(plant, since, until)
    day = window.production_date
    begins_after = window.end_us > from_us if isinstance(since, datetime) or day is None else day >= since
    ends_before = window.start_us < to_us if isinstance(until, datetime) or day is None else day < until
    return begins_after and ends_before


def last_days(plant: Plant, now_us: int, days: int = 2) -> tuple[date, date]:
    """Return the production dates to report when none are named: yesterday and today."""
    today = [datetime.fromtimestamp(now_us / 1e6, site.timezone).date() for site in plant.sites.values()]
    return min(today) - timedelta(days=days - 1), max(today) + timedelta(days=1)


def _closed_near(store: Store, scope: str, from_us: int, to_us: int) -> list[ClosedShift]:
    """Return the closed shifts of [from_us, to_us) and around it: production dates reach beyond."""
    return store.closed_between(scope, from_us - _DAY_US, to_us + _DAY_US)


def _window_of(shift: ClosedShift) -> Window:
    figures = shift.revision.figures
    day = figures["production_date"]
    return Window(
        shift.start_us,
        shift.end_us,
        None if day is None else date.fromisoformat(day),
        figures["shift"],
        figures.get("crew"),
    )


def _together(
    made: Iterable[Figures], closed: Sequence[ClosedShift], wanted: Callable[[Window], bool]
) -> list[Figures]:
    """Return the figures of one scope in order: of closed shifts as they were kept, else as they were made.

    Where another calendar was in force when shifts were closed, these stand, and no others of their time.
    """
    known = {shift.start_us: shift for shift in closed}
    last_us = max((shift.end_us for shift in closed), default=0)
    rows: list[Figures] = []
    for row in made:
        start_us, end_us = row.window.start_us, row.window.end_us
        if row.window.shift is None:
            rows.append(row)
        elif start_us in known:
            rows.append(_as_kept(row, known.pop(start_us)))
        elif end_us > last_us or not any(
            shift.start_us < end_us and start_us < shift.end_us for shift in closed
        ):
            rows.append(row)
    rows += [_as_kept(None, shift) for shift in known.values() if wanted(_window_of(shift))]
    return sorted(rows, key=lambda row: row.window.start_us)


def _as_kept(row: Figures | None, shift: ClosedShift) -> Figures:
    """Return a closed shift as it was kept; row: the same as made by now, where there is one."""
    kept = shift.revision
    if row is not None and {**row.to_dict(), "revision": kept.revision} == kept.figures:
        return replace(row, revision=kept.revision)
    return Kept(
        place=Place(*shift.scope.split("/")),
        window=_window_of(shift),
        totals=Totals() if row is None else row.totals,
        revision=kept.revision,
        kept=kept.figures,
    )
