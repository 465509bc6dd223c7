"""What pages and reports ask of the cloud side; `cloud.service.Cloud` satisfies it.

Every answer is finished: nothing behind this port is computed again in front of it.
"""

from collections.abc import AsyncIterator
from typing import Protocol

from cloud.views import AlertView, BoardView, GatewayView, ShiftRow, TimelineView, Update
from contract.machine_key import MachineKey


class CloudReader(Protocol):
    """The live board's questions. All answers are ready in memory or one indexed read away."""

    def board(self) -> BoardView:
        """Return everything that the board shows now."""
        ...

    def timeline(self, machine_key: MachineKey, from_us: int, to_us: int) -> TimelineView:
        """Return a machine's states in [from_us, to_us) [us since 1970], without holes, never beyond now."""
        ...

    def shift_table(self, from_us: int, to_us: int, level: str) -> list[ShiftRow]:
        """Return the shifts that touch [from_us, to_us), oldest first, of one level such as `line`."""
        ...

    def alerts(self, open_only: bool) -> list[AlertView]:  # noqa: FBT001
        """Return alerts, newest first."""
        ...

    def gateways(self) -> list[GatewayView]:
        """Return the gateways as they last reported."""
        ...

    def subscribe(self) -> AsyncIterator[Update]:
        """Iterate over what changes, at most one Update a second; who falls behind gets the whole."""
        ...
