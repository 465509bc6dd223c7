"""Reports of what is over: each period of each place once, and again after a revision where that is wanted.

What is due follows from the closed shifts and from a note of what was made, which is kept in one transaction
with the letters: no restart, late record or set clock makes one twice or leaves one out.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec
import structlog

from cloud.errors import ResultsError
from cloud.plant import Plant
from cloud.postbox import Attachment
from cloud.results import letters
from cloud.results.config import Format, ReportTable, is_in
from cloud.results.letters import Letter
from cloud.results.periods import Period, is_closed, periods, scopes
from cloud.store.port import Store

_DAY_US: Final = 86_400_000_000
_LOOK_AGAIN_US: Final = 600_000_000
"""How often to look although nothing was closed: a clock may have been set."""

_log = structlog.get_logger("cloud.results.reports")


class Printed(NamedTuple):
    """A report as it is mailed and filed."""

    title: str
    html: str
    files: Sequence[Attachment]


class Print(Protocol):
    """Makes reports; the pages' side does."""

    def __call__(self, period: Period, formats: Sequence[Format], *, edition: int) -> Printed:
        """Return the report of a period; raise ResultsError when it cannot be made.

        edition: how often it was made before, and one: from 2 on it is a revised one
        """
        ...


class Made(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of a report that was made."""

    revisions: int
    """How many revisions of its shifts there were."""
    edition: int
    made_us: int
    end_us: int


class Memory(msgspec.Struct):
    """What is remembered of all reports of one table."""

    since_us: int
    """Periods that ended before are none of its business."""
    made: dict[str, Made] = {}


class Reports:
    """The reports of one table."""

    def __init__(
        self,
        table: ReportTable,
        store: Store,
        *,
        plant: Callable[[], Plant],
        printer: Print,
        now_us: Callable[[], int],
    ) -> None:
        self.table = table
        self._store = store
        self._plant = plant
        self._print = printer
        self._now_us = now_us
        self._note = f"report:{table.name}"
        self._looked_at: object = None
        """What there was when nothing was left to do."""
        self._changed: dict[str, tuple[int, int]] = {}
        """By period: the number of revisions, and since when it is that number [us]."""

    def run(self) -> str:
        """Make what is due; return what that was, '' for nothing; raise ResultsError when one cannot be."""
        plant = self._plant()
        state = (self._store.closed_end(), plant, self._now_us() // _LOOK_AGAIN_US)
        if state == self._looked_at:
            return ""
        made, waiting, faults = [], False, []
        for period in self._over(plant):
            memory = self._memory()
            edition = self._edition(plant, period, memory.made.get(period.key))
            if edition is None:
                waiting = waiting or period.key in self._changed
                continue
            try:
                self._make(plant, period, edition, memory)
            except (ResultsError, OSError) as error:
                faults.append(str(error))
            else:
                made.append(f"{period.key} edition {edition}" if edition > 1 else period.key)
        if faults:
            raise ResultsError("; ".join(dict.fromkeys(faults)))
        if not waiting:
            self._looked_at = state
        return f"made {', '.join(made)}" if made else ""

    def _places(self, plant: Plant) -> list[tuple[str, ...]]:
        if not self.table.places:
            return [(site,) for site in plant.sites]
        places = [tuple(place.strip("/").split("/")) for place in self.table.places]
        for place in places:
            if not any(is_in(str(key), ["/".join(place)]) for key in plant.machines):
                raise ResultsError(f"report {self.table.name}: {'/'.join(place)} is not in the plant")
        return places

    def _over(self, plant: Plant) -> Iterator[Period]:
        """Yield the periods that are over, closed, and not too long ago."""
        now_us = self._now_us()
        memory = self._memory()
        if memory.since_us > now_us:  # a clock that was wrong
            memory.since_us = now_us
            self._store.set_note(self._note, msgspec.json.encode(memory))
        from_us = max(memory.since_us, now_us - self.table.catch_up_days * _DAY_US)
        for place in self._places(plant):
            for period in periods(plant, place, self.table.every, from_us, now_us):
                if self.table.crews and not period.crews.intersection(self.table.crews):
                    continue
                if is_closed(period, self._store.closed_span):
                    yield period

    def _edition(self, plant: Plant, period: Period, before: Made | None) -> int | None:
        """Return which edition of a report is due; None when none is."""
        now_us = self._now_us()
        if before is not None and before.made_us > now_us + _DAY_US:  # by a clock that was wrong
            before = None
        if before is not None and not self.table.revised:
            return None
        revisions = self._revisions(plant, period)
        if before is None:
            return 1 if revisions else None
        if revisions == before.revisions:
            self._changed.pop(period.key, None)
            return None
        seen, since_us = self._changed.get(period.key, (0, now_us))
        if seen != revisions or since_us > now_us:
            since_us = now_us
        self._changed[period.key] = (revisions, since_us)
        settled = now_us - since_us >= self.table.revised_wait_secs * 1e6
        return before.edition + 1 if settled else None

    def _revisions(self, plant: Plant, period: Period) -> int:
        """Return how many revisions there are of the shifts of a period."""
        return self._store.revisions_between(scopes(plant, period.place), period.start_us, period.end_us)

    def _make(self, plant: Plant, period: Period, edition: int, memory: Memory) -> None:
        revisions = self._revisions(plant, period)  # before the figures are read: later ones come again
        printed = self._print(period, self.table.formats, edition=edition)
        now_us = self._now_us()
        if self.table.folder is not None:
            _file(self.table.folder, printed.files)
        memory.made[period.key] = Made(revisions, edition, now_us, period.end_us)
        oldest_us = now_us - 2 * self.table.catch_up_days * _DAY_US
        memory.made = {key: made for key, made in memory.made.items() if made.end_us > oldest_us}
        letter = Letter(
            title=printed.title,
            html=printed.html,
            made_epochtime=now_us / 1e6,
            files=list(printed.files),
            key=f"{self._note} {period.every} {period.key} edition {edition} of {revisions} revisions",
        )
        self._store.queue_deliveries(
            self.table.channels(), letters.encode(letter), self._note, msgspec.json.encode(memory)
        )
        self._changed.pop(period.key, None)
        _log.info("report made", report=self.table.name, of=period.key, edition=edition)

    def _memory(self) -> Memory:
        body = self._store.note(self._note)
        if body is not None:
            return msgspec.json.decode(body, type=Memory)
        memory = Memory(since_us=self._now_us())
        self._store.set_note(self._note, msgspec.json.encode(memory))
        return memory


def _file(folder: Path, files: Iterable[Attachment]) -> None:
    """Put files into a folder, each whole or not at all; an edition before is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        partial = folder / f".{file.name}.partial"
        partial.write_bytes(file.content)
        partial.replace(folder / file.name)
