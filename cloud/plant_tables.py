"""The tables of plant.toml as they are written: one frozen model per kind of table."""

import re
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field

from cloud.toml_file import Array, Number, TomlModel
from contract.machine_key import is_level
from contract.states import MachineState

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: Final[tuple[Weekday, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
OFF: Final = "-"
_YEARS: Final = range(1900, 3000)
"""Of dates: nothing can be laid out around the first and the last that there is."""

_TIME = re.compile(r"([01]\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?")


def _level(name: str) -> str:
    if not is_level(name):
        raise ValueError("allowed: 1 to 64 of A-Z a-z 0-9 _ . -")
    return name


def _line_name(name: str) -> str:
    if not all(map(is_level, name.split("/"))) or name.count("/") > 1:
        raise ValueError("allowed: the name of a line, or area/line")
    return name


def _time_of_day(value: Any) -> Any:
    if isinstance(value, time) and value.tzinfo is None and not value.microsecond:
        return value
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if not found or (found[1] == "24" and found[0] not in ("24:00", "24:00:00")):
        raise ValueError('must be a local time such as "06:00"')
    return time(int(found[1]) % 24, int(found[2]), int(found[3] or 0))


def _moment(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime) or value.tzinfo is not None or value.year not in _YEARS:
        raise ValueError("must be a local moment such as 2021-06-30T10:00:00, without a time zone")
    return value


def _moment_or_time(value: Any) -> Any:
    if isinstance(value, datetime):
        return _moment(value)
    if isinstance(value, time):
        return _time_of_day(value)
    try:
        return (
            _time_of_day(value)
            if isinstance(value, str) and len(value) < len("2021-06-30")
            else _moment(value)
        )
    except ValueError:
        raise ValueError(
            "must be a local moment such as 2021-06-30T10:00:00, or, together with days, a time such as 10:00"
        ) from None


def _plain_date(value: Any) -> Any:
    is_date = isinstance(value, date) and not isinstance(value, datetime)
    if not is_date or not (value.year in _YEARS or value == date.min):  # which stands for: since ever
        raise ValueError("must be a date such as 2021-12-25")
    return value


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError('must be a name of the IANA time zone database such as "Europe/Berlin"') from None
    return name


def _codes(value: Any) -> Any:
    for code in value if isinstance(value, list) else [None]:
        if isinstance(code, bool) or not isinstance(code, int | str) or code == "":
            raise ValueError("must be an array of whole numbers and texts")
    return tuple(value)


def _pattern(value: Any) -> Any:
    """Split a rotation's text into one word per day: by spaces, or else character by character."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            'must name a shift per day, "-" for a day off: "11223300" or "early early late late - -"'
        )
    return tuple(value.split()) if " " in value.strip() else tuple(value.strip())


def _patterns(value: Any) -> Any:
    return (
        {crew: _pattern(text) for crew, text in value.items()} if isinstance(value, dict) else _pattern(value)
    )


LevelName = Annotated[str, AfterValidator(_level)]
LineName = Annotated[str, AfterValidator(_line_name)]
ShiftName = Annotated[str, Field(min_length=1, max_length=64)]
TimeOfDay = Annotated[time, BeforeValidator(_time_of_day)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
MomentOrTime = Annotated[datetime | time, BeforeValidator(_moment_or_time)]
PlainDate = Annotated[date, BeforeValidator(_plain_date)]
Codes = Annotated[tuple[int | str, ...], BeforeValidator(_codes)]
YEAR_SECS: Final = 366 * 24 * 3600
Rate = Annotated[Number, Field(gt=0, le=1_000_000_000)]
Secs = Annotated[Number, Field(ge=0, le=YEAR_SECS)]
SecsAboveZero = Annotated[Number, Field(gt=0, le=YEAR_SECS)]
Share = Annotated[Number, Field(ge=0, le=1)]
Minutes = Annotated[int, Field(gt=0, le=YEAR_SECS // 60)]
Patterns = Annotated[tuple[str, ...] | dict[str, tuple[str, ...]], BeforeValidator(_patterns)]


class SiteTable(TomlModel):
    """`[site]`: what everything below belongs to."""

    name: LevelName
    timezone: Annotated[str, AfterValidator(_timezone)]


class Definitions(TomlModel):
    """`[definitions]`: how the figures are defined; lines and machines override single keys."""

    breaks: Literal["excluded", "loss"] = "excluded"
    small_stop_secs: Secs = Decimal(120)
    small_stops: Literal["performance", "availability"] = "performance"
    idle: Literal["availability", "performance", "excluded"] = "availability"
    changeover: Literal["availability", "excluded"] = "availability"
    cap_performance: bool = False
    unknown_time: Literal["bounds", "excluded", "hold"] = "bounds"
    max_gap_secs: SecsAboveZero = Decimal(30)
    counts_between_samples: Literal["at_sample", "proportional"] = "at_sample"
    unplanned_production: Literal["apart", "included"] = "apart"
    production_date: Literal["shift_start", "next_day"] = "shift_start"
    ideal_rate: Literal["telemetry", "plant"] = "telemetry"
    startup_secs: Secs = Decimal(0)
    line_from: Literal["machines", "bottleneck"] = "machines"
    lock_after_days: Annotated[int, Field(ge=0, le=36_600)] = 0

    @property
    def small_stop_us(self) -> int:
        """Return the length [us] below which a stop is small; 0: no stop is."""
        return microseconds(self.small_stop_secs)

    @property
    def max_gap_us(self) -> int:
        """Return the longest silence [us] through which the last state is believed."""
        return microseconds(self.max_gap_secs)

    @property
    def startup_us(self) -> int:
        """Return for how long [us] after a stop rejects are startup rejects; 0: never."""
        return microseconds(self.startup_secs)

    def overridden_by(self, other: Self) -> Self:
        """Return these definitions with every key that the other names."""
        return self.model_copy(update={key: getattr(other, key) for key in other.model_fields_set})


class Targets(TomlModel):
    """`targets`: what the figures are measured against, as ratios of 0 to 1."""

    oee: Share = Decimal("0.85")
    availability: Share = Decimal("0.90")
    performance: Share = Decimal("0.95")
    quality: Share = Decimal("0.99")

    def overridden_by(self, other: Self) -> Self:
        """Return these targets with every key that the other names."""
        return self.model_copy(update={key: getattr(other, key) for key in other.model_fields_set})


class BreakTable(TomlModel):
    """A break inside a shift, from a local time on."""

    start: TimeOfDay
    minutes: Minutes
    name: str = ""


class ShiftTable(TomlModel):
    """A shift by local times; it may cross midnight, and equal times make 24 hours."""

    name: ShiftName
    start: TimeOfDay
    end: TimeOfDay
    days: Annotated[tuple[Weekday, ...], Array] = WEEKDAYS
    breaks: Annotated[tuple[BreakTable, ...], Array] = ()


class HolidayTable(TomlModel):
    """A day, or a run of days, on which no shift starts."""

    date: PlainDate
    through: PlainDate | None = None
    name: str = ""


class PlannedStopTable(TomlModel):
    """Time for which the machine is meant to stand: once, or weekly on days."""

    start: MomentOrTime
    minutes: Minutes
    days: Annotated[tuple[Weekday, ...], Array] = ()
    reason: str = ""
    lines: Annotated[tuple[LineName, ...], Array] = ()
    machines: Annotated[tuple[LevelName, ...], Array] = ()


class ExceptionTable(TomlModel):
    """One date's change of one shift: cancelled, other times, or a shift that the week does not have."""

    date: PlainDate
    shift: ShiftName
    cancelled: bool = False
    start: TimeOfDay | None = None
    end: TimeOfDay | None = None
    breaks: Annotated[tuple[BreakTable, ...] | None, Array] = None
    crew: str = ""


class RotationTable(TomlModel):
    """Which crew works which shift: one pattern in turn, or one each."""

    crews: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Array, Field(min_length=1)]
    pattern: Patterns
    first_date: Annotated[PlainDate, Field(alias="from")]

    @property
    def patterns(self) -> dict[str, tuple[str, ...]]:
        """Return each crew's shifts by day from first_date on; a shared pattern is turned in equal shares."""
        if isinstance(self.pattern, dict):
            return self.pattern
        days, crews = len(self.pattern), len(self.crews)
        shared = self.pattern * 2
        return {crew: shared[index * days // crews :][:days] for index, crew in enumerate(self.crews)}

    def crew(self, shift: str, day: date) -> str:
        """Return a shift's crew by the date on which it starts; '' before the rotation begins."""
        since = (day - self.first_date).days
        patterns = self.patterns.items() if since >= 0 else ()
        return next((crew for crew, words in patterns if words[since % len(words)] == shift), "")


class CalendarVersionTable(TomlModel):
    """`[[calendar.NAME.version]]`: the shifts that hold from a date on."""

    valid_from: PlainDate
    shifts: Annotated[tuple[ShiftTable, ...], Array]
    rotation: RotationTable | None = None


class CalendarTable(TomlModel):
    """`[calendar.NAME]`: shifts by weekday, with what differs on single dates."""

    shifts: Annotated[tuple[ShiftTable, ...], Array]
    valid_from: PlainDate | None = None
    rotation: RotationTable | None = None
    version: Annotated[tuple[CalendarVersionTable, ...], Array] = ()
    holidays: Annotated[tuple[HolidayTable, ...], Array] = ()
    planned_stops: Annotated[tuple[PlannedStopTable, ...], Array] = ()
    exceptions: Annotated[tuple[ExceptionTable, ...], Array] = ()


ReasonCategory = Literal["breakdown", "changeover", "planned", "idle", "small_stop", "other_stop"]
CountsIn = Literal["availability", "performance", "excluded"]


class ReasonTable(TomlModel):
    """`[reason.NAME]`: why a machine stands."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    group: str = ""
    category: ReasonCategory = "other_stop"
    codes: Codes = ()
    counts_in: CountsIn | None = None


class DaytimeTable(TomlModel):
    """A span of local times, over midnight when the end is not after the start."""

    start: TimeOfDay
    end: TimeOfDay


StopState = Literal["idle", "stopped", "faulted", "changeover", "planned_stop"]


class RuleTable(TomlModel):
    """`[[rule]]`: gives a reason to the stops that it fits; the first rule that fits wins."""

    reason: str
    lines: Annotated[tuple[LineName, ...], Array] = ()
    machines: Annotated[tuple[LevelName, ...], Array] = ()
    states: Annotated[tuple[StopState, ...], Array] = ()
    codes: Codes = ()
    at_least_secs: Secs | None = None
    below_secs: SecsAboveZero | None = None
    begins: DaytimeTable | None = None
    days: Annotated[tuple[Weekday, ...], Array] = ()

    @property
    def machine_states(self) -> tuple[MachineState, ...]:
        """Return the states that the rule fits; all that are stops where it names none."""
        return tuple(MachineState(state) for state in self.states)


class RateTable(TomlModel):
    """A product's ideal rate."""

    ideal_run_rate: Rate | None = None
    ideal_cycle_secs: SecsAboveZero | None = None


class LineTable(TomlModel):
    """`[line.NAME]`: what the machines of a line have in common."""

    definitions: Definitions = Definitions()
    targets: Targets = Targets()


class MachineTable(TomlModel):
    """`[[machine]]`: where a machine stands, when it is meant to run and how fast it could."""

    area: LevelName
    line: LevelName
    name: LevelName
    calendar: str
    ideal_run_rate: Rate | None = None
    ideal_cycle_secs: SecsAboveZero | None = None
    products: dict[Annotated[str, Field(min_length=1, max_length=256)], RateTable] = Field(
        default_factory=dict
    )
    counter_bits: Literal[16, 32, 64] = 32
    counter_jitter: Annotated[int, Field(ge=0)] = 0
    bottleneck: bool = False
    targets: Targets = Targets()
    idle_alert_secs: Secs = Decimal(300)
    definitions: Definitions = Definitions()


class PlantFile(TomlModel):
    """A whole plant.toml."""

    site: SiteTable
    definitions: Definitions = Definitions()
    targets: Targets = Targets()
    calendar: dict[LevelName, CalendarTable] = Field(default_factory=dict)
    reason: dict[LevelName, ReasonTable] = Field(default_factory=dict)
    rule: Annotated[tuple[RuleTable, ...], Array] = ()
    line: dict[LineName, LineTable] = Field(default_factory=dict)
    machine: Annotated[tuple[MachineTable, ...], Array] = ()


def microseconds(secs: Decimal) -> int:
    """Turn seconds into whole microseconds."""
    return round(secs * 1_000_000)
