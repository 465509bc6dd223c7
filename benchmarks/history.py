"""Shift OEE of 200 machines over 7 days of Parquet history, beside a bare scan, DuckDB SQL and pandas.

    python -m benchmarks.history            # everything: about ten minutes
    python -m benchmarks.history --rounds 1 --machines 20

Every side runs in a process of its own over the same files, which lie in the page cache, and must come to the
same run time, units and off-quality units of every machine and shift. Ours makes complete figures with all
losses; the others only what those three numbers need.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from benchmarks import harness
from cloud.history import figures_of_history
from cloud.oee.calendar import PRODUCTION, build_grid
from cloud.plant import Plant, loads
from cloud.store.parquet import History, day_start_us
from cloud.store.parquet_columns import SCHEMA

RECORDS_PER_MACHINE_AND_DAY = 28_214
DAYS = 7
FIRST_DAY = date(2021, 6, 28)
MAX_GAP_US = 30_000_000
THREADS = 2
NEEDED = ("machine", "time", "state", "total_units", "off_quality_units")
GOALS = {"scan": 0.5, "duckdb": 4.0}
GOAL_PEAK_MB = 1000
GROWTH = (2, 20, 200)
"""Machines: 0.4, 4 and 39 million records."""

Sums = dict[str, list[int]]
"""[run time in us, units, off-quality units] by machine and start of the shift."""


# The data


def plant_of(machines: int) -> Plant:
    """Return a plant in three shifts with breaks."""
    calendar = """
    [site]
    name = "bench"
    timezone = "UTC"
    [definitions]
    small_stops = "availability"
    [calendar.main]
    shifts = [
      { name = "1", start = "06:00", end = "14:00", breaks = [ { start = "10:00", minutes = 30 } ] },
      { name = "2", start = "14:00", end = "22:00", breaks = [ { start = "18:00", minutes = 30 } ] },
      { name = "3", start = "22:00", end = "06:00", breaks = [ { start = "02:00", minutes = 30 } ] },
    ]
    """
    return loads(
        calendar
        + "".join(
            f'[[machine]]\narea = "packaging"\nline = "line-{machine // 8:02}"\n'
            f'name = "machine-{machine:03}"\n'
            'calendar = "main"\nideal_run_rate = 240\n'
            for machine in range(machines)
        )
    )


def generate(root: Path, machines: int) -> None:
    """Write a week: records every 3 s on average, stops, faults with codes, rejects, counter resets."""
    dice = np.random.default_rng(7)
    history = History(root)
    counters = np.zeros((machines, 2), dtype=np.int64)
    for number in range(DAYS):
        day = FIRST_DAY + timedelta(days=number)
        history.add("bench", day, (machine_day(day, machine, counters, dice) for machine in range(machines)))


def machine_day(
    day: date, machine: int, counters: np.ndarray[Any, Any], dice: np.random.Generator
) -> pa.Table:
    rows = RECORDS_PER_MACHINE_AND_DAY
    time_us = day_start_us(day) + np.sort(dice.integers(0, 86_400_000, rows)) * 1_000
    lengths = dice.exponential(200, rows // 50).astype(np.int64) + 1
    lengths[1::2] = lengths[1::2] // 5 + 1
    kinds = dice.choice([1, 2, 3, 4], len(lengths))
    kinds[::2] = 0
    state = np.repeat(kinds, lengths)[:rows]
    made = np.where(np.append(True, state[:-1] == 0), dice.integers(0, 20, rows), 0)
    off = made // 4 * (dice.random(rows) < 0.02)
    both = np.cumsum(np.stack([made, off]), axis=1) + counters[machine][:, None]
    if dice.random() < 0.5:
        reset = int(dice.integers(1, rows))
        both[:, reset:] -= both[:, reset : reset + 1]
    counters[machine] = both[:, -1]
    columns = {
        "area": texts(np.zeros(rows), ["packaging"]),
        "line": texts(np.zeros(rows), [f"line-{machine // 8:02}"]),
        "machine": texts(np.zeros(rows), [f"machine-{machine:03}"]),
        "time": pa.array(time_us).cast(pa.timestamp("us", "UTC")),
        "state": texts(state, ["running", "idle", "stopped", "faulted", "changeover"]),
        "total_units": pa.array(both[0]),
        "off_quality_units": pa.array(both[1]),
        "reason_code": texts(np.where(state == 3, machine % 5, -1), ["17", "E4", "9", "23", "E1"]),
        "data_quality": texts(np.zeros(rows), ["good"]),
        "gateway": texts(np.zeros(rows), ["gw"]),
        "sequence": pa.array(np.arange(rows) * 200 + machine + day.toordinal() * 10**7),
    }
    for field in SCHEMA:
        columns.setdefault(field.name, pa.nulls(rows, field.type))
    return pa.table(columns, schema=SCHEMA)


def texts(indexes: np.ndarray[Any, Any], values: list[str]) -> pa.Array:
    places = pa.array(indexes.astype(np.int32), mask=indexes < 0)
    return pa.DictionaryArray.from_arrays(places, pa.array(values))


# The sides


def ours(root: Path, machines: int) -> Sums:
    figures = figures_of_history(plant_of(machines), History(root), workers=THREADS)
    return {
        f"{row.place.machine} {row.window.start_us}": [
            row.totals.run_us,
            row.totals.made.total,
            row.totals.made.off,
        ]
        for row in figures
    }


def scan(root: Path, machines: int) -> Sums:
    form = pads.ParquetFileFormat(dictionary_columns=["machine", "state"])
    pa.set_cpu_count(THREADS)
    rows = 0
    for batch in pads.dataset(files(root), format=form).scanner(columns=list(NEEDED)).to_batches():
        rows += len(batch)
    assert rows == machines * DAYS * RECORDS_PER_MACHINE_AND_DAY
    return {}


def intervals(machines: int) -> tuple[list[int], list[int]]:
    """Return where planned time begins and ends, and its shift's start, or 0, from each on."""
    plant = plant_of(machines)
    start_us = day_start_us(FIRST_DAY)
    grid = build_grid(plant, next(iter(plant.machines)), start_us, start_us + DAYS * 86_400_000_000)
    planned = [
        grid.shifts[shift].start_us if category == PRODUCTION else 0
        for shift, category in zip(grid.shift.tolist(), grid.category.tolist(), strict=True)
    ]
    kept = [0, *(place for place in range(1, len(planned)) if planned[place] != planned[place - 1])]
    return [int(grid.edges[place]) for place in kept], [planned[place] for place in kept]


