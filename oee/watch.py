"""What a factory says on MQTT, gathered for a terminal by one who knows the public contract alone."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

import msgspec

from contract import topics
from contract.delivery import Alert, Receipt, Result, Status
from contract.machine_key import MachineKey

_RATE_OVER_SECS: Final = 5.0
_ALERTS_KEPT: Final = 200
_NEW_OUTBOX: Final = 100_000_000
"""A leap this wide means that the gateway began a new outbox: sequences begin at the clock's microseconds."""
_FILTERS: Final = tuple(
    (f"{topics.PREFIX}/+/{rest}", 1)
    for rest in ("+/+/+/oee", "+/+/+/alert", "+/+/alert", "alert", "gateways/+/status", "gateways/+/receipt")
)


@dataclass
class Heard:
    """The factory as its messages tell it. Changed by `take` alone."""

    site: str
    since: float
    """[s since 1970] alerts that were raised before are history."""
    current: dict[MachineKey, dict[str, Any]] = field(default_factory=dict)
    closed: dict[MachineKey, dict[str, Any]] = field(default_factory=dict)
    alerts: deque[Alert] = field(default_factory=lambda: deque(maxlen=_ALERTS_KEPT))
    status: Status | None = None
    stored_records: int = 0
    """Since listening began, by the store's receipts."""
    _stored_through: int | None = None
    _stored_at: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=1000))

    def take(self, topic: str, payload: bytes, at_secs: float) -> Alert | None:
        """Take a message in; return the alert that it carries. What is not of this contract is left alone.

        at_secs: [s] any steady clock
        """
        try:
            match topics.parse(topic):
                case topics.MachineTopic(machine, "oee"):
                    self._take_result(machine, msgspec.json.decode(payload, type=Result))
                case (
                    topics.MachineTopic(_, "alert")
                    | topics.GatewayTopic(_, _, "alert")
                    | topics.PlaceTopic(_, _, _, "alert")
                ):
                    return self._take_alert(msgspec.json.decode(payload, type=Alert))
                case topics.GatewayTopic(self.site, _, "status"):
                    self.status = msgspec.json.decode(payload, type=Status)
                case topics.GatewayTopic(self.site, _, "receipt"):
                    self._take_receipt(msgspec.json.decode(payload, type=Receipt), at_secs)
        except (ValueError, RecursionError, msgspec.MsgspecError):
            pass  # somebody else's message on the same broker
        return None

    def records_per_sec(self, at_secs: float) -> float:
        """Return how fast records have been stored of late."""
        recent = [count for moment, count in self._stored_at if moment > at_secs - _RATE_OVER_SECS]
        return sum(recent) / _RATE_OVER_SECS

    def _take_result(self, machine: MachineKey, result: Result) -> None:
        if machine.site != self.site:
            return
        if result.current is not None:
            self.current[machine] = result.current
        if result.closed is not None:
            self.closed[machine] = result.closed

    def _take_alert(self, alert: Alert) -> Alert | None:
        if alert.site != self.site or alert.epochtime < self.since or alert in self.alerts:
            return None
        self.alerts.append(alert)
        return alert

    def _take_receipt(self, receipt: Receipt, at_secs: float) -> None:
        through = receipt.stored_through
        if self._stored_through is not None and 0 < through - self._stored_through < _NEW_OUTBOX:
            self._stored_at.append((at_secs, through - self._stored_through))
            self.stored_records += through - self._stored_through
        self._stored_through = through


class Listener:
    """A connection to the broker for as long as a `with` lasts; comes back by itself."""

    def __init__(self, broker_url: str, heard: Heard, on_alert: Callable[[Alert], None]) -> None:
        """Listen at mqtt://HOST:PORT. on_alert is called in another thread."""
        self._address = urlsplit(broker_url)
        self._heard = heard
        self._on_alert = on_alert
        self._lock = threading.Lock()
        self._client: Any = None

    def __enter__(self) -> Self:
        from paho.mqtt import client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        # a name of its own: amqtt gives all that come without one the same session
        name = f"oee-demo-{os.getpid()}"
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv311)
        client.on_connect = lambda client, *_: client.subscribe(list(_FILTERS))
        client.on_message = self._on_message
        client.reconnect_delay_set(min_delay=1, max_delay=2)
        client.connect_async(self._address.hostname or "127.0.0.1", self._address.port or 1883, keepalive=10)
        client.loop_start()
        self._client = client
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:  # not of this contract either; an error here would end paho's thread
            return
        with self._lock:
            alert = self._heard.take(topic, message.payload, time.monotonic())
        if alert is not None:
            self._on_alert(alert)
