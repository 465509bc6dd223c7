"""Reads telemetry files: JSON lines, plain or gzip, of telemetry, arrays of it, and gaps."""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from cloud.errors import TelemetryFileError
from contract import strict
from contract.delivery import Gap, decode
from contract.telemetry import MAX_MESSAGE_BYTES, Refusal, Telemetry, decode_many, decode_one

BATCH_LINES: Final = 5_000
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GAP_KEY: Final = b'"from_epochtime"'


class BadLine(NamedTuple):
    """A line that may not be used."""

    file: str
    """As it was named to us."""
    line: int
    """From 1."""
    reason: str
    text: bytes

    def __str__(self) -> str:
        """Return `file:line: reason`."""
        return f"{self.file}:{self.line}: {self.reason}"


class Batch(NamedTuple):
    """What some lines of a file hold."""

    records: list[Telemetry]
    gaps: list[Gap]
    bad_lines: list[BadLine]
    read_bytes: int
    """How far the file is read, of its size on disk."""


def read(
    path: Path, batch_lines: int = BATCH_LINES, *, latest_epochtime: float = float("inf")
) -> Iterator[Batch]:
    """Yield what a file holds, batch by batch; raise TelemetryFileError when it cannot be read.

    latest_epochtime: [s since 1970] later records are refused
    """
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == _GZIP_MAGIC
            lines = _lines(gzip.GzipFile(fileobj=raw) if packed else raw)
            number = 1
            while batch := list(islice(lines, batch_lines)):
                records, gaps, bad = _decode(batch, number, str(path), latest_epochtime)
                yield Batch(records, gaps, bad, raw.tell())
                number += len(batch)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TelemetryFileError(f"{path}: cannot be read: {reason}") from error


def _lines(stream: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    """Yield lines, none longer than is needed to refuse it."""
    while line := stream.readline(MAX_MESSAGE_BYTES + 2):
        yield line
        while line and not line.endswith(b"\n") and len(line) > MAX_MESSAGE_BYTES:
            line = stream.readline(MAX_MESSAGE_BYTES + 2)


def _decode(
    lines: Sequence[bytes], first_line: int, file: str, latest_epochtime: float
) -> tuple[list[Telemetry], list[Gap], list[BadLine]]:
    stripped = [line.strip() for line in lines]
    items = _all_telemetry(stripped)
    if items is not None and all(item.epochtime <= latest_epochtime for item in items):
        return items, [], []
    records: list[Telemetry] = []
    gaps: list[Gap] = []
    bad: list[BadLine] = []
    for number, text in enumerate(stripped, first_line):
        if not text:
            continue
        for item in _items(text):
            match item:
                case Telemetry(epochtime=at) | Gap(to_epochtime=at) if at > latest_epochtime:
                    bad.append(BadLine(file, number, f"{at} is in the future", text))
                case Telemetry() as record:
                    records.append(record)
                case Gap() as gap:
                    gaps.append(gap)
                case Refusal(reason, part):
                    bad.append(BadLine(file, number, reason, part))
    return records, gaps, bad


def _all_telemetry(lines: Iterable[bytes]) -> list[Telemetry] | None:
    """Read lines at once; None when any is not telemetry, or lines run into each other."""
    texts = [line for line in lines if line]
    if not all(map(_looks_whole, texts)):
        return None
    items = decode_many(b"[" + b",".join(texts) + b"]")
    records = [item for item in items if isinstance(item, Telemetry)]
    return records if len(records) == len(items) == len(texts) else None


def _looks_whole(text: bytes) -> bool:
    return text.startswith(b"{") and text.endswith(b"}") and len(text) <= MAX_MESSAGE_BYTES


def _items(text: bytes) -> Sequence[Telemetry | Gap | Refusal]:
    if len(text) > MAX_MESSAGE_BYTES:
        return [Refusal(f"more than {MAX_MESSAGE_BYTES} bytes", text)]
    if text.startswith(b"["):
        return decode_many(text)
    item = decode_one(text)
    if isinstance(item, Refusal) and _GAP_KEY in text:
        try:
            return [decode(text, Gap)]
        except ValueError as error:
            return [Refusal(strict.reason(error), text)]
    return [item]
