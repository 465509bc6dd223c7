"""alerts.toml: what is watched, and who is told of it, over which channel, in which words."""

import os
import re
import string
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import Field

from cloud.alerts.life import Event
from cloud.alerts.rule_tables import PLANT_IDLE, RuleTable, StepTable, oddities, steps_oddities
from cloud.alerts.subjects import Subject, lies_in
from cloud.config import File, PositiveSecs, is_loopback
from cloud.errors import Fault, NotificationError
from cloud.plant import Plant
from cloud.toml_file import Array, TomlModel, load_model
from contract.delivery import Alert

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Final[tuple[Day, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
FIELDS: Final = (
    "event",
    "rule",
    "kind",
    "level",
    "name",
    "place",
    "site",
    "area",
    "line",
    "machine",
    "gateway",
    "connection",
    "message",
    "advice",
    "since",
    "at",
    "by",
    "note",
    "id",
)
"""What a template may name."""
_ARN: Final = re.compile(r"arn:aws[a-z-]*:sns:([a-z0-9-]+):\d{12}:[A-Za-z0-9_-]+(\.fifo)?")
_ClockTime = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class QuietTable(TomlModel):
    """Hours of the day in which a channel waits."""

    from_: _ClockTime = Field(alias="from")
    to: _ClockTime
    days: Annotated[tuple[Day, ...], Array, Field(min_length=1)] = DAYS

    def holds(self, local: datetime) -> bool:
        """Tell whether a local moment is within; hours that go over midnight belong to the day they begin."""
        begin, end, now = _minutes(self.from_), _minutes(self.to), local.hour * 60 + local.minute
        today = DAYS[local.weekday()] in self.days
        if begin < end:
            return today and begin <= now < end
        yesterday = DAYS[(local - timedelta(days=1)).weekday()] in self.days
        return (today and now >= begin) or (yesterday and now < end)


class ChannelTable(TomlModel):
    """One `[[channel]]`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    kind: Literal["apprise", "sns"]
    url: str | None = None
    url_env: str | None = None
    url_file: File | None = None
    allow_insecure: bool = False
    topic_arn: str | None = None
    region: str | None = None
    endpoint_url: str | None = None
    rules: Annotated[tuple[str, ...], Array] = ()
    events: Annotated[tuple[Event, ...], Array] = ("raised", "escalated", "acknowledged", "cleared")
    min_level: Annotated[int, Field(ge=1, le=9)] = 1
    max_level: Annotated[int, Field(ge=1, le=9)] = 9
    places: Annotated[tuple[str, ...], Array] = ()
    shifts: Annotated[tuple[str, ...], Array] = ()
    crews: Annotated[tuple[str, ...], Array] = ()
    quiet: Annotated[tuple[QuietTable, ...], Array] = ()
    quiet_below_level: Annotated[int, Field(ge=1, le=10)] = 10
    quiet_summary: bool = True
    timezone: str | None = None
    title: str = "{name}: {rule} {event}"
    body: str = "{message}\n{advice}\n{place}, since {since}"
    retry_max_secs: PositiveSecs = 60.0
    max_age_secs: PositiveSecs = 86_400.0

    def wants(self, alert: Alert) -> bool:
        """Tell whether this channel is told of a change of an alert."""
        return (
            alert.event in self.events
            and self.min_level <= alert.level <= self.max_level
            and (not self.rules or alert.rule in self.rules)
            and (not self.places or any(lies_in(alert.place, wanted) for wanted in self.places))
        )

    @property
    def has_shifts(self) -> bool:
        """Tell whether it is on call in some shifts alone."""
        return bool(self.shifts or self.crews)

    def is_on_call(self, shift: str | None, crew: str | None) -> bool:
        """Tell whether it is on call in a shift; None: no shift runs, or it has no crew."""
        return (not self.shifts or shift in self.shifts) and (not self.crews or crew in self.crews)

    def zone(self, site: tzinfo) -> tzinfo:
        """Return the time zone of what it writes and of its quiet hours; the site's when it names none."""
        return site if self.timezone is None else ZoneInfo(self.timezone)

    def is_quiet(self, now_us: int, site: tzinfo = UTC) -> bool:
        """Tell whether it waits now."""
        local = datetime.fromtimestamp(now_us / 1e6, self.zone(site))
        return any(hours.holds(local) for hours in self.quiet)

    def words(self, alert: Alert, site: tzinfo = UTC) -> tuple[str, str]:
        """Return title and body of a message."""
        zone = self.zone(site)
        said = {
            **{key: found or "" for key in FIELDS if (found := getattr(alert, key, None)) is not None},
            "name": Subject(*(getattr(alert, level) or "" for level in Subject._fields)).name,
            "since": _moment(alert.since_epochtime, zone),
            "at": _moment(alert.epochtime, zone),
        }
        body = self.body.format(**said)
        # A field that says nothing leaves no empty line.
        return self.title.format(**said), "\n".join(line for line in body.splitlines() if line.strip())

    def secret_url(self) -> str:
        """Return the URL from where it is kept; raise NotificationError when it is not there."""
        if self.url_env is not None:
            if self.url_env not in os.environ:
                raise NotificationError(f"{self.name}: the environment has no {self.url_env}")
            return os.environ[self.url_env]
        if self.url_file is not None:
            try:
                return self.url_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise NotificationError(f"{self.name}: {self.url_file} cannot be read") from error
        return self.url or ""


class EscalationTable(TomlModel):
    """`[escalation]`: how alerts grow more urgent whose rule says nothing of it."""

    steps: Annotated[tuple[StepTable, ...], Array] = ()


class AlertsConfig(TomlModel):
    """All of alerts.toml."""

    escalation: EscalationTable = Field(default_factory=EscalationTable)
    rule: Annotated[tuple[RuleTable, ...], Array] = ()
    channel: Annotated[tuple[ChannelTable, ...], Array] = ()


def load(path: Path) -> AlertsConfig:
    """Read alerts.toml; raise ConfigError with every fault. Relative paths in it are beside the file."""
    config = load_model(path, AlertsConfig, _faults)
    folder = path.absolute().parent
    channels = tuple(
        table if table.url_file is None else table.model_copy(update={"url_file": folder / table.url_file})
        for table in config.channel
    )
    return config.model_copy(update={"channel": channels})


def unknown_names(config: AlertsConfig, plant: Plant) -> list[str]:
    """Return what alerts.toml names and the plant does not have: nobody would be told, or nothing watched."""
    versions = [
        version
        for site in plant.sites.values()
        for calendar in site.calendars.values()
        for version in calendar.versions
    ]
    shifts = {shift.name for version in versions for shift in version.shifts}
    crews = {
        crew for version in versions if version.rotation is not None for crew in version.rotation.crews
    } | {
        exception.crew
        for site in plant.sites.values()
        for calendar in site.calendars.values()
        for exception in calendar.table.exceptions
        if exception.crew
    }
    found = []
    for channel in config.channel:
        found += [f"channel[{channel.name}].shifts: no shift {name!r}" for name in {*channel.shifts} - shifts]
        found += [f"channel[{channel.name}].crews: no crew {name!r}" for name in {*channel.crews} - crews]
        found += [
            f"channel[{channel.name}].places: nothing of the plant lies in {place!r}"
            for place in channel.places
            if not _is_place(place, plant)
        ]
    for rule in config.rule:
        if rule.is_of_machines and not any(rule.covers(Subject(*key)) for key in plant.machines):
            found.append(f"rule[{rule.name}]: covers no machine of the plant")
        else:
            found += _unknown_globs(rule, plant)
    return sorted(found)


def _is_place(place: str, plant: Plant) -> bool:
    """Tell whether alerts can come from a place; which gateways there are only the store knows."""
    gateways = (f"{site}/gateways" for site in plant.sites)
    return any(lies_in(str(key), place) for key in plant.machines) or any(
        lies_in(place, each) for each in gateways
    )


def _unknown_globs(rule: RuleTable, plant: Plant) -> Iterator[str]:
    """Yield the names and patterns of a rule that nothing of the plant has."""
    for level, globs in (
        ("site", rule.sites),
        ("area", rule.areas),
        ("line", rule.lines),
        ("machine", rule.machines),
    ):
        names = {getattr(key, level) for key in plant.machines} | (
            set(plant.sites) if level == "site" else set()
        )
        for glob in globs:
            if not any(fnmatchcase(name, glob) for name in names):
                yield f"rule[{rule.name}].{level}s: no {level} {glob!r}"


def _faults(config: AlertsConfig, file: str) -> Iterator[Fault]:
    names: set[str] = set()
    for key, problem, allowed in steps_oddities(config.escalation.steps, 0):
        yield Fault(file, f"escalation.{key}", problem, allowed)
    for rule in config.rule:
        for key, problem, allowed in oddities(rule):
            yield Fault(file, f"rule[{rule.name}].{key}".rstrip("."), problem, allowed)
        if rule.name in names:
            yield Fault(file, f"rule[{rule.name}].name", "stands twice", "each rule has its own name")
        names.add(rule.name)
    known = names | {PLANT_IDLE}
    names = set()
    for table in config.channel:
        place = f"channel[{table.name}]"
        for key, problem, allowed in _oddities(table):
            yield Fault(file, f"{place}.{key}".rstrip("."), problem, allowed)
        for name in table.rules:
            if name not in known:
                yield Fault(file, f"{place}.rules", f"names {name!r}", f"allowed: {', '.join(sorted(known))}")
        if table.name in names:
            yield Fault(file, f"{place}.name", "stands twice", "each channel has its own name")
        names.add(table.name)


def _oddities(table: ChannelTable) -> Iterator[tuple[str, str, str]]:
    """Yield what does not go together: key, problem and what is allowed; never the URL, which is a secret."""
    if table.min_level > table.max_level:
        yield "max_level", f"is {table.max_level}, below min_level", f"{table.min_level} or more"
    urls = [key for key in ("url", "url_env", "url_file") if getattr(table, key) is not None]
    if table.kind == "apprise":
        if len(urls) != 1:
            yield "", f"names {' and '.join(urls) or 'no URL'}", "name one of url, url_env, url_file"
        if table.url is not None and "://" not in table.url:
            yield "url", "is no URL", "such as mailto:// or ntfy://"
        for key in ("topic_arn", "region", "endpoint_url"):
            if getattr(table, key) is not None:
                yield key, "is not for this kind", 'kind = "sns" has it'
    else:
        for key in urls:
            yield key, "is not for this kind", 'kind = "apprise" has it'
        if table.topic_arn is None or not _ARN.fullmatch(table.topic_arn):
            yield (
                "topic_arn",
                "is missing" if table.topic_arn is None else f"is {table.topic_arn!r}",
                "arn:aws:sns:REGION:ACCOUNT:NAME",
            )
        if (url := table.endpoint_url) is not None and is_plain(url) and not table.allow_insecure:
            yield (
                "endpoint_url",
                "would carry alerts to another machine in plain text",
                "https://, or say allow_insecure = true",
            )
    if table.timezone is not None:
        try:
            ZoneInfo(table.timezone)
        except (KeyError, OSError, ValueError):
            yield "timezone", f"is {table.timezone!r}", "a name such as Europe/Berlin"
    for key in ("title", "body"):
        if (problem := _template_problem(getattr(table, key))) is not None:
            yield key, problem, f"fields: {', '.join(FIELDS)}"


def is_plain(url: str) -> bool:
    """Tell whether a web address is another machine's and without TLS."""
    try:
        parts = urlsplit(url)
        return parts.scheme != "https" and not is_loopback(parts.hostname or "")
    except ValueError:
        return True


def _template_problem(template: str) -> str | None:
    try:
        for _, field, form, conversion in string.Formatter().parse(template):
            if field is not None and (field not in FIELDS or form or conversion):
                return f"names {{{field}}}"
    except ValueError as error:
        return str(error)
    return None


def _minutes(clock_time: str) -> int:
    return int(clock_time[:2]) * 60 + int(clock_time[3:])


def _moment(epochtime: float, zone: tzinfo) -> str:
    return datetime.fromtimestamp(epochtime, zone).strftime("%Y-%m-%d %H:%M:%S %Z")
