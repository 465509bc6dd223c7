"""The product with a fault built in: `python -m tests.chaos.mutants NAME gateway run ...` in place of `oee`.

Each must be caught by the judge; one that is not shows that the judge is blind there.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

_EVERY: Final = 25
_LATE_SECS: Final = 2.5


def _among_drafts(change: Callable[[list[Any], int], list[Any]]) -> None:
    """Let the outbox get other drafts than were made: `change` is given one change of state in many."""
    from gateway.outbox.sqlite import SqliteOutbox
    from gateway.telemetry_draft import TelemetryDraft

    real = SqliteOutbox.append
    seen = 0

    def append(
        self: SqliteOutbox, drafts: Sequence[Any], checkpoints: Mapping[str, bytes] | None = None
    ) -> Any:
        nonlocal seen
        changed = list(drafts)
        for place in reversed(range(len(changed))):
            if isinstance(changed[place], TelemetryDraft) and changed[place].kind == "state":
                seen += 1
                if seen % _EVERY == 0:
                    changed = change(changed, place)
        return real(self, changed, checkpoints)

    SqliteOutbox.append = append  # type: ignore[method-assign]


def lose() -> None:
    """Lose a change of state now and then."""
    _among_drafts(lambda drafts, place: [*drafts[:place], *drafts[place + 1 :]])


def double() -> None:
    """Tell a change of state twice, as two records."""
    _among_drafts(lambda drafts, place: [*drafts[: place + 1], *drafts[place:]])


def reorder() -> None:
    """Tell what a machine showed at one instant as of another."""

    def earlier(drafts: list[Any], place: int) -> list[Any]:
        late = replace(drafts[place], epoch_us=drafts[place].epoch_us - 1_500_000)
        return [*drafts[:place], late, *drafts[place + 1 :]]

    _among_drafts(earlier)


def invent() -> None:
    """Tell of a change that never was."""

    def add(drafts: list[Any], place: int) -> list[Any]:
        known = drafts[place]
        total = (known.fields.total_units or 0) + 7
        made_up = replace(
            known, epoch_us=known.epoch_us + 50_000, fields=known.fields._replace(total_units=total)
        )
        return [*drafts[: place + 1], made_up, *drafts[place + 1 :]]

    _among_drafts(add)


def miscount() -> None:
    """Count one unit too many in a record now and then."""

    def add(drafts: list[Any], place: int) -> list[Any]:
        known = drafts[place]
        fields = known.fields._replace(total_units=(known.fields.total_units or 0) + 1)
        return [*drafts[:place], replace(known, fields=fields), *drafts[place + 1 :]]

    _among_drafts(add)


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


def misjudge() -> None:
    """Close each shift with one unit too many."""
    from cloud.closing import Closing

    real = Closing._revision

    def revision(self: Closing, *arguments: Any) -> Any:
        made = real(self, *arguments)
        if made is not None:
            made.revision.figures["total_units"] += 1
        return made

    Closing._revision = revision  # type: ignore[method-assign]


MUTANTS: Final[dict[str, Callable[[], None]]] = {
    "lose": lose,
    "double": double,
    "reorder": reorder,
    "invent": invent,
    "miscount": miscount,
    "acknowledge-to-the-plc-early": acknowledge_to_the_plc_early,
    "acknowledge-to-the-gateway-early": acknowledge_to_the_gateway_early,
    "misjudge": misjudge,
}

if __name__ == "__main__":
    MUTANTS[sys.argv.pop(1)]()
    from oee.__main__ import main

    main()
