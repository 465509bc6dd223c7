"""Write docs/telemetry.md from the structs of the contract.

Run as `python packaging/telemetry_page.py`. A test keeps the page equal to the code.
"""

import inspect
import sys
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from contract import strict, telemetry, topics
from contract.schema import MESSAGES, build

PAGE: Final = Path(__file__).parents[1] / "docs" / "telemetry.md"

_BEGINNING: Final = f"""\
# The telemetry contract

What edge and cloud side tell each other, by MQTT, as JSON. It is public: write rules, queries and flows against
it. Within version 1 a field may be added, never renamed or given another meaning.

This page is made from the code (`python packaging/telemetry_page.py`); the JSON Schemas are in `contract/schema/`.

## Topics

| topic | what | retained |
|---|---|---|
| `{topics.PREFIX}/SITE/AREA/LINE/MACHINE/telemetry` | one machine at one moment | no |
| `{topics.PREFIX}/SITE/gateways/GATEWAY/backlog` | an array of the same objects, after an outage | no |
| `{topics.PREFIX}/SITE/gateways/GATEWAY/gap` | time that the edge knows it could not read | no |
| `{topics.PREFIX}/SITE/gateways/GATEWAY/receipt` | what the store has of that gateway | yes |
| `{topics.PREFIX}/SITE/gateways/GATEWAY/status` | the gateway itself; its last will says offline | yes |
| `{topics.PREFIX}/SITE/gateways/GATEWAY/command` | asks the gateway to start or stop one connection | no |
| `{topics.PREFIX}/SITE/AREA/LINE/MACHINE/oee` | figures of the running and the last closed shift | yes |
| `{topics.PREFIX}/SITE/AREA/LINE/MACHINE/shift` | each revision of each closed shift, as it is made | no |
| `{topics.PREFIX}/SITE/AREA/LINE/shift` | the same, of a line as a whole | no |
| `{topics.PREFIX}/SITE/AREA/LINE/MACHINE/alert` | an alert raised, escalated, acknowledged, cleared | no |
| `{topics.PREFIX}/SITE/AREA/LINE/alert` | the same, of a line as a whole | no |
| `{topics.PREFIX}/SITE/gateways/GATEWAY/alert` | the same, of a gateway or one of its PLC connections | no |
| `{topics.PREFIX}/SITE/alert` | the same, of the service itself | no |

All at QoS 1. A level is 1 to 64 of `A-Z a-z 0-9 _ . -`; a topic has at most {topics.MAX_TOPIC_BYTES} bytes and 7 slashes, which are AWS IoT
Core's limits. No area may be called `gateways`.

## What a reader may rely on

- **`(gateway, sequence)` names a record.** Delivery is at least once; drop what you have.
- **Counters are totals** as the PLC shows them, so a lost or repeated message never changes a shift's count.
- **A record comes when something changed**, and at least once per heartbeat (default 3 s). Silence beyond the
  machine's `max_gap_secs` (default 30 s) means that the state is unknown.
- **The newest come first** after an outage; older ones follow as arrays of at most {telemetry.MAX_BACKLOG_BYTES // 1000} kB.
- **`epochtime` is the moment at the machine**, the PLC's own timestamp, to the microsecond.

## What a reader refuses

Not JSON or not UTF-8; NaN or Infinity; a number as a string or a boolean as a number; an integer beyond 2^53; a key
twice; nesting deeper than {strict.MAX_DEPTH}; more than {telemetry.MAX_MESSAGE_BYTES // 1024} kB; an unknown state; a topic whose machine is not the body's; a
moment more than `max_future_secs` (default {telemetry.DEFAULT_MAX_FUTURE_SECS:.0f} s) ahead. It is kept whole as a dead letter with the reason, and its neighbours
in the same array are stored. Keys that are not listed here are accepted and kept.

## Who may publish what

A broker that lets anybody publish anything lets anybody forge figures, and stop the reading of a PLC. Give each gateway
and the cloud side a login or a certificate of its own, and only what they need: [security](security.md) says how, and
`oee cloud acl` writes mosquitto's list. The line with `command` in the cloud side's part of it is the one that allows
connections to be stopped: it is left out with `--no-commands`, besides `accept_commands = false` in gateway.toml, which is
the default. `oee gateway provision` writes the like for AWS IoT Core.
"""


def render() -> str:
    """Return the page."""
    return _BEGINNING + "".join(_message(name) for name in MESSAGES)


def _message(name: str) -> str:
    schema = build(name)
    definitions = schema["$defs"]
    first = definitions[_name(schema)]
    others = [item for item in definitions.values() if item.get("type") == "object" and item is not first]
    return _struct("##", name, first, definitions) + "".join(
        _struct("###", item["title"], item, definitions) for item in others
    )


def _struct(level: str, title: str, struct: dict[str, Any], definitions: dict[str, Any]) -> str:
    required = set(struct.get("required", ()))
    lines = [f"\n{level} {title}\n\n{inspect.cleandoc(struct['description'])}\n"]
    lines.append("\n| field | type | | |\n|---|---|---|---|")
    for field, about in struct["properties"].items():
        must = "required" if field in required else ""
        lines.append(f"| `{field}` | {_type(about, definitions)} | {must} | {about.get('description', '')} |")
    return "\n".join(lines) + "\n"


def _type(about: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in about:
        found = definitions[_name(about)]
        return _type(found, definitions) if "enum" in found else f"[{_name(about)}](#{_name(about).lower()})"
    if "anyOf" in about:
        return " or ".join(dict.fromkeys(_type(choice, definitions) for choice in about["anyOf"]))
    if "enum" in about:
        return ", ".join(f"`{value}`" for value in about["enum"])
    if about.get("type") == "array":
        inner = about.get("items") or {}
        return f"array of {_type(inner, definitions)}" if inner else "array"
    return str(about.get("type", "any"))


def _name(about: dict[str, Any]) -> str:
    return str(about["$ref"].rpartition("/")[2])


if __name__ == "__main__":
    PAGE.write_text(render())
