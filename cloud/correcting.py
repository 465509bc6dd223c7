"""What people and other systems say of the past: checked, kept, and known to all who ask."""

import threading
from collections.abc import Callable

import msgspec
import structlog

from cloud.oee import corrections
from cloud.oee.corrections import Correction
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
        self.on_corrected: Callable[[], None] = lambda: None
        """Called when figures have to be made anew."""
        self._correcting = threading.Lock()
        self._reading = threading.Lock()
        self._known: list[Correction] = []

    def correct(self, correction: Correction) -> int:
        """Keep a correction of the past and return its number; raise CorrectionError when it may not be made.

        `who` is told in it; `when_us` and `number` are set here. What it changes is shown on the next read,
        and closed shifts that it touches get a new revision.
        """
        with self._correcting:
            now_us = self._now_us()
            correction = msgspec.structs.replace(correction, when_us=now_us, number=0)
            others = self.all()
            corrections.check(correction, others, self._plant(), now_us=now_us)
            machine, from_us, to_us = corrections.touched(correction, others)
            # Rates and orders may be open-ended.
            from_us = max(from_us, self._first_record_us(machine, now_us))
            hours = range(from_us // US_PER_HOUR, (min(to_us, now_us) - 1) // US_PER_HOUR + 1)
            why = f"{correction.kind.replace('_', ' ')} by {correction.who}"
            number = self._store.add_correction(corrections.encode(correction), machine, hours, why)
        self.on_corrected()
        _log.info("corrected", machine=str(machine), what=correction.kind, who=correction.who, number=number)
        return number

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
