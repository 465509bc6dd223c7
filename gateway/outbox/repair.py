"""A damaged outbox: what is put aside of it, and what a new one takes over."""

import contextlib
from itertools import islice
from pathlib import Path
from typing import Final

from gateway.outbox.database import Database
from gateway.outbox.salvage import Wreck
from gateway.outbox.waiting import Waiting

_ROWS_AT_ONCE: Final = 1_000


def put_aside(path: Path, stamp_us: int) -> Path:
    """Give a damaged file and its log other names, and return the file's."""
    aside = path.with_name(f"outbox.damaged-{stamp_us}.sqlite")
    for suffix in ("", "-wal", "-shm"):
        damaged = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError):
            damaged.rename(aside.with_name(aside.name + suffix))
    return aside


def keep_pack(folder: Path, stamp_us: int, content: bytes) -> str | None:
    """Write a damaged pack to a file of its own and return the name of it; None where the disk takes none."""
    aside = folder / f"outbox.damaged-{stamp_us}.pack"
    try:
        aside.write_bytes(content)
    except OSError:
        aside.unlink(missing_ok=True)
        return None
    return aside.name


def count_aside(folder: Path) -> int:
    """Return how many damaged files and packs lie in a folder."""
    return sum(1 for form in ("sqlite", "pack") for _ in folder.glob(f"outbox.damaged-*.{form}"))


def take_over(aside: Path, database: Database, waiting: Waiting) -> int:
    """Store what can be read of a damaged file in an empty one, under the sequences that it has.

    Return how many records that are. Whoever calls has begun a transaction.
    """
    standing = database.standing
    with contextlib.closing(Wreck(aside)) as wreck:
        database.adopt_topics(wreck.topics)
        top = -1
        for pack in wreck.packs():
            waiting.packs.adopt(pack.run, pack.rank, pack.content, pack.columns)
            top = max(top, *pack.columns.sequences)
        rows = wreck.rows(above=top)
        while some := list(islice(rows, _ROWS_AT_ONCE)):
            waiting.insert(some)
            top = max(top, *(row.sequence for row in some))
    standing.next = max(standing.next, top + 1)
    return standing.records
