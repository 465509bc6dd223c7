"""Rows of one machine and one hour as blobs, and back."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from cloud.store import rows as row_format
from cloud.store.rows import ROW, US_PER_HOUR, Rest, Rows, Table


class Chunk(NamedTuple):
    """Rows of one machine and hour."""

    machine: int
    hour: int
    rows: bytes
    rest: bytes | None

    @property
    def first_us(self) -> int:
        """Return the moment of the first row [us since 1970]."""
        return int(np.frombuffer(self.rows, dtype=ROW, count=1)["time_us"][0])


def chunks_of(rows: Rows, rest: dict[tuple[int, int], Rest]) -> list[Chunk]:
    """Return rows, which stand by machine and time, as one chunk per machine and hour."""
    if not len(rows):
        return []
    hours = rows["time_us"] // US_PER_HOUR
    breaks = np.flatnonzero((np.diff(rows["machine"]) != 0) | (np.diff(hours) != 0)) + 1
    starts = [0, *breaks.tolist()]
    ends = [*breaks.tolist(), len(rows)]
    return [
        Chunk(
            int(rows["machine"][start]),
            int(hours[start]),
            rows[start:end].tobytes(),
            rest_of(rows[start:end], rest) if rest else None,
        )
        for start, end in zip(starts, ends, strict=True)
    ]


def joined(chunks: Iterable[tuple[bytes, bytes | None]]) -> Table:
    """Return the rows of chunks one after the other."""
    chunks = list(chunks)
    rest: dict[tuple[int, int], Rest] = {}
    for _, body in chunks:
        if body is not None:
            for gateway, sequence, more in row_format.decode_rest(body):
                rest[gateway, sequence] = more
    return Table(np.frombuffer(b"".join(rows for rows, _ in chunks), dtype=ROW), rest)


def rest_of(rows: Rows, rest: dict[tuple[int, int], Rest]) -> bytes | None:
    """Return what some rows hold beyond columns, as JSON; None where none does."""
    keys = zip(rows["gateway"].tolist(), rows["sequence"].tolist(), strict=True)
    found = [(*key, rest[key]) for key in keys if key in rest]
    return row_format.encode_rest(found) if found else None
