"""What a planning or quality system says, row by row: read strictly, a bad row refused alone."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from cloud.masterdata.config import FIELDS, REQUIRED, MasterDataTable
from cloud.oee.calendar import YEARS
from cloud.oee.corrections import MAX_UNITS, Correction
from cloud.plant import Plant
from contract.machine_key import MachineKey

OPEN_END_US: Final = 7_258_118_400_000_000
"""[us since 1970] the year 2200: what holds until something else is said."""
_BEGIN_SECS: Final = Decimal(0)
_OPEN_END_SECS: Final = Decimal(OPEN_END_US) / 1_000_000
_NO: Final = frozenset({"", "0", "false", "no", "n", "f"})
_TEXT_LIMIT: Final = 256

Row = Mapping[str, Any]
Value = TypeVar("Value")


class Said(NamedTuple):
    """One row: what holds from now on, or that it was taken back."""

    ref: str
    correction: Correction
    is_deleted: bool


class BadRow(NamedTuple):
    """A row that says nothing usable, and why."""

    ref: str
    problem: str


class _UnusableError(Exception):
    """One field of a row cannot be used."""


def read_row(row: Row, table: MasterDataTable, plant: Plant) -> Said | BadRow:
    """Read one row of any source.

    Times may be datetimes, ISO texts or Unix seconds; naive ones are in the table's time zone, or the site's.
    """
    assert table.kind != "shift"
    ref = text_of(row.get(table.column("ref"))) or "(without ref)"
    missing = [field for field in REQUIRED[table.kind] if is_empty(row.get(table.column(field)))]
    if missing:
        return BadRow(ref, f"{', '.join(table.column(field) for field in missing)} is empty or missing")
    try:
        machine = _machine(row[table.column("machine")], table, plant)
        zone = ZoneInfo(table.timezone) if table.timezone else plant.machines[machine].site.timezone
        from_us = _moment(row[table.column("from")], zone)
        to_us = _end(row.get(table.column("to")), zone, from_us, table)
        correction = Correction(
            machine=str(machine),
            kind=table.kind,
            from_us=from_us,
            to_us=to_us,
            who=table.name,
            when_us=0,
            why=text_of(row.get(table.column("why"))),
            reason=_said(row, table, "reason", text_of),
            units=_said(row, table, "units", _whole),
            product=_said(row, table, "product", text_of),
            rate=_said(row, table, "rate", _rate),
            order=_said(row, table, "order", text_of),
            ref=ref,
        )
    except _UnusableError as error:
        return BadRow(ref, str(error))
    return Said(ref, correction, is_yes(row.get(table.column("deleted"))))


def _said(row: Row, table: MasterDataTable, field: str, read: Callable[[Any], Value]) -> Value | None:
    if field not in FIELDS[table.kind]:
        return None  # a column of another meaning that a query or file has, too
    value = row.get(table.column(field))
    return None if is_empty(value) else read(value)


def is_yes(value: Any) -> bool:
    """Tell whether a field says yes."""
    return text_of(value).lower() not in _NO


def is_empty(value: Any) -> bool:
    """Tell whether a field says nothing."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())  # noqa: PLR0124  NaN


def text_of(value: Any) -> str:
    """Return a field as text, '' when it says nothing."""
    if is_empty(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # spreadsheets keep whole numbers as floats
    return str(value).strip()[:_TEXT_LIMIT]


def _machine(value: Any, table: MasterDataTable, plant: Plant) -> MachineKey:
    name = text_of(value)
    name = table.machines.get(name, name)
    found = [key for key in plant.machines if str(key) == name or key.machine == name]
    if len(found) != 1:
        problem = "is not in the plant" if not found else f"is {len(found)} machines of the plant"
        raise _UnusableError(f"machine {name!r} {problem}: say site/area/line/machine")
    return found[0]


def _moment(value: Any, zone: ZoneInfo) -> int:
    """Return an instant [us since 1970]: what lies before that is since ever, after 2199 without an end."""
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime(value.year, value.month, value.day)  # noqa: DTZ001  the zone follows
    elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return round(min(max(Decimal(str(value)), _BEGIN_SECS), _OPEN_END_SECS) * 1_000_000)
    else:
        try:
            moment = datetime.fromisoformat(text_of(value))
        except ValueError as error:
            raise _UnusableError(f"{text_of(value)!r} is not a moment such as 2026-11-23T06:00:00") from error
    if moment.year not in YEARS:  # such as 9999-12-31, which has no instant everywhere
        return 0 if moment.year < YEARS.start else OPEN_END_US
    moment = moment.replace(tzinfo=zone) if moment.tzinfo is None else moment
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    instant_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return min(max(0, instant_us), OPEN_END_US)


def _end(value: Any, zone: ZoneInfo, from_us: int, table: MasterDataTable) -> int:
    if is_empty(value):
        return from_us if table.kind == "off_quality" else OPEN_END_US
    to_us = _moment(value, zone)
    if to_us < from_us or (to_us == from_us and table.kind != "off_quality"):
        raise _UnusableError("ends before it begins")
    return to_us


def _number(value: Any) -> Decimal:
    try:
        number = Decimal(text_of(value))
    except InvalidOperation as error:
        raise _UnusableError(f"{text_of(value)!r} is not a number") from error
    if isinstance(value, bool) or not number.is_finite():
        raise _UnusableError(f"{value!r} is not a number")
    return number


def _whole(value: Any) -> int:
    number = _number(value)
    if abs(number) > MAX_UNITS:  # asked first: a whole number may have a million digits
        raise _UnusableError(f"{number} units are more than any machine makes: {MAX_UNITS:,} at most")
    if number != number.to_integral_value() or number == 0:
        raise _UnusableError(f"{number} is not a number of units")
    return int(number)


def _rate(value: Any) -> float:
    number = _number(value)
    if not 0 < number < Decimal(10**9):
        raise _UnusableError(f"{number} units/min is not a rate")
    return float(number)
