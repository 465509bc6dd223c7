"""Health and metrics over HTTP on loopback: /healthz as JSON, /metrics for Prometheus."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Final

import msgspec
from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from contract.delivery import ConnectionStatus

_READ_SECS: Final = 5.0
_MAX_CLIENTS: Final = 20
_CONTENT_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"


class ConnectionHealth(Struct, frozen=True, kw_only=True):
    """One PLC: its state as on the status topic, and what was counted."""

    status: ConnectionStatus
    values: int = 0
    notifications: int = 0
    reconnects: int = 0
    overflows: int = 0
    missed_notifications: int = 0
    republished: int = 0
    history_values: int = 0
    gaps: int = 0
    slow_decodes: int = 0
    held_records: int = 0


class UplinkHealth(Struct, frozen=True, kw_only=True):
    """One broker: session, backlog, and what was counted."""

    name: str
    kind: str
    connected: bool
    store_silent: bool
    last_error: str | None
    reconnects: int
    backlog_records: int
    live_records: int
    backlog_records_sent: int
    messages: int
    bytes: int
    resent_records: int
    refused_messages: int
    quarantined_records: int


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


def metrics(health: Health) -> bytes:
    """Write the health as Prometheus text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(health))
    return generate_latest(registry)


class _Collector:
    """One reading of the metrics."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        health, outbox = self._health, self._health.outbox
        yield _gauge("running_seconds", "Time since the start.", health.running_secs)
        yield _gauge("resident_memory_bytes", "Memory of the process.", health.resident_bytes)
        yield _count("records", "Records written to the outbox since the start.", health.records)
        yield _gauge("outbox_records", "Records that wait for an uplink.", outbox.records)
        yield _gauge("outbox_bytes", "Size of the records that wait.", outbox.bytes)
        yield _gauge("outbox_oldest_age_seconds", "Age of the oldest of them.", outbox.oldest_age_secs or 0.0)
        yield _gauge(
            "outbox_alarm", "1 when records cannot be kept as they should.", outbox.alarm is not None
        )
        yield _gauge("outbox_damaged_files", "Damaged outboxes that lie aside.", outbox.damaged_files)
        dropped = CounterMetricFamily(
            "oee_gateway_dropped_records", "Records given up, by cause.", labels=["cause"]
        )
        for cause, amount in outbox.dropped.items():
            dropped.add_metric([cause], amount)
        yield dropped
        yield from self._connections()
        yield from self._uplinks()

    def _connections(self) -> Iterator[Metric]:
        gauges: list[tuple[str, str, Callable[[ConnectionHealth], float]]] = [
            ("connection_up", "1 when the PLC is read.", lambda c: c.status.state == "connected"),
            ("connection_wanted_tags", "Tags that are configured.", lambda c: c.status.items_wanted),
            ("connection_live_tags", "Tags that are read.", lambda c: c.status.items_live),
            ("connection_held_records", "Records in memory for a full outbox.", lambda c: c.held_records),
        ]
        counts: list[tuple[str, str, Callable[[ConnectionHealth], float]]] = [
            ("values", "Tag values received.", lambda c: c.values),
            ("notifications", "Notifications received.", lambda c: c.notifications),
            ("connection_reconnects", "Sessions after the first.", lambda c: c.reconnects),
            ("queue_overflows", "Times that the PLC's queue ran over.", lambda c: c.overflows),
            ("missed_notifications", "Notifications lost for ever.", lambda c: c.missed_notifications),
            ("republished_notifications", "Notifications asked for again.", lambda c: c.republished),
            ("history_values", "Values fetched from the PLC's history.", lambda c: c.history_values),
            ("gaps", "Gaps recorded.", lambda c: c.gaps),
            ("slow_decodes", "Messages that the fast decoder passed on.", lambda c: c.slow_decodes),
        ]
        for family, rows in ((GaugeMetricFamily, gauges), (CounterMetricFamily, counts)):
            for name, text, value in rows:
                metric = family(f"oee_gateway_{name}", text, labels=["connection"])
                for connection in self._health.connections:
                    metric.add_metric([connection.status.name], float(value(connection)))
                yield metric

    def _uplinks(self) -> Iterator[Metric]:
        gauges: list[tuple[str, str, Callable[[UplinkHealth], float]]] = [
            ("uplink_up", "1 when there is a session.", lambda u: u.connected),
            ("store_silent", "1 when receipts are overdue.", lambda u: u.store_silent),
            ("backlog_records", "Records that this uplink has not delivered.", lambda u: u.backlog_records),
        ]
        counts: list[tuple[str, str, Callable[[UplinkHealth], float]]] = [
            ("uplink_reconnects", "Sessions after the first.", lambda u: u.reconnects),
            ("live_records", "Records sent live.", lambda u: u.live_records),
            ("backlog_sent_records", "Records sent in arrays.", lambda u: u.backlog_records_sent),
            ("messages", "Messages sent.", lambda u: u.messages),
            ("sent_bytes", "Payload sent.", lambda u: u.bytes),
            ("resent_records", "Records sent again.", lambda u: u.resent_records),
            ("refused_messages", "Messages that the broker refused.", lambda u: u.refused_messages),
            ("quarantined_records", "Records set aside.", lambda u: u.quarantined_records),
        ]
        for family, rows in ((GaugeMetricFamily, gauges), (CounterMetricFamily, counts)):
            for name, text, value in rows:
                metric = family(f"oee_gateway_{name}", text, labels=["uplink"])
                for uplink in self._health.uplinks:
                    metric.add_metric([uplink.name], float(value(uplink)))
                yield metric


class HealthServer:
    """Answers GET /healthz and GET /metrics; 503 on /healthz when there are problems."""

    def __init__(self, health: Callable[[], Health]) -> None:
        self._health = health
        self._clients = 0

    async def run(self, host: str, port: int, listening: Callable[[str], None]) -> None:
        """Serve until cancelled; `listening(url)` is called once the port is open. Raises OSError."""
        server = await asyncio.start_server(self._serve, host, port, limit=8192)
        async with server:
            bound = server.sockets[0].getsockname()[1]
            listening(f"http://{f'[{host}]' if ':' in host else host}:{bound}")
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= _MAX_CLIENTS:
                async with asyncio.timeout(_READ_SECS):
                    request = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(request))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._clients -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.split(b"\r\n", 1)[0].partition(b" ")
        path = rest.split(b" ", 1)[0].split(b"?", 1)[0]
        if method not in (b"GET", b"HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"only GET\n")
        if path == b"/healthz":
            health = self._health()
            status = HTTPStatus.SERVICE_UNAVAILABLE if health.problems else HTTPStatus.OK
            body = msgspec.json.encode(health)
            return _response(status, "application/json", body, head=method == b"HEAD")
        if path == b"/metrics":
            return _response(HTTPStatus.OK, _CONTENT_METRICS, metrics(self._health()), head=method == b"HEAD")
        return _response(HTTPStatus.NOT_FOUND, "text/plain", b"try /healthz or /metrics\n")


def _response(status: HTTPStatus, content_type: str, body: bytes, *, head: bool = False) -> bytes:
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    ).encode() + (b"" if head else body)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"oee_gateway_{name}", text, value=float(value))


def _count(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"oee_gateway_{name}", text, value=float(value))
