"""A record of a machine before it has its sequence. Pure."""

from typing import Final

from msgspec import UNSET, Struct

from contract.machine_key import MachineKey
from contract.telemetry import Telemetry, encode
from gateway.outbox.port import Kind
from gateway.tags import Fields

_US: Final = 1_000_000


class TelemetryDraft(Struct, frozen=True):
    """A telemetry record that has no sequence yet."""

    machine: MachineKey
    gateway: str
    epoch_us: int
    kind: Kind
    fields: Fields
    topic: str

    def encode(self, sequence: int) -> bytes:
        """Return the contract's Telemetry as JSON."""
        return encode(self.telemetry(sequence))

    def telemetry(self, sequence: int) -> Telemetry:
        """Return the contract's record."""
        # taken apart at once: asked for one by one, twelve of a tuple's fields cost as much as all else here
        state, reason, product, order, operator, quality, status, total, off, good, rate, tags = self.fields
        key = self.machine
        return Telemetry(
            epochtime=self.epoch_us / _US,
            site=key.site,
            area=key.area,
            line=key.line,
            machine=key.machine,
            state=state,
            gateway=self.gateway,
            sequence=sequence,
            total_units=UNSET if total is None else total,
            off_quality_units=UNSET if off is None else off,
            good_units=UNSET if good is None else good,
            reason_code=UNSET if reason is None else reason,
            product=UNSET if product is None else product,
            order=UNSET if order is None else order,
            operator=UNSET if operator is None else operator,
            ideal_run_rate=UNSET if rate is None else rate,
            data_quality=quality,
            status=UNSET if status is None else status,
            tags=UNSET if tags is None else tags,
        )
