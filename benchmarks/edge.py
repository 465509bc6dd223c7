"""The edge: bytes of OPC UA in, machine records on disk.

Recorded publish responses of 200 machines at 10 Hz (bool, int16, uint32, double and string of each, now and
then a state) are played back on one core, without a network:

1. decoding alone: ours beside stock asyncua's; ours also where no two messages are of one layout
2. the whole path, as durable as in service: bytes, columns, one record a machine and second, outbox. Beside
   it the naive path: stock decoding, a dict and its JSON for each value, one SQLite row for each value, a
   transaction for each message (write-ahead log, synchronous FULL).

All messages wait already, so that ours takes several in one transaction, as its subscription does with
those that the server marks as followed by more. The naive sides get the first messages only; their figures
are per value.

    python -m benchmarks.edge [--messages 400] [--rounds 5]
"""

import datetime as dt
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from benchmarks.harness import alternate, arguments, conclude, cpu_timed, machine, table, versions
from contract.telemetry import Telemetry, decode_one
from gateway.config import Configuration, parse
from gateway.outbox.sqlite import SqliteOutbox
from gateway.pipeline import Lane
from gateway.sources import stock
from gateway.sources.decoder import Decoder
from gateway.sources.port import TagBatch

MACHINES = 200
MESSAGES_PER_SEC = 10
NAIVE_MESSAGES = 20
STATE_SECS = 300
RESTLESS_SECS = 20
"""So often each machine changes its state where no message is to look like the one before."""
MERGED = 5_000
"""How many values of waiting messages go to disk in one transaction; a subscription takes up to 100,000."""
START_US = 1_790_000_000_000_000
STEP_US = 1_000_000 // MESSAGES_PER_SEC
ON_THE_WAY_US = 5_000
GOAL_PER_SEC = 400_000
GOAL_DECODE = 15
STATES = ("stopped", "running", "idle")
NOT_MEASURED = ["gopcua", "node-opcua", "thingsboard-gateway"]
TAGS = (
    ("is_open", ua.VariantType.Boolean, lambda n, m: (n + m) % 2 == 0),
    ("speed", ua.VariantType.Int16, lambda n, m: 900 + (n * 7 + m) % 200),
    ("total", ua.VariantType.UInt32, lambda n, m: m * 100_000 + n),
    ("temperature", ua.VariantType.Double, lambda n, m: 20 + (n * 13 + m) % 1000 / 64),
    ("lot", ua.VariantType.String, lambda n, m: f"lot-{m}-{n}"),
)


class Played(NamedTuple):
    """A message and when it comes [us since 1970]."""

    body: bytes
    received_us: int
    values: int


def configuration(folder: Path) -> Configuration:
    """Return the gateway's configuration of 200 machines of one PLC."""
    machines = [
        {
            "area": "area",
            "line": f"line-{number // 10}",
            "name": f"machine-{number}",
            "state": {"node": f"ns=2;s={number}.State", "map": {str(i): s for i, s in enumerate(STATES)}},
            "total_units": f"ns=2;s={number}.total",
            "tags": {name: {"node": f"ns=2;s={number}.{name}"} for name, _, _ in TAGS if name != "total"},
        }
        for number in range(MACHINES)
    ]
    connection = {
        "name": "plc",
        "endpoint": "opc.tcp://plc:4840",
        "security": "None",
        "allow_insecure": True,
        "machine": machines,
    }
    gateway = {"name": "edge", "site": "site", "data_dir": str(folder)}
    return parse({"gateway": gateway, "connection": [connection]}, "benchmark")


