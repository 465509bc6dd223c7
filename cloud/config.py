"""The cloud side's configuration, read from cloud.toml."""

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, Field

from cloud.errors import ConfigError, Fault
from cloud.toml_file import Array, TomlModel, read_table, validate
from contract.machine_key import LEVEL_PATTERN

DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_MQTT_FILES: Final = ("password_file", "ca_file", "certificate_file", "key_file")


def _real(value: Any) -> Any:
    """Let a TOML number of either kind be seconds."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise ValueError("must be a number")
    return float(value)


def _path(value: Any) -> Any:
    return Path(value).expanduser() if isinstance(value, str) and value else value


Real = Annotated[float, BeforeValidator(_real)]
Secs = Annotated[float, BeforeValidator(_real), Field(ge=0, le=31_536_000)]
PositiveSecs = Annotated[float, BeforeValidator(_real), Field(gt=0, le=31_536_000)]
File = Annotated[Path, BeforeValidator(_path)]
Names = Annotated[tuple[str, ...], Array]
Place = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.*?-]{1,64}(/[A-Za-z0-9_.*?-]{1,64}){0,3}$")]


class CloudTable(TomlModel):
    """`[cloud]`: where things lie, and when shifts are closed."""

    data_dir: File = Path("/var/lib/oee-cloud")
    plant: File = Path("plant.toml")
    masterdata: File | None = None
    alerts: File | None = None
    results: File | None = None
    max_future_secs: PositiveSecs = 300.0
    shift_close_grace_secs: Secs = 60.0
    revision_settle_secs: Secs = 10.0
    live_interval_secs: PositiveSecs = 1.0
    plant_check_secs: PositiveSecs = 2.0
    dead_letters_max: Annotated[int, Field(ge=0, le=100_000_000)] = 100_000
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"


class MqttTable(TomlModel):
    """`[mqtt]`: the broker that telemetry comes from and results go to."""

    url: str = "mqtt://127.0.0.1:1883"
    client_id: Annotated[str, Field(min_length=1, max_length=23 * 5)] = "oee-cloud"
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    username: str | None = None
    password_file: File | None = None
    ca_file: File | None = None
    certificate_file: File | None = None
    key_file: File | None = None
    allow_insecure: bool = False
    keepalive_secs: Annotated[int, Field(ge=1, le=3600)] = 4
    connect_timeout_secs: PositiveSecs = 5.0
    reconnect_max_secs: PositiveSecs = 3.0
    session_expiry_secs: Annotated[int, Field(ge=0, le=4_294_967_295)] = 604_800
    max_unacknowledged: Annotated[int, Field(ge=1, le=65_535)] = 200

    @property
    def address(self) -> SplitResult:
        """Return the URL taken apart."""
        return urlsplit(self.url)

    @property
    def host(self) -> str:
        """Return the broker's host."""
        return self.address.hostname or ""

    @property
    def port(self) -> int:
        """Return the broker's port."""
        return self.address.port or DEFAULT_PORTS[self.address.scheme]

    @property
    def is_encrypted(self) -> bool:
        """Tell whether TLS is spoken."""
        return self.address.scheme == "mqtts"

    @property
    def is_exposed(self) -> bool:
        """Tell whether telemetry crosses a network in plain text."""
        return not self.is_encrypted and not is_loopback(self.host)


class IngestTable(TomlModel):
    """`[ingest]`: how messages are gathered into transactions."""

    queue_messages: Annotated[int, Field(ge=1, le=1_000_000)] = 2_000
    batch_messages: Annotated[int, Field(ge=1, le=100_000)] = 500
    linger_secs: Secs = 0.05
    gateways: dict[Annotated[str, Field(pattern=LEVEL_PATTERN)], Annotated[tuple[Place, ...], Array]] = Field(
        default={}
    )


class HistoryTable(TomlModel):
    """`[history]`: closed days as Parquet files."""

    enabled: bool = True
    folder: File | None = None
    after_days: Annotated[int, Field(ge=1, le=36_500)] = 3
    keep_days: Annotated[int, Field(ge=0, le=36_500)] = 0


