"""The gateway's configuration: connections, machines, tags, uplinks, read from gateway.toml."""

import ipaddress
import os
import re
import socket
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from contract.machine_key import LEVEL_PATTERN, MachineKey
from contract.states import MachineState
from gateway.errors import ConfigError, ExpressionError
from gateway.expressions import Expression
from gateway.packml import STATE_MAP

SecurityPolicy = Literal["auto", "None", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"]
SecurityMode = Literal["sign", "sign_and_encrypt"]
Level = Annotated[str, Field(pattern=LEVEL_PATTERN)]
PositiveSecs = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
_NODE_ID: Final = re.compile(r"(?:(?:ns=\d+|nsu=[^;]+);)?(?:i=\d+|[sgb]=.+)", re.DOTALL)
_TAG_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_RESERVED_LEVEL: Final = "gateways"
"""No area may be called so: `oee/v1/{site}/gateways/...` are the gateways' own topics."""


def _is_node(address: str) -> str:
    if _NODE_ID.fullmatch(address) or (address.startswith("/") and len(address) > 1):
        return address
    raise ValueError(
        f"{address!r} is no node address: use 'nsu=URI;s=NAME', 'ns=2;s=NAME' (also i=, g=, b=) "
        "or a browse path such as '/Objects/Line/Machine/State'"
    )


NodeAddress = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_is_node)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, populate_by_name=True)


class _Tag(_Table):
    """What every tag may have, whatever it means."""

    node: NodeAddress
    sampling_interval_secs: float | None = Field(default=None, ge=0, le=3600)
    queue_size: int | None = Field(default=None, ge=1, le=1_000_000)


class TextTag(_Tag):
    """A tag taken as text: product, order, operator; numbers are written out."""


class ReasonTag(_Tag):
    """A tag that says why the machine stands: an integer or a text. Values in `none` mean no reason."""

    none: tuple[int | str, ...] = (0, "")


class CounterTag(_Tag):
    """A cumulative counter."""

    bits: Literal[16, 32, 64] = 32
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class NumberTag(_Tag):
    """A number that is scaled: `value * scale + offset`."""

    scale: Finite = 1.0
    offset: Finite = 0.0
    deadband: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class StateRule(_Table):
    """`then` where the expression `when` is true."""

    when: str
    then: MachineState

    @field_validator("when")
    @classmethod
    def _is_expression(cls, text: str) -> str:
        try:
            Expression(text)
        except ExpressionError as error:
            raise ValueError(str(error)) from error
        return text


def _named_map(value: object) -> object:
    """Let a name stand for a map that many machines share."""
    if not isinstance(value, str):
        return value
    if value == "packml":
        return STATE_MAP
    raise ValueError("a map is a table, or the name 'packml'")


class StateTag(_Table):
    """How the machine's state is told: by exactly one of `map`, `bits`, `rules` and `moving`."""

    node: NodeAddress | None = None
    sampling_interval_secs: float | None = Field(default=None, ge=0, le=3600)
    queue_size: int | None = Field(default=None, ge=1, le=1_000_000)
    map: Annotated[dict[str, MachineState] | None, BeforeValidator(_named_map)] = None
    bits: dict[Annotated[str, Field(pattern=r"^\d{1,2}$")], MachineState] | None = None
    nodes: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w{0,63}$")], NodeAddress] = Field(
        default_factory=dict
    )
    rules: tuple[StateRule, ...] = ()
    moving: Literal["total_units", "good_units"] | None = None
    moving_for_secs: PositiveSecs = 60.0
    otherwise: MachineState = MachineState.UNKNOWN

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [name for name in ("map", "bits", "rules", "moving") if getattr(self, name)]
        if len(ways) != 1:
            said = " and ".join(ways) or "none"
            raise ValueError(f"a state is told by exactly one of map, bits, rules and moving; here: {said}")
        if ways[0] in ("map", "bits"):
            if self.node is None:
                raise ValueError(f"{ways[0]} needs the node that it reads")
            if self.nodes:
                raise ValueError("nodes go with rules; map and bits read one node")
        if ways[0] in ("rules", "moving") and self.node is not None:
            raise ValueError(f"{ways[0]} reads no single node: leave `node` out (rules take `nodes`)")
        if ways[0] == "rules":
            known = set(self.nodes)
            for index, rule in enumerate(self.rules):
                if missing := sorted(Expression(rule.when).names - known):
                    raise ValueError(
                        f"rules[{index}] asks for {', '.join(missing)}, which nodes does not name"
                    )
        if ways[0] == "moving" and self.nodes:
            raise ValueError("nodes go with rules; moving reads the machine's own counter")
        if self.bits is not None and (beyond := [bit for bit in self.bits if int(bit) > 63]):
            raise ValueError(f"bit {beyond[0]} does not exist: bits are 0 to 63")
        return self


