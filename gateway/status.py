"""What `oee gateway status` shows: the health of a running daemon as tables for people."""

import datetime as dt
import urllib.error
import urllib.request

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contract.delivery import ConnectionStatus
from gateway.health import Health

_TIMEOUT_SECS = 5.0


def fetch(url: str) -> bytes:
    """Return the body of a local page, whatever its status; raise OSError when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECS) as answer:  # noqa: S310 - http of our own
            body: bytes = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            body = error.read()
    return body


def show(health: Health, console: Console | None = None) -> None:
    """Print a daemon's health."""
    out = console or Console()
    out.print(
        f"{health.site}/{health.gateway}  oee-gateway {health.version}  pid {health.pid}  "
        f"running {_duration(health.running_secs)}  {health.resident_bytes / 1e6:.0f} MB",
        highlight=False,
    )
    for problem in health.problems:
        out.print("!", problem, style="red", highlight=False, markup=False)
    connections = _table("connection", "state", "tags", "values", "reconnects", "gaps")
    for connection in health.connections:
        told = connection.status
        connections.add_row(
            told.name,
            _state(told),
            f"{told.items_live}/{told.items_wanted}",
            f"{connection.values:,}",
            str(connection.reconnects),
            str(connection.gaps),
        )
    out.print(connections)
    uplinks = _table("uplink", "state", "backlog", "sent", "resent", "reconnects")
    for uplink in health.uplinks:
        uplinks.add_row(
            uplink.name,
            "connected" if uplink.connected else "not connected",
            f"{uplink.backlog_records:,}",
            f"{uplink.live_records + uplink.backlog_records_sent:,}",
            f"{uplink.resent_records:,}",
            str(uplink.reconnects),
        )
    out.print(uplinks)
    outbox = health.outbox
    age = "" if outbox.oldest_age_secs is None else f", oldest {_duration(outbox.oldest_age_secs)}"
    out.print(
        f"outbox: {outbox.records:,} records, {outbox.bytes / 1e6:,.1f} MB{age}, "
        f"{sum(outbox.dropped.values()):,} dropped, {outbox.quarantined:,} quarantined",
        highlight=False,
    )


def _state(told: ConnectionStatus) -> str:
    if not isinstance(told.stopped_by, str):
        return told.state
    since = dt.datetime.fromtimestamp(told.since_epochtime, dt.UTC).astimezone()
    return f"stopped by {escape(told.stopped_by)} since {since:%Y-%m-%d %H:%M:%S}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < 2 else "right")
    return table


def _duration(secs: float) -> str:
    days, rest = divmod(int(secs), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
