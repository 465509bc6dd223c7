"""Live figures: what it costs to keep the running shift of many machines, and to read it.

1,000 machines send a record each second; every second the service brings figures up to date: those of
machines that changed state first, and of the others as many as its limit for one look allows. So what a board
shows may be some seconds old, which is measured too. Beside it, in the same run, all made from the rows anew.

    python -m benchmarks.live [--machines 1000] [--secs 60] [--hours 4]
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import arguments, conclude, cpu_timed, machine, table, versions
from cloud.evaluation import Evaluation
from cloud.live import Live, Picture
from cloud.plant import loads
from cloud.store.port import Arrivals
from cloud.store.sqlite import SqliteStore
from contract.states import MachineState
from contract.telemetry import Telemetry

START_SECS = 1_790_049_600
"""2026-09-22 04:00 UTC: six in the morning in Berlin, where the first shift begins."""
GOAL_READ_MS = 5.0
GOAL_KEEP_MS_PER_SEC = 50.0
HEARTBEAT_SECS = 10


def plant_text(machines: int) -> str:
    """Return a plant.toml of many machines in lines of ten."""
    return (
        '[site]\nname = "plant"\ntimezone = "Europe/Berlin"\n[calendar.main]\nshifts = ['
        '{ name = "1", start = "06:00", end = "14:00", breaks = [ { start = "10:00", minutes = 30 } ] },'
        '{ name = "2", start = "14:00", end = "22:00" }, { name = "3", start = "22:00", end = "06:00" } ]\n'
    ) + "".join(
        f'[[machine]]\narea = "area"\nline = "line-{number // 10}"\nname = "machine-{number}"\n'
        'calendar = "main"\nideal_run_rate = 90\n'
        for number in range(machines)
    )


def record(number: int, sec: int) -> Telemetry:
    """Return what a machine says at a second of the shift."""
    running = (sec + 37 * number) % 400 < 360
    return Telemetry(
        epochtime=START_SECS + sec + number / 10_000,
        site="plant",
        area="area",
        line=f"line-{number // 10}",
        machine=f"machine-{number}",
        state=MachineState.RUNNING if running else MachineState.IDLE,
        gateway="gw",
        sequence=sec * 100_000 + number,
        total_units=sec * 3 // 2,
        off_quality_units=sec // 50,
    )


def read(picture: Picture) -> float:
    """Read every machine's OEE, as a board does."""
    return sum(view.figures["oee"] or 0.0 for view in picture.machines.values() if view.figures)


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--secs", type=int, default=60)
    parser.add_argument("--hours", type=float, default=4.0, help="how long the shift has run before")
    chosen = parser.parse_args()
    print(f"live: {machine()}; {versions('numpy')}")
    numbers = range(chosen.machines)
    before = int(chosen.hours * 3600)
    with tempfile.TemporaryDirectory() as name:
        store = SqliteStore(Path(name) / "store.sqlite3")
        for sec in range(0, before, HEARTBEAT_SECS):
            store.append(Arrivals([record(number, sec) for number in numbers]))
        evaluation = Evaluation(loads(plant_text(chosen.machines)), store)
        live = Live(evaluation, (START_SECS + before) * 1_000_000)
        keep_ms, read_ms, age_secs = [], [], []
        pictures: list[Picture] = []
        renewed: dict[object, tuple[int, int]] = {}
        for sec in range(before, before + chosen.secs):
            rows = store.append(Arrivals([record(number, sec) for number in numbers])).fresh
            now_us = (START_SECS + sec + 1) * 1_000_000
            live.add(rows)
            keep_ms.append(1000 * cpu_timed(lambda now_us=now_us: pictures.append(live.look(now_us))))
            picture = pictures.pop()
            for key, view in picture.machines.items():
                if renewed.get(key, (0, 0))[0] != id(view):
                    renewed[key] = id(view), sec
                age_secs.append(sec - renewed[key][1])
            began = time.perf_counter()
            read(picture)
            read_ms.append(1000 * (time.perf_counter() - began))
        again_ms = [
            1000 * cpu_timed(lambda: Live(evaluation, now_us, renew_limit=chosen.machines).look(now_us))
            for _ in range(3)
        ]
        store.close()
    age_p99_secs = float(np.percentile(age_secs, 99))
    keep, again = statistics.median(keep_ms), statistics.median(again_ms)
    table(
        {
            f"keep {chosen.machines} machines": f"{keep:>9.1f} ms of CPU per second",
            "read all of them": f"{statistics.median(read_ms):>9.2f} ms",
            "age of the figures shown, p99": f"{age_p99_secs:>9.0f} s",
            "made anew from the rows": f"{again:>9.1f} ms of CPU",
        }
    )
    conclude(
        "live",
        keep,
        "ms of CPU per second",
        {"anew": keep / again},
        {"keep_ms_per_sec": GOAL_KEEP_MS_PER_SEC, "read_ms": GOAL_READ_MS},
        met=keep <= GOAL_KEEP_MS_PER_SEC and statistics.median(read_ms) <= GOAL_READ_MS,
        read_ms=round(statistics.median(read_ms), 3),
        age_p99_secs=age_p99_secs,
    )


if __name__ == "__main__":
    main()
