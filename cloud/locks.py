"""Locks the past: which shifts keep their figures for good, by lock_after_days.

A shift is locked so many days after it ended, but never sooner than so many days after it was closed: what
waited on the edge while this side was down is not late through any fault of its own. Records of a locked time
that arrive are stored apart, listed, and in no figure, until the configuration says otherwise.
"""

from typing import Final

from cloud.plant import Machine, Plant
from cloud.store.port import Store

_DAY_US: Final = 86_400_000_000
_LOOK_BACK_DAYS: Final = (8, 400)
"""How far before the lock a closed shift is looked for: over a week, over a year's rest."""


def locked_before_us(store: Store, machine: Machine, now_us: int) -> int | None:
    """Return the end of the last locked shift of a machine; None when none is."""
    lock_us = machine.definitions.lock_after_days * _DAY_US
    if not lock_us:
        return None
    for days in _LOOK_BACK_DAYS:
        shifts = store.closed_between(str(machine.key), now_us - lock_us - days * _DAY_US, now_us - lock_us)
        for shift in reversed(shifts):
            if shift.end_us + lock_us <= now_us:
                closed_us = round(store.closed(shift.scope, shift.start_us)[0].made_epochtime * 1e6)
                if closed_us + lock_us <= now_us:
                    return shift.end_us
    return None


def lock(store: Store, plant: Plant, now_us: int) -> int:
    """Let the store keep apart what arrives for locked time from now on; return how much counts again.

    What was kept apart of a time that is no longer locked, by another lock_after_days, goes where it belongs.
    """
    counts_again = 0
    for key, machine in plant.machines.items():
        number = store.names.find("machine", tuple(key))
        if number >= 0:
            before_us = locked_before_us(store, machine, now_us)
            counts_again += store.lock(number, before_us, now_us)
    return counts_again
