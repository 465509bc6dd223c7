"""The real cloud side without a network: a line of two machines, nine hours of records, a closed shift."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

from msgspec.structs import replace

from cloud import plant as plants
from cloud.config import CloudConfig
from cloud.opening import open_store
from cloud.service import Cloud
from cloud.store.port import Arrivals
from contract.delivery import ConnectionStatus, Status
from contract.machine_key import MachineKey
from contract.states import MachineState
from contract.telemetry import Telemetry

PLANT = """
[site]
name = "berlin"
timezone = "Europe/Berlin"

[calendar.three-shift]
shifts = [
  { name = "1", start = "06:00", end = "14:00", breaks = [ { start = "10:00", minutes = 30 } ] },
  { name = "2", start = "14:00", end = "22:00" },
  { name = "3", start = "22:00", end = "06:00" },
]

[reason.jam]
name = "Jam at infeed"
group = "Mechanical"
category = "breakdown"

[reason.cleaning]
name = "Cleaning"
group = "Planned"
category = "planned"

[[machine]]
area = "packaging"
line = "line-1"
name = "filler-1"
calendar = "three-shift"
ideal_run_rate = 60.0

[[machine]]
area = "packaging"
line = "line-1"
name = "capper-1"
calendar = "three-shift"
ideal_run_rate = 60.0
"""
SHIFT, HOUR = 1_625_025_600, 3600  # 06:00 at the plant on 30 June 2021
LINE = "berlin/packaging/line-1"
FILLER = MachineKey.parse(f"{LINE}/filler-1")
LIVING_SEQUENCE = 10_000_000
"""Where the sequences begin of what machines say while they are `living`."""


def life(key: MachineKey, first_sequence: int) -> list[Telemetry]:
    """A machine that runs at half its ideal rate, and stands for 20 minutes in its second hour."""
    records, made = [], 0
    for index, at in enumerate(range(SHIFT - HOUR, SHIFT + 9 * HOUR, 10)):
        stands = SHIFT + HOUR <= at < SHIFT + HOUR + 1200
        made += 0 if stands else 5
        records.append(
            Telemetry(
                **key._asdict(),
                epochtime=at,
                state=MachineState.STOPPED if stands else MachineState.RUNNING,
                total_units=made,
                off_quality_units=made // 50,
                gateway="gw",
                sequence=first_sequence + index,
            )
        )
    return records


def status_of_its_gateway(epochtime: float) -> Status:
    """Return what the gateway says of itself."""
    plc = ConnectionStatus(
        name="line-1", endpoint="opc.tcp://plc-1:4840", state="connected", since_epochtime=float(SHIFT)
    )
    return Status(
        gateway="gw",
        site="berlin",
        online=True,
        epochtime=epochtime,
        connections=[plc],
        accepts_commands=True,
    )


class Clock:
    """A clock that stands until it is moved [s since 1970]."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> int:
        """Return the present [us since 1970]."""
        return round(self.now * 1e6)


@contextlib.contextmanager
def opened(
    folder: Path,
    *,
    plant: str = PLANT,
    idle_alert_secs: float | None = None,
    silent: Iterable[MachineKey] = (),
) -> Iterator[tuple[Cloud, Clock]]:
    """Run the cloud side in a folder, with the records stored and the first shift closed.

    idle_alert_secs: of the capper; without it no alert is raised
    silent: machines beside the two, of which nothing is known
    """
    alert = "" if idle_alert_secs is None else f"idle_alert_secs = {idle_alert_secs}\n"
    others = "".join(
        f'[[machine]]\narea = "{key.area}"\nline = "{key.line}"\nname = "{key.machine}"\n'
        'calendar = "three-shift"\nideal_run_rate = 60.0\n'
        for key in silent
    )
    (folder / "plant.toml").write_text(plant + alert + others)
    config = CloudConfig.model_validate(
        {
            "cloud": {
                "data_dir": str(folder / "store"),
                "shift_close_grace_secs": 0.0,
                "revision_settle_secs": 0.0,
            }
        }
    )
    store, clock = open_store(config), Clock(float(SHIFT + 9 * HOUR))
    cloud = Cloud(config, plants.load(folder / "plant.toml"), store, now_us=clock)
    for first, machine in ((1, "filler-1"), (100_000, "capper-1")):
        cloud._present.add(store.append(Arrivals(life(FILLER._replace(machine=machine), first))))
    store.set_status(status_of_its_gateway(clock.now), clock())
    turn(cloud, clock)
    yield cloud, clock
    store.close()


def turn(cloud: Cloud, clock: Clock) -> None:
    """Let the service look at what came, as it does by itself where it runs."""
    for _ in range(2):
        cloud._present.look()
        clock.now += 2.5


def say(cloud: Cloud, records: list[Telemetry]) -> None:
    """Let the service store and take in what a machine says."""
    cloud._present.add(cloud._store.append(Arrivals(records)))


@contextlib.asynccontextmanager
async def living(cloud: Cloud, clock: Clock, *, pause_secs: float = 0.05) -> AsyncIterator[None]:
    """Let seconds pass, in each of which both machines make a unit and the service tells who follows it."""
    task = asyncio.create_task(_live(cloud, clock, pause_secs), name="small_cloud.living")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _live(cloud: Cloud, clock: Clock, pause_secs: float) -> None:
    last = [life(FILLER._replace(machine=machine), 0)[-1] for machine in ("filler-1", "capper-1")]
    second = 0
    while True:
        await asyncio.sleep(pause_secs)
        clock.now += 1.0
        second += 1
        moved = [
            replace(
                one,
                epochtime=clock.now,
                total_units=int(one.total_units or 0) + second,
                sequence=LIVING_SEQUENCE * (number + 1) + second,
            )
            for number, one in enumerate(last)
        ]
        say(cloud, moved)
        before = cloud._present.picture
        cloud._present.look()
        cloud._feeds.tell(before, cloud._present.picture, cloud._present.board)