def state_at(number: int, index: int, state_secs: int = STATE_SECS) -> int:
    """Return a machine's state as of a message; each machine changes it at its own time."""
    period = state_secs * MESSAGES_PER_SEC
    return ((number + index * period // MACHINES) // period) % len(STATES)


def handles(made: Configuration) -> dict[tuple[int, str], int]:
    """Return the handle of each machine's tags."""
    lane = Lane(made, made.connection[0], _NoOutbox(), int)  # type: ignore[arg-type]
    return {(one.machine, one.node.rpartition(".")[2]): one.handle for one in lane.bindings}


class _NoOutbox:
    def checkpoint(self, source: str) -> None:
        """Return that nothing was kept."""


def recorded(count: int, found: dict[tuple[int, str], int], state_secs: int = STATE_SECS) -> list[Played]:
    """Return messages as a server sends them, encoded by the library."""
    good = ua.StatusCode(ua.UInt32(0))
    played = []
    for number in range(count):
        at_us = START_US + number * STEP_US
        stamp = dt.datetime.fromtimestamp(at_us / 1e6, dt.UTC)
        items = []
        for index in range(MACHINES):
            told = [(name, kind, value(number, index)) for name, kind, value in TAGS]
            state = state_at(number, index, state_secs)
            if not number or state != state_at(number - 1, index, state_secs):
                told.append(("State", ua.VariantType.Int16, state))
            items += [
                ua.MonitoredItemNotification(
                    ua.UInt32(found[index, name]),
                    ua.DataValue(ua.Variant(value, kind), good, stamp, stamp),  # type: ignore[arg-type]
                )
                for name, kind, value in told
            ]
        change = ua.DataChangeNotification()
        change.MonitoredItems = items
        response = ua.PublishResponse()
        response.Parameters.SubscriptionId = ua.UInt32(1)
        response.Parameters.NotificationMessage.SequenceNumber = ua.UInt32(number + 1)
        response.Parameters.NotificationMessage.PublishTime = stamp
        response.Parameters.NotificationMessage.NotificationData = [change]
        played.append(Played(struct_to_binary(response), at_us + ON_THE_WAY_US, len(items)))
    return played


def count(messages: list[Played]) -> int:
    """Return how many values the messages hold."""
    return sum(message.values for message in messages)


def decoding(messages: list[Played], decode: Any) -> float:
    """Decode all; return processor time per value [us]."""

    def run() -> None:
        for message in messages:
            decode(message.body)

    return cpu_timed(run) / count(messages) * 1e6


class WholePath:
    """The whole path; keeps what the last run cost.

    values_per_sec: by the clock on the wall, all writes to disk included
    records: machine records on disk after the run
    lost: state changes, last totals and values that are not there
    """

    def __init__(self, made: Configuration, messages: list[Played], folder: Path) -> None:
        self._made = made
        self._messages = messages
        self._folder = folder
        self.walls: list[float] = []
        self.records = 0
        self.lost = 0

    def ours(self) -> float:
        """Play all; return processor time per value [us]."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        now_us = START_US

        def clock_us() -> int:
            return now_us

        def running_us() -> int:
            return time.monotonic_ns() // 1000

        outbox = SqliteOutbox(
            folder, gateway="edge", uplinks=["broker"], clock_us=clock_us, running_us=running_us
        )
        lane = Lane(self._made, self._made.connection[0], outbox, clock_us)
        lane.on_subscribed([one.handle for one in lane.bindings], resumed=False)
        first = outbox.next_sequence
        decode = Decoder().decode
        taken = 0
        found = None
        began, began_cpu = time.perf_counter(), time.process_time()
        for message in self._messages:
            now_us = message.received_us
            more = decode(message.body).columns
            taken += len(more)
            if found is None:
                found = more
            else:
                found.extend(more)
            if len(found) < MERGED and message is not self._messages[-1]:
                continue
            lane.on_batch(TagBatch(found.handles, found.values, found.statuses, found.source_us, now_us))
            lane.tick()
            found = None
        cpu, wall = time.process_time() - began_cpu, time.perf_counter() - began
        now_us += 1_500_000
        lane.on_alive(now_us)
        lane.tick()
        kept = [
            decode_one(one.payload)
            for one in outbox.read(first, outbox.next_sequence, max_records=10**9, max_bytes=10**10)
        ]
        outbox.close()
        self.records = len(kept)
        self.lost += count(self._messages) - taken + self._missing(kept)
        self.walls.append(taken / wall)
        return cpu / taken * 1e6

    def _missing(self, kept: list[Any]) -> int:
        """Return how many states that a machine entered, and totals that it ended with, are in no record."""
        told: dict[str, list[Telemetry]] = {}
        for one in kept:
            told.setdefault(one.machine, []).append(one)
        missing = 0
        last = len(self._messages) - 1
        for index in range(MACHINES):
            records = told.get(f"machine-{index}", [])
            there = {(one.epoch_us, str(one.state)) for one in records}
            missing += sum((at_us, state) not in there for at_us, state in self._entered(index))
            missing += not records or records[-1].total_units != TAGS[2][2](last, index)
        return missing

    def _entered(self, index: int) -> Iterator[tuple[int, str]]:
        for number in range(len(self._messages)):
            state = state_at(number, index)
            if not number or state != state_at(number - 1, index):
                yield START_US + number * STEP_US, STATES[state]


class Naive:
    """What one writes first."""

    def __init__(self, messages: list[Played], names: dict[int, str], folder: Path) -> None:
        self._messages = messages
        self._names = names
        self._folder = folder
        self.walls: list[float] = []

    def run(self) -> float:
        """Play all; return processor time per value [us]."""
        database = sqlite3.connect(
            Path(tempfile.mkdtemp(dir=self._folder)) / "naive.sqlite", isolation_level=None
        )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE value (id INTEGER PRIMARY KEY, payload TEXT)")
        taken = 0
        began, began_cpu = time.perf_counter(), time.process_time()
        for message in self._messages:
            found = stock.decode(message.body).columns
            database.execute("BEGIN")
            for handle, value, status, at_us in zip(
                found.handles, found.values, found.statuses, found.source_us, strict=True
            ):
                told = {"tag": self._names[handle], "value": value, "status": status, "time": at_us / 1e6}
                database.execute("INSERT INTO value (payload) VALUES (?)", (json.dumps(told),))
                taken += 1
            database.execute("COMMIT")
        cpu, wall = time.process_time() - began_cpu, time.perf_counter() - began
        database.close()
        self.walls.append(taken / wall)
        return cpu / taken * 1e6


def median(values: list[float]) -> float:
    """Return the middle one."""
    return sorted(values)[len(values) // 2]


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--messages", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    print(f"edge, on one core: {machine()}; {versions('asyncua')}, SQLite {sqlite3.sqlite_version}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = configuration(folder)
        found = handles(made)
        messages = recorded(chosen.messages, found)
        few = messages[:NAIVE_MESSAGES]
        restless = recorded(100, found, RESTLESS_SECS)
        decoder = Decoder()
        if any(decoder.decode(one.body).columns != stock.decode(one.body).columns for one in few):
            raise SystemExit("the two decoders do not agree")
        whole = WholePath(made, messages, folder)
        naive = Naive(few, {handle: f"{index}.{tag}" for (index, tag), handle in found.items()}, folder)
        cost = alternate(
            {
                "decode, ours": lambda: decoding(messages, Decoder().decode),
                "decode, ours, restless": lambda: decoding(restless, Decoder().decode),
                "decode, stock": lambda: decoding(few, stock.decode),
                "path, ours": whole.ours,
                "path, naive": naive.run,
            },
            chosen.rounds,
        )
    mine, plain = median(whole.walls), median(naive.walls)
    decode_ratio = cost["decode, stock"] / cost["decode, ours"]
    table(
        {
            "decode, ours": f"{cost['decode, ours']:>10.2f} us CPU/value",
            "decode, ours, no two alike": f"{cost['decode, ours, restless']:>10.2f} us CPU/value",
            "decode, stock asyncua": f"{cost['decode, stock']:>10.2f} us CPU/value",
            "decode, stock / ours": f"{decode_ratio:>10.1f}",
            "whole path, ours": f"{cost['path, ours']:>10.2f} us CPU/value, {mine:>9,.0f} values/s",
            "whole path, naive": f"{cost['path, naive']:>10.2f} us CPU/value, {plain:>9,.0f} values/s",
            "whole path, ours / naive": f"{mine / plain:>10.1f}",
            "values in, records out, lost": f"{count(messages):,}, {whole.records:,}, {whole.lost:,}",
            "not measured (not installed)": ", ".join(NOT_MEASURED),
        }
    )
    conclude(
        "edge",
        mine,
        "values/s",
        {"naive": mine / plain, "stock_asyncua_decode": decode_ratio},
        {"values_per_sec": GOAL_PER_SEC, "stock_asyncua_decode": GOAL_DECODE, "lost": 0},
        met=mine >= GOAL_PER_SEC and decode_ratio >= GOAL_DECODE and not whole.lost,
        goals_met={
            "values_per_sec": mine >= GOAL_PER_SEC,
            "stock_asyncua_decode": decode_ratio >= GOAL_DECODE,
            "lost": not whole.lost,
        },
        decode_us_per_value={
            "ours": round(cost["decode, ours"], 3),
            "ours_no_two_alike": round(cost["decode, ours, restless"], 3),
            "stock": round(cost["decode, stock"], 3),
        },
        path_us_per_value={"ours": round(cost["path, ours"], 3), "naive": round(cost["path, naive"], 3)},
        lost=whole.lost,
        not_measured=NOT_MEASURED,
    )


if __name__ == "__main__":
    main()
