"""How a gateway is, as /healthz tells it, and what of it needs somebody."""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from contract.delivery import ConnectionStatus
from gateway.forward import ForwardCounters
from gateway.sources.port import SourceCounters


class ConnectionHealth(SourceCounters, kw_only=True):
    """One PLC: its state as on the status topic, and what was counted.

    held_records: wait in memory because the outbox takes none
    """

    status: ConnectionStatus
    held_records: int = 0


class UplinkHealth(ForwardCounters, kw_only=True):
    """One broker: session, backlog, and what was counted."""

    name: str
    kind: str
    connected: bool
    store_silent: bool
    last_error: str | None
    reconnects: int
    backlog_records: int


class OutboxHealth(Struct, frozen=True, kw_only=True):
    """What waits on disk, and what was given up, by cause."""

    records: int
    bytes: int
    oldest_age_secs: float | None
    next_sequence: int
    dropped: dict[str, int]
    quarantined: int
    damaged_files: int
    alarm: str | None


class Health(Struct, frozen=True, kw_only=True):
    """All that /healthz tells; `problems` is empty when all is well."""

    site: str
    gateway: str
    version: str
    pid: int
    running_secs: float
    resident_bytes: int
    records: int
    problems: list[str]
    connections: list[ConnectionHealth]
    uplinks: list[UplinkHealth]
    outbox: OutboxHealth


def problems(
    connections: Iterable[ConnectionHealth], uplinks: Iterable[UplinkHealth], outbox: OutboxHealth
) -> Iterator[str]:
    """Yield one sentence per thing that needs somebody."""
    for connection in connections:
        status = connection.status
        if isinstance(status.stopped_by, str):
            continue  # somebody wants it so
        if status.state != "connected":
            reason = f": {status.last_error}" if isinstance(status.last_error, str) else ""
            yield f"connection {status.name} is {status.state}{reason}"
        elif status.items_live < status.items_wanted:
            missing = status.items_wanted - status.items_live
            yield f"connection {status.name}: {missing} of {status.items_wanted} tags are not read"
        if connection.held_records:
            yield f"connection {status.name}: {connection.held_records} records wait for the outbox"
    for uplink in uplinks:
        if not uplink.connected:
            yield f"uplink {uplink.name} is not connected: {uplink.last_error}"
        elif uplink.store_silent:
            yield f"uplink {uplink.name}: the store sends no receipts"
    if outbox.alarm:
        yield outbox.alarm
