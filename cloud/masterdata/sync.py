"""Works what other systems say into the corrections, each row once, changed rows anew."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog
from msgspec import structs

from cloud.errors import CorrectionError, MasterDataError
from cloud.masterdata.config import MasterDataTable
from cloud.masterdata.rows import BadRow, Said, read_row
from cloud.masterdata.sources import source_of
from cloud.oee.corrections import Correction, in_force
from cloud.plant import Plant

_log = structlog.get_logger("cloud.masterdata")


class Change(NamedTuple):
    """What a row asks for: take something back, say something, or both."""

    ref: str
    taken_back: Correction | None
    said: Correction | None


class Outcome(NamedTuple):
    """What one look at a source brought."""

    changes: list[Change]
    bad_rows: list[BadRow]
    unchanged: int

    def __str__(self) -> str:
        """Return it in a few words, '' for nothing."""
        counts = {
            "new": sum(change.taken_back is None for change in self.changes),
            "changed": sum(
                change.taken_back is not None and change.said is not None for change in self.changes
            ),
            "taken back": sum(change.said is None for change in self.changes),
            "refused": len(self.bad_rows),
        }
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def plan(rows: Iterable[Said | BadRow], made: Sequence[Correction], who: str) -> Outcome:
    """Return what has to be corrected so that the corrections say what the rows say. Pure.

    made: all corrections that there are; who: the source's name, which stands in its corrections
    """
    standing: dict[str, Correction] = {
        item.ref: item for item in in_force(made) if item.who == who and item.ref is not None
    }
    wanted: dict[str, Said] = {}
    bad_rows: list[BadRow] = []
    for row in rows:
        if isinstance(row, BadRow):
            bad_rows.append(row)
        else:
            wanted[row.ref] = row  # of two rows of one ref the later holds
    changes = []
    unchanged = 0
    for ref, row in wanted.items():
        before = standing.get(ref)
        after = None if row.is_deleted else row.correction
        if _same(before, after):
            unchanged += 1
        else:
            changes.append(Change(ref, before, after))
    return Outcome(changes, bad_rows, unchanged)


def preview(table: MasterDataTable, plant: Plant, made: Sequence[Correction]) -> Outcome:
    """Return what reading a source from its beginning would change; raise MasterDataError."""
    rows = source_of(table).read(None).rows
    return plan((read_row(row, table, plant) for row in rows), made, table.name)


class Sync:
    """One source, worked in whenever `run` is called."""

    def __init__(
        self,
        table: MasterDataTable,
        marks: "Marks",
        *,
        plant: Callable[[], Plant],
        corrections: Callable[[], Sequence[Correction]],
        correct: Callable[[Correction], int],
    ) -> None:
        self.table = table
        self._marks = marks
        self._source = source_of(table)
        self._plant = plant
        self._corrections = corrections
        self._correct = correct
        self._told: dict[str, str] = {}

    def run(self) -> str:
        """Read what is new and work it in; return what that came to. Raises MasterDataError."""
        batch = self._source.read(self._marks.get(self.table.name))
        plant = self._plant()
        rows = [read_row(row, self.table, plant) for row in batch.rows]
        outcome = plan(rows, self._corrections(), self.table.name)
        refused = [bad for change in outcome.changes if (bad := self._work_in(change)) is not None]
        self._tell([*outcome.bad_rows, *refused])
        self._marks.set(self.table.name, batch.mark)
        done = [change for change in outcome.changes if change.ref not in {bad.ref for bad in refused}]
        return str(Outcome(done, [*outcome.bad_rows, *refused], outcome.unchanged))

    def _work_in(self, change: Change) -> BadRow | None:
        try:
            if change.taken_back is not None:
                taken = change.taken_back
                self._correct(
                    Correction(
                        machine=taken.machine,
                        kind="void",
                        from_us=taken.from_us,
                        to_us=taken.to_us,
                        who=self.table.name,
                        when_us=0,
                        why="said otherwise" if change.said else "taken back at its source",
                        voids=taken.number,
                    )
                )
            if change.said is not None:
                self._correct(change.said)
        except CorrectionError as error:
            return BadRow(change.ref, str(error))
        return None

    def _tell(self, bad_rows: Sequence[BadRow]) -> None:
        """Log each bad row once, until its problem is another one."""
        for row in bad_rows:
            if self._told.get(row.ref) != row.problem:
                self._told[row.ref] = row.problem
                _log.warning("row refused", source=self.table.name, ref=row.ref, problem=row.problem)


class Marks:
    """How far each source was read, in a file of its own: losing it only has everything read once more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marks: dict[str, str] = self._load()

    def get(self, name: str) -> str | None:
        """Return a source's mark."""
        return self._marks.get(name)

    def set(self, name: str, mark: str) -> None:
        """Keep a source's mark; raise MasterDataError when the file cannot be written."""
        if self._marks.get(name) == mark:
            return
        self._marks[name] = mark
        beside = self._path.with_suffix(".new")
        try:
            beside.write_text(json.dumps(self._marks), encoding="utf-8")
            os.replace(beside, self._path)  # noqa: PTH105  atomic also over an old file
        except OSError as error:
            raise MasterDataError(f"{self._path}: cannot be written: {error.strerror or error}") from error

    def _load(self) -> dict[str, str]:
        try:
            found: Mapping[str, str] = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return dict(found)


def _same(before: Correction | None, after: Correction | None) -> bool:
    if before is None or after is None:
        return before is after
    return structs.replace(before, number=0, when_us=0) == structs.replace(after, number=0, when_us=0)
