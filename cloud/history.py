"""Figures from the history: read once, stretch by stretch, and the timelines of the stretches joined."""

import functools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Final

import numpy as np

from cloud.compute import Moment, PieceSource, figures_from
from cloud.errors import HistoryError
from cloud.oee import timeline
from cloud.oee.figures import Figures
from cloud.oee.frame import Frame
from cloud.oee.losses import reach_us
from cloud.oee.pieces import Cuts, Piece, Rules
from cloud.oee.records import Names, Records, empty
from cloud.oee.rollup import Level, Per
from cloud.plant import Plant
from cloud.store.parquet import History
from contract.machine_key import MachineKey

_WAITING_PER_WORKER: Final = 2
Source = Callable[[], Records]


class SharedNames(Names):
    """Names that several threads may add to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._lock = threading.Lock()

    def machine(self, key: MachineKey) -> int:
        """Return the machine's index, a new one at its first mention."""
        with self._lock:
            return super().machine(key)

    def text(self, text: str) -> int:
        """Return the text's index, a new one at its first mention."""
        with self._lock:
            return super().text(text)


def figures_of_history(
    plant: Plant,
    history: History,
    *,
    since: Moment | None = None,
    until: Moment | None = None,
    per: Per = "shift",
    level: Level = "machine",
    workers: int = 2,
) -> list[Figures]:
    """Return the figures of a history: the same as of the telemetry that it was made of.

    since, until: as in cloud.compute; workers: how many threads build timelines
    """
    if not history.root.is_dir():
        raise HistoryError(f"{history.root} is no folder")
    names = SharedNames(list(plant.machines))
    return figures_from(
        local_source(plant, history, names, workers=workers),
        plant,
        names,
        history.extent(plant.machines),
        since=since,
        until=until,
        per=per,
        level=level,
    )


def local_source(plant: Plant, history: History, names: SharedNames, *, workers: int = 2) -> PieceSource:
    """Return what builds the timeline of the plant's machines on this machine.

    Memory does not grow with the history: a few stretches of records are held at a time, and their timelines.
    """

    def build(frame: Frame, rules: Rules) -> Piece:
        begin_us, end_us = frame.from_us - reach_us(plant), frame.to_us + reach_us(plant)
        known = np.zeros(len(names.machines), dtype=np.bool_)
        known[[names.machine(key) for key in plant.machines]] = True
        stretches = chain(
            _sources(history.before(names, begin_us, plant.machines)),
            history.stretches(names, begin_us, end_us),
            _sources(history.after(names, end_us, plant.machines)),
        )

        def piece(load: Callable[[], Records]) -> Piece:
            return timeline.build(_known(load(), known), rules, frame.cuts)

        return joined(list(_in_order(piece, stretches, workers)), rules, frame.cuts)

    return build


def joined(pieces: Sequence[Piece], rules: Rules, cuts: Cuts) -> Piece:
    """Return the piece of pieces in their order; neighbours are joined first: none is copied often."""
    pieces = pieces or [timeline.build(empty(), rules, cuts)]
    while len(pieces) > 1:
        pieces = [
            timeline.join(pieces[place], pieces[place + 1], rules, cuts)
            if place + 1 < len(pieces)
            else pieces[place]
            for place in range(0, len(pieces), 2)
        ]
    return pieces[0]


def _in_order(work: Callable[[Source], Piece], sources: Iterable[Source], workers: int) -> Iterator[Piece]:
    """Do the work on several threads, a bounded number ahead, and return what comes of it in order."""
    waiting: deque[Future[Piece]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="history") as pool:
        for source in sources:
            waiting.append(pool.submit(work, source))
            if len(waiting) > workers * _WAITING_PER_WORKER:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _sources(stretches: Iterable[Records]) -> Iterator[Source]:
    for records in stretches:
        yield functools.partial(_itself, records)


def _itself(records: Records) -> Records:
    return records


def _known(records: Records, known: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Records:
    """Return the records of known machines; the names may have grown meanwhile."""
    if not len(records) or (records.machine[-1] < len(known) and known.all()):
        return records
    inside = records.machine < len(known)
    inside[inside] = known[records.machine[inside]]
    return records.take(inside)
