"""What the factory is: sites, machines, calendars, ideal rates, reasons and definitions, from plant.toml."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo

from cloud.errors import AskedError, ConfigError, Fault, UnknownMachineError, UnknownReasonError
from cloud.plant_faults import faults_between
from cloud.plant_tables import (
    WEEKDAYS,
    CalendarTable,
    CalendarVersionTable,
    CountsIn,
    Definitions,
    LineTable,
    MachineTable,
    PlantFile,
    RateTable,
    ReasonCategory,
    RotationTable,
    RuleTable,
    Targets,
    microseconds,
)
from cloud.toml_file import Table, parse_table, read_table, validated
from contract.machine_key import MachineKey
from contract.states import MachineState

__all__ = ["Calendar", "Definitions", "Machine", "Plant", "Reason", "Site", "Targets", "load", "loads"]

_US_PER_MINUTE: Final = 60_000_000
_US_PER_SEC: Final = 1_000_000
_STOPS: Final = frozenset(MachineState) - {MachineState.RUNNING, MachineState.UNKNOWN}
_STAND_INS: Final = {"site": {"name": "site", "timezone": "UTC"}}


@dataclass(frozen=True, eq=False)
class Calendar:
    """When machines are meant to run; its versions in the order in which they take over."""

    name: str
    table: CalendarTable
    versions: tuple[CalendarVersionTable, ...]
    """Each with shifts and the rotation in force; the first begins in the year 1 where no date is said."""


@dataclass(frozen=True)
class Reason:
    """Why a machine stands."""

    key: str
    name: str
    group: str
    category: ReasonCategory
    codes: tuple[int | str, ...]
    counts_in: CountsIn | None
    """Which factor its time counts in; None: as the definitions say for its category."""

    @property
    def is_planned(self) -> bool:
        """Tell whether its time lies outside planned production time."""
        return self.counts_in == "excluded" or (self.counts_in is None and self.category == "planned")


@dataclass(frozen=True, eq=False)
class Machine:
    """One machine with everything that holds for it, whether said by itself, its line or its site."""

    key: MachineKey
    site: "Site"
    calendar: Calendar
    definitions: Definitions
    targets: Targets
    default_cycle_us: Fraction
    product_cycles_us: Mapping[str, Fraction]
    counter_bits: int
    counter_jitter: int
    bottleneck: bool
    idle_alert_us: int

    @property
    def timezone(self) -> ZoneInfo:
        """Return the time zone that the calendar's times are of."""
        return self.site.timezone

    def cycle_us(self, product: str | None = None) -> Fraction:
        """Return the ideal cycle time [us/unit], exact; the machine's own for a product without one."""
        if product is None:
            return self.default_cycle_us
        return self.product_cycles_us.get(product, self.default_cycle_us)


@dataclass(frozen=True, eq=False)
class Site:
    """One site: its time zone, machines, calendars, reasons and rules."""

    name: str
    timezone: ZoneInfo
    definitions: Definitions
    targets: Targets
    calendars: Mapping[str, Calendar]
    reasons: Mapping[str, Reason]
    rules: tuple[RuleTable, ...]
    file: str

    @cached_property
    def reasons_by_code(self) -> Mapping[str, Reason]:
        """Return the reasons by the text of each code that means them; a reason's own key means it too."""
        found = dict(self.reasons)
        for reason in self.reasons.values():
            found.update(dict.fromkeys(map(str, reason.codes), reason))
        return MappingProxyType(found)

    def reason_for_code(self, code: int | str) -> Reason | None:
        """Return the reason that a PLC's code, or a reason's key, means; None for an unknown one."""
        return self.reasons_by_code.get(str(code))

    def reason_by_rule(
        self,
        machine: MachineKey,
        state: MachineState,
        code: int | str | None,
        start_us: int,
        duration_us: int,
    ) -> Reason | None:
        """Return the reason that the first fitting rule gives to a stop, judged by its whole length."""
        for rule in self.rules:
            if _fits(rule, machine, state, code, duration_us) and _begins(rule, start_us, self.timezone):
                return self.reasons[rule.reason]
        return None


