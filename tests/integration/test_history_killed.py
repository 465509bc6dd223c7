"""A process that is killed while it writes the history: every reader has every record once."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from cloud.store import rows
from cloud.store.parquet import FILE, History
from cloud.store.port import Arrivals
from cloud.store.sqlite import SqliteStore
from cloud.store.tiers import TieredStore
from contract.states import MachineState
from contract.telemetry import Telemetry, encode

START = 1_624_924_800  # 2021-06-29 00:00 UTC
BEFORE = date(2021, 7, 3)
WAIT_SECS = 60.0

HALF_WAY = """
import sys
from datetime import date
from pathlib import Path
from cloud.store.parquet import History

history = History(Path(sys.argv[1]))
def tables():
    for table in history.tables(history.partitions()[0]):
        yield table
    print("half way", flush=True)
    sys.stdin.read()
history.add("berlin", date(2021, 6, 29), tables())
"""
ARCHIVE = """
import sys
from datetime import date
from pathlib import Path
from cloud.store.parquet import History
from cloud.store.tiers import TieredStore

store = TieredStore(Path(sys.argv[1]) / "store.sqlite3", History(Path(sys.argv[1]) / "history"))
print("open", flush=True)
while True:
    store.archive(date(2021, 7, 3), limit=1)
"""


def telemetry(count: int, first_sequence: int = 1) -> list[Telemetry]:
    """Return records of three machines over four days, in no order."""
    dice = random.Random(first_sequence)
    return [
        Telemetry(
            epochtime=float(START + dice.randrange(4 * 86_400)),
            site="berlin",
            area="packaging",
            line="line-1",
            machine=dice.choice(["capper", "filler", "packer"]),
            gateway="gw",
            sequence=sequence,
            state=dice.choice(list(MachineState)),
            total_units=sequence,
        )
        for sequence in range(first_sequence, first_sequence + count)
    ]


def opened(folder: Path) -> TieredStore:
    return TieredStore(folder / "store.sqlite3", History(folder / "history"))


def told(store: SqliteStore) -> list[bytes]:
    """Return what a store holds, as it came."""
    table = store.read_table(range(len(store.names.all("machine"))), 0, 2**60)
    return sorted(
        encode(item) for item in rows.to_telemetry(table, store.names) if isinstance(item, Telemetry)
    )


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate(timeout=WAIT_SECS)


def start(
    processes: list[subprocess.Popen[str]], program: str, folder: Path, first_line: str
) -> subprocess.Popen[str]:
    """Start a program and wait for its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    processes.append(process)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == first_line
    return process


def test_a_rewrite_that_is_killed_half_way_leaves_the_old_partition(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    with closing(opened(tmp_path)) as store:
        store.append(Arrivals(telemetry(400)))
        store.archive(BEFORE, limit=9)
        before = told(store)
        (partition, *_) = store.history.partitions()
        old = partition.path.stat()
        writer = start(started, HALF_WAY, tmp_path / "history", "half way")
        assert len(list(partition.path.parent.iterdir())) > 1, "nothing of the new file is on disk yet"
        assert told(store) == before
        writer.kill()
        writer.wait(WAIT_SECS)
        assert partition.path.stat().st_ino == old.st_ino
        assert told(store) == before
        late = [item for item in telemetry(400, 1_000) if item.epochtime < START + 86_400]
        store.append(Arrivals(late))
        store.archive(BEFORE, limit=9)
        assert told(store) == sorted([*before, *map(encode, late)])
        assert partition.path.stat().st_ino != old.st_ino
        assert [path.name for path in partition.path.parent.iterdir()] == [FILE]


def test_archiving_that_is_killed_again_and_again_loses_and_doubles_nothing(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    dice = random.Random(3)
    with closing(opened(tmp_path)) as store:
        expected: list[bytes] = []
        for round_ in range(4):
            items = telemetry(3_000, 1 + 10_000 * round_)  # also late ones of days that have moved
            store.append(Arrivals(items))
            expected = sorted([*expected, *map(encode, items)])
            archiving = start(started, ARCHIVE, tmp_path, "open")
            time.sleep(dice.uniform(0, 0.3))
            archiving.kill()
            archiving.wait(WAIT_SECS)
            assert told(store) == expected
        store.archive(BEFORE, limit=9)
        assert told(store) == expected
        assert len(store.history.partitions()) == 4
