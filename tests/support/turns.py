"""The cloud side with its turns taken by hand: the clock is an argument, everything else is real."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloud import plant as plants
from cloud.config import CloudConfig
from cloud.errors import CloudError
from cloud.opening import open_store
from cloud.results.config import Format
from cloud.results.periods import Period
from cloud.results.reports import Print, Printed
from cloud.service import Cloud
from cloud.store.port import Arrivals, ClosedShift
from contract.machine_key import MachineKey
from contract.states import MachineState
from contract.telemetry import Telemetry

PLANT = """
[site]
name = "berlin"
timezone = "Europe/Berlin"

[calendar.three-shift]
shifts = [
  { name = "1", start = "06:00", end = "14:00" },
  { name = "2", start = "14:00", end = "22:00" },
  { name = "3", start = "22:00", end = "06:00" },
]
rotation = { crews = ["A", "B", "C"], pattern = "123", from = 2021-01-01 }

[[machine]]
area = "packaging"
line = "line-1"
name = "filler-1"
calendar = "three-shift"
ideal_run_rate = 60.0
"""
SEC, HOUR, DAY = 1_000_000, 3600, 86_400


class Plain:
    """Prints the names of periods."""

    def __init__(self) -> None:
        self.fails = False

    def __call__(self, period: Period, formats: Sequence[Format], *, edition: int) -> Printed:
        if self.fails:
            from cloud.errors import ResultsError

            raise ResultsError("no paper")
        title = f"{period.every} {period.key} edition {edition}"
        return Printed(title, f"<p>{title}</p>", [])


class Turns:
    """A cloud side, what its machines say, and a clock."""

    def __init__(
        self,
        folder: Path,
        results: str,
        *,
        now: float,
        plant: str = PLANT,
        printer: Print | None = None,
        masterdata: str | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plant.toml").write_text(plant)
        (folder / "results.toml").write_text(results)
        self.folder = folder
        self.now = now
        self._masterdata = masterdata
        self.printer: Print = printer or Plain()
        self.errors: list[str] = []
        self._sequence = 0
        self.start()

    def clock_us(self) -> int:
        """Return the clock."""
        return round(self.now * SEC)

    def start(self) -> None:
        """Start the service on what is stored."""
        tables: dict[str, Any] = {
            "data_dir": str(self.folder / "store"),
            "plant": str(self.folder / "plant.toml"),
            "results": str(self.folder / "results.toml"),
            **({} if self._masterdata is None else {"masterdata": str(self.folder / self._masterdata)}),
            "shift_close_grace_secs": 0.0,
            "revision_settle_secs": 0.0,
        }
        self.config = CloudConfig.model_validate({"cloud": tables, "history": {"enabled": False}})
        self.store = open_store(self.config)
        plant = plants.load(self.folder / "plant.toml")
        self.cloud = Cloud(self.config, plant, self.store, now_us=self.clock_us)
        self.cloud.use_printer(self.printer)

    def stop(self) -> None:
        """End the service, as a crash does."""
        self.store.close()

    def restart(self) -> None:
        """Crash and start again."""
        self.stop()
        self.start()

    def say(
        self, machine: str, at: float, total_units: int, state: MachineState = MachineState.RUNNING
    ) -> None:
        """Let a machine say how it is at an instant."""
        key = MachineKey(*machine.split("/"))
        self._sequence += 1
        record = Telemetry(
            epochtime=at,
            **key._asdict(),
            state=state,
            gateway="gw",
            sequence=self._sequence,
            total_units=total_units,
            off_quality_units=0,
        )
        self.cloud._present.add(self.store.append(Arrivals([record])))

    def close(self, now: float | None = None) -> list[ClosedShift]:
        """Take turns at an instant until nothing is left to be closed or revised; return what was."""
        self.now = self.now if now is None else now
        found: list[ClosedShift] = []
        while not (step := self.cloud._present.closing.step(self.clock_us())).is_done:
            found += step.shifts
        return [*found, *step.shifts]

    def jobs(self) -> list[str]:
        """Run the jobs that make letters; return what they did."""
        done = []
        for job in self.cloud._outlets.jobs():
            try:
                done.append(job.work())
            except CloudError as error:
                self.errors.append(str(error))
        return [result for result in done if result]

    def sync(self) -> list[str]:
        """Read master data once, and put what it says in force."""
        self.cloud._make_jobs()
        done = [sync.run() for sync in self.cloud._masterdata.syncs]
        self.cloud._present.look()
        return done

    def carry(self) -> None:
        """Let all carriers send what waits."""
        for carrier in self.cloud._outlets.carriers:
            carrier.turn()

    def turn(self, now: float) -> list[ClosedShift]:
        """Do at an instant whatever is due."""
        closed = self.close(now)
        self.jobs()
        self.carry()
        return closed
