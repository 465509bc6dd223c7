"""What tests of the edge need around it: records, a clock, a store that receipts, a PLC that is none."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from contract import topics
from contract.delivery import ConnectionStatus, Receipt
from contract.machine_key import MachineKey
from contract.states import MachineState
from contract.telemetry import Telemetry, encode
from gateway.outbox.port import Draft, Kind
from gateway.outbox.ranges import Ranges
from gateway.outbox.sqlite import SqliteOutbox
from gateway.sources.port import Receiver, SourceCounters, TagBatch
from tests.support.patience import PATIENCE

SITE = "plant"
GATEWAY = "edge"
MACHINE = MachineKey(SITE, "area", "line", "filler")
START_US = 1_700_000_000_000_000
BACKLOG_TOPIC = topics.gateway_topic(SITE, GATEWAY, "backlog")
GAP_TOPIC = topics.gateway_topic(SITE, GATEWAY, "gap")
COMMAND_TOPIC = topics.gateway_topic(SITE, GATEWAY, "command")
RECEIPT_TOPIC = topics.gateway_topic(SITE, GATEWAY, "receipt")
STATUS_TOPIC = topics.gateway_topic(SITE, GATEWAY, "status")
TELEMETRY_TOPIC = topics.machine_topic(MACHINE, "telemetry")


@dataclass(frozen=True, slots=True)
class Record:
    """A draft of a test: a machine's counter at a moment."""

    number: int
    kind: Kind = "counter"
    machine: MachineKey = MACHINE
    padding: str = ""
    gateway: str = GATEWAY

    @property
    def topic(self) -> str:
        return topics.machine_topic(self.machine, "telemetry")

    @property
    def epoch_us(self) -> int:
        return START_US + self.number * 1_000_000

    def encode(self, sequence: int) -> bytes:
        record = Telemetry(
            epochtime=self.epoch_us / 1e6,
            **self.machine._asdict(),
            state=MachineState.RUNNING,
            gateway=self.gateway,
            sequence=sequence,
            total_units=self.number,
            **({"product": self.padding[:256]} if self.padding else {}),
            **({"tags": {"text": self.padding[:200]}} if len(self.padding) > 256 else {}),
        )
        return encode(record)


@dataclass(frozen=True, slots=True)
class Blob:
    """A draft of any size, to be poison for a broker."""

    size: int
    number: int = 0

    topic = TELEMETRY_TOPIC
    kind: Kind = "counter"

    @property
    def epoch_us(self) -> int:
        return START_US

    def encode(self, sequence: int) -> bytes:
        return json.dumps({"sequence": sequence, "blob": "x" * self.size}).encode()


class Clock:
    """A clock that tests set [us]."""

    def __init__(self, now_us: int = START_US) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us


PACK_AT_ONCE = "OUTBOX_PACKS_RUNS_OF"
"""Environment variable, so that it reaches processes too: open_outbox packs each so many records at once."""


class PackingOutbox(SqliteOutbox):
    """Packs whatever makes a run, without waiting for it to grow old."""

    def append(self, drafts: Sequence[Draft], checkpoints: Mapping[str, bytes] | None = None) -> int:
        last = super().append(drafts, checkpoints)
        while self._tidy(self._pack):
            pass
        return last


def open_outbox(
    folder: Path,
    *,
    uplinks: Sequence[str] = ("broker",),
    clock: Callable[[], int] | None = None,
    **bounds: int,
) -> SqliteOutbox:
    """Return an outbox whose clocks stand still unless a clock is given."""
    form: type[SqliteOutbox] = SqliteOutbox
    if run_records := os.environ.get(PACK_AT_ONCE):
        form, bounds = PackingOutbox, {"rows_kept": 0, "run_records": int(run_records)} | bounds
    return form(
        folder,
        gateway=GATEWAY,
        uplinks=uplinks,
        clock_us=clock or Clock(),
        running_us=clock or Clock(0),
        **bounds,
    )


@contextlib.contextmanager
def outbox_in(folder: Path, **options: object) -> Iterator[SqliteOutbox]:
    """Keep an outbox open for as long as a `with` lasts."""
    outbox = open_outbox(folder, **options)
    try:
        yield outbox
    finally:
        outbox.close()