def _short(value: object) -> object:
    """Let a bare address stand for a table that has only that."""
    return {"node": value} if isinstance(value, str) else value


class Machine(_Table):
    """One machine behind a connection, and the tags that tell of it."""

    area: Level
    line: Level
    name: Level
    state: Annotated[StateTag, BeforeValidator(_short)]
    total_units: Annotated[CounterTag | None, BeforeValidator(_short)] = None
    off_quality_units: Annotated[CounterTag | None, BeforeValidator(_short)] = None
    good_units: Annotated[CounterTag | None, BeforeValidator(_short)] = None
    reason_code: Annotated[ReasonTag | None, BeforeValidator(_short)] = None
    product: Annotated[TextTag | None, BeforeValidator(_short)] = None
    order: Annotated[TextTag | None, BeforeValidator(_short)] = None
    operator: Annotated[TextTag | None, BeforeValidator(_short)] = None
    ideal_run_rate: Annotated[NumberTag | None, BeforeValidator(_short)] = None
    tags: dict[str, Annotated[NumberTag, BeforeValidator(_short)]] = Field(default_factory=dict)

    @field_validator("area")
    @classmethod
    def _free_area(cls, area: str) -> str:
        if area == _RESERVED_LEVEL:
            raise ValueError(f"an area may not be called {_RESERVED_LEVEL!r}: that is a topic of its own")
        return area

    @field_validator("tags")
    @classmethod
    def _tag_names(cls, tags: dict[str, NumberTag]) -> dict[str, NumberTag]:
        for name in tags:
            if not _TAG_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no tag name: use 1 to 64 of A-Z a-z 0-9 _ . -")
        return tags

    @model_validator(mode="after")
    def _counter_moves(self) -> Self:
        if self.state.moving is not None and getattr(self, self.state.moving) is None:
            raise ValueError(f"state.moving watches {self.state.moving}, which this machine does not have")
        return self


