"""Small plants as text, and moments as microseconds."""

from collections.abc import Iterable
from datetime import datetime
from zoneinfo import ZoneInfo

from cloud.plant import Machine, Plant, loads

THREE_SHIFTS = """
shifts = [
  { name = "1", start = "06:00", end = "14:00" },
  { name = "2", start = "14:00", end = "22:00" },
  { name = "3", start = "22:00", end = "06:00" },
]
"""


def plant_text(
    calendar: str = THREE_SHIFTS,
    *,
    zone: str = "Europe/Berlin",
    top: str = "",
    machine: str = "",
    machines: Iterable[str] = ("filler-1",),
) -> str:
    """Return a plant.toml.

    calendar: the keys of its only calendar; top: further tables; machine: further keys of each machine
    """
    tables = "".join(
        f'[[machine]]\narea = "packaging"\nline = "line-1"\nname = "{name}"\ncalendar = "main"\n'
        f"{machine if machine.startswith('ideal_') else 'ideal_run_rate = 60' + chr(10) + machine}\n"
        for name in machines
    )
    return f'[site]\nname = "plant"\ntimezone = "{zone}"\n{top}\n[calendar.main]\n{calendar}\n{tables}'


def plant(calendar: str = THREE_SHIFTS, **options: str) -> Plant:
    """Return the plant of `plant_text`."""
    return loads(plant_text(calendar, **options))


def only(found: Plant) -> Machine:
    """Return a plant's first machine."""
    return next(iter(found.machines.values()))


def us(text: str, zone: str = "UTC", fold: int = 0) -> int:
    """Return an ISO moment of a zone as microseconds; independent of the product's own arithmetic."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1e6)
