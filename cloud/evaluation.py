"""Figures from the store: reads the records that a range depends on, and judges them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cloud.oee import corrections
from cloud.oee import records as oee_records
from cloud.oee import timeline as oee_timeline
from cloud.oee.calendar import Widen, begin_of_shift_before
from cloud.oee.frame import Frame
from cloud.oee.losses import reach_us
from cloud.oee.pieces import Rules
from cloud.oee.records import ABSENT, NO_RATE, UNKNOWN, Names, Records
from cloud.oee.totals import Timeline, timeline
from cloud.plant import Plant
from cloud.store import rows as row_format
from cloud.store.port import Store
from cloud.store.rows import QUALITY_CODES, Rows
from contract.machine_key import MachineKey


@dataclass
class Translation:
    """Rows of the store as records: the store's integers become indexes of `names`."""

    store: Store
    names: Names = field(default_factory=Names)
    _machines: list[int] = field(default_factory=list)
    _gateways: list[int] = field(default_factory=list)
    _texts: dict[int, int] = field(default_factory=dict)
    _reasons: dict[int, int] = field(default_factory=dict)

    def records(self, rows: Rows) -> Records:
        """Return rows as ordered records."""
        self._catch_up()
        bad = (rows["quality"] == QUALITY_CODES["bad"]) | (rows["is_gap"] == 1)
        rate = rows["ideal_run_rate"]
        return oee_records.ordered(
            Records(
                machine=np.array(self._machines, dtype=np.int32)[rows["machine"]],
                time_us=rows["time_us"].astype(np.int64),
                state=np.where(bad, np.int8(UNKNOWN), rows["state"]),
                total=np.where(bad, ABSENT, rows["total_units"]),
                off=np.where(bad, ABSENT, rows["off_quality_units"]),
                good=np.where(bad, ABSENT, rows["good_units"]),
                reason=np.where(bad, np.int32(ABSENT), self._text_indexes(rows["reason"], self._reasons)),
                product=self._text_indexes(rows["product"], self._texts),
                order=self._text_indexes(rows["order"], self._texts),
                rate=np.where(np.isnan(rate), NO_RATE, rate),
                gateway=np.array(self._gateways, dtype=np.int32)[rows["gateway"]],
                sequence=rows["sequence"].astype(np.int64),
            ),
            self.names,
            unique=True,
        )

    def _catch_up(self) -> None:
        stored = self.store.names
        for key in stored.all("machine")[len(self._machines) :]:
            self._machines.append(self.names.machine(MachineKey(*key)))
        for site, gateway in stored.all("gateway")[len(self._gateways) :]:
            self._gateways.append(self.names.text(f"{site}/{gateway}"))

    def _text_indexes(self, column: NDArray[np.int32], known: dict[int, int]) -> NDArray[np.int32]:
        """Return the indexes of the store's texts; known: those met before, here the PLC's reason codes."""
        used = np.flatnonzero(np.bincount(column + 1)) - 1
        if not len(used) or used[-1] == ABSENT:
            return np.broadcast_to(np.int32(ABSENT), len(column))
        indexes = np.full(used[-1] + 2, ABSENT, dtype=np.int32)  # the last is for ABSENT
        for number in used[used != ABSENT].tolist():
            if number not in known:
                name = self.store.names.name("text", number)
                text = str(row_format.reason_code(name)) if known is self._reasons else name
                known[number] = self.names.text(text)
            indexes[number] = known[number]
        return indexes[column]


class Evaluation:
    """The store's records under one plant. Not safe to call from two threads at once."""

    def __init__(self, plant: Plant, store: Store) -> None:
        self.plant = plant
        self.store = store
        self.reach_us = reach_us(plant)
        """How much before and after a range is read."""
        self.translation = Translation(store)
        self.names = self.translation.names
        for key in plant.machines:
            self.names.machine(key)
        self.corrections: list[corrections.Correction] = []
        """Those in force."""
        self._corrections_made: list[corrections.Correction] = []
        self.look_for_corrections()

    def look_for_corrections(self) -> bool:
        """Take corrections in that were made since, of machines of the plant; tell whether there were any."""
        last = self._corrections_made[-1].number if self._corrections_made else 0
        found = [corrections.decode(text, number) for number, text in self.store.corrections(last)]
        if found:
            self._corrections_made += found
            known = (item for item in self._corrections_made if item.machine_key in self.plant.machines)
            self.corrections = corrections.in_force(known)
        return bool(found)

    def stored_ids(self, machines: Iterable[MachineKey]) -> list[int]:
        """Return the store's integers of those machines that it has any record of."""
        found = (self.store.names.find("machine", tuple(key)) for key in machines)
        return [number for number in found if number != ABSENT]

    def records(self, machines: Iterable[MachineKey], from_us: int, to_us: int, *, now_us: int) -> Records:
        """Return all records that figures of [from_us, to_us) depend on: also those around it.

        A stop across an edge is judged by its whole length, and the first reading after the range tells what
        was made in a silence that reaches beyond it.
        """
        ids = self.stored_ids(machines)
        begin_us, end_us = from_us - self.reach_us, to_us + self.reach_us
        parts = [self.store.read_before(ids, begin_us), self.store.read(ids, begin_us, end_us)]
        if end_us <= now_us:
            parts.append(self.store.read_after(ids, end_us))
        return self.translation.records(np.concatenate(parts))

    def frame(
        self, machines: Sequence[MachineKey], from_us: int, to_us: int, *, widen: Widen = "shift"
    ) -> Frame:
        """Return the frame of the windows that touch [from_us, to_us), and of the shift before them.

        A stop is counted where it began: so that a shift's count does not depend on what else is looked at,
        the shift before it is always looked at, too; except with widen = "none", which is exactly the range.
        """
        chosen = [self.plant.machines[key] for key in machines]
        begin_us = from_us if widen == "none" else begin_of_shift_before(chosen, from_us)
        return Frame.over(
            self.plant,
            self.names,
            begin_us,
            to_us,
            machines=machines,
            widen=widen,
            cuts=corrections.cuts(self.corrections),
            planned_stops=corrections.planned_stops(self.corrections),
        )

    def timeline(
        self,
        machines: Sequence[MachineKey],
        from_us: int,
        to_us: int,
        until_us: int,
        *,
        widen: Widen = "shift",
    ) -> tuple[Timeline, Frame]:
        """Return the judged timeline of machines of the plant over the windows that touch [from_us, to_us).

        Its frame reaches further back: take what touches the range alone.

        until_us: now; nothing later is in any figure
        """
        frame = self.frame(machines, from_us, to_us, widen=widen)
        records = self.records(machines, frame.from_us, min(frame.to_us, until_us), now_us=until_us)
        records = records.take(records.time_us <= until_us)
        rules = Rules.of(self.plant, self.names)
        piece = oee_timeline.build(records, rules, frame.cuts)
        known_us = int(records.time_us.max(initial=frame.to_us + self.reach_us))
        whole = timeline(
            piece,
            frame,
            self.plant,
            self.names,
            until_us=min(until_us, known_us),
            rules=rules,
            corrections=self.corrections,
        )
        return whole, frame