class Connection(_Table):
    """One PLC: how to reach it, how to prove who we are, how fast to read, and its machines."""

    name: Level
    endpoint: str
    security: SecurityPolicy = "auto"
    security_mode: SecurityMode = "sign_and_encrypt"
    allow_insecure: bool = False
    username: str = ""
    password_file: Path | None = None
    password_env: str = ""
    user_certificate_file: Path | None = None
    user_private_key_file: Path | None = None
    publishing_interval_secs: float = Field(default=0.25, gt=0, le=60)
    sampling_interval_secs: float = Field(default=0.1, ge=0, le=3600)
    queue_size: int = Field(default=1000, ge=1, le=1_000_000)
    publish_requests: int = Field(default=3, ge=1, le=20)
    connect_timeout_secs: PositiveSecs = 5.0
    request_timeout_secs: PositiveSecs = 4.0
    silence_secs: PositiveSecs = 5.0
    reconnect_max_secs: float = Field(default=2.0, gt=0, le=60)
    reconcile_secs: PositiveSecs = 1.0
    node_retry_max_secs: PositiveSecs = 5.0
    verify_secs: float = Field(default=5.0, ge=0, le=3600)
    session_timeout_secs: float = Field(default=60.0, ge=10, le=3600)
    subscription_lifetime_secs: float = Field(default=600.0, ge=10, le=86_400)
    source_clock_offset_secs: Finite = 0.0
    source_ahead_max_secs: PositiveSecs = 120.0
    assume_live_after_secs: PositiveSecs = 10.0
    fast_decoder: bool = True
    machine: tuple[Machine, ...]

    @field_validator("endpoint")
    @classmethod
    def _is_opc_tcp(cls, url: str) -> str:
        parts = _split(url)
        if parts.scheme != "opc.tcp" or not parts.hostname:
            raise ValueError(f"{url!r} is no OPC UA endpoint: use opc.tcp://host:port[/path]")
        if parts.username or parts.password:
            raise ValueError("name and password do not go into the endpoint: use username and password_file")
        return url

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.machine:
            raise ValueError("a connection has at least one [[connection.machine]]")
        if self.security == "None" and not self.allow_insecure:
            raise ValueError(
                'security = "None" sends everything unprotected; say allow_insecure = true to accept that'
            )
        _one_secret(self.password_file, self.password_env)
        if bool(self.username) != (self.password_file is not None or bool(self.password_env)):
            raise ValueError("username needs one of password_file and password_env, and they need a username")
        if (self.user_certificate_file is None) != (self.user_private_key_file is None):
            raise ValueError("user_certificate_file and user_private_key_file go together")
        if self.username and self.user_certificate_file is not None:
            raise ValueError("the user is proven by name or by certificate, not by both")
        return self


class _Uplink(_Table):
    """What every way up has."""

    name: Level
    acknowledge: Literal["store", "broker"] = "store"
    in_flight: int = Field(default=50, ge=1, le=100)
    keepalive_secs: int = Field(default=4, ge=1, le=1200)
    receipt_timeout_secs: PositiveSecs = 30.0
    max_message_bytes: int = Field(default=131_072, ge=1_024, le=131_072)


class MqttUplink(_Uplink):
    """Any MQTT broker."""

    kind: Literal["mqtt"] = "mqtt"
    url: str
    version: Literal["auto", "5", "3.1.1"] = "auto"
    client_id: str = ""
    publishes_per_sec: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    bytes_per_sec: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    allow_insecure: bool = False
    username: str = ""
    password_file: Path | None = None
    password_env: str = ""
    ca_file: Path | None = None
    certificate_file: Path | None = None
    private_key_file: Path | None = None

    @field_validator("url")
    @classmethod
    def _is_mqtt(cls, url: str) -> str:
        parts = _split(url)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"{url!r} is no broker: use mqtts://host:port, or mqtt://host:port")
        if parts.username or parts.password:
            raise ValueError("name and password do not go into the url: use username and password_file")
        return url

    @property
    def tls(self) -> bool:
        """Tell whether the connection is encrypted."""
        return urlsplit(self.url).scheme == "mqtts"

    @property
    def host(self) -> str:
        """Return the broker's host name or address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Return the broker's port; 8883 with TLS and 1883 without unless the url says another."""
        return urlsplit(self.url).port or (8883 if self.tls else 1883)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.tls and not self.allow_insecure and not is_loopback(self.host):
            raise ValueError(
                "mqtt:// sends everything unprotected; use mqtts:// or say allow_insecure = true"
            )
        if not self.tls and (self.ca_file or self.certificate_file):
            raise ValueError("ca_file and certificate_file are for mqtts://")
        _one_secret(self.password_file, self.password_env)
        if (self.certificate_file is None) != (self.private_key_file is None):
            raise ValueError("certificate_file and private_key_file go together")
        return self