def duckdb(root: Path, machines: int) -> Sums:
    import duckdb as engine

    edges, shifts = intervals(machines)
    connection = engine.connect(config={"threads": THREADS})
    connection.execute("CREATE TABLE stretch (place INTEGER, start_us BIGINT, end_us BIGINT, shift BIGINT)")
    connection.executemany(
        "INSERT INTO stretch VALUES (?, ?, ?, ?)",
        list(zip(range(len(edges)), edges, [*edges[1:], 2**62], shifts, strict=True)),
    )
    found = connection.execute(
        f"""
        WITH record AS (
          SELECT machine, epoch_us(time) AS at_us, state = 'running' AS runs,
                 lead(epoch_us(time)) OVER machines AS next_us,
                 total_units - lag(total_units) OVER machines AS made, total_units,
                 off_quality_units - lag(off_quality_units) OVER machines AS rejected, off_quality_units
          FROM read_parquet('{root}/*/*/*.parquet')
          WINDOW machines AS (PARTITION BY machine ORDER BY time)
        ), placed AS (
          SELECT machine, place, shift, runs, at_us, end_us,
                 least(coalesce(next_us, at_us + {MAX_GAP_US}), at_us + {MAX_GAP_US}) AS until_us,
                 CASE WHEN made < 0 THEN total_units ELSE made END AS made,
                 CASE WHEN rejected < 0 THEN off_quality_units ELSE rejected END AS rejected
          FROM record ASOF JOIN stretch ON record.at_us > stretch.start_us
        ), part AS (
          SELECT machine, shift, CASE WHEN runs THEN least(until_us, end_us) - at_us ELSE 0 END AS run_us,
                 made, rejected
          FROM placed
          UNION ALL
          SELECT machine, stretch.shift, until_us - placed.end_us, 0, 0
          FROM placed JOIN stretch ON stretch.place = placed.place + 1
          WHERE runs AND until_us > placed.end_us
        )
        SELECT machine, shift, sum(run_us), sum(made), sum(rejected) FROM part WHERE shift > 0 GROUP BY ALL
        """
    ).fetchall()
    return {
        f"{machine} {shift}": [int(run or 0), int(made or 0), int(off or 0)]
        for machine, shift, run, made, off in found
    }


def pandas(root: Path, machines: int) -> Sums:
    import pandas as pd

    edges, shifts = (np.array(column) for column in intervals(machines))
    frame = pd.read_parquet(files(root), columns=list(NEEDED))
    frame["machine"] = frame["machine"].astype("category")
    frame["at_us"] = frame.pop("time").astype("datetime64[us, UTC]").astype("int64")
    frame = frame.sort_values(["machine", "at_us"], kind="stable", ignore_index=True)
    groups = frame.groupby("machine", observed=True)
    next_us = groups["at_us"].shift(-1)
    until_us = np.minimum(next_us.fillna(2**62), frame["at_us"] + MAX_GAP_US).astype("int64")
    place = np.maximum(np.searchsorted(edges, frame["at_us"], side="left") - 1, 0)
    ends = np.append(edges[1:], 2**62)[place]
    runs = frame["state"] == "running"
    parts = [
        pd.DataFrame(
            {
                "machine": frame["machine"],
                "shift": shifts[place],
                "run": np.where(runs, np.minimum(until_us, ends) - frame["at_us"], 0),
                **{name: increments(groups[name], frame[name]) for name in NEEDED[3:]},
            }
        )
    ]
    over = runs & (until_us > ends)
    parts.append(
        pd.DataFrame(
            {
                "machine": frame["machine"][over],
                "shift": shifts[place[over] + 1],
                "run": until_us[over] - ends[over],
                "total_units": 0,
                "off_quality_units": 0,
            }
        )
    )
    whole = pd.concat(parts)
    sums = whole[whole["shift"] > 0].groupby(["machine", "shift"], observed=True).sum()
    return {
        f"{machine} {shift}": list(map(int, row))
        for (machine, shift), row in zip(sums.index, sums.values, strict=True)
    }


