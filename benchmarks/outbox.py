"""The outbox: what disk an outage takes, how fast it is made up for, and how live the present stays then.

Rated load is 200 machines that each tell one record a second. The gateway is the real daemon; its records go
by paho over mosquitto to a cloud side that keeps each one and sends receipts.

1. disk: records as the gateway wrote them, put into an outbox of its own that packs them; bytes of the file
   for each further record as it grows tenfold and again, and what 40 days at rated load take by that. Beside
   it in the same run an outbox that keeps a row for each: bytes, and processor time for putting a record in,
   packing it, and taking it out again
2. drain: the gateway starts with an outage's records waiting, while the PLC goes on; how many of them are
   kept each second, until the last one is
3. live: from a record's moment to its being kept, while that lasts. Beside it the same without a backlog

    python -m benchmarks.outbox [--backlog 300000] [--disk 300000] [--secs 20]
"""

import contextlib
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count as count_from
from itertools import cycle, islice
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from benchmarks.edge_parts.parts import Part
from benchmarks.edge_parts.plant import MACHINES, gateway_toml
from benchmarks.edge_parts.store import GATEWAY, Arrival, Store
from benchmarks.harness import arguments, conclude, machine, table, versions
from contract import topics
from contract.machine_key import MachineKey
from contract.telemetry import MAX_BACKLOG_BYTES, Telemetry, encode
from gateway.outbox.port import Kind
from gateway.outbox.sqlite import DEFAULT_MAX_BYTES, DEFAULT_ROWS_KEPT, SqliteOutbox
from tests.support.mosquitto import Mosquitto
from tests.support.ports import free_port

RATED_PER_SEC: Final = MACHINES
GOAL_DAYS: Final = 40
GOAL_TIMES_RATED: Final = 20
GOAL_LIVE_P95_SECS: Final = 2.0
GOAL_TIMES_SMALLER: Final = 6
GOAL_GROWTH: Final = 1.05
"""How many times more a further record may take in the last decade than in the one before."""
_STEP: Final = 1_000
_ARRAYS_PER_FLUSH: Final = 10
"""What a link for 4,000 records a second carries while the daemon flushes once."""
_US: Final = 1_000_000
_WARM_SECS: Final = 5
_PATIENCE_SECS: Final = 600


@dataclass(frozen=True, slots=True)
class Again:
    """A record that the gateway has made, as of another moment."""

    record: Telemetry
    epoch_us: int
    kind: Kind = "counter"

    @property
    def topic(self) -> str:
        """Return where it will be published."""
        one = self.record
        return topics.machine_topic(MachineKey(one.site, one.area, one.line, one.machine), "telemetry")

    def encode(self, sequence: int) -> bytes:
        """Return the JSON object with its sequence."""
        return encode(msgspec.structs.replace(self.record, sequence=sequence, epochtime=self.epoch_us / _US))


class Held(NamedTuple):
    """What records cost an outbox, each.

    file_bytes, counted_bytes: of the pages in use, and by the bound
    in_us, packed_us, out_us: processor time for appending, packing, and reading and removing it
    """

    file_bytes: float
    counted_bytes: float
    in_us: float
    packed_us: float
    out_us: float


def opened(folder: Path, rows_kept: int = DEFAULT_ROWS_KEPT) -> SqliteOutbox:
    """Open the outbox of a data folder."""
    return SqliteOutbox(
        folder,
        gateway=GATEWAY,
        uplinks=["broker"],
        clock_us=lambda: time.time_ns() // 1_000,
        running_us=lambda: time.monotonic_ns() // 1_000,
        max_bytes=1 << 50,
        rows_kept=rows_kept,
    )