class AwsIotUplink(_Uplink):
    """AWS IoT Core by its own device library."""

    kind: Literal["aws_iot"]
    endpoint: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9.-]+$")]
    thing: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9:_-]+$")]
    port: int = Field(default=8883, ge=1, le=65_535)
    certificate_file: Path
    private_key_file: Path
    ca_file: Path | None = None
    session_expiry_secs: int = Field(default=3600, ge=0, le=604_800)
    publishes_per_sec: float = Field(default=100.0, gt=0, allow_inf_nan=False)
    bytes_per_sec: float = Field(default=500_000.0, gt=0, allow_inf_nan=False)


Uplink = Annotated[MqttUplink | AwsIotUplink, Field(discriminator="kind")]


class Gateway(_Table):
    """The daemon itself."""

    name: Level
    site: Level
    data_dir: Path
    publish_interval_secs: float = Field(default=1.0, gt=0, le=60)
    heartbeat_secs: float = Field(default=3.0, ge=1, le=3600)
    status_values: int = Field(default=20, ge=0, le=100)
    accept_commands: bool = False


class OutboxLimits(_Table):
    """How much is kept on disk until it is delivered."""

    max_bytes: int = Field(default=8_000_000_000, ge=1_000_000)
    max_age_days: float = Field(default=40.0, gt=0, le=3650)


class Certificates(_Table):
    """The gateway's own OPC UA application certificate."""

    application_uri: str = ""
    valid_days: int = Field(default=730, ge=1, le=7300)
    renew_before_days: int = Field(default=60, ge=0, le=3650)

    @model_validator(mode="after")
    def _lives(self) -> Self:
        if self.renew_before_days >= self.valid_days:
            raise ValueError("renew_before_days must be less than valid_days")
        return self


class Health(_Table):
    """Where health and metrics are served."""

    host: str = "127.0.0.1"
    port: int = Field(default=9464, ge=0, le=65_535)


class Log(_Table):
    """How the daemon speaks."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Configuration(_Table):
    """All of gateway.toml."""

    gateway: Gateway
    outbox: OutboxLimits = OutboxLimits()
    certificates: Certificates = Certificates()
    health: Health = Health()
    log: Log = Log()
    connection: tuple[Connection, ...] = ()
    uplink: tuple[Uplink, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Self:
        faults = [
            *_twice("connection", (item.name for item in self.connection)),
            *_twice("uplink", (item.name for item in self.uplink)),
            *_twice("machine", (str(key) for key, _ in self.machines())),
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def key(self, machine: Machine) -> MachineKey:
        """Return the place of one of our machines in the plant."""
        return MachineKey(self.gateway.site, machine.area, machine.line, machine.name)

    def machines(self) -> Iterator[tuple[MachineKey, Machine]]:
        """Yield every machine with its key, in the order of the file."""
        for connection in self.connection:
            for machine in connection.machine:
                yield self.key(machine), machine

    @property
    def pki_dir(self) -> Path:
        """Return the folder of own and foreign OPC UA certificates."""
        return self.gateway.data_dir / "pki"

    @property
    def application_uri(self) -> str:
        """Return the URI that the own certificate carries and every session states."""
        return (
            self.certificates.application_uri or f"urn:{socket.gethostname()}:oee-gateway:{self.gateway.name}"
        )


def load(path: Path, environ: Mapping[str, str] | None = None) -> Configuration:
    """Read gateway.toml; raise ConfigError with every fault at once: file, key path and what is allowed.

    Relative paths in the file are relative to the file. Secrets named by `*_file` and `*_env` must be there.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            [f"{path}: is not there; `oee config show gateway` prints one to begin with"]
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"]) from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: is not TOML: {error}"]) from error
    configuration: Configuration = _rooted(parse(tables, str(path)), path.absolute().parent)
    if faults := [f"{path}: {fault}" for fault in _missing(configuration, environ or os.environ)]:
        raise ConfigError(faults)
    return configuration


