"""What people and other systems say of the past: checked, kept, and known to all who ask.

Whoever has the store may say something, the running service or a command beside it: what another one said
between the judgement and the writing is judged, too.
"""

import threading
from collections.abc import Callable

import msgspec
import structlog

from cloud import locks
from cloud.errors import CorrectionError
from cloud.evaluation import Evaluation
from cloud.oee import corrections
from cloud.oee.corrections import Correction
from cloud.oee.frame import Window
from cloud.oee.totals import Totals, totals
from cloud.plant import Plant
from cloud.store.port import Store
from cloud.store.rows import US_PER_HOUR
from contract.machine_key import MachineKey

_log = structlog.get_logger("cloud.correcting")


class Corrections:
    """The corrections of a store; may be asked and told from any thread."""

    def __init__(self, store: Store, *, plant: Callable[[], Plant], now_us: Callable[[], int]) -> None:
        self._store = store
        self._plant = plant
        self._now_us = now_us
        self._reading = threading.Lock()
        self._known: list[Correction] = []

    def correct(self, correction: Correction) -> int:
        """Keep a correction of the past and return its number; raise CorrectionError when it may not be made.

        `who` is told in it; `when_us` and `number` are set here. What it changes is shown on the next read,
        and closed shifts that it touches get a new revision.
        """
        said = msgspec.structs.replace(correction, when_us=self._now_us(), number=0)
        said = corrections.decode(corrections.encode(said), 0)  # what could not be read again is not kept
        while (number := self._keep(said)) is None:
            pass  # somebody else said something just now
        _log.info("corrected", machine=said.machine, what=said.kind, who=said.who, number=number)
        return number

    def _keep(self, said: Correction) -> int | None:
        """Keep a correction unless there is one that it was not judged beside; return its number."""
        others, plant = self.all(), self._plant()
        corrections.check(said, others, plant, now_us=said.when_us)
        if said.units is not None and said.units < 0:
            self._check_taken_away(said, plant)
        machine, from_us, to_us = corrections.touched(said, others)
        gone_us = locks.forgotten_before_us(self._store, plant.machines[machine])
        if gone_us is not None and to_us <= gone_us:
            first = locks.forgotten_before(self._store, machine.site)
            raise CorrectionError(
                f"the records of {machine} from before {first} have left the history (keep_days):"
                " its shifts of that time keep their figures"
            )
        from_us = max(from_us, self._first_record_us(machine, said.when_us))  # rates and orders may be open
        hours = range(from_us // US_PER_HOUR, (min(to_us, said.when_us) - 1) // US_PER_HOUR + 1)
        what = "correction taken back" if said.kind == "void" else said.kind.replace("_", " ")
        why, last = f"{what} by {said.who}", others[-1].number if others else 0
        return self._store.add_correction(corrections.encode(said), machine, hours, why, after=last)

    def _check_taken_away(self, said: Correction, plant: Plant) -> None:
        """Raise CorrectionError when a shift would be left with less than no off quality."""
        evaluation = Evaluation(plant, self._store)
        before = _by_shift(evaluation, said)
        evaluation.corrections = [*evaluation.corrections, said]
        for window, after in _by_shift(evaluation, said).items():
            there = before.get(window, Totals())
            for what, were, left in (
                ("off-quality units", there.made.off, after.made.off),
                ("off-quality units outside planned time", there.unplanned_off, after.unplanned_off),
            ):
                if left < min(were, 0):
                    raise CorrectionError(
                        f"{were - left:,} units cannot be taken away from shift {window.shift} of"
                        f" {window.production_date}: it has {were:,} {what}"
                    )

    def _first_record_us(self, machine: MachineKey, now_us: int) -> int:
        number = self._store.names.find("machine", tuple(machine))
        extent = None if number < 0 else self._store.extent(number)
        return now_us if extent is None else extent[0]

    def all(self) -> list[Correction]:
        """Return all corrections that were ever made, oldest first, also those that were taken back."""
        with self._reading:
            known = self._known
            last = known[-1].number if known else 0
            known += [corrections.decode(text, number) for number, text in self._store.corrections(last)]
            return list(known)

    def classify(
        self,
        machine_key: MachineKey,
        from_us: int,
        to_us: int,
        *,
        reason: str | None,
        comment: str | None,
        by: str,
    ) -> None:
        """Say why a machine stood in [from_us, to_us); raise CorrectionError when that may not be said.

        reason: its key in plant.toml; None takes back what was said of that time
        """
        before = [
            item
            for item in corrections.in_force(self.all())
            if item.machine_key == machine_key
            and item.kind in ("classify", "move")
            and item.from_us < to_us
            and item.to_us > from_us
        ]
        made = Correction(
            machine=str(machine_key),
            kind="move" if before else "classify",
            from_us=from_us,
            to_us=to_us,
            who=by,
            when_us=0,
            why=comment or "",
            reason=reason,
        )
        if reason is not None:
            self.correct(made)
            return
        for item in before:
            self.correct(msgspec.structs.replace(made, kind="void", voids=item.number))


def _by_shift(evaluation: Evaluation, said: Correction) -> dict[Window, Totals]:
    """Return the sums of the shifts of a correction's machine around its range."""
    machine, from_us, to_us = corrections.touched(said, ())
    whole, _ = evaluation.timeline([machine], from_us, to_us, said.when_us)
    sums = totals(whole, evaluation.plant, evaluation.names)
    return {group.window: each for group, each in sums.items()}
