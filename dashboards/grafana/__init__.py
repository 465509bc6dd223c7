"""Grafana dashboards, made by code: `python -m dashboards.grafana` writes the JSON files beside it.

They read the API under /api/v1 by Grafana's Infinity data source, signed in with a display's token.
"""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).parent
_SOURCE: Final = {"type": "yesoreyeram-infinity-datasource", "uid": "${source}"}
_RANGE: Final = "from=${__from:date:iso}&to=${__to:date:iso}"
_STATES: Final[tuple[tuple[str, str, str], ...]] = (
    ("running", "Running", "#3f9f80"),
    ("idle", "Idle", "#f5cb42"),
    ("stopped", "Stopped", "#e0812f"),
    ("faulted", "Down", "#d6304b"),
    ("changeover", "Changeover", "#5b9ff5"),
    ("planned_stop", "Planned stop", "#aab2bd"),
    ("unknown", "No data", "#5d6b77"),
)
_FACTORS: Final[tuple[tuple[str, str, str], ...]] = (
    ("oee", "OEE", "#e9eff3"),
    ("availability", "Availability", "#3f9f80"),
    ("performance", "Performance", "#5b9ff5"),
    ("quality", "Quality", "#e0812f"),
)


class Column(NamedTuple):
    """One field of the answer that a panel reads."""

    selector: str
    text: str
    kind: str = "number"


class Panel(NamedTuple):
    """One panel: what it asks and how it shows it; a grid cell is 1/24 of the width."""

    title: str
    kind: str
    path: str
    """Under the API's address, with Grafana's variables."""
    columns: tuple[Column, ...]
    width: int
    height: int
    unit: str = "none"
    root: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    colours: tuple[tuple[str, str], ...] = ()
    highest: float | None = None


_RATIOS: Final = tuple(Column(key, name) for key, name, _ in _FACTORS)
_RATIO_COLOURS: Final = tuple((name, colour) for _, name, colour in _FACTORS)

PANELS: Final[tuple[Panel, ...]] = (
    Panel(
        "OEE and its factors by shift",
        "timeseries",
        f"/figures?{_RANGE}&every=shift&level=line&at=${{place}}",
        (Column("start", "time", "timestamp"), *_RATIOS),
        16,
        9,
        "percentunit",
        colours=_RATIO_COLOURS,
        highest=1,
    ),
    Panel(
        "Whole range",
        "stat",
        f"/figures?{_RANGE}&every=range&level=line&at=${{place}}",
        _RATIOS,
        8,
        9,
        "percentunit",
        options=(
            ("reduceOptions", {"calcs": ["lastNotNull"], "fields": "", "values": False}),
            ("orientation", "horizontal"),
        ),
        colours=_RATIO_COLOURS,
    ),
    Panel(
        "Good and off-quality units per hour",
        "barchart",
        f"/figures?{_RANGE}&every=hour&level=line&at=${{place}}",
        (
            Column("start", "time", "timestamp"),
            Column("good_units", "Good"),
            Column("off_quality_units", "Off quality"),
        ),
        16,
        9,
        options=(("stacking", "normal"), ("xTickLabelSpacing", 100)),
        colours=(("Good", "#5b9ff5"), ("Off quality", "#d6304b")),
    ),
    Panel(
        "Open alerts",
        "table",
        "/alerts?open=true",
        (
            Column("machine", "Machine", "string"),
            Column("message", "Alert", "string"),
            Column("since_epochtime", "Since", "timestamp_epoch_s"),
            Column("acknowledged_by", "Looked after by", "string"),
        ),
        8,
        9,
    ),
    Panel(
        "States",
        "state-timeline",
        f"/timeline?{_RANGE}&at=${{machine}}",
        (Column("start_epochtime", "time", "timestamp_epoch_s"), Column("state", "State", "string")),
        24,
        6,
        root="segments",
        options=(("mergeValues", True), ("showValue", "never"), ("rowHeight", 0.8)),
    ),
    Panel(
        "Longest stops",
        "table",
        f"/stops?{_RANGE}&at=${{place}}&shortest_secs=120",
        (
            Column("machine", "Machine", "string"),
            Column("start_epochtime", "From", "timestamp_epoch_s"),
            Column("secs", "s"),
            Column("reason_name", "Reason", "string"),
        ),
        12,
        9,
    ),
    Panel(
        "Gateways",
        "table",
        "/gateways",
        (
            Column("gateway", "Gateway", "string"),
            Column("status.online", "Online", "boolean"),
            Column("stored_through", "Stored through"),
            Column("received_epochtime", "Heard", "timestamp_epoch_s"),
        ),
        12,
        9,
    ),
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    panels, left, top, tallest = [], 0, 0, 0
    for number, panel in enumerate(PANELS, start=1):
        if left + panel.width > 24:
            left, top, tallest = 0, top + tallest, 0
        panels.append(_panel(number, panel, left, top))
        left, tallest = left + panel.width, max(tallest, panel.height)
    return {
        "uid": "oee-gateway",
        "title": "OEE",
        "tags": ["oee"],
        "schemaVersion": 39,
        "timezone": "browser",
        "time": {"from": "now-24h", "to": "now"},
        "refresh": "1m",
        "templating": {
            "list": [
                {
                    "name": "source",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "yesoreyeram-infinity-datasource",
                },
                {
                    "name": "api",
                    "label": "API",
                    "type": "textbox",
                    "query": "http://127.0.0.1:8080/api/v1",
                    "current": {
                        "text": "http://127.0.0.1:8080/api/v1",
                        "value": "http://127.0.0.1:8080/api/v1",
                    },
                },
                {
                    "name": "place",
                    "label": "Place",
                    "type": "textbox",
                    "query": "demo-plant/packaging/line-1",
                    "current": {
                        "text": "demo-plant/packaging/line-1",
                        "value": "demo-plant/packaging/line-1",
                    },
                },
                {
                    "name": "machine",
                    "label": "Machine",
                    "type": "textbox",
                    "query": "demo-plant/packaging/line-1/filler-1",
                    "current": {
                        "text": "demo-plant/packaging/line-1/filler-1",
                        "value": "demo-plant/packaging/line-1/filler-1",
                    },
                },
            ]
        },
        "panels": panels,
    }


def text() -> str:
    """Return the dashboard's file."""
    return json.dumps(dashboard(), indent=2) + "\n"


def _panel(number: int, panel: Panel, left: int, top: int) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.highest is not None:
        defaults["max"] = panel.highest
    if panel.kind == "state-timeline":
        defaults = {"mappings": [{"type": "value", "options": _mappings()}]}
    return {
        "id": number,
        "title": panel.title,
        "type": panel.kind,
        "datasource": _SOURCE,
        "gridPos": {"x": left, "y": top, "w": panel.width, "h": panel.height},
        "options": dict(panel.options),
        "fieldConfig": {
            "defaults": defaults,
            "overrides": [
                {
                    "matcher": {"id": "byName", "options": name},
                    "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
                }
                for name, colour in panel.colours
            ],
        },
        "targets": [
            {
                "refId": "A",
                "datasource": _SOURCE,
                "type": "json",
                "source": "url",
                "parser": "backend",
                "format": "timeseries" if panel.kind in ("timeseries", "barchart") else "table",
                "url": "${api}" + panel.path,
                "root_selector": panel.root,
                "columns": [
                    {"selector": column.selector, "text": column.text, "type": column.kind}
                    for column in panel.columns
                ],
            }
        ],
    }


def _mappings() -> dict[str, Any]:
    return {
        state: {"text": word, "color": colour, "index": index}
        for index, (state, word, colour) in enumerate(_STATES)
    }
