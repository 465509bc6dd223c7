"""Ingest: telemetry bytes in, records durably stored, joined to the timelines and receipted.

200 machines, batches as the broker hands them over, all running figures made anew once a second. Beside it,
in the same run, SQLite alone: the same rows, already decoded, inserted into one table with a key on
(gateway, sequence), in transactions of the same size, as durable (write-ahead log, synchronous FULL).

    python -m benchmarks.ingest [--records 400000] [--rounds 5]
"""

import sqlite3
import tempfile
import time
from pathlib import Path

import msgspec

from benchmarks.harness import alternate, arguments, conclude, machine, table, timed, versions
from cloud.evaluation import Evaluation
from cloud.ingest.message import Message, receive
from cloud.live import Live
from cloud.plant import loads
from cloud.store.sqlite import SqliteStore
from contract.telemetry import Telemetry, decode_many, encode, encode_backlog

MACHINES = 200
GATEWAYS = 4
RECORDS_PER_MESSAGE = 300
MESSAGES_PER_BATCH = 60
START_SECS = 1_790_000_000
GOAL_PER_SEC = 200_000

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


def batches(records: int) -> list[list[Message]]:
    """Return telemetry of all machines, a record per machine and second, as backlog messages."""
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
                    state="running" if is_running else "idle",  # type: ignore[arg-type]
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
    return [messages[i : i + MESSAGES_PER_BATCH] for i in range(0, len(messages), MESSAGES_PER_BATCH)]


def ours(work: list[list[Message]], folder: Path) -> float:
    """Take everything in as the service does; return records/s up to the last receipt."""
    path = folder / f"ours-{time.monotonic_ns()}.sqlite3"
    store = SqliteStore(path)
    now_us = (START_SECS + 3600) * 1_000_000
    live = Live(Evaluation(loads(PLANT), store), now_us)
    stored = 0

    def run() -> None:
        nonlocal stored
        looked = time.monotonic()
        for messages in work:
            appended = store.append(receive(messages, now_us, 1e6).arrivals)
            for receipt in appended.receipts.values():
                msgspec.json.encode(receipt)
            live.add(appended.fresh)
            if time.monotonic() - looked >= 1:  # as often as the service looks
                live.look(now_us)
                looked = time.monotonic()
            stored += len(appended.fresh)
        live.look(now_us)

    secs = timed(run)
    store.close()
    _delete(path)
    assert stored == sum(count(messages) for messages in work)
    return stored / secs


def bare_sqlite(work: list[list[tuple[object, ...]]], folder: Path) -> float:
    """Insert the same rows, ready made, with a key; return records/s."""
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

    secs = timed(run)
    (stored,) = database.execute("SELECT count(*) FROM record").fetchone()
    database.close()
    _delete(path)
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
    chosen = parser.parse_args()
    print(f"ingest: {machine()}; {versions('msgspec', 'numpy')}, SQLite {sqlite3.sqlite_version}")
    work = batches(chosen.records)
    ready = [rows_of(messages) for messages in work]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = alternate(
            {"ours": lambda: ours(work, folder), "bare SQLite": lambda: bare_sqlite(ready, folder)},
            chosen.rounds,
        )
    mine, bare = found["ours"], found["bare SQLite"]
    table(
        {
            "ours: decoded, stored, timelined, receipted": f"{mine:>10,.0f} records/s",
            "SQLite alone: insert of ready rows, keyed": f"{bare:>10,.0f} records/s",
            "ours / SQLite alone": f"{mine / bare:>10.2f}",
        }
    )
    conclude(
        "ingest",
        mine,
        "records/s",
        {"sqlite": mine / bare},
        {"records_per_sec": GOAL_PER_SEC},
        met=mine >= GOAL_PER_SEC,
    )


if __name__ == "__main__":
    main()
