"""A small edge for tests of the cloud side: publishes records, and sends again what has no receipt."""

import json
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import msgspec
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from contract import topics
from contract.delivery import Status
from contract.states import MachineState
from contract.telemetry import Telemetry, backlog_batches, encode, encode_backlog
from tests.support.patience import PATIENCE

SITE, GATEWAY = "berlin", "gw"
_RESEND_SECS = 1.0


class Edge:
    """One gateway's session; survives the loss of its broker.

    Everything that arrives on the topics of results is kept in `heard`, newest last.
    """

    def __init__(
        self, port: int, *, site: str = SITE, gateway: str = GATEWAY, first_sequence: int = 1000
    ) -> None:
        self.site, self.gateway, self.first_sequence = site, gateway, first_sequence
        self.heard: dict[str, list[bytes]] = {}
        self._next = first_sequence
        self._unreceipted: dict[int, Telemetry] = {}
        self._lock = threading.Lock()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(0.1, 0.5)
        self._port = port

    def record(
        self, machine: str, state: str = "running", *, at: float | None = None, **fields: Any
    ) -> Telemetry:
        """Return the next record."""
        with self._lock:
            sequence, self._next = self._next, self._next + 1
        return Telemetry(
            epochtime=round(time.time() if at is None else at, 6),
            site=self.site,
            area="packaging",
            line="line-1",
            machine=machine,
            state=MachineState(state),
            gateway=self.gateway,
            sequence=sequence,
            **fields,
        )

    def send(self, records: Iterable[Telemetry], *, live: bool = False) -> None:
        """Publish records, on the live topics or as backlog, and remember them until their receipt."""
        records = list(records)
        with self._lock:
            self._unreceipted.update((record.sequence, record) for record in records)
        self._publish(records, live=live)

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish anything."""
        self._client.publish(topic, payload, qos=1)

    def say_status(self, **fields: Any) -> None:
        """Publish a retained status."""
        status = Status(
            gateway=self.gateway,
            site=self.site,
            online=True,
            epochtime=time.time(),
            first_sequence=self.first_sequence,
            **fields,
        )
        topic = topics.gateway_topic(self.site, self.gateway, "status")
        self._client.publish(topic, msgspec.json.encode(status), qos=1, retain=True)

    def settle(self, secs: float = 20.0) -> None:
        """Send again whatever has no receipt until all has; raise AssertionError when that takes too long."""
        deadline = time.monotonic() + secs
        while True:
            with self._lock:
                waiting = list(self._unreceipted.values())
            if not waiting:
                return
            assert time.monotonic() < deadline, f"{len(waiting)} records have no receipt after {secs} s"
            if not _holds_within(lambda: not self._unreceipted, _RESEND_SECS):
                with self._lock:
                    waiting = list(self._unreceipted.values())
                self._publish(waiting, live=False)

    def last(self, topic: str) -> Any:
        """Return the newest message of a topic as JSON, None before any."""
        messages = self.heard.get(topic)
        return json.loads(messages[-1]) if messages else None

    def _publish(self, records: list[Telemetry], *, live: bool) -> None:
        if live:
            for record in records:
                self._client.publish(
                    topics.machine_topic(record.machine_key, "telemetry"), encode(record), qos=1
                )
            return
        topic = topics.gateway_topic(self.site, self.gateway, "backlog")
        for batch in backlog_batches(map(encode, records)):
            self._client.publish(topic, encode_backlog(batch), qos=1)

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(
            [
                (topics.gateway_topic(self.site, self.gateway, "receipt"), 1),
                ("oee/v1/+/+/+/+/oee", 1),
                ("oee/v1/+/+/+/+/shift", 1),
                ("oee/v1/+/+/+/shift", 1),
                ("oee/v1/+/+/+/+/alert", 1),
            ]
        )

    def _on_message(self, _client: paho.Client, _user: Any, message: paho.MQTTMessage) -> None:
        self.heard.setdefault(message.topic, []).append(message.payload)
        if message.topic.endswith("/receipt"):
            receipt = json.loads(message.payload)
            ranges = [(0, receipt["stored_through"]), *receipt.get("stored_beyond", [])]
            with self._lock:
                for sequence in list(self._unreceipted):
                    if any(first <= sequence <= last for first, last in ranges):
                        del self._unreceipted[sequence]

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        assert wait_for(self._client.is_connected, 10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def wait_for(condition: Callable[[], object], secs: float = 10.0) -> bool:
    """Wait until a condition holds, with the patience that a busy machine needs; False when it never does."""
    return _holds_within(condition, secs * PATIENCE)


def _holds_within(condition: Callable[[], object], secs: float) -> bool:
    deadline = time.monotonic() + secs
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
