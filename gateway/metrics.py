"""The daemon's health as Prometheus text; loaded when the first reader asks for it.

A count is named for what it counts, with `_total` added; times are in seconds and sizes in bytes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.health import ConnectionHealth, Health, UplinkHealth

_Subject = TypeVar("_Subject")
_Gauges = Sequence[tuple[str, str, Callable[[_Subject], float]]]

CONNECTION_COUNTS: Final = {
    "values": ("values", "Tag values received."),
    "notifications": ("notifications", "Messages with values received."),
    "keepalives": ("keepalives", "Messages received that say that nothing has changed."),
    "reconnects": ("reconnects", "Sessions after the first."),
    "overflows": ("queue_overflows", "Times that the PLC's queue of a tag ran over."),
    "missed_notifications": ("missed_notifications", "Messages lost for ever."),
    "republished": ("republished_notifications", "Messages that were lost and had again."),
    "history_values": ("history_values", "Values fetched from the PLC's history."),
    "gaps": ("gaps", "Gaps recorded because values were lost."),
    "slow_decodes": ("slow_decodes", "Messages that the fast decoder passed on."),
    "damaged_messages": ("damaged_messages", "Messages that could not be decoded."),
    "unasked_values": ("unasked_values", "Values of tags that nobody asked for, left out."),
    "queues_cut": ("short_queues", "Tags for which the PLC keeps fewer values than asked for."),
}
"""By field of SourceCounters: name after `oee_gateway_connection_`, and what it counts."""

UPLINK_COUNTS: Final = {
    "reconnects": ("reconnects", "Sessions after the first."),
    "live_records": ("live_records", "Records accepted as they came."),
    "backlog_records_sent": ("backlog_records_sent", "Records accepted in arrays."),
    "messages": ("messages", "Messages sent."),
    "bytes": ("sent_bytes", "Payload sent."),
    "resent_records": ("resent_records", "Records sent again."),
    "refused_messages": ("refused_messages", "Messages that the broker refused."),
    "quarantined_records": ("quarantined_records", "Records set aside."),
    "receipts": ("receipts", "Receipts of the store."),
    "malformed_receipts": ("malformed_receipts", "Receipts that cannot be read."),
}
"""By field of UplinkHealth: name after `oee_gateway_uplink_`, and what it counts."""


def _last_value_secs(connection: ConnectionHealth) -> float:
    at = connection.status.last_value_epochtime
    return at if isinstance(at, int | float) else 0.0


_CONNECTION_GAUGES: Final[_Gauges[ConnectionHealth]] = (
    ("up", "1 when the PLC is read.", lambda c: c.status.state == "connected"),
    ("stopped", "1 when somebody has stopped the reading.", lambda c: isinstance(c.status.stopped_by, str)),
    ("wanted_tags", "Tags that are configured.", lambda c: c.status.items_wanted),
    ("live_tags", "Tags that are read.", lambda c: c.status.items_live),
    ("held_records", "Records in memory for an outbox that takes none.", lambda c: c.held_records),
    ("last_value_timestamp_seconds", "When a value last came, since 1970.", _last_value_secs),
)
_UPLINK_GAUGES: Final[_Gauges[UplinkHealth]] = (
    ("up", "1 when there is a session.", lambda u: u.connected),
    ("store_silent", "1 when receipts are overdue.", lambda u: u.store_silent),
    ("backlog_records", "Records that this uplink has not delivered.", lambda u: u.backlog_records),
)


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
        yield _gauge("problems", "Things that need somebody; /healthz names them.", len(health.problems))
        yield _count("records", "Records written to the outbox since the start.", health.records)
        yield _gauge("outbox_records", "Records that wait for an uplink.", outbox.records)
        yield _gauge("outbox_bytes", "Size of the records that wait.", outbox.bytes)
        yield _gauge("outbox_oldest_age_seconds", "Age of the oldest of them.", outbox.oldest_age_secs or 0.0)
        yield _gauge("outbox_next_sequence", "Sequence of the next record.", outbox.next_sequence)
        yield _gauge("outbox_quarantined_records", "Records that lie aside.", outbox.quarantined)
        yield _gauge("outbox_damaged_files", "Damaged outboxes that lie aside.", outbox.damaged_files)
        yield _gauge(
            "outbox_alarm", "1 when records cannot be kept as they should.", outbox.alarm is not None
        )
        yield _labelled(
            CounterMetricFamily("oee_gateway_dropped_records", "Records given up.", labels=["cause"]),
            outbox.dropped.items(),
        )
        connections = [(connection.status.name, connection) for connection in health.connections]
        yield from _table("connection", connections, _CONNECTION_GAUGES, CONNECTION_COUNTS)
        uplinks = [(uplink.name, uplink) for uplink in health.uplinks]
        yield from _table("uplink", uplinks, _UPLINK_GAUGES, UPLINK_COUNTS)


def _table(
    label: str,
    subjects: Sequence[tuple[str, _Subject]],
    gauges: _Gauges[_Subject],
    counts: dict[str, tuple[str, str]],
) -> Iterator[Metric]:
    """Yield the metrics of each connection, or of each uplink."""
    for name, text, value in gauges:
        gauge = GaugeMetricFamily(f"oee_gateway_{label}_{name}", text, labels=[label])
        yield _labelled(gauge, ((subject, value(one)) for subject, one in subjects))
    for field, (name, text) in counts.items():
        count = CounterMetricFamily(f"oee_gateway_{label}_{name}", text, labels=[label])
        yield _labelled(count, ((subject, getattr(one, field)) for subject, one in subjects))


def _labelled(metric: GaugeMetricFamily | CounterMetricFamily, values: Iterable[tuple[str, float]]) -> Metric:
    for label, value in values:
        metric.add_metric([label], float(value))
    return metric


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"oee_gateway_{name}", text, value=float(value))


def _count(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"oee_gateway_{name}", text, value=float(value))
