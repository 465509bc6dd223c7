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
        fields = self.fields
        key = self.machine
        return Telemetry(
            epochtime=self.epoch_us / _US,
            site=key.site,
            area=key.area,
            line=key.line,
            machine=key.machine,
            state=fields.state,
            gateway=self.gateway,
            sequence=sequence,
            total_units=UNSET if fields.total_units is None else fields.total_units,
            off_quality_units=UNSET if fields.off_quality_units is None else fields.off_quality_units,
            good_units=UNSET if fields.good_units is None else fields.good_units,
            reason_code=UNSET if fields.reason_code is None else fields.reason_code,
            product=UNSET if fields.product is None else fields.product,
            order=UNSET if fields.order is None else fields.order,
            operator=UNSET if fields.operator is None else fields.operator,
            ideal_run_rate=UNSET if fields.ideal_run_rate is None else fields.ideal_run_rate,
            data_quality=fields.data_quality,
            status=UNSET if fields.status is None else fields.status,
            tags=UNSET if fields.tags is None else fields.tags,
        )