def increments(group: Any, column: Any) -> Any:
    made = group.diff()
    return made.where(made.isna() | (made >= 0), column).fillna(0).astype("int64")


def files(root: Path) -> list[str]:
    return sorted(map(str, root.glob("*/*/*.parquet")))


SIDES: dict[str, Callable[[Path, int], Sums]] = {
    "ours": ours,
    "scan": scan,
    "duckdb": duckdb,
    "pandas": pandas,
}


# The run


class Runs:
    """Runs sides in processes of their own, and holds every result against ours."""

    def __init__(self, root: Path, machines: int) -> None:
        self.peak_mb: dict[str, float] = {}
        self._root = root
        self._machines = machines
        self._expected: Sums | None = None

    def secs(self, side: str) -> float:
        """Return how long a side takes [s], without starting its process."""
        command = [sys.executable, "-m", "benchmarks.history", "--side", side]
        command += ["--data", str(self._root), "--machines", str(self._machines)]
        home = Path(__file__).parents[1]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=home).stdout)
        self.peak_mb[side] = max(found["peak_mb"], self.peak_mb.get(side, 0))
        self._compare(side, found["sums"])
        return float(found["secs"])

    def _compare(self, side: str, sums: Sums) -> None:
        if side == "scan":
            return
        if self._expected is None:
            self._expected = sums
        for key in {**sums, **self._expected}:
            if sums.get(key) != self._expected.get(key):
                raise SystemExit(f"{side} differs at {key}: {sums.get(key)}, not {self._expected.get(key)}")


def side_alone(side: str, root: Path, machines: int) -> None:
    began = time.perf_counter()
    sums = SIDES[side](root, machines)
    secs = time.perf_counter() - began
    print(json.dumps({"secs": secs, "peak_mb": harness.peak_mb(), "sums": sums}))


def data_of(folder: Path, machines: int) -> Path:
    root = folder / f"{machines}-machines"
    if not root.exists():
        secs = harness.timed(lambda: generate(root, machines))
        size_mb = sum(Path(file).stat().st_size for file in files(root)) / 1e6
        print(f"  {machines} machines written in {secs:.0f} s, {size_mb:.0f} MB", file=sys.stderr)
    return root


def growth(folder: Path, most: int) -> Iterator[tuple[int, float]]:
    """Return (records, seconds of ours) of smaller weeks."""
    for machines in GROWTH:
        if machines < most:
            runs = Runs(data_of(folder, machines), machines)
            secs = statistics.median(runs.secs("ours") for _ in range(3))
            yield machines * DAYS * RECORDS_PER_MACHINE_AND_DAY, secs


def report(folder: Path, machines: int, rounds: int) -> None:
    records = machines * DAYS * RECORDS_PER_MACHINE_AND_DAY
    print(harness.machine())
    print(harness.versions("numpy", "pyarrow", "duckdb", "pandas"))
    runs = Runs(data_of(folder, machines), machines)
    secs = harness.alternate({side: functools.partial(runs.secs, side) for side in SIDES}, rounds)
    steps = [*growth(folder, machines), (records, secs["ours"])]
    print(
        f"shift OEE of {machines} machines, {DAYS} days, {records / 1e6:.1f} M records, medians of {rounds}:"
    )
    harness.table(
        {
            side: f"{secs[side]:7.2f} s {records / secs[side] / 1e6:7.1f} M records/s"
            f" {runs.peak_mb[side]:6.0f} MB {secs[side] / secs['ours']:7.2f} x ours"
            for side in SIDES
        }
        | {
            f"{count / 1e6:.1f} M records": f"{took:7.2f} s {took / count * 1e9:7.1f} ns/record"
            for count, took in steps
        }
    )
    ratios = {side: secs[side] / secs["ours"] for side in SIDES if side != "ours"}
    met = all(ratios[side] >= goal for side, goal in GOALS.items())
    harness.conclude(
        "history",
        records / secs["ours"] / 1e6,
        "Mrecords/s",
        ratios,
        GOALS | {"peak_mb": GOAL_PEAK_MB},
        met=met and runs.peak_mb["ours"] <= GOAL_PEAK_MB,
        peak_mb=round(runs.peak_mb["ours"]),
        growth=[{"records": count, "secs": round(took, 2)} for count, took in steps],
    )


def main() -> None:
    parser = harness.arguments(__doc__)
    parser.add_argument("--machines", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="folder to keep the files in, and to find them again")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        side_alone(asked.side, asked.data, asked.machines)
        return
    with tempfile.TemporaryDirectory() as temporary:
        report(asked.data or Path(temporary), asked.machines, asked.rounds)


if __name__ == "__main__":
    main()
