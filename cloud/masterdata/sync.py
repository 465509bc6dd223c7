"""Works what other systems say into the corrections, each row once, changed rows anew."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import structlog
from msgspec import structs

from cloud.errors import CorrectionError
from cloud.masterdata.config import MasterDataTable
from cloud.masterdata.rows import BadRow, Row, Said, read_row
from cloud.masterdata.sources import Found, from_json, source_of, to_json
from cloud.oee.corrections import Correction, check, in_force
from cloud.plant import Plant
from cloud.views import RefusedRow

_HOUR_US: Final = 3_600_000_000
_MAX_REFUSED: Final = 1_000

_log = structlog.get_logger("cloud.masterdata")


class Change(NamedTuple):
    """What a row asks for: take something back, say something, or both."""

    ref: str
    taken_back: Any
    """A Correction; of the schedule an Entry."""
    said: Any


class Outcome(NamedTuple):
    """What one look at a source brought."""

    changes: list[Change]
    bad_rows: list[BadRow]
    unchanged: int
    passed: Sequence[BadRow] = ()
    """Rows that say something of what is over for too long to be changed; they are not tried again."""

    def __str__(self) -> str:
        """Return it in a few words, '' for nothing."""
        counts = {
            "new": sum(change.taken_back is None for change in self.changes),
            "changed": sum(
                change.taken_back is not None and change.said is not None for change in self.changes
            ),
            "taken back": sum(change.said is None for change in self.changes),
            "refused": len(self.bad_rows),
            "passed by": len(self.passed),
        }
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def plan(rows: Iterable[Said | BadRow], made: Sequence[Correction], who: str) -> Outcome:
    """Return what has to be corrected so that the corrections say what the rows say. Pure.

    made: all corrections that there are; who: the source's name, which stands in its corrections
    """
    standing: dict[str, Correction] = {
        item.ref: item for item in in_force(made) if item.who == who and item.ref is not None
    }
    last = {row.ref: row for row in rows}  # of two rows of one ref the later holds
    bad_rows = [
        _staying(row) if row.ref in standing else row for row in last.values() if isinstance(row, BadRow)
    ]
    changes = []
    unchanged = 0
    for ref, row in last.items():
        if isinstance(row, BadRow):
            continue
        before = standing.get(ref)
        after = None if row.is_deleted else row.correction
        if _same(before, after):
            unchanged += 1
        else:
            changes.append(Change(ref, before, after))
    return Outcome(changes, bad_rows, unchanged)


def judged(outcome: Outcome, made: Sequence[Correction], plant: Plant, now_us: int) -> Outcome:
    """Return what may be done of an outcome, each change beside all the others that may. Pure.

    One row may make room for another. What a row said before stands, and keeps others out, until what it says
    now may be said.
    """
    refused: dict[str, BadRow] = {}
    going = outcome.changes
    while True:
        gone = {change.taken_back.number for change in going if change.taken_back is not None}
        beside = [item for item in in_force(made) if item.number not in gone]
        found: dict[str, BadRow] = {}
        for change in going:
            try:
                _check(change, made, beside, plant, now_us)
            except CorrectionError as error:
                bad = BadRow(change.ref, str(error))
                found[change.ref] = bad if change.taken_back is None else _staying(bad)
        stays = any(change.taken_back is not None and change.ref in found for change in going)
        going = [change for change in going if change.ref not in found]
        refused |= found
        if not stays:
            return outcome._replace(changes=going, bad_rows=[*outcome.bad_rows, *refused.values()])


def _check(
    change: Change, made: Sequence[Correction], beside: list[Correction], plant: Plant, now_us: int
) -> None:
    """Raise CorrectionError unless a change may be made; put what it says beside the rest."""
    if change.taken_back is not None:
        check(_void(change), made, plant, now_us=now_us)
    if change.said is not None:
        check(change.said, beside, plant, now_us=now_us)
        beside.append(change.said)


def _void(change: Change) -> Correction:
    taken: Correction = change.taken_back
    return Correction(
        machine=taken.machine,
        kind="void",
        from_us=taken.from_us,
        to_us=taken.to_us,
        who=taken.who,
        when_us=0,
        why="said otherwise" if change.said else "taken back at its source",
        voids=taken.number,
    )


def _staying(bad: BadRow) -> BadRow:
    return bad._replace(problem=f"{bad.problem}; what it said before stays in force")


def preview(table: MasterDataTable, plant: Plant, made: Sequence[Correction], now_us: int) -> Outcome:
    """Return what reading a source from its beginning would change; raise MasterDataError."""
    rows = source_of(table).read(None).rows
    outcome = plan((read_row(found.row, table, plant) for found in rows), made, table.name)
    return judged(outcome, made, plant, now_us)


class Refused(msgspec.Struct, frozen=True):
    """A row that could not be used, kept to be tried again."""

    origin: str
    row: dict[str, str]
    """By column: the value as `sources.to_json` writes it."""
    problem: str
    since_us: int


class Memory(msgspec.Struct):
    """What is remembered of one source."""

    mark: str | None = None
    """How far it was read."""
    refused: dict[str, Refused] = {}
    """By ref."""
    is_cut: bool = False
    """Whether more rows were refused than are kept: then all of the source is read again instead."""
    passed: str = ""
    """A digest of the rows that were passed by at the last run."""
    read_as: str = ""
    """What the source was asked, as a digest; '' for not known. Asked otherwise, it is read anew."""


class Notes(Protocol):
    """Where memories are kept: the store."""

    def note(self, name: str) -> bytes | None:
        """Return what is remembered under a name."""
        ...

    def set_note(self, name: str, body: bytes) -> None:
        """Remember something under a name."""
        ...


class Sync:
    """One source, worked in whenever `run` is called.

    A refused row is tried again when the plant or the corrections have changed, and once an hour.
    """

    def __init__(
        self,
        table: MasterDataTable,
        notes: Notes,
        *,
        plant: Callable[[], Plant],
        corrections: Callable[[], Sequence[Correction]],
        correct: Callable[[Correction], int],
        now_us: Callable[[], int],
    ) -> None:
        self.table = table
        self._notes = notes
        self._source = source_of(table)
        self._plant = plant
        self._corrections = corrections
        self._correct = correct
        self._now_us = now_us
        self._read_as = _digest(table)
        self._memory = remembered(notes, table.name)
        self._tried_under: object = None
        """The circumstances under which the refused rows were last tried."""

    def run(self) -> str:
        """Read what is new and work it in; return what that came to. Raises MasterDataError."""
        plant, made = self._plant(), self._corrections()
        circumstances = (plant, len(made), self._now_us() // _HOUR_US)
        is_new = circumstances != self._tried_under
        # Another one of this source, of the configuration before, may have been let finish meanwhile.
        memory = self._memory = remembered(self._notes, self.table.name)
        is_asked_anew = memory.read_as not in ("", self._read_as)
        from_start = is_asked_anew or (memory.is_cut and is_new)
        batch = self._source.read(None if from_start else memory.mark)
        kept = {ref: row for ref, row in memory.refused.items() if row.origin not in batch.whole}
        again = [_found(row) for row in kept.values()] if is_new else []
        found: dict[str, Found] = {}
        rows = []
        for item in [*again, *batch.rows]:
            row = self.read(item.row, plant)
            found[row.ref] = item
            rows.append(row)
        outcome = self.work(rows, made)
        for ref in found:
            kept.pop(ref, None)
        for bad in outcome.bad_rows:
            kept[bad.ref] = self._refused(bad, found[bad.ref])
        is_cut = len(kept) > _MAX_REFUSED
        passed = _passed(outcome.passed)
        self._keep(Memory(batch.mark, dict(list(kept.items())[:_MAX_REFUSED]), is_cut, passed, self._read_as))
        self._tried_under = circumstances
        fresh = [bad for bad in outcome.bad_rows if memory.refused.get(bad.ref) != kept.get(bad.ref)]
        is_known = passed == memory.passed
        if not is_known and outcome.passed:
            bad = outcome.passed[-1]
            _log.warning(
                "rows passed by",
                source=self.table.name,
                rows=len(outcome.passed),
                ref=bad.ref,
                why=bad.problem,
            )
        return str(outcome._replace(bad_rows=fresh, passed=() if is_known else outcome.passed))

    def refused(self) -> list[RefusedRow]:
        """Return the rows that cannot be used as things are."""
        return [
            RefusedRow(
                source=self.table.name, ref=ref, problem=row.problem, since_epochtime=row.since_us / 1e6
            )
            for ref, row in self._memory.refused.items()
        ]

    def read(self, row: Row, plant: Plant) -> Any:
        """Read one row: Said or BadRow; of a schedule Entry or BadRow."""
        return read_row(row, self.table, plant)

    def work(self, rows: Iterable[Any], made: Sequence[Correction]) -> Outcome:
        """Work rows in; return what was done and refused."""
        outcome = plan(rows, made, self.table.name)
        if any(change.taken_back is not None for change in outcome.changes):
            outcome = judged(outcome, made, self._plant(), self._now_us())
        return self._work_in(outcome)

    def _work_in(self, outcome: Outcome) -> Outcome:
        """Take back first and say then, since one row may make room for another; return what was done."""
        refused: dict[str, None] = {}
        bad_rows = list(outcome.bad_rows)
        for take in (self._take_back, self._say):
            for change in outcome.changes:
                if change.ref in refused:
                    continue
                try:
                    take(change)
                except CorrectionError as error:
                    refused[change.ref] = None
                    bad = BadRow(change.ref, str(error))
                    is_gone = take == self._say and change.taken_back is not None
                    bad_rows.append(self._said_again(change.taken_back, bad) if is_gone else bad)
        done = [change for change in outcome.changes if change.ref not in refused]
        return Outcome(done, bad_rows, outcome.unchanged)

    def _take_back(self, change: Change) -> None:
        if change.taken_back is not None:
            self._correct(_void(change))

    def _say(self, change: Change) -> None:
        if change.said is not None:
            self._correct(change.said)

    def _said_again(self, taken: Correction, bad: BadRow) -> BadRow:
        """Say again what was taken back for something that is refused only now, by what came meanwhile."""
        try:
            self._correct(structs.replace(taken, number=0, when_us=0))
        except CorrectionError as error:
            return bad._replace(problem=f"{bad.problem}; what it said before was taken back: {error}")
        return _staying(bad)

    def _refused(self, bad: BadRow, item: Found) -> Refused:
        """Return what is kept of a bad row; a problem that is a new one is logged."""
        before = self._memory.refused.get(bad.ref)
        if before is not None and before.problem == bad.problem:
            return msgspec.structs.replace(before, origin=item.origin, row=_written(item.row))
        _log.warning("row refused", source=self.table.name, ref=bad.ref, problem=bad.problem)
        return Refused(item.origin, _written(item.row), bad.problem, self._now_us())

    def _keep(self, memory: Memory) -> None:
        if memory != self._memory:
            self._notes.set_note(_note_name(self.table.name), msgspec.json.encode(memory))
            self._memory = memory


def remembered(notes: Notes, source: str) -> Memory:
    """Return what is remembered of a source."""
    body = notes.note(_note_name(source))
    return Memory() if body is None else msgspec.json.decode(body, type=Memory)


def _passed(rows: Sequence[BadRow]) -> str:
    said = "\n".join(sorted(row.ref for row in rows))
    return hashlib.sha256(said.encode()).hexdigest()[:16] if rows else ""


def _digest(table: MasterDataTable) -> str:
    said = table.model_dump_json(exclude={"interval_secs", "overlap", "url"})
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _note_name(source: str) -> str:
    return f"masterdata:{source}"


def _written(row: Row) -> dict[str, str]:
    return {str(column): to_json(value) for column, value in row.items()}


def _found(refused: Refused) -> Found:
    return Found(refused.origin, {column: from_json(value) for column, value in refused.row.items()})


def _same(before: Correction | None, after: Correction | None) -> bool:
    if before is None or after is None:
        return before is after
    return structs.replace(before, number=0, when_us=0) == structs.replace(after, number=0, when_us=0)
