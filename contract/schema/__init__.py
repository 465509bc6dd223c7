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
    "alert": delivery.Alert,
}
FOLDER: Final = Path(__file__).parent


def build(name: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one message."""
    (schema,), components = msgspec.json.schema_components([MESSAGES[name]], ref_template="#/$defs/{name}")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": components}


def render(name: str) -> str:
    """Return the text of one schema file."""
    return json.dumps(build(name), indent=2, sort_keys=True) + "\n"