class Store:
    """A cloud side of a test: keeps records by sequence and sends receipts; may be deaf or forgetful.

    receipts: send a receipt after each message
    lose: sequences whose first arrival is forgotten
    """

    def __init__(
        self,
        port: int,
        *,
        receipts: bool = True,
        lose: Iterable[int] = (),
        login: tuple[str, str] | None = None,
        client_id: str = "store",
    ) -> None:
        self.records: dict[int, dict] = {}
        self.conflicts: list[int] = []
        self.arrivals: list[tuple[str, int]] = []
        self.topics: list[str] = []
        self.statuses: list[dict] = []
        self.receipts = receipts
        self.stored = Ranges()
        self.first_sequence: int | None = None
        self._lose = set(lose)
        self._ready = False
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5, reconnect_on_failure=True
        )
        self._client.reconnect_delay_set(0.1, 0.5)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        if login is not None:
            self._client.username_pw_set(*login)
        self._connect(port)

    def _connect(self, port: int) -> None:
        """Connect, with patience for a broker whose first port listens before this one."""
        deadline = time.monotonic() + 5
        while True:
            try:
                self._client.connect("127.0.0.1", port)
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        client.subscribe([(f"oee/v1/{SITE}/#", 1)])

    def _on_subscribe(self, *_: object) -> None:
        self._ready = True

    def _on_message(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        if message.topic in (RECEIPT_TOPIC, COMMAND_TOPIC):
            return
        self.topics.append(message.topic)
        document = json.loads(message.payload)
        if message.topic == STATUS_TOPIC:
            self.statuses.append(document)
            if "first_sequence" in document:
                self.first_sequence = document["first_sequence"]
                self.stored.add(0, document["first_sequence"] - 1)
            return
        for record in document if isinstance(document, list) else [document]:
            sequence = record["sequence"]
            self.arrivals.append((message.topic, sequence))
            if sequence in self._lose:
                self._lose.remove(sequence)
                continue
            if self.records.setdefault(sequence, record) != record:
                self.conflicts.append(sequence)
            self.stored.add(sequence, sequence)
        if self.receipts:
            self.send_receipt()

    def forget(self, sequences: Iterable[int]) -> None:
        """Forget the next arrival of each of these."""
        self._lose.update(sequences)

    def send_receipt(self) -> None:
        ranges = list(self.stored)
        if not ranges:
            return
        if self.first_sequence is None:
            receipt = Receipt(stored_through=0, stored_beyond=ranges)
        else:
            receipt = Receipt(stored_through=ranges[0][1], stored_beyond=ranges[1:])
        self._client.publish(RECEIPT_TOPIC, msgspec.json.encode(receipt), qos=1, retain=True)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(5)

    @property
    def counts(self) -> list[int]:
        return [
            record["total_units"] for _, record in sorted(self.records.items()) if "total_units" in record
        ]

    def __enter__(self) -> Self:
        self._client.loop_start()
        deadline = time.monotonic() + 5
        while not self._ready and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self._ready, "the store of the test could not subscribe"
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class CountingSource:
    """A PLC that counts: state once, then a counter value each interval, stamped with the clock."""

    def __init__(
        self, name: str, receiver: Receiver, handles: Sequence[int], interval_secs: float = 0.05
    ) -> None:
        self.name = name
        self.counters = SourceCounters()
        self.status = ConnectionStatus(
            name=name, endpoint="opc.tcp://none", state="connecting", since_epochtime=time.time()
        )
        self._receiver = receiver
        self._handles = handles
        self._interval_secs = interval_secs
        self.runs = 0
        self.left = False

    def leave(self) -> None:
        self.left = True

    async def run(self) -> None:
        self.runs += 1
        self.status = msgspec.structs.replace(self.status, state="connected")
        self._receiver.on_subscribed(self._handles, resumed=False)
        for number in range(10**9):
            now_us = time.time_ns() // 1000
            count = len(self._handles)
            self._receiver.on_batch(
                TagBatch(self._handles, [1, *[number] * (count - 1)], [0] * count, [now_us] * count, now_us)
            )
            self.counters = SourceCounters(values=(number + 1) * count)
            await asyncio.sleep(self._interval_secs)


async def eventually(condition: Callable[[], object], secs: float = 10.0) -> None:
    """Wait until a condition holds; fail when it does not within secs, with patience."""
    deadline = time.monotonic() + PATIENCE * secs
    while not condition():
        assert time.monotonic() < deadline, f"not within {secs} s"
        await asyncio.sleep(0.01)
