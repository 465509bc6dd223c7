"""Reads what can still be read of a damaged outbox file."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.outbox.port import KINDS

MAX_RECORDS: Final = 200_000
"""From each end; more would keep a start waiting."""


class Salvaged(NamedTuple):
    """One record of a damaged file, found whole."""

    sequence: int
    epoch_us: int
    kind: int
    topic: str
    payload: bytes


class _Numbered(msgspec.Struct):
    sequence: int


_NUMBERED: Final = msgspec.json.Decoder(_Numbered)


def salvage(path: Path) -> dict[int, Salvaged]:
    """Return the records by sequence, read from both ends up to where the damage begins.

    A record counts as whole when its payload is JSON that tells the sequence it is stored under.
    """
    found: dict[int, Salvaged] = {}
    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            names: dict[int, str] = dict(connection.execute("SELECT id, topic FROM topics"))
            for direction in ("ASC", "DESC"):
                with contextlib.suppress(sqlite3.Error):
                    for record in _read(connection, names, direction):
                        found[record.sequence] = record
        finally:
            connection.close()
    return found


def _read(connection: sqlite3.Connection, names: dict[int, str], direction: str) -> Iterator[Salvaged]:
    rows = connection.execute(
        "SELECT sequence, epoch_us, kind, topic, payload FROM records"  # noqa: S608 - words of our own
        f" ORDER BY sequence {direction} LIMIT {MAX_RECORDS}"
    )
    for sequence, epoch_us, kind, topic, payload in rows:
        whole = (
            isinstance(epoch_us, int)
            and isinstance(payload, bytes)
            and topic in names
            and kind in range(len(KINDS))
        )
        if whole and _tells(payload, sequence):
            yield Salvaged(sequence, epoch_us, kind, names[topic], payload)


def _tells(payload: bytes, sequence: int) -> bool:
    try:
        return _NUMBERED.decode(payload).sequence == sequence
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