@dataclass(frozen=True, eq=False)
class Plant:
    """All sites that were loaded together."""

    sites: Mapping[str, Site]
    machines: Mapping[MachineKey, Machine]
    """In the order of the files."""

    @property
    def site(self) -> Site:
        """Return the only site; raise AskedError where there are several."""
        if len(self.sites) != 1:
            raise AskedError(f"the plant has {len(self.sites)} sites; say which: {', '.join(self.sites)}")
        return next(iter(self.sites.values()))

    @property
    def timezone(self) -> ZoneInfo:
        """Return the time zone of the only site."""
        return self.site.timezone

    @cached_property
    def lines(self) -> Mapping[tuple[str, str, str], tuple[Machine, ...]]:
        """Return the machines of each (site, area, line)."""
        found: dict[tuple[str, str, str], list[Machine]] = {}
        for key, machine in self.machines.items():
            found.setdefault(key[:3], []).append(machine)
        return MappingProxyType({line: tuple(machines) for line, machines in found.items()})

    @cached_property
    def by_timezone(self) -> tuple["Plant", ...]:
        """Return the plants of the sites that share a time zone: only within one a date is one day."""
        zones = dict.fromkeys(site.timezone.key for site in self.sites.values())
        if len(zones) <= 1:
            return (self,)
        return tuple(
            Plant(
                sites=MappingProxyType(
                    {name: site for name, site in self.sites.items() if site.timezone.key == zone}
                ),
                machines=MappingProxyType(
                    {key: found for key, found in self.machines.items() if found.timezone.key == zone}
                ),
            )
            for zone in zones
        )

    def machine(self, key: MachineKey) -> Machine:
        """Return a machine; raise UnknownMachineError for one that is not in the plant."""
        try:
            return self.machines[key]
        except KeyError:
            raise UnknownMachineError(f"{key} is not in the plant") from None

    def reason_for_code(self, code: int | str, site: str | None = None) -> Reason | None:
        """Return the reason that a PLC's code means at a site, by default the only one."""
        return (self.site if site is None else self.sites[site]).reason_for_code(code)

    def reason(self, key: str, site: str | None = None) -> Reason:
        """Return a reason by its key; raise UnknownReasonError where the site does not have it."""
        found = (self.site if site is None else self.sites[site]).reasons.get(key)
        if found is None:
            raise UnknownReasonError(f"{key!r} is not a reason of the plant")
        return found


def load(path: Path) -> Plant:
    """Read a plant.toml, or a folder with one *.toml per site; raise ConfigError with every fault."""
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    if not files:
        raise ConfigError.unreadable(path, "holds no *.toml file; one per site is expected")
    faults: list[Fault] = []
    tables: dict[str, Table] = {}
    for file in files:
        try:
            tables[str(file)] = read_table(file)
        except ConfigError as error:
            faults += error.faults
    return _plant(tables, faults)


def loads(text: str, file: str = "plant.toml") -> Plant:
    """Read the text of one plant.toml; raise ConfigError, whose faults name the file, with every fault."""
    return _plant({file: parse_table(text, file=file)}, [])


def _plant(tables: Mapping[str, Table], faults: list[Fault]) -> Plant:
    """Build the plant of the files' tables; faults: what is already known to be wrong."""
    sites: list[tuple[Site, PlantFile]] = []
    for file, table in tables.items():
        plant_file, found, positions = validated(table, PlantFile, file=file, stand_ins=_STAND_INS)
        if plant_file is not None:
            found += faults_between(file, table, plant_file, positions)
            if not found:
                sites.append((_site(plant_file, file), plant_file))
        faults += found
    faults += _twice(site for site, _ in sites)
    if faults:
        raise ConfigError(faults)
    return Plant(
        sites=MappingProxyType({site.name: site for site, _ in sites}),
        machines=MappingProxyType(
            {machine.key: machine for site, plant_file in sites for machine in _machines(site, plant_file)}
        ),
    )


