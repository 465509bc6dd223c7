"""What a page shows: a place, a stretch of time and a product, read from its address.

`at=site/area/line/machine` from the left; one of `shift=2021-06-30/2`, `days=7`,
`from=2021-06-21&to=2021-06-30` (production dates, both included), or none of them for the running shift;
`product=SKU-7`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple

from cloud.oee.calendar import YEARS, shifts_between
from cloud.views import BoardView
from contract.machine_key import MachineKey
from dashboards import words
from dashboards.links import Place, link
from dashboards.port import CloudReader

_US: Final = 1_000_000
_LATEST_US: Final = round(datetime(YEARS.stop, 1, 1, tzinfo=UTC).timestamp()) * _US
_LISTED_DAYS: Final = 9
MAX_DAYS: Final = 400


class AddressError(ValueError):
    """An address that asks for something that cannot be: said to the person, status 400."""


class ShiftRef(NamedTuple):
    """One shift that a person can choose."""

    name: str
    production_date: str
    start: float
    end: float

    @property
    def key(self) -> str:
        """Return how an address names it."""
        return f"{self.production_date}/{self.name}"


class Choice(NamedTuple):
    """One entry of a list to choose from."""

    value: str
    text: str
    chosen: bool
    depth: int = 0


@dataclass(frozen=True)
class Selection:
    """A place and [start, end) [s since 1970], with what leads to its neighbours."""

    place: Place
    start: float
    end: float
    now: float
    title: str
    zone: tzinfo
    shift: ShiftRef | None
    shifts: tuple[ShiftRef, ...]
    """Newest first."""
    machines: tuple[MachineKey, ...]
    product: str | None
    query: Mapping[str, str]
    """What the address said of time, place and product, to be handed on."""

    @property
    def is_live(self) -> bool:
        """Tell whether the end lies ahead, so that the figures still move."""
        return self.end > self.now

    @property
    def from_us(self) -> int:
        """Return the start [us since 1970]."""
        return round(self.start * _US)

    @property
    def to_us(self) -> int:
        """Return the end [us since 1970]."""
        return round(self.end * _US)

    @property
    def until(self) -> float:
        """Return the end, or now when that is sooner [s since 1970]."""
        return min(self.end, self.now)

    def to(self, path: str, **changes: str | None) -> str:
        """Return the address of a page for this selection, with changes."""
        query: dict[str, Any] = {**self.query, **changes}
        if "shift" in changes:
            query |= dict.fromkeys(("days", "from", "to"))
        return link(path, **query)

    def neighbour(self, step: int) -> ShiftRef | None:
        """Return the shift before (-1) or after (1) the chosen one."""
        if self.shift is None or self.shift not in self.shifts:
            return None
        index = self.shifts.index(self.shift) - step
        return self.shifts[index] if 0 <= index < len(self.shifts) else None


def select(cloud: CloudReader, board: BoardView, zone: tzinfo, query: Mapping[str, str]) -> Selection:
    """Read an address; raise AddressError for what it may not say."""
    query = plain(query)
    machines = tuple(
        MachineKey(machine.site, machine.area, machine.line, machine.machine)
        for line in board.lines
        for machine in line.machines
    )
    place = _place(query.get("at") or (board.lines[0].site if board.lines else board.site), machines, board)
    inside = tuple(key for key in machines if key in place)
    around = _anchor(query, zone, board.generated_epochtime)
    shifts = tuple(_shifts(cloud, board, inside, around))
    now = board.generated_epochtime
    kept = {name: query[name] for name in ("at", "shift", "days", "from", "to", "product") if query.get(name)}
    chosen, start, end, title = _time(query, shifts, board, zone)
    return Selection(
        place=place,
        start=start,
        end=end,
        now=now,
        title=title,
        zone=zone,
        shift=chosen,
        shifts=shifts,
        machines=inside,
        product=query.get("product") or None,
        query=kept,
    )


_RANGE: Final = ("days", "from", "to", "product")
_HANDED_ON: Final[Mapping[str, tuple[str, ...]]] = {
    "timeline": ("at", "shift"),
    "stops": ("at", "shift"),
    "losses": ("at", "shift", *_RANGE),
    "hourly": ("at", "shift", "product"),
    "shifts": ("at", *_RANGE),
    "trends": ("at", *_RANGE),
    "reports": ("at",),
}


def handed_on(page: str, chosen: Selection | None) -> dict[str, str]:
    """Return what the address of another page takes over of place, time and product, if it shows them."""
    if chosen is None or not chosen.machines:
        return {}
    return {name: chosen.query[name] for name in _HANDED_ON.get(page, ()) if name in chosen.query}


def plain(query: Mapping[str, str]) -> dict[str, str]:
    """Return an address as it is written, from what the filter's form sends without a script.

    Its `time` is `shift:DATE/NAME`, `days:N` or nothing, and gives way to dates.
    """
    found = {name: value for name, value in query.items() if value and name != "time"}
    kind, _, value = query.get("time", "").partition(":")
    if value and kind in ("shift", "days") and not found.keys() & {"from", "to"}:
        found.pop("shift", None)
        found.pop("days", None)
        found[kind] = value
    return found


def places(board: BoardView, chosen: Place) -> list[Choice]:
    """Return every place of the plant, to choose from."""
    found: dict[str, Choice] = {}
    for line in board.lines:
        for machine in line.machines:
            whole = Place((machine.site, machine.area, machine.line, machine.machine))
            for depth, place in enumerate(whole.parents()):
                found.setdefault(str(place), Choice(str(place), place.name, place == chosen, depth))
    return list(found.values())


def times(selection: Selection) -> list[Choice]:
    """Return the shifts and ranges to choose from; `shift` or `days` is what stands before the colon."""
    query = selection.query
    explicit = "shift" in query or "days" in query or "from" in query
    runs = not selection.shifts or selection.shifts[0].end > selection.now
    found = [Choice("", "Running shift" if runs else "Last shift", not explicit)]
    found += [
        Choice(f"days:{days}", f"Last {days} days", query.get("days") == str(days))
        for days in sorted({2, 7, 14, 30, 90} | _days_of(query))
    ]
    for shift in selection.shifts:
        text = f"{words.iso_day(shift.production_date)} · shift {shift.name}"
        found.append(Choice(f"shift:{shift.key}", text, query.get("shift") == shift.key))
    return found


def _days_of(query: Mapping[str, str]) -> set[int]:
    """Return the number of days that an address asks for, so that it can be shown as chosen."""
    days = query.get("days", "")
    return {int(days)} if days.isascii() and days.isdigit() and len(days) < 4 else set()


def _place(text: str, machines: Iterable[MachineKey], board: BoardView) -> Place:
    try:
        place = Place.parse(text)
    except ValueError as error:
        raise AddressError(str(error)) from error
    strangers = (MachineKey(item.site, item.area, item.line, item.machine) for item in board.not_in_plant)
    if not any(key in place for key in (*machines, *strangers)) and str(place) != board.site:
        raise AddressError(f"There is no {place.level} {place} in this plant.")
    return place


def _anchor(query: Mapping[str, str], zone: tzinfo, now: float) -> float:
    """Return the instant around which shifts are listed."""
    text = (query.get("shift") or "").split("/", 1)[0] or query.get("to") or ""
    if not text:
        return now
    day = _date(text)
    return min(now, datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() + 3 * 86_400)


def _shifts(
    cloud: CloudReader, board: BoardView, machines: Iterable[MachineKey], around: float
) -> Iterable[ShiftRef]:
    """Return the shifts of the machines' calendars up to `around`, newest first, each once."""
    found: dict[str, ShiftRef] = {}
    if board.shift is not None:
        running = board.shift
        ref = ShiftRef(running.name, running.production_date, running.start_epochtime, running.end_epochtime)
        found[ref.key] = ref
    seen: set[str] = set()
    from_us, to_us = round((around - _LISTED_DAYS * 86_400) * _US), round(around * _US)
    for key in machines:
        machine = cloud.plant.machines.get(key)
        if machine is None or machine.calendar.name in seen:
            continue
        seen.add(machine.calendar.name)
        for window in shifts_between(machine, from_us, to_us):
            ref = ShiftRef(
                window.name, window.production_date.isoformat(), window.start_us / _US, window.end_us / _US
            )
            found.setdefault(ref.key, ref)
    return sorted(found.values(), key=lambda ref: ref.start, reverse=True)


