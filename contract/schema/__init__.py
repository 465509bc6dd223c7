"""JSON Schema of every message, made from the structs.

`python -m contract.schema` writes the files; a test keeps them equal to the structs.
"""

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from contract import delivery, telemetry

MESSAGES: Final[dict[str, type]] = {
    "telemetry": telemetry.Telemetry,
    "receipt": delivery.Receipt,
    "gap": delivery.Gap,
    "status": delivery.Status,
    "command": delivery.Command,
    "result": delivery.Result,
    "shift": delivery.Shift,
    "alert": delivery.Alert,
}
FOLDER: Final = Path(__file__).parent


def build(name: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one message."""
    (schema,), components = msgspec.json.schema_components([MESSAGES[name]], ref_template="#/$defs/{name}")
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": components}
    found: dict[str, Any] = json.loads(json.dumps(made), object_hook=_for_every_reader)
    return found


def render(name: str) -> str:
    """Return the text of one schema file."""
    return json.dumps(build(name), indent=2, sort_keys=True) + "\n"


def _for_every_reader(table: dict[str, Any]) -> dict[str, Any]:
    """Write the end of a pattern as JSON Schema's regular expressions have it, where Python's differ."""
    if isinstance(pattern := table.get("pattern"), str):
        table["pattern"] = pattern.removesuffix(r"\Z") + ("$" if pattern.endswith(r"\Z") else "")
    return table
