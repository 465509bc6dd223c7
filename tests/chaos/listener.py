"""Hears all that passes the real broker: for receipts with their times, and for messages to play again."""

import random
import threading
import time
from typing import Any, NamedTuple

import msgspec
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from contract import topics
from contract.delivery import Receipt

_KEPT_MESSAGES = 5000


class Heard(NamedTuple):
    """A receipt, and when it came [us since 1970]."""

    at_us: int
    receipt: Receipt


class Listener:
    """One subscriber and publisher beside the product, straight at the broker; comes back by itself."""

    def __init__(self, port: int) -> None:
        self.receipts: list[Heard] = []
        self.messages: list[tuple[str, bytes]] = []
        self.alerts: list[bytes] = []
        self._lock = threading.Lock()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="chaos", protocol=paho.MQTTv5)
        self._client.reconnect_delay_set(0.1, 0.2)  # type: ignore[arg-type]  # seconds may be fractions
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.connect_async("127.0.0.1", port, keepalive=5)
        self._client.loop_start()

    def close(self) -> None:
        """Stop listening."""
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish as anybody could; whether it arrives is the broker's business."""
        self._client.publish(topic, payload, qos=1)

    def some_messages(self, dice: random.Random, most: int) -> list[tuple[str, bytes]]:
        """Return messages of before, out of order."""
        with self._lock:
            return dice.sample(self.messages, k=min(most, len(self.messages)))

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        for topic in (topics.ALL_TELEMETRY, topics.ALL_BACKLOG, topics.ALL_GAPS):
            client.subscribe(topic, qos=0)
        client.subscribe(f"{topics.PREFIX}/+/gateways/+/receipt", qos=0)
        client.subscribe([(topic, 0) for topic in topics.ALL_ALERTS])

    def _on_message(self, _client: paho.Client, _user: Any, message: paho.MQTTMessage) -> None:
        topic, payload = message.topic, bytes(message.payload)
        with self._lock:
            if topic.endswith("/receipt"):
                if payload:
                    receipt = msgspec.json.decode(payload, type=Receipt)
                    self.receipts.append(Heard(time.time_ns() // 1000, receipt))
            elif topic.endswith("/alert"):
                self.alerts.append(payload)
            elif len(self.messages) < _KEPT_MESSAGES:
                self.messages.append((topic, payload))
