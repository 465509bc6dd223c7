"""The states a machine can be in."""

from enum import StrEnum
from typing import Final


class MachineState(StrEnum):
    """What a machine does at a moment, as the telemetry contract spells it."""

    RUNNING = "running"
    IDLE = "idle"
    STOPPED = "stopped"
    FAULTED = "faulted"
    CHANGEOVER = "changeover"
    PLANNED_STOP = "planned_stop"
    UNKNOWN = "unknown"


STATE_CODES: Final[dict[MachineState, int]] = {state: code for code, state in enumerate(MachineState)}
"""A small integer per state, for columns. The order is part of the history's file format: append only."""

STATES_BY_CODE: Final[tuple[MachineState, ...]] = tuple(MachineState)
