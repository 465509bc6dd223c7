"""The states of PackML (ISA-TR88.00.02) as states of a machine."""

from typing import Final

from contract.states import MachineState

_STATES: Final[tuple[tuple[str, MachineState], ...]] = (
    ("Undefined", MachineState.UNKNOWN),
    ("Clearing", MachineState.FAULTED),
    ("Stopped", MachineState.STOPPED),
    ("Starting", MachineState.IDLE),
    ("Idle", MachineState.IDLE),
    ("Suspended", MachineState.IDLE),
    ("Execute", MachineState.RUNNING),
    ("Stopping", MachineState.STOPPED),
    ("Aborting", MachineState.FAULTED),
    ("Aborted", MachineState.FAULTED),
    ("Holding", MachineState.STOPPED),
    ("Held", MachineState.STOPPED),
    ("Unholding", MachineState.IDLE),
    ("Suspending", MachineState.IDLE),
    ("Unsuspending", MachineState.IDLE),
    ("Resetting", MachineState.IDLE),
    ("Completing", MachineState.IDLE),
    ("Complete", MachineState.IDLE),
)
"""By number. Only Execute makes product; Suspended waits for other machines, Held for this one."""

STATE_MAP: Final[dict[str, MachineState]] = {
    spelling: state
    for number, (name, state) in enumerate(_STATES)
    for spelling in (str(number), name, name.lower(), name.upper())
}
"""By number and by name, as a state map in gateway.toml would spell it."""
