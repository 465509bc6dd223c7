"""The plant of the benchmark: 200 machines, what their tags show at each moment, and files that say so."""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from asyncua import ua

MACHINES: Final = 200
MESSAGES_PER_SEC: Final = 10
STEP_US: Final = 1_000_000 // MESSAGES_PER_SEC
STATE_SECS: Final = 300
STATES: Final = ("stopped", "running", "idle")
STATE: Final = "State"
_TICKS_TO_1970: Final = 116_444_736_000_000_000
_MASK: Final = 0x0D
"""Value, source and server timestamp: what servers send of a good value."""


class Tag(NamedTuple):
    """A tag of every machine; `value` of the message's number and the machine's."""

    name: str
    kind: ua.VariantType
    sign: str
    value: Callable[[int, int], Any]


def state_at(number: int, machine: int, state_secs: int = STATE_SECS) -> int:
    """Return a machine's state as of a message; each machine changes it at its own time."""
    period = state_secs * MESSAGES_PER_SEC
    return ((number + machine * period // MACHINES) // period) % len(STATES)


TAGS: Final = (
    Tag("is_open", ua.VariantType.Boolean, "?", lambda n, m: (n + m) % 2 == 0),
    Tag("speed", ua.VariantType.Int16, "h", lambda n, m: 900 + (n * 7 + m) % 200),
    Tag("total", ua.VariantType.UInt32, "I", lambda n, m: m * 100_000 + n),
    Tag("temperature", ua.VariantType.Double, "d", lambda n, m: 20 + (n * 13 + m) % 1000 / 64),
    Tag("lot", ua.VariantType.String, "", lambda n, m: f"lot-{m}-{n}"),
)
_STATE_TAG: Final = Tag(STATE, ua.VariantType.Int16, "h", state_at)
ALL_TAGS: Final = (*TAGS, _STATE_TAG)
_PACKED: Final = {tag.kind: struct.Struct(f"<IBB{tag.sign}qq").pack for tag in ALL_TAGS if tag.sign}


def node(machine: int, tag: str) -> str:
    """Return a tag's identifier on the server."""
    return f"{machine}.{tag}"


def changes(number: int, state_secs: int, machines: Iterable[int]) -> Iterator[tuple[int, Tag]]:
    """Yield machine and tag of each value of a message: all but states, which are told when they change."""
    for machine in machines:
        for tag in TAGS:
            yield machine, tag
        if number and state_at(number, machine, state_secs) != state_at(number - 1, machine, state_secs):
            yield machine, _STATE_TAG


class Encoded(NamedTuple):
    """The items of a data change notification as they go over the wire, and how many they are."""

    items: bytes
    values: int


def encode(
    number: int,
    at_us: int,
    handles: Mapping[tuple[int, str], int],
    state_secs: int = STATE_SECS,
    machines: Iterable[int] = range(MACHINES),
) -> Encoded:
    """Return a message's items, as a server's own code would write them.

    at_us: [us since 1970] their source and server timestamp
    handles: what the client calls each machine's tags; others are left out
    """
    ticks = at_us * 10 + _TICKS_TO_1970
    parts = []
    for machine, tag in changes(number, state_secs, machines):
        handle = handles.get((machine, tag.name))
        if handle is None:
            continue
        value: Any = (
            state_at(number, machine, state_secs) if tag is _STATE_TAG else tag.value(number, machine)
        )
        if tag.sign:
            parts.append(_PACKED[tag.kind](handle, _MASK, tag.kind.value, value, ticks, ticks))
        else:
            text = value.encode()
            parts.append(
                struct.pack(
                    f"<IBBi{len(text)}sqq", handle, _MASK, tag.kind.value, len(text), text, ticks, ticks
                )
            )
    return Encoded(b"".join(parts), len(parts))


def response(
    encoded: Encoded,
    *,
    request: int,
    subscription: int,
    sequence: int,
    at_us: int,
    more: bool,
    acknowledged: int = 0,
) -> bytes:
    """Return a publish response.

    at_us: [us since 1970] when the server made it
    acknowledged: how many acknowledgements of the request it answers
    """
    ticks = at_us * 10 + _TICKS_TO_1970
    body = struct.pack("<i", encoded.values) + encoded.items + struct.pack("<i", -1)
    return b"".join(
        (
            b"\x01\x00\x3d\x03",
            struct.pack("<qIIBi", ticks, request, 0, 0, -1),
            b"\x00\x00\x00",
            struct.pack("<Ii?Iqi", subscription, -1, more, sequence, ticks, 1),
            b"\x01\x00\x2b\x03\x01",
            struct.pack("<i", len(body)),
            body,
            struct.pack(f"<i{acknowledged}Ii", acknowledged, *[0] * acknowledged, -1),
        )
    )


def gateway_toml(data_dir: str, endpoint: str, broker: int, extra: str = "") -> str:
    """Return the gateway's configuration: every tag of every machine, one broker on loopback."""
    lines = [
        "[gateway]",
        'name = "edge"',
        'site = "site"',
        "heartbeat_secs = 600",  # between the rounds the plant's time stands, and nothing is to be told of it
        f'data_dir = "{data_dir}"',
        "[health]",
        "port = 0",
        "[log]",
        'level = "warning"',
        "[[uplink]]",
        'name = "broker"',
        'kind = "mqtt"',
        f'url = "mqtt://127.0.0.1:{broker}"',
        "allow_insecure = true",
        extra,
        "[[connection]]",
        'name = "plc"',
        f'endpoint = "{endpoint}"',
        'security = "None"',
        "allow_insecure = true",
        "assume_live_after_secs = 86400",  # what is played is of the past, whenever it begins
        "verify_secs = 0",  # a read does not show what is played
        "silence_secs = 20",  # while the player plays to one, it is silent to the others
    ]
    spelled = ", ".join(f'{number} = "{name}"' for number, name in enumerate(STATES))
    for machine in range(MACHINES):
        lines += [
            "[[connection.machine]]",
            'area = "area"',
            f'line = "line-{machine // 10}"',
            f'name = "machine-{machine}"',
            f'state = {{ node = "ns=2;s={node(machine, STATE)}", map = {{ {spelled} }} }}',
            f'total_units = "ns=2;s={node(machine, "total")}"',
        ]
        lines += [
            f'tags.{tag.name} = {{ node = "ns=2;s={node(machine, tag.name)}" }}'
            for tag in TAGS
            if tag.name != "total"
        ]
    return "\n".join(lines) + "\n"