def _twice(sites: Iterable[Site]) -> list[Fault]:
    files: dict[str, str] = {}
    return [
        Fault(
            site.file,
            "site.name",
            f"{site.name!r} is also the site of {files[site.name]}",
            "one file per site",
        )
        for site in sites
        if files.setdefault(site.name, site.file) != site.file
    ]


def _site(tables: PlantFile, file: str) -> Site:
    return Site(
        name=tables.site.name,
        timezone=ZoneInfo(tables.site.timezone),
        definitions=tables.definitions,
        targets=tables.targets,
        calendars=MappingProxyType({name: _calendar(name, table) for name, table in tables.calendar.items()}),
        reasons=MappingProxyType(
            {
                key: Reason(key, table.name, table.group, table.category, table.codes, table.counts_in)
                for key, table in tables.reason.items()
            }
        ),
        rules=tables.rule,
        file=file,
    )


def _calendar(name: str, table: CalendarTable) -> Calendar:
    versions = [
        CalendarVersionTable(
            valid_from=table.valid_from or date.min, shifts=table.shifts, rotation=table.rotation
        )
    ]
    rotation: RotationTable | None = table.rotation
    for version in sorted(table.version, key=lambda version: version.valid_from):
        rotation = version.rotation or rotation
        versions.append(version.model_copy(update={"rotation": rotation}))
    return Calendar(name, table, tuple(versions))


def _machines(site: Site, tables: PlantFile) -> Iterable[Machine]:
    for table in tables.machine:
        definitions, targets = site.definitions, site.targets
        for name in (table.line, f"{table.area}/{table.line}"):
            line = tables.line.get(name, LineTable())
            definitions = definitions.overridden_by(line.definitions)
            targets = targets.overridden_by(line.targets)
        yield Machine(
            key=MachineKey(site.name, table.area, table.line, table.name),
            site=site,
            calendar=site.calendars[table.calendar],
            definitions=definitions.overridden_by(table.definitions),
            targets=targets.overridden_by(table.targets),
            default_cycle_us=_cycle_us(table),
            product_cycles_us=MappingProxyType(
                {product: _cycle_us(rate) for product, rate in table.products.items()}
            ),
            counter_bits=table.counter_bits,
            counter_jitter=table.counter_jitter,
            bottleneck=table.bottleneck,
            idle_alert_us=microseconds(table.idle_alert_secs),
        )


def _cycle_us(rate: MachineTable | RateTable) -> Fraction:
    if rate.ideal_cycle_secs is not None:
        return Fraction(rate.ideal_cycle_secs) * _US_PER_SEC
    assert rate.ideal_run_rate is not None
    return Fraction(_US_PER_MINUTE) / Fraction(rate.ideal_run_rate)


def _fits(
    rule: RuleTable, machine: MachineKey, state: MachineState, code: int | str | None, duration_us: int
) -> bool:
    return (
        state in (rule.machine_states or _STOPS)
        and (not rule.lines or machine.line in rule.lines or f"{machine.area}/{machine.line}" in rule.lines)
        and (not rule.machines or machine.machine in rule.machines)
        and (not rule.codes or (code is not None and str(code) in map(str, rule.codes)))
        and (rule.at_least_secs is None or duration_us >= microseconds(rule.at_least_secs))
        and (rule.below_secs is None or duration_us < microseconds(rule.below_secs))
    )


def _begins(rule: RuleTable, start_us: int, zone: ZoneInfo) -> bool:
    if rule.begins is None and not rule.days:
        return True
    local = datetime.fromtimestamp(start_us // _US_PER_SEC, zone)
    if rule.days and WEEKDAYS[local.weekday()] not in rule.days:
        return False
    if rule.begins is None:
        return True
    start, end, time = rule.begins.start, rule.begins.end, local.time()
    return start <= time < end if start < end else time >= start or time < end
