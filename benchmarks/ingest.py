"""Ingest: telemetry bytes in, records durably stored, joined to the timelines and receipted.

200 machines, batches as the broker hands them over, all running figures made anew once a second. Beside it,
in the same run, SQLite alone: the same rows, already decoded, inserted into one table with a key on
(gateway, sequence), in transactions of the same size, as durable (write-ahead log, synchronous FULL).

Then a process of its own takes a million records in, and its resident memory at the end is set against that
half-way, when caches of a fixed size are full: whatever is kept per record would show.

    python -m benchmarks.ingest [--records 400000] [--rounds 5] [--soak 1000000]
"""

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.harness import alternate, arguments, conclude, cpu_timed, machine, table, timed, versions
from cloud.evaluation import Evaluation
from cloud.ingest.message import Message, receive
from cloud.live import Live
from cloud.plant import loads
from cloud.store.sqlite import SqliteStore
from contract.states import MachineState
from contract.telemetry import Telemetry, decode_many, encode, encode_backlog

MACHINES = 200
GATEWAYS = 4
RECORDS_PER_MESSAGE = 300
MESSAGES_PER_BATCH = 60
START_SECS = 1_790_000_000
GOAL_PER_SEC = 200_000
GOAL_GROWTH = 0.05

PLANT = """
[site]
name = "plant"
timezone = "Europe/Berlin"
[calendar.main]
shifts = [
  { name = "1", start = "06:00", end = "14:00" },
  { name = "2", start = "14:00", end = "22:00" },
  { name = "3", start = "22:00", end = "06:00" },
]
""" + "".join(
    f'[[machine]]\narea = "area"\nline = "line-{number // 10}"\nname = "machine-{number}"\n'
    'calendar = "main"\nideal_run_rate = 90\n'
    for number in range(MACHINES)
)

INSERT = "INSERT OR IGNORE INTO record VALUES (?,?,?,?,?,?,?)"


def batches(records: int) -> Iterator[list[Message]]:
    """Yield telemetry of all machines, a record per machine and second, as batches of backlog messages."""
    sequences = [START_SECS * 1_000_000] * GATEWAYS
    waiting: list[list[bytes]] = [[] for _ in range(GATEWAYS)]
    messages: list[Message] = []
    for number in range(records):
        second, index = divmod(number, MACHINES)
        gateway = index % GATEWAYS
        sequences[gateway] += 1
        is_running = (second + 37 * index) % 400 < 360
        waiting[gateway].append(
            encode(
                Telemetry(
                    epochtime=START_SECS + second + index / 1000,
                    site="plant",
                    area="area",
                    line=f"line-{index // 10}",
                    machine=f"machine-{index}",
                    state=MachineState.RUNNING if is_running else MachineState.IDLE,
                    gateway=f"gw-{gateway}",
                    sequence=sequences[gateway],
                    total_units=second * 3 // 2,
                    off_quality_units=second // 50,
                )
            )
        )
        if len(waiting[gateway]) == RECORDS_PER_MESSAGE:
            topic = f"oee/v1/plant/gateways/gw-{gateway}/backlog"
            messages.append(Message(topic, encode_backlog(waiting[gateway])))
            waiting[gateway] = []
            if len(messages) == MESSAGES_PER_BATCH:
                yield messages
                messages = []
    if messages:
        yield messages


class Side:
    """The cloud side as far as records go: from messages to receipts and running figures."""

    def __init__(self, path: Path) -> None:
        self._store = SqliteStore(path)
        self._now_us = START_SECS * 1_000_000
        self._live = Live(Evaluation(loads(PLANT), self._store), self._now_us)
        self._looked = time.monotonic()
        self.stored = 0

    def take_in(self, messages: list[Message]) -> None:
        """Store a batch, join it to the timelines, look as often as the service does, write the receipts."""
        appended = self._store.append(receive(messages, self._now_us, 1e6).arrivals)
        for receipt in appended.receipts.values():
            msgspec.json.encode(receipt)
        self._live.add(appended.fresh)
        self._now_us = int(appended.fresh["time_us"].max()) + 1
        if time.monotonic() - self._looked >= 1:
            self.look()
        self.stored += len(appended.fresh)

    def look(self) -> None:
        """Bring the figures up to date."""
        self._live.look(self._now_us)
        self._looked = time.monotonic()

    def close(self) -> None:
        """Give the store back."""
        self._store.close()


def ours(work: list[list[Message]], folder: Path, cpu_us: list[float]) -> float:
    """Take everything in as the service does; return records/s up to the last receipt, note the CPU's us."""
    path = folder / f"ours-{time.monotonic_ns()}.sqlite3"
    side = Side(path)

    def run() -> None:
        for messages in work:
            side.take_in(messages)
        side.look()

    cpu_secs = [0.0]
    secs = timed(lambda: cpu_secs.append(cpu_timed(run)))
    side.close()
    _delete(path)
    assert side.stored == sum(count(messages) for messages in work)
    cpu_us.append(1e6 * cpu_secs[-1] / side.stored)
    return side.stored / secs


