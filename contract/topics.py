"""The MQTT topic names of version 1, built and parsed."""

from functools import lru_cache
from typing import Final, Literal, NamedTuple, get_args

from contract.machine_key import MachineKey, is_level

PREFIX: Final = "oee/v1"
MAX_TOPIC_BYTES: Final = 256
"""AWS IoT Core's limit, as are the 7 slashes."""

MachineChannel = Literal["telemetry", "oee", "shift", "alert"]
GatewayChannel = Literal["backlog", "receipt", "status", "gap", "command", "alert"]
LineChannel = Literal["shift", "alert"]
SiteChannel = Literal["alert"]
_MACHINE_CHANNELS: Final[frozenset[str]] = frozenset(get_args(MachineChannel))
_LINE_CHANNELS: Final[frozenset[str]] = frozenset(get_args(LineChannel))
_GATEWAY_CHANNELS: Final[frozenset[str]] = frozenset(get_args(GatewayChannel))

ALL_TELEMETRY: Final = f"{PREFIX}/+/+/+/+/telemetry"
ALL_BACKLOG: Final = f"{PREFIX}/+/gateways/+/backlog"
ALL_GAPS: Final = f"{PREFIX}/+/gateways/+/gap"
ALL_STATUS: Final = f"{PREFIX}/+/gateways/+/status"
ALL_ALERTS: Final = (f"{PREFIX}/+/+/+/+/alert", f"{PREFIX}/+/+/+/alert", f"{PREFIX}/+/alert")
"""Of machines; of lines and gateways; of sites."""


class MachineTopic(NamedTuple):
    """A parsed topic of one machine."""

    machine: MachineKey
    channel: str


class GatewayTopic(NamedTuple):
    """A parsed topic of one gateway."""

    site: str
    gateway: str
    channel: str


class PlaceTopic(NamedTuple):
    """A parsed topic of a line, or of a site, whose area and line are empty."""

    site: str
    area: str
    line: str
    channel: str


def machine_topic(machine: MachineKey, channel: MachineChannel) -> str:
    """Return `oee/v1/{site}/{area}/{line}/{machine}/{channel}`; raise ValueError beyond the limits."""
    return _checked(f"{PREFIX}/{machine}/{channel}", machine)


def gateway_topic(site: str, gateway: str, channel: GatewayChannel) -> str:
    """Return `oee/v1/{site}/gateways/{gateway}/{channel}`; raise ValueError beyond the limits."""
    return _checked(f"{PREFIX}/{site}/gateways/{gateway}/{channel}", (site, gateway))


def line_topic(site: str, area: str, line: str, channel: LineChannel) -> str:
    """Return `oee/v1/{site}/{area}/{line}/{channel}`; raise ValueError beyond the limits."""
    return _checked(f"{PREFIX}/{site}/{area}/{line}/{channel}", (site, area, line))


def site_topic(site: str, channel: SiteChannel) -> str:
    """Return `oee/v1/{site}/{channel}`; raise ValueError beyond the limits."""
    return _checked(f"{PREFIX}/{site}/{channel}", (site,))


@lru_cache(maxsize=4096)
def parse(topic: str) -> MachineTopic | GatewayTopic | PlaceTopic:
    """Take a topic apart; raise ValueError for one that is not of this contract."""
    levels = topic.split("/")
    if (
        len(topic.encode()) <= MAX_TOPIC_BYTES
        and levels[:2] == ["oee", "v1"]
        and all(map(is_level, levels[2:]))
    ):
        match levels[2:]:
            case [site, "gateways", gateway, channel] if channel in _GATEWAY_CHANNELS:
                return GatewayTopic(site, gateway, channel)
            case [site, area, line, machine, channel] if channel in _MACHINE_CHANNELS:
                return MachineTopic(MachineKey(site, area, line, machine), channel)
            case [site, area, line, channel] if area != "gateways" and channel in _LINE_CHANNELS:
                return PlaceTopic(site, area, line, channel)
            case [site, "alert"]:
                return PlaceTopic(site, "", "", "alert")
    raise ValueError(f"{topic[:MAX_TOPIC_BYTES]!r} is not a topic of {PREFIX}")


def _checked(topic: str, levels: tuple[str, ...]) -> str:
    for level in levels:
        if not is_level(level):
            raise ValueError(f"{level!r} may not stand in a topic: use 1 to 64 of A-Z a-z 0-9 _ . -")
    if len(topic) > MAX_TOPIC_BYTES:
        raise ValueError(f"topic of {len(topic)} bytes; {MAX_TOPIC_BYTES} are allowed: {topic}")
    return topic