def _time(
    query: Mapping[str, str], shifts: tuple[ShiftRef, ...], board: BoardView, zone: tzinfo
) -> tuple[ShiftRef | None, float, float, str]:
    now = board.generated_epochtime
    if wanted := query.get("shift"):
        chosen = next((shift for shift in shifts if shift.key == wanted), None)
        if chosen is None:
            raise AddressError(f"There is no shift {wanted[:40]!r} here.")
        return (
            chosen,
            chosen.start,
            chosen.end,
            f"Shift {chosen.name}, {words.iso_day(chosen.production_date)}",
        )
    today = words.local(now, zone).date()
    if days := query.get("days"):
        count = int(days) if days.isascii() and days.isdigit() and len(days) < 4 else 0
        if not 1 <= count <= MAX_DAYS:
            raise AddressError(f"`days` must be 1 to {MAX_DAYS}.")
        start = _midnight(today - timedelta(days=count - 1), zone)
        return None, start, _midnight(today + timedelta(days=1), zone), f"Last {count} days"
    if query.get("from") or query.get("to"):
        last = _date(query.get("to") or today.isoformat())
        first = _date(query.get("from") or last.isoformat())
        if not 0 <= (last - first).days <= MAX_DAYS:
            raise AddressError(f"`from` must not be after `to`, nor more than {MAX_DAYS} days before it.")
        title = f"{words.iso_day(first.isoformat())} to {words.iso_day(last.isoformat())}"
        return None, _midnight(first, zone), _midnight(last + timedelta(days=1), zone), title
    if board.shift is not None:
        running = next((shift for shift in shifts if shift.start == board.shift.start_epochtime), None)
        name, production_date = board.shift.name, board.shift.production_date
        title = f"Shift {name}, {words.iso_day(production_date)}"
        return running, board.shift.start_epochtime, board.shift.end_epochtime, title
    if shifts:  # none runs on the board: the last one, since figures are of shifts and days
        newest = shifts[0]
        title = f"Shift {newest.name}, {words.iso_day(newest.production_date)}"
        return newest, newest.start, newest.end, title
    return None, now - 8 * 3600, now, "Last 8 hours"


def _midnight(day: date, zone: tzinfo) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()


def _date(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = date.min
    if day.year not in YEARS:
        raise AddressError(f"{text[:40]!r} is not a date such as 2021-06-30.")
    return day


def instant_us(text: str, zone: tzinfo) -> int:
    """Read Unix seconds or ISO 8601, where it names no zone in this one [us]; raise ValueError otherwise.

    Calendars begin and end somewhere: what lies beyond their years is refused, too.
    """
    try:
        found = round(float(text) * _US)
    except (ValueError, OverflowError):
        found = _moment_us(text, zone)
    if not 0 <= found < _LATEST_US:
        years = f"{YEARS.start} to {YEARS.stop - 1}"
        raise ValueError(f"{text[:40]!r} is neither Unix seconds nor ISO 8601 of the years {years}.")
    return found


def _moment_us(text: str, zone: tzinfo) -> int:
    """Return the instant of an ISO 8601 text; -1 where it is none, or has none."""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
        return round(moment.astimezone(UTC).timestamp() * _US)
    except (ValueError, OverflowError):
        return -1
