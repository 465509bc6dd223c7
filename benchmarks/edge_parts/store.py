"""A cloud side for the benchmark: reads every record, keeps it, and sends receipts, in a thread of paho's."""

import threading
import time
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from contract import topics
from contract.delivery import Gap, Receipt, Status
from contract.telemetry import Telemetry, decode_many, decode_one
from gateway.outbox.ranges import Ranges

SITE, GATEWAY = "site", "edge"
_RECEIPT_SECS = 0.05
_MAX_RANGES = 100


class Arrival(NamedTuple):
    """A record that was kept.

    at: [s] by the clock that only goes on; epochtime: [s] since 1970
    """

    at: float
    epochtime: float
    record: Telemetry


class Store:
    """Keeps the telemetry of one gateway; a record is receipted within 50 ms.

    broker: port of the broker on loopback
    records: by sequence
    arrivals: in their order; a record that was sent again is there again
    """

    def __init__(self, broker: int) -> None:
        self.records: dict[int, Telemetry] = {}
        self.gaps: dict[int, Gap] = {}
        self.arrivals: list[Arrival] = []
        self.messages = 0
        self._kept = Ranges()
        self._lock = threading.Lock()
        self._first: int | None = None
        self._told = Receipt(stored_through=0)
        self._stopping = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="store")
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", broker)
        self._receipts = threading.Thread(target=self._send_receipts, daemon=True)

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(f"oee/v1/{SITE}/#", qos=1)

    def _on_message(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        now = time.time()
        place = topics.parse(message.topic)
        if isinstance(place, topics.GatewayTopic) and place.channel == "status":
            status = msgspec.json.decode(message.payload, type=Status)
            if isinstance(status.first_sequence, int) and self._first is None:
                self._first = status.first_sequence
            return
        if isinstance(place, topics.GatewayTopic) and place.channel == "gap":
            gap = msgspec.json.decode(message.payload, type=Gap)
            self.gaps[gap.sequence] = gap
            self._keep(gap.sequence)
            return
        if isinstance(place, topics.GatewayTopic) and place.channel != "backlog":
            return
        self.messages += 1
        at = time.perf_counter()
        payload = bytes(message.payload)
        for one in decode_many(payload) if payload.startswith(b"[") else [decode_one(payload)]:
            if isinstance(one, Telemetry):
                self.records[one.sequence] = one
                self.arrivals.append(Arrival(at, now, one))
                self._keep(one.sequence)

    def _send_receipts(self) -> None:
        while not self._stopping.wait(_RECEIPT_SECS):
            self.receipt()

    def _keep(self, sequence: int) -> None:
        with self._lock:
            self._kept.add(sequence, sequence)

    def has_all(self, first: int, last: int) -> bool:
        """Tell whether every record from one sequence to another is kept."""
        with self._lock:
            return next(self._kept.absent(first, last), None) is None

    def receipt(self) -> None:
        """Tell the gateway which of its records are kept."""
        if self._first is None:
            return
        with self._lock:
            kept = list(self._kept.present(self._first, 1 << 62))
        through = kept.pop(0)[1] if kept and kept[0][0] == self._first else self._first - 1
        receipt = Receipt(stored_through=through, stored_beyond=kept[-_MAX_RANGES:])
        if receipt != self._told:
            self._told = receipt
            topic = topics.gateway_topic(SITE, GATEWAY, "receipt")
            self._client.publish(topic, msgspec.json.encode(receipt), qos=1, retain=True)

    def __enter__(self) -> Self:
        self._client.loop_start()
        self._receipts.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._receipts.join(2)
        self._client.disconnect()
        self._client.loop_stop()
