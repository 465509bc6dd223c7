"""What each client of the broker may publish and read, as mosquitto's access control list, pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from contract.topics import PREFIX

_LEVELS: Final = 4
_FROM_GATEWAY: Final = ("backlog", "gap", "status")
_TO_GATEWAY: Final = ("receipt", "command")


def mosquitto_acl(gateways: Mapping[str, Sequence[str]], *, cloud: str, commands: bool) -> str:
    """Return the list: a `user` is a login name, or a certificate's name with `use_identity_as_username`.

    gateways: gateway -> places (site/area/line/machine patterns) that it may speak for; a level with `*` or
      `?` becomes `+`, since the broker knows no other, and what is then too wide is refused by the cloud side
    cloud: the cloud side's user
    commands: whether the cloud side may ask gateways to stop and start connections
    """
    blocks = [_gateway_block(name, places) for name, places in gateways.items()]
    blocks.append(_cloud_block(cloud, commands=commands))
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _gateway_block(gateway: str, places: Sequence[str]) -> list[str]:
    sites = {_level(place.split("/")[0]) for place in places}
    machines = dict.fromkeys(f"topic write {PREFIX}/{_machines(place)}/telemetry" for place in places)
    return [f"user {gateway}", *machines, *_own_topics(gateway, sorted(sites))]


def _own_topics(gateway: str, sites: Sequence[str]) -> Iterator[str]:
    for site in sites:
        for access, channels in (("write", _FROM_GATEWAY), ("read", _TO_GATEWAY)):
            for channel in channels:
                yield f"topic {access} {PREFIX}/{site}/gateways/{gateway}/{channel}"


def _cloud_block(user: str, *, commands: bool) -> list[str]:
    written = [
        "gateways/+/receipt",
        *(["gateways/+/command"] if commands else []),
        "+/+/+/oee",
        "+/+/+/shift",
        "+/+/shift",
        "+/+/+/alert",
        "+/+/alert",
        "alert",
    ]
    return [
        f"user {user}",
        f"topic read {PREFIX}/#",
        *(f"topic write {PREFIX}/+/{topic}" for topic in written),
    ]


def _machines(place: str) -> str:
    levels = [_level(level) for level in place.split("/")]
    return "/".join(levels + ["+"] * (_LEVELS - len(levels)))


def _level(level: str) -> str:
    return "+" if "*" in level or "?" in level else level