def soak(records: int) -> None:
    """Take records in and print this process's memory [MB] half-way and at the end."""
    with tempfile.TemporaryDirectory() as name:
        side = Side(Path(name) / "soak.sqlite3")
        warm_mb = 0.0
        for messages in batches(records):
            side.take_in(messages)
            side.look()
            if not warm_mb and side.stored >= records / 2:
                warm_mb = resident_mb()
        print(json.dumps({"records": side.stored, "warm_mb": warm_mb, "end_mb": resident_mb()}))
        side.close()


def resident_mb() -> float:
    """Return this process's resident memory now [MB]."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def bare_sqlite(work: list[list[tuple[object, ...]]], folder: Path, cpu_us: list[float]) -> float:
    """Insert the same rows, ready made, with a key; return records/s, note the CPU's us."""
    path = folder / f"bare-{time.monotonic_ns()}.sqlite3"
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(
        "CREATE TABLE record (gateway INTEGER, sequence INTEGER, machine INTEGER, time_us INTEGER,"
        " state INTEGER, total INTEGER, off INTEGER, PRIMARY KEY (gateway, sequence)) WITHOUT ROWID"
    )

    def run() -> None:
        for rows in work:
            database.execute("BEGIN")
            database.executemany(INSERT, rows)
            database.execute("COMMIT")

    cpu_secs = [0.0]
    secs = timed(lambda: cpu_secs.append(cpu_timed(run)))
    (stored,) = database.execute("SELECT count(*) FROM record").fetchone()
    database.close()
    _delete(path)
    cpu_us.append(1e6 * cpu_secs[-1] / stored)
    return float(stored) / secs


def rows_of(messages: list[Message]) -> list[tuple[object, ...]]:
    """Return what bare SQLite inserts: the same records as integers."""
    return [
        (
            int(record.gateway.rpartition("-")[2]),
            record.sequence,
            int(record.machine.rpartition("-")[2]),
            record.epoch_us,
            0 if record.state == "running" else 1,
            record.total_units,
            record.off_quality_units,
        )
        for message in messages
        for record in decode_many(message.payload)
        if isinstance(record, Telemetry)
    ]


def count(messages: list[Message]) -> int:
    """Return how many records the messages hold."""
    return len(messages) * RECORDS_PER_MESSAGE


def _delete(path: Path) -> None:
    for file in path.parent.glob(path.name + "*"):
        file.unlink()


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--soak", type=int, default=1_000_000, help="how many records the memory is watched for"
    )
    parser.add_argument("--only-soak", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only_soak:
        soak(chosen.soak)
        return
    print(f"ingest: {machine()}; {versions('msgspec', 'numpy')}, SQLite {sqlite3.sqlite_version}")
    work = list(batches(chosen.records))
    ready = [rows_of(messages) for messages in work]
    our_us: list[float] = []
    bare_us: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = alternate(
            {
                "ours": lambda: ours(work, folder, our_us),
                "bare SQLite": lambda: bare_sqlite(ready, folder, bare_us),
            },
            chosen.rounds,
        )
    mine, bare = found["ours"], found["bare SQLite"]
    our_cpu_us, bare_cpu_us = statistics.median(our_us), statistics.median(bare_us)
    watched = json.loads(
        subprocess.run(
            [sys.executable, "-m", "benchmarks.ingest", "--only-soak", "--soak", str(chosen.soak)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    growth = watched["end_mb"] / watched["warm_mb"] - 1
    table(
        {
            "ours: decoded, stored, timelined, receipted": f"{mine:>10,.0f} records/s",
            "SQLite alone: insert of ready rows, keyed": f"{bare:>10,.0f} records/s",
            "ours / SQLite alone": f"{mine / bare:>10.2f}",
            "ours: CPU": f"{our_cpu_us:>10.2f} us/record",
            "SQLite alone: CPU": f"{bare_cpu_us:>10.2f} us/record",
            f"memory after {watched['records']:,} records": f"{watched['end_mb']:>10.1f} MB",
            "its growth over the second half": f"{growth:>+10.1%}",
        }
    )
    conclude(
        "ingest",
        mine,
        "records/s",
        {"sqlite": mine / bare},
        {"records_per_sec": GOAL_PER_SEC, "memory_growth": GOAL_GROWTH},
        met=mine >= GOAL_PER_SEC and growth <= GOAL_GROWTH,
        cpu_us_per_record=round(our_cpu_us, 2),
        memory_growth=round(growth, 4),
    )


if __name__ == "__main__":
    main()
