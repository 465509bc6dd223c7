"""A line of three machines as plant.toml, for tests of the calculations, with every option of the figures."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from cloud.plant import Plant, load

THREE_SHIFTS = """
shifts = [
  { name = "1", start = "06:00", end = "14:00", breaks = [ { start = "10:00", minutes = 30 } ] },
  { name = "2", start = "14:00", end = "22:00" },
  { name = "3", start = "22:00", end = "06:00", days = ["mon", "tue", "wed", "thu"] },
]
"""


def plant_of(text: str) -> Plant:
    """Return the plant that a plant.toml with this text is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plant.toml"
        path.write_text(text)
        return load(path)


def plant_text(
    definitions: dict[str, Any] | None = None,
    *,
    shifts: str = THREE_SHIFTS,
    machines: tuple[str, ...] = ("filler", "capper", "packer"),
    machine: str = "ideal_run_rate = 60",
    timezone: str = "Europe/Berlin",
    calendar: str = "",
) -> str:
    """Return the text of a plant with the machines of tests.support.telemetry."""
    keys = "\n".join(f"{key} = {_literal(value)}" for key, value in (definitions or {}).items())
    tables = "\n".join(
        f'[[machine]]\narea = "packaging"\nline = "line-1"\nname = "{name}"\ncalendar = "c"\n{machine}\n'
        for name in machines
    )
    return (
        f'[site]\nname = "berlin"\ntimezone = "{timezone}"\n[definitions]\n{keys}\n'
        f"[calendar.c]\n{shifts}\n{calendar}\n"
        '[reason.jam]\nname = "Jam"\ngroup = "Mechanical"\ncategory = "breakdown"\ncodes = [17]\n'
        '[reason.cip]\nname = "Cleaning"\ncategory = "planned"\ncodes = ["E1"]\n'
        f"{tables}"
    )


def _literal(value: Any) -> str:
    return (
        {True: "true", False: "false"}.get(value, f'"{value}"')
        if isinstance(value, str | bool)
        else str(value)
    )


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    """Draw every option that changes what figures are."""
    return {
        "breaks": draw(st.sampled_from(["excluded", "loss"])),
        "small_stop_secs": draw(st.sampled_from([0, 60, 600])),
        "small_stops": draw(st.sampled_from(["performance", "availability"])),
        "idle": draw(st.sampled_from(["availability", "performance", "excluded"])),
        "changeover": draw(st.sampled_from(["availability", "excluded"])),
        "unknown_time": draw(st.sampled_from(["bounds", "excluded", "hold"])),
        "max_gap_secs": draw(st.sampled_from([30, 3600, 20_000])),
        "counts_between_samples": draw(st.sampled_from(["at_sample", "proportional"])),
        "unplanned_production": draw(st.sampled_from(["apart", "included"])),
        "production_date": draw(st.sampled_from(["shift_start", "next_day"])),
        "startup_secs": draw(st.sampled_from([0, 300])),
        "cap_performance": draw(st.booleans()),
        "ideal_rate": draw(st.sampled_from(["telemetry", "plant"])),
    }
