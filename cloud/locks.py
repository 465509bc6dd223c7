"""Locks the past: which shifts keep their figures for good, by lock_after_days or without their records.

A shift is locked so many days after it ended, but never sooner than so many days after it was closed: what
waited on the edge while this side was down is not late through any fault of its own. Records of a locked time
that arrive are stored apart, listed, and in no figure, until the configuration says otherwise. Likewise those
of shifts whose other records have left the history: figures of what is left would be wrong.
"""

from datetime import UTC, date, datetime, time
from typing import Final

from cloud.plant import Machine, Plant
from cloud.store.port import Store

_DAY_US: Final = 86_400_000_000
_LOOK_BACK_DAYS: Final = (8, 400)
"""How far before the lock a closed shift is looked for: over a week, over a year's rest."""


def forget_before(store: Store, site: str, before: date) -> None:
    """Note that the records of a site's days (UTC) before a date go: said before they do."""
    store.set_note(_note_name(site), before.isoformat().encode())


def forgotten_before(store: Store, site: str) -> date | None:
    """Return the first day (UTC) whose records were kept; None when none ever went."""
    body = store.note(_note_name(site))
    return None if body is None else date.fromisoformat(body.decode())


def forgotten_before_us(store: Store, machine: Machine) -> int | None:
    """Return the end of the last closed shift of a machine that lacks records by now; None when none does."""
    before = forgotten_before(store, machine.site.name)
    if before is None:
        return None
    before_us = round(datetime.combine(before, time.min, UTC).timestamp() * 1e6)
    for days in _LOOK_BACK_DAYS:
        if shifts := store.closed_between(str(machine.key), before_us - days * _DAY_US, before_us):
            return shifts[-1].end_us
    return None


def locked_before_us(store: Store, machine: Machine, now_us: int) -> int | None:
    """Return the end of the last locked shift of a machine; None when none is."""
    ends = (_locked_by_time(store, machine, now_us), forgotten_before_us(store, machine))
    return max((end_us for end_us in ends if end_us is not None), default=None)


def _note_name(site: str) -> str:
    return f"forgotten:{site}"


def _locked_by_time(store: Store, machine: Machine, now_us: int) -> int | None:
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
