"""Schedules that once failed, kept whole, so that they can be played again whatever seeds mean by then."""

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tests.chaos.schedule import Schedule

FILE: Final = Path(__file__).with_name("once_failed.jsonl")


class OnceFailed(Struct, frozen=True, kw_only=True):
    """A schedule that was played and found wrong.

    found: the day
    cause: what was wrong, and where
    was_judge: the product was right, and its judge was wrong
    mended: the subject of the commit that mended it
    """

    found: str
    cause: str
    was_judge: bool = False
    mended: str
    schedule: Schedule


def once_failed() -> list[OnceFailed]:
    """Return all, oldest first."""
    return [msgspec.json.decode(line, type=OnceFailed) for line in FILE.read_bytes().splitlines() if line]
