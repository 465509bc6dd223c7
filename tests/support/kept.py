"""What the cloud side has stored of a trial, for those who hold it against the truth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cloud.store.parquet import History
from cloud.store.rows import ABSENT, QUALITIES, reason_code
from cloud.store.tiers import TieredStore
from cloud.views import AlertView
from contract.states import STATES_BY_CODE

US = 1_000_000
_FOR_EVER_US = 2**62


class Shown(NamedTuple):
    """What a machine's tags tell at an instant; None for all where they are bad."""

    state: str | None
    total_units: int | None
    off_quality_units: int | None
    reason_code: int | str | None
    product: str | None


class Stored(NamedTuple):
    """One record of the store; a gap tells until when it goes and why."""

    machine: str
    at_us: int
    shown: Shown
    gateway: str
    sequence: int
    quality: str
    gap_until_us: int | None = None
    cause: str = ""


def read_store(path: Path) -> list[Stored]:
    """Return all records and gaps of a store that nobody writes to."""
    store = _opened(path)
    try:
        numbers = range(len(store.names.all("machine")))
        table = store.read_table(numbers, 0, _FOR_EVER_US)
        return [_stored(store, row, table.rest) for row in table.rows]
    finally:
        store.close()


def read_closed_shifts(path: Path) -> list[dict[str, Any]]:
    """Return the figures of every closed shift of a machine, as the cloud side stored them last."""
    store = _opened(path)
    try:
        return [
            closed.revision.figures
            for machine in store.names.all("machine")
            for closed in store.closed_between("/".join(machine), 0, _FOR_EVER_US)
        ]
    finally:
        store.close()


def read_revisions(path: Path) -> dict[tuple[str, int], int]:
    """Return the number of the newest revision of each closed shift of a machine, by it and its beginning."""
    store = _opened(path)
    try:
        return {
            (closed.scope, closed.start_us): closed.revision.revision
            for machine in store.names.all("machine")
            for closed in store.closed_between("/".join(machine), 0, _FOR_EVER_US)
        }
    finally:
        store.close()


def read_alerts(path: Path) -> list[AlertView]:
    """Return all alerts of a store, newest first."""
    store = _opened(path)
    try:
        return store.alerts(open_only=False, limit=100_000)
    finally:
        store.close()


def count_dead_letters(path: Path) -> int:
    """Return how many messages a store refused."""
    store = _opened(path)
    try:
        return store.dead_letter_count()
    finally:
        store.close()


def _opened(path: Path) -> TieredStore:
    """Open a store with its history: a service whose clock was turned has moved the present there."""
    return TieredStore(path, History(path.with_name("history")))


def _stored(store: TieredStore, row: Any, rests: Mapping[tuple[int, int], Mapping[str, Any]]) -> Stored:
    _, _, line, machine = store.names.name("machine", int(row["machine"]))
    gateway = int(row["gateway"])
    rest = rests.get((gateway, int(row["sequence"])), {})

    def text(number: int) -> Any:
        return None if number == ABSENT else store.names.name("text", number)

    def count(number: int) -> int | None:
        return None if number == ABSENT else number

    reason = text(int(row["reason"]))
    return Stored(
        machine=f"{line}/{machine}",
        at_us=int(row["time_us"]),
        shown=Shown(
            state=str(STATES_BY_CODE[int(row["state"])].value),
            total_units=count(int(row["total_units"])),
            off_quality_units=count(int(row["off_quality_units"])),
            reason_code=None if reason is None else reason_code(reason),
            product=text(int(row["product"])),
        ),
        gateway=store.names.name("gateway", gateway)[1],
        sequence=int(row["sequence"]),
        quality=QUALITIES[int(row["quality"])],
        gap_until_us=round(rest["to_epochtime"] * US) if row["is_gap"] else None,
        cause=str(rest.get("cause", "")),
    )