class BackupTable(TomlModel):
    """`[backup]`: copies of everything, made while the service runs."""

    folder: File | None = None
    every_hours: Annotated[float, BeforeValidator(_real), Field(gt=0, le=8_760)] = 24.0
    keep: Annotated[int, Field(ge=1, le=10_000)] = 7


class WebTable(TomlModel):
    """`[web]`: the pages."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    sign_in: bool = True
    hosts: Names = ()
    base_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_.-]+)*$")] = ""
    trusted_proxies: Names = ()


class CloudConfig(TomlModel):
    """All of cloud.toml."""

    cloud: CloudTable = Field(default_factory=CloudTable)
    mqtt: MqttTable = Field(default_factory=MqttTable)
    ingest: IngestTable = Field(default_factory=IngestTable)
    history: HistoryTable = Field(default_factory=HistoryTable)
    backup: BackupTable = Field(default_factory=BackupTable)
    web: WebTable = Field(default_factory=WebTable)

    @property
    def history_folder(self) -> Path:
        """Return where closed days are kept: beside the store when nothing else is said."""
        return self.history.folder or self.cloud.data_dir / "history"


def load(path: Path) -> CloudConfig:
    """Read cloud.toml; raise ConfigError with every fault. Relative paths in it are beside the file."""
    config, faults = validate(read_table(path), CloudConfig, file=str(path))
    if config is None:
        raise ConfigError(faults)
    folder = path.absolute().parent
    config = config.model_copy(
        update={
            "cloud": _beside(config.cloud, folder, "data_dir", "plant", "masterdata", "alerts", "results"),
            "mqtt": _beside(config.mqtt, folder, *_MQTT_FILES),
            "history": _beside(config.history, folder, "folder"),
            "backup": _beside(config.backup, folder, "folder"),
        }
    )
    faults += [
        Fault(str(path), f"mqtt.{key}", problem, allowed) for key, problem, allowed in _odd(config.mqtt)
    ]
    if config.web.enabled and not config.web.sign_in and not is_loopback(config.web.host):
        problem = f"is false, but {config.web.host} is reached by other machines"
        faults.append(Fault(str(path), "web.sign_in", problem, "sign in, or serve on 127.0.0.1"))
    if faults:
        raise ConfigError(faults)
    return config


def _odd(mqtt: MqttTable) -> Iterator[tuple[str, str, str]]:
    """Yield what does not go together: key, problem and what is allowed."""
    if (fault := _url_fault(mqtt.url)) is not None:
        yield "url", f"is {mqtt.url!r}", fault
    else:
        if mqtt.is_exposed and not mqtt.allow_insecure:
            yield (
                "url",
                f"{mqtt.url} would carry telemetry in plain text to another machine",
                "use mqtts://, or say allow_insecure = true",
            )
        if not mqtt.is_encrypted and (mqtt.ca_file or mqtt.certificate_file):
            yield "url", "is without TLS, but certificates are named", "use mqtts://"
    if mqtt.username is None and mqtt.password_file is not None:
        yield "password_file", "is named, but no username", "name both or neither"
    if (mqtt.certificate_file is None) != (mqtt.key_file is None):
        yield "certificate_file", "stands without key_file, or the other way round", "name both or neither"
    for key in _MQTT_FILES:
        if (file := getattr(mqtt, key)) is not None and not _is_readable(file):
            yield key, f"{file} cannot be read", ""


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine by its name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url_fault(url: str) -> str | None:
    try:
        address = urlsplit(url)
        well_formed = bool(address.hostname) and address.port != 0
    except ValueError:
        well_formed = False
    if not well_formed or address.scheme not in DEFAULT_PORTS:
        return "must be mqtt://HOST[:PORT] or mqtts://HOST[:PORT]"
    if address.username or address.password or address.path.strip("/") or address.query:
        return "must hold scheme, host and port alone: username and password_file are keys of their own"
    return None


def _beside(table: Any, folder: Path, *keys: str) -> Any:
    return table.model_copy(
        update={key: folder / path for key in keys if (path := getattr(table, key)) is not None}
    )


def _is_readable(path: Path) -> bool:
    try:
        with path.open("rb"):
            return True
    except OSError:
        return False
