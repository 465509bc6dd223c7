"""Days of telemetry of a few machines, and the history that they become."""

import random
from pathlib import Path
from typing import Any

import numpy as np

from cloud.plant import Plant, loads
from cloud.store import rows
from cloud.store.parquet import History, day_of
from cloud.store.parquet_columns import table_of
from contract.delivery import Gap
from contract.states import MachineState
from contract.telemetry import Telemetry
from tests.support.plants import THREE_SHIFTS, plant_text

START_SECS = 1_624_924_800  # 2021-06-29 00:00 UTC
MACHINES = ("capper", "filler", "packer")
STATES = (*[MachineState.RUNNING] * 6, *MachineState)


def days_of_telemetry(seed: int, days: float = 2.5, *, step_secs: int = 200) -> list[Telemetry | Gap]:
    """Return what machines tell: long states, stops, gaps, resets, products, bad readings, a stranger."""
    dice = random.Random(seed)
    found: list[Telemetry | Gap] = []
    for machine in (*MACHINES, "stranger"):
        secs = dice.randrange(5_000)
        total = off = 0
        said: dict[str, Any] = {}
        while secs < days * 86_400:
            if dice.random() < 0.1:
                state = dice.choice(STATES)
                said = dice.choice(
                    [{}, {"product": "A"}, {"product": "B", "order": "1"}, {"ideal_run_rate": 90.5}]
                )
                said |= dice.choice([{}, {"reason_code": 17}, {"reason_code": "17"}])
                said |= dice.choice([{}, {}, {}, {"data_quality": "bad"}, {"data_quality": "uncertain"}])
                said["state"] = state
            made = dice.randrange(300)
            total, off = total + made, off + made // 50
            if dice.random() < 0.01:
                total = off = 0
            counters = {"total_units": total, "off_quality_units": off} if dice.random() < 0.9 else {}
            place = {
                "site": "plant",
                "area": "packaging",
                "line": "line-1",
                "machine": machine,
                "gateway": "gw",
            }
            epochtime = START_SECS + secs + 0.000_25
            sequence = len(found)
            if dice.random() < 0.02:
                found.append(
                    Gap(
                        **place,
                        sequence=sequence,
                        from_epochtime=epochtime,
                        to_epochtime=epochtime + 9,
                        cause="x",
                    )
                )
            else:
                fields = {"state": MachineState.RUNNING} | said | counters
                found.append(Telemetry(**place, epochtime=epochtime, sequence=sequence, **fields))
            secs += dice.randrange(1, step_secs) if dice.random() < 0.995 else 20_000
    dice.shuffle(found)
    return found


def plant_of_days(definitions: str = "", **options: Any) -> Plant:
    """Return the plant that the machines are of."""
    top = f"[definitions]\nmax_gap_secs = 150\n{definitions}"
    return loads(plant_text(THREE_SHIFTS, top=top, machines=MACHINES, **options))


def history_of(root: Path, items: list[Telemetry | Gap], **options: Any) -> History:
    """Return the history of telemetry in any order."""
    history = History(root, **options)
    names = rows.Names()
    told = rows.from_telemetry([item for item in items if isinstance(item, Telemetry)], names)
    gaps = rows.from_gaps([item for item in items if isinstance(item, Gap)], names)
    both = np.concatenate([told.rows, gaps.rows])
    for day in sorted({day_of(int(time_us)) for time_us in both["time_us"]}):
        of_day = both[[day_of(int(time_us)) == day for time_us in both["time_us"]]]
        keys = sorted((names.name("machine", machine), machine) for machine in np.unique(of_day["machine"]))
        history.add(
            "plant",
            day,
            (
                table_of(rows.Table(of_day[of_day["machine"] == machine], told.rest | gaps.rest), names)
                for _, machine in keys
            ),
        )
    return history
