"""The daemon's health as Prometheus text; loaded when the first reader asks for it."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.health import ConnectionHealth, Health, UplinkHealth


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


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"oee_gateway_{name}", text, value=float(value))


def _count(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"oee_gateway_{name}", text, value=float(value))