def parse(tables: Mapping[str, Any], file: str) -> Configuration:
    """Check tables as TOML gives them; raise ConfigError with every fault. Reads no other file."""
    try:
        return Configuration.model_validate(tables)
    except ValidationError as error:
        raise ConfigError([_fault(file, fault) for fault in error.errors(include_url=False)]) from error


def secret(file: Path | None, variable: str, environ: Mapping[str, str] | None = None) -> str | None:
    """Return a secret from its file (without the newline at its end) or environment variable, or None."""
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"{file}: cannot be read: {error}"]) from error
    if variable:
        value = (os.environ if environ is None else environ).get(variable)
        if value is None:
            raise ConfigError([f"the environment variable {variable} is not set"])
        return value
    return None


def _fault(file: str, fault: Any) -> str:
    location = _path(fault["loc"])
    if fault["type"] == "extra_forbidden":
        allowed = _allowed_keys(fault["loc"])
        name = str(fault["loc"][-1])
        near = get_close_matches(name, allowed, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        secret_hint = "; secrets stand in password_file or password_env" if name == "password" else ""
        return f"{file}: {location}: unknown key; allowed are {', '.join(allowed)}{hint}{secret_hint}"
    if fault["type"] in ("union_tag_not_found", "union_tag_invalid"):
        seen = f" (is {fault['ctx']['tag']!r})" if "tag" in fault.get("ctx", {}) else ""
        return f"{file}: {location}.kind: say which it is: {' or '.join(map(repr, _BY_KIND))}{seen}"
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    shown = fault.get("input")
    seen = f" (is {shown!r})" if isinstance(shown, str | int | float | bool) else ""
    return f"{file}: {location}: {message}{seen}"


def _path(location: Iterable[int | str]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the file"


def _allowed_keys(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the table at a location, by walking the models along it."""
    model: Any = Configuration
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part) if model is not None else None
        if field is not None:
            model = next(iter(_models(field.annotation)), None)
        elif part in _BY_KIND:
            model = _BY_KIND[part]
    return sorted(model.model_fields) if model is not None else []


_BY_KIND: Final[dict[str, type[_Table]]] = {"mqtt": MqttUplink, "aws_iot": AwsIotUplink}


def _models(annotation: Any) -> Iterator[type[_Table]]:
    if isinstance(annotation, type) and issubclass(annotation, _Table):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _twice(kind: str, names: Iterable[str]) -> list[str]:
    return [f"the {kind} {name} stands {count} times" for name, count in Counter(names).items() if count > 1]


def _one_secret(file: Path | None, variable: str) -> None:
    if file is not None and variable:
        raise ValueError("the password comes from password_file or from password_env, not from both")


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine, so that nothing crosses a network."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(url: str) -> Any:
    parts = urlsplit(url)
    _ = parts.port  # raises ValueError for a port that is none
    return parts


def _rooted(table: Any, folder: Path) -> Any:
    """Return the same tables with every relative path put under a folder."""
    if isinstance(table, _Table):
        changed = {name: _rooted(getattr(table, name), folder) for name in type(table).model_fields}
        return table.model_copy(update=changed)
    if isinstance(table, tuple):
        return tuple(_rooted(item, folder) for item in table)
    if isinstance(table, dict):
        return {name: _rooted(item, folder) for name, item in table.items()}
    return folder / table if isinstance(table, Path) else table


def _missing(configuration: Configuration, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a fault per file or variable that the configuration names and that is not there."""
    tables: list[tuple[str, _Table]] = [
        *((f"connection[{index}]", item) for index, item in enumerate(configuration.connection)),
        *((f"uplink[{index}]", item) for index, item in enumerate(configuration.uplink)),
    ]
    for place, table in tables:
        for name in type(table).model_fields:
            value = getattr(table, name)
            if name.endswith("_file") and isinstance(value, Path) and not os.access(value, os.R_OK):
                yield f"{place}.{name}: there is no readable file {value}"
            if name.endswith("_env") and value and value not in environ:
                yield f"{place}.{name}: the environment variable {value} is not set"