def fill(outbox: SqliteOutbox, patterns: Sequence[Telemetry], count: int, until_us: int) -> int:
    """Append records at rated load up to a moment, and pack what grows old; return the last sequence."""
    began_us = until_us - count * _US // RATED_PER_SEC
    made = (
        Again(one, began_us + number * _US // RATED_PER_SEC)
        for number, one in enumerate(islice(cycle(patterns), count))
    )
    last = 0
    while step := list(islice(made, _STEP)):
        last = outbox.append(step)
        while outbox.flush():
            pass
    return last


def used_bytes(path: Path) -> int:
    """Return what the pages of an outbox's file take that are in use."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        pages, free, size = (
            connection.execute(f"PRAGMA {what}").fetchone()[0]
            for what in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * size)


def held(folder: Path, patterns: Sequence[Telemetry], count: int, rows_kept: int) -> Held:
    """Put records into an outbox, pack all but so many, and take them out again as a forwarder does."""
    made = [Again(one, number * _US) for number, one in enumerate(islice(cycle(patterns), count))]
    with contextlib.closing(opened(folder, rows_kept)) as outbox:
        began = time.process_time()
        for start in range(0, count, _STEP):
            outbox.append(made[start : start + _STEP])
        put_in = time.process_time()
        while outbox.flush():
            pass
        packed = time.process_time()
        counted = outbox.statistics().bytes
    file_bytes = used_bytes(outbox.path)
    with contextlib.closing(opened(folder, rows_kept)) as outbox:
        opened_at = time.process_time()
        at = outbox.first_sequence
        for number in count_from(1):
            some = outbox.read(at, 1 << 53, max_records=_STEP, max_bytes=MAX_BACKLOG_BYTES)
            if not some:
                break
            at = some[-1].sequence + 1
            outbox.acknowledge("broker", [(some[0].sequence, at - 1)])
            if number % _ARRAYS_PER_FLUSH == 0:
                outbox.flush()
        while outbox.flush():
            pass
        out = time.process_time()
    each_us = _US / count
    return Held(
        file_bytes / count,
        counted / count,
        (put_in - began) * each_us,
        (packed - put_in) * each_us,
        (out - opened_at) * each_us,
    )


def growth(folder: Path, patterns: Sequence[Telemetry], most: int) -> dict[int, tuple[float, float]]:
    """Return by records in the outbox: bytes of its file in use, and what its bound counts."""
    found: dict[int, tuple[float, float]] = {}
    held = 0
    for count in (most // 100, most // 10, most):
        with contextlib.closing(opened(folder, rows_kept=0)) as outbox:
            fill(outbox, patterns, count - held, time.time_ns() // 1_000)
            counted = outbox.statistics().bytes
        held = count
        found[count] = used_bytes(outbox.path), counted  # closed, so that nothing of it is in the log
    return found


def wait_for(what: Callable[[], bool], gateway: Part) -> None:
    """Wait until something is so; end the benchmark where that takes for ever."""
    began = time.monotonic()
    while not what():
        if gateway.process.poll() is not None or time.monotonic() - began > _PATIENCE_SECS:
            raise SystemExit("the gateway does not send what it should")
        time.sleep(0.02)


def ages(arrivals: Sequence[Arrival]) -> list[float]:
    """Return how old records were when they were first kept [s], in order of age."""
    first: dict[int, float] = {}
    for one in arrivals:
        first.setdefault(one.record.sequence, one.epochtime - one.record.epochtime)
    return sorted(first.values())


def p95(values: Sequence[float]) -> float:
    """Return what 95 of 100 are below."""
    return values[len(values) * 95 // 100]


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--backlog", type=int, default=300_000)
    parser.add_argument("--disk", type=int, default=300_000)
    parser.add_argument("--secs", type=int, default=20)
    chosen = parser.parse_args()
    print(f"outbox: {machine()}; {versions('paho-mqtt', 'msgspec')}")
    allowed = sorted(os.sched_getaffinity(0))
    measured, rest = allowed[0], allowed[min(1, len(allowed) - 1)]
    os.sched_setaffinity(0, {rest})
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        port = free_port()
        broker = stack.enter_context(Mosquitto(folder / "broker"))
        player = Part(
            [sys.executable, "-m", "benchmarks.edge_parts.player", str(port), str(time.time_ns() // 1_000)],
            core=rest,
            folder=folder,
        )
        stack.enter_context(player)
        player.answer()
        store = stack.enter_context(Store(broker.port))
        path = folder / "gateway.toml"
        path.write_text(gateway_toml(str(folder / "edge"), f"opc.tcp://127.0.0.1:{port}", broker.port))
        command = [sys.executable, "-m", "oee", "gateway", "run", "--config", str(path)]
        with Part(command, core=measured, folder=folder) as gateway:
            wait_for(lambda: len(store.arrivals) >= MACHINES, gateway)
            player.ask(do="live", secs=_WARM_SECS + chosen.secs)
            time.sleep(_WARM_SECS)
            known = len(store.arrivals)
            player.answer()
            alone = ages(store.arrivals[known:])
            patterns = [one.record for one in store.arrivals[known:]]
        grown = growth(folder / "disk", patterns, chosen.disk)
        rows = held(folder / "rows", patterns, chosen.disk // 3, rows_kept=1 << 62)
        packs = held(folder / "packs", patterns, chosen.disk // 3, rows_kept=0)
        with contextlib.closing(opened(folder / "edge")) as outbox:
            first = outbox.next_sequence
            last = fill(outbox, patterns, chosen.backlog, time.time_ns() // 1_000)
        with Part(command, core=measured, folder=folder) as gateway:
            known = len(store.arrivals)
            wait_for(lambda: len(store.arrivals) > known, gateway)
            began, began_epochtime = time.perf_counter(), time.time()
            player.ask(do="live", secs=chosen.secs)
            wait_for(lambda: store.has_all(first, last), gateway)
            took_secs = time.perf_counter() - began
            beside = ages(
                [
                    one
                    for one in store.arrivals[known:]
                    if one.record.sequence > last and one.record.epochtime > began_epochtime
                ]
            )
            player.answer()
    conclude_on(grown, (rows, packs), chosen.backlog / took_secs, alone, beside)


def told(one: Held) -> str:
    """Return what a record costs, as a line of the table."""
    return (
        f"{one.file_bytes:>9.1f} bytes  ({one.counted_bytes:.1f} by the bound); processor time: "
        f"{one.in_us:.1f} us in, {one.packed_us:.1f} us packing, {one.out_us:.1f} us out"
    )


def conclude_on(
    grown: dict[int, tuple[float, float]],
    forms: tuple[Held, Held],
    drained_per_sec: float,
    alone: list[float],
    beside: list[float],
) -> None:
    """Print the table and the last line."""
    (few, _), (more, _), (most, counted) = grown.values()
    small, medium, large = grown
    record_bytes = (most - more) / (large - medium)
    day_bytes = record_bytes * RATED_PER_SEC * 86_400
    live = p95(beside)
    rows, packs = forms
    smaller = rows.file_bytes / packs.file_bytes
    reached = {
        "times_smaller": smaller,
        "growth": record_bytes * (medium - small) / (more - few),
        "times_rated": drained_per_sec / RATED_PER_SEC,
        "live_p95_secs": live,
    }
    disk = {
        f"disk for {count:,}": f"{on_disk / 1e6:>9.1f} MB  ({held / 1e6:.1f} MB by the bound)"
        for count, (on_disk, held) in grown.items()
    }
    table(
        disk
        | {
            "for each further record": f"{record_bytes:>9.0f} bytes",
            f"{GOAL_DAYS} days at rated load": f"{GOAL_DAYS * day_bytes / 1e9:>9.1f} GB",
            "rated load in the default's bytes": f"{DEFAULT_MAX_BYTES / day_bytes:>9.1f} days",
            f"the default's bytes in {GOAL_DAYS} days": (
                f"{DEFAULT_MAX_BYTES * large / (counted * GOAL_DAYS * 86_400):>9.1f} records/s"
            ),
            "a row for each record": told(rows),
            "packed": told(packs),
            "packed is smaller by": f"{smaller:>9.1f} times  (goal {GOAL_TIMES_SMALLER})",
            "drained": (
                f"{drained_per_sec:>9,.0f} records/s, {reached['times_rated']:.1f} times rated load "
                f"(goal {GOAL_TIMES_RATED})"
            ),
            "live meanwhile, p50": f"{statistics.median(beside):>9.3f} s",
            "live meanwhile, p95": f"{live:>9.3f} s  (goal {GOAL_LIVE_P95_SECS} s)",
            "live without a backlog, p50": f"{statistics.median(alone):>9.3f} s",
            "live without a backlog, p95": f"{p95(alone):>9.3f} s",
            "live records": f"{len(beside):,} beside the backlog, {len(alone):,} without",
        }
    )
    met = {
        "times_smaller": smaller >= GOAL_TIMES_SMALLER,
        "growth": reached["growth"] <= GOAL_GROWTH,
        "times_rated": reached["times_rated"] >= GOAL_TIMES_RATED,
        "live_p95_secs": live < GOAL_LIVE_P95_SECS,
    }
    conclude(
        "outbox",
        drained_per_sec,
        "records/s",
        {"live_p95_without_backlog": live / p95(alone), "bytes_of_rows": 1 / smaller},
        {
            "times_smaller": GOAL_TIMES_SMALLER,
            "growth": GOAL_GROWTH,
            "times_rated": GOAL_TIMES_RATED,
            "live_p95_secs": GOAL_LIVE_P95_SECS,
        },
        met=all(met.values()),
        goals_met=met,
        reached={name: round(figure, 3) for name, figure in reached.items()},
        record_bytes=round(record_bytes),
        row_bytes=round(rows.file_bytes),
        gb_in_40_days=round(GOAL_DAYS * day_bytes / 1e9, 1),
    )


if __name__ == "__main__":
    main()
