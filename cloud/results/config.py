"""results.toml: where figures go once a shift is closed: reports by mail, web addresses, databases."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import Field

from cloud.addresses import AddressTable, secret
from cloud.config import File, PositiveSecs, Secs, is_loopback
from cloud.errors import Fault
from cloud.plant_tables import WEEKDAYS, TimeOfDay, Weekday
from cloud.toml_file import Array, TomlModel, load_model

Every = Literal["shift", "day", "week"]
Format = Literal["pdf", "xlsx", "csv", "json", "html"]
Level = Literal["machine", "line"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Texts = Annotated[tuple[str, ...], Array]
_SQL_NAME: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,50}$"
_DAY_SECS: Final = 86_400.0

Odd = tuple[str, str, str]
"""Key, problem and what is allowed."""


class MailTable(AddressTable):
    """What all mails have: the account that they go out by, and who gets them."""

    name: Name
    to: Texts = ()
    allow_insecure: bool = False
    retry_max_secs: PositiveSecs = 300.0
    max_age_secs: PositiveSecs = 3 * _DAY_SECS

    def channels(self) -> dict[str, str | None]:
        """Return the queues of these mails: who gets what waits there; None: whom the URL names."""
        if not self.named():
            return {}
        return {f"mail:{self.name}:{address}": address for address in self.to} or {f"mail:{self.name}": None}


class ReportTable(MailTable):
    """One `[[report]]`: a report of each place, once its time is over."""

    every: Every = "shift"
    places: Texts = ()
    crews: Texts = ()
    formats: Annotated[tuple[Format, ...], Array] = ("pdf",)
    folder: File | None = None
    revised: bool = False
    revised_wait_secs: Secs = 600.0
    catch_up_days: Annotated[int, Field(ge=1, le=366)] = 7


class HealthTable(MailTable):
    """One `[[health]]`: how the service and its gateways do."""

    at: TimeOfDay = Field(default="07:00", validate_default=True)
    days: Annotated[tuple[Weekday, ...], Array, Field(min_length=1)] = WEEKDAYS
    timezone: str | None = None


class PlacedTable(AddressTable):
    """What is told of the closed shifts of some places."""

    name: Name
    places: Texts = ()
    levels: Annotated[tuple[Level, ...], Array, Field(min_length=1)] = ("machine", "line")

    def wants(self, scope: str) -> bool:
        """Tell whether shifts of a scope, `site/area/line[/machine]`, are told."""
        level = "machine" if scope.count("/") == 3 else "line"
        return level in self.levels and is_in(scope, self.places)


class WebhookTable(PlacedTable):
    """One `[[webhook]]`: a web address that closed and revised shifts are posted to."""

    secret_env: str | None = None
    secret_file: File | None = None
    ca_file: File | None = None
    allow_insecure: bool = False
    history: bool = False
    timeout_secs: PositiveSecs = 10.0
    retry_max_secs: PositiveSecs = 300.0
    max_age_secs: PositiveSecs = 7 * _DAY_SECS

    def secret(self) -> str | None:
        """Return what messages are signed with; raise AddressError when it is not where it should be."""
        if self.secret_env is None and self.secret_file is None:
            return None
        return secret(self.secret_env, self.secret_file)


class ExportTable(PlacedTable):
    """One `[[export]]`: a database that closed shifts are written to."""

    table: Annotated[str, Field(pattern=_SQL_NAME)] = "oee_shift"
    db_schema: Annotated[str, Field(pattern=_SQL_NAME)] | None = Field(default=None, alias="schema")
    history: bool = True
    retry_max_secs: PositiveSecs = 60.0


class ResultsConfig(TomlModel):
    """All of results.toml."""

    report: Annotated[tuple[ReportTable, ...], Array] = ()
    health: Annotated[tuple[HealthTable, ...], Array] = ()
    webhook: Annotated[tuple[WebhookTable, ...], Array] = ()
    export: Annotated[tuple[ExportTable, ...], Array] = ()

    def mails(self) -> list[MailTable]:
        """Return everything that is mailed."""
        return [*self.report, *self.health]


def is_in(place: str, places: Sequence[str]) -> bool:
    """Tell whether a place is one of some places, or inside one; places that are none mean all."""
    return not places or any(f"{place}/".startswith(f"{wanted.strip('/')}/") for wanted in places)


def unknown_places(config: ResultsConfig, machines: Iterable[str]) -> list[str]:
    """Return which places results.toml names that have no machine: nothing would be sent of them.

    machines: of the plant, as `site/area/line/machine`
    """
    known = list(machines)
    tables = (("report", config.report), ("webhook", config.webhook), ("export", config.export))
    return [
        f"{kind}[{table.name}].places: nothing of the plant lies in {place!r}"
        for kind, found in tables
        for table in found
        for place in table.places
        if not any(is_in(machine, [place]) for machine in known)
    ]


def load(path: Path) -> ResultsConfig:
    """Read results.toml; raise ConfigError with every fault. Relative paths in it are beside the file."""
    config = load_model(path, ResultsConfig, _faults)
    folder = path.absolute().parent
    return config.model_copy(
        update={
            kind: tuple(_beside(table, folder) for table in getattr(config, kind))
            for kind in ResultsConfig.model_fields
        }
    )


def _beside(table: AddressTable, folder: Path) -> AddressTable:
    keys = [key for key, value in table if isinstance(value, Path)]
    return table.model_copy(update={key: folder / getattr(table, key) for key in keys})


def _faults(config: ResultsConfig, file: str) -> Iterator[Fault]:
    yield from _faults_of(config.report, "report", file, _report_oddities)
    yield from _faults_of(config.health, "health", file, _health_oddities)
    yield from _faults_of(config.webhook, "webhook", file, _webhook_oddities)
    yield from _faults_of(config.export, "export", file, ExportTable.address_faults)
    names = [table.name for table in config.mails()]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Fault(
            file, f"report[{name}].name", "stands twice", "each report and health mail has its own name"
        )


def _faults_of(
    tables: Iterable[ReportTable] | Iterable[HealthTable] | Iterable[WebhookTable] | Iterable[ExportTable],
    kind: str,
    file: str,
    oddities: Callable[..., Iterator[Odd]],
) -> Iterator[Fault]:
    seen: set[str] = set()
    for table in tables:
        place = f"{kind}[{table.name}]"
        for key, problem, allowed in oddities(table):
            yield Fault(file, f"{place}.{key}".rstrip("."), problem, allowed)
        if table.name in seen and kind in ("webhook", "export"):
            yield Fault(file, f"{place}.name", "stands twice", "each has its own name")
        seen.add(table.name)


def _report_oddities(table: ReportTable) -> Iterator[Odd]:
    yield from table.address_faults(required=table.folder is None)
    yield from _recipient_oddities(table)
    if not table.formats and table.folder is not None:
        yield "formats", "is empty, so that nothing would be written to the folder", 'such as ["pdf"]'


def _health_oddities(table: HealthTable) -> Iterator[Odd]:
    yield from table.address_faults()
    yield from _recipient_oddities(table)
    if table.timezone is not None:
        try:
            ZoneInfo(table.timezone)
        except (KeyError, OSError, ValueError):
            yield "timezone", f"is {table.timezone!r}", "a name such as Europe/Berlin"


def _recipient_oddities(table: MailTable) -> Iterator[Odd]:
    for address in table.to:
        if address.count("@") != 1 or any(letter in address for letter in " ,;<>\"'\\\r\n"):
            yield "to", f"names {address!r}", "one plain address each, such as lead@example.com"
    if table.to and not table.named():
        yield "to", "is named, but no URL to send by", "name one of url, url_env, url_file"


def _webhook_oddities(table: WebhookTable) -> Iterator[Odd]:
    yield from table.address_faults()
    secrets = [key for key in ("secret_env", "secret_file") if getattr(table, key) is not None]
    if len(secrets) > 1:
        yield "secret_env", "stands beside secret_file", "name one of them"
    if not secrets and not table.allow_insecure:
        yield (
            "secret_env",
            "is missing, so that nobody could tell our messages from others'",
            ("name secret_env or secret_file, or say allow_insecure = true"),
        )
    if table.url is not None:
        problem = web_fault(table.url, allow_insecure=table.allow_insecure)
        if problem is not None:
            yield "url", problem, "https://HOST/PATH; http:// to another machine needs allow_insecure = true"


def web_fault(url: str, *, allow_insecure: bool) -> str | None:
    """Return what is wrong with a web address that messages are posted to, without the address itself."""
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well_formed = False
    if not well_formed or parts.username or parts.password or parts.fragment:
        return "is no plain web address"
    if parts.scheme == "http" and not is_loopback(parts.hostname or "") and not allow_insecure:
        return "would carry figures in plain text to another machine"
    return None
