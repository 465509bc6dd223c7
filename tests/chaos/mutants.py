"""The product with faults built in: `python -m tests.chaos.mutants NAME gateway run ...` in place of `oee`.

Each must be caught by the judge; one that is not shows that the judge is blind there. What a product may do
wrong with any machine is done in one process, with each machine another fault (ERRORS), so that the judge has
to find each of them, at its machine, and nothing at the machines that are left alone.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from tests.chaos.schedule import IDLE_ALERT_SECS

_EVERY: Final = 25
_LATE_SECS: Final = 2.5
_ALERT_LATE_SECS: Final = 7.0
"""So long after its threshold an alert comes that is too late: 5 s are promised."""

ERRORS: Final = {
    "filler-1": "lose",
    "capper-1": "double",
    "labeller-1": "reorder",
    "packer-1": "invent",
    "filler-2": "miscount",
    "capper-2": "misjudge",
    "filler-3": "raise twice",
    "capper-3": "never raise",
    "labeller-3": "raise late",
    "packer-3": "never clear",
}
"""Which error is made with which machine: of its records, its closed shifts, or its alerts."""

Drafts = list[Any]


def _lose(drafts: Drafts, place: int) -> Drafts:
    """Lose a change of state."""
    return [*drafts[:place], *drafts[place + 1 :]]


def _double(drafts: Drafts, place: int) -> Drafts:
    """Tell a change of state twice, as two records."""
    return [*drafts[: place + 1], *drafts[place:]]


def _reorder(drafts: Drafts, place: int) -> Drafts:
    """Tell what a machine showed at one instant as of another."""
    late = replace(drafts[place], epoch_us=drafts[place].epoch_us - 1_500_000)
    return [*drafts[:place], late, *drafts[place + 1 :]]


def _invent(drafts: Drafts, place: int) -> Drafts:
    """Tell of a change that never was."""
    known = drafts[place]
    fields = known.fields._replace(total_units=(known.fields.total_units or 0) + 7)
    made_up = replace(known, epoch_us=known.epoch_us + 50_000, fields=fields)
    return [*drafts[: place + 1], made_up, *drafts[place + 1 :]]


def _miscount(drafts: Drafts, place: int) -> Drafts:
    """Count one unit too many in a record."""
    known = drafts[place]
    fields = known.fields._replace(total_units=(known.fields.total_units or 0) + 1)
    return [*drafts[:place], replace(known, fields=fields), *drafts[place + 1 :]]


_OF_RECORDS: Final[dict[str, Callable[[Drafts, int], Drafts]]] = {
    "lose": _lose,
    "double": _double,
    "reorder": _reorder,
    "invent": _invent,
    "miscount": _miscount,
}


def err_with_records() -> None:
    """Give the outbox other drafts than were made: now and then a change of state is treated wrongly."""
    from gateway.outbox.sqlite import SqliteOutbox
    from gateway.telemetry_draft import TelemetryDraft

    real = SqliteOutbox.append
    seen: Counter[str] = Counter()

    def append(
        self: SqliteOutbox, drafts: Sequence[Any], checkpoints: Mapping[str, bytes] | None = None
    ) -> Any:
        changed = list(drafts)
        for place in reversed(range(len(changed))):
            draft = changed[place]
            if not isinstance(draft, TelemetryDraft) or draft.kind != "state":
                continue
            change = _OF_RECORDS.get(ERRORS.get(draft.machine.machine, ""))
            seen[draft.machine.machine] += 1
            if change is not None and seen[draft.machine.machine] % _EVERY == 0:
                changed = change(changed, place)
        return real(self, changed, checkpoints)

    SqliteOutbox.append = append  # type: ignore[method-assign]


def err_with_closed_shifts() -> None:
    """Close each shift with one unit too many."""
    from cloud.closing import Closing

    real = Closing._revision

    def revision(self: Closing, row: Any, *arguments: Any) -> Any:
        made = real(self, row, *arguments)
        if made is not None and ERRORS.get(row.place[-1] or "") == "misjudge":
            made.revision.figures["total_units"] += 1
        return made

    Closing._revision = revision  # type: ignore[method-assign]


def err_with_alerts() -> None:
    """Raise alerts twice, never or late, or never clear them."""
    from cloud.alerts import life

    real = life.step

    def misdone(change: life.Change, now_us: int) -> list[life.Change]:
        alert = change.alert
        stood_secs = now_us / 1e6 - alert.since_epochtime
        match ERRORS.get(alert.machine or ""), change.event:
            case "raise twice", "raised":
                return [change, change._replace(alert=replace(alert, id=f"{alert.id}-again"))]
            case "never raise", "raised":
                return []
            case "raise late", "raised" if stood_secs < IDLE_ALERT_SECS + _ALERT_LATE_SECS:
                return []
            case "never clear", "cleared":
                return []
        return [change]

    def step(*arguments: Any, now_us: int, **options: Any) -> list[life.Change]:
        right = real(*arguments, now_us=now_us, **options)
        return [wrong for change in right for wrong in misdone(change, now_us)]

    life.step = step


def err_machine_by_machine() -> None:
    """Err with each machine in its own way."""
    if sys.argv[1] == "gateway":
        err_with_records()
    else:
        err_with_closed_shifts()
        err_with_alerts()


def acknowledge_to_the_plc_early() -> None:
    """Acknowledge notifications to the PLC seconds before their records are on disk."""
    from gateway.outbox.sqlite import SqliteOutbox

    real = SqliteOutbox.append
    waiting: list[tuple[float, list[Any], Mapping[str, bytes]]] = []

    def append(
        self: SqliteOutbox, drafts: Sequence[Any], checkpoints: Mapping[str, bytes] | None = None
    ) -> Any:
        waiting.append((time.monotonic() + _LATE_SECS, list(drafts), dict(checkpoints or {})))
        last = None
        while waiting and waiting[0][0] <= time.monotonic():
            _, due, known = waiting.pop(0)
            last = real(self, due, known)
        return last

    SqliteOutbox.append = append  # type: ignore[method-assign]


def acknowledge_to_the_gateway_early() -> None:
    """Send receipts seconds before what they are for is in the store."""
    from cloud.store.sqlite import SqliteStore

    real = SqliteStore.append
    shadows: dict[int, SqliteStore] = {}
    waiting: list[tuple[float, Any]] = []

    def append(self: SqliteStore, arrivals: Any) -> Any:
        if id(self) not in shadows:
            folder = self._path.parent / "shadow"
            folder.mkdir(exist_ok=True)
            shadows[id(self)] = SqliteStore(folder / "store.sqlite3")
        waiting.append((time.monotonic() + _LATE_SECS, arrivals))
        while waiting and waiting[0][0] <= time.monotonic():
            real(self, waiting.pop(0)[1])
        appended = real(shadows[id(self)], arrivals)
        return appended._replace(fresh=appended.fresh[:0])  # the shadow numbers names in its own way

    SqliteStore.append = append  # type: ignore[method-assign]


MUTANTS: Final[dict[str, Callable[[], None]]] = {
    "err-machine-by-machine": err_machine_by_machine,
    "acknowledge-to-the-plc-early": acknowledge_to_the_plc_early,
    "acknowledge-to-the-gateway-early": acknowledge_to_the_gateway_early,
}

if __name__ == "__main__":
    MUTANTS[sys.argv.pop(1)]()
    from oee.__main__ import main

    main()
