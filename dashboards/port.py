"""What pages and reports ask of the cloud side; `cloud.service.Cloud` satisfies it.

Every answer is finished: nothing behind this port is computed again in front of it.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, Protocol

from cloud.oee.corrections import Correction
from cloud.oee.rollup import Level
from cloud.plant import Plant
from cloud.questions import Every
from cloud.views import (
    AfterLockView,
    AlertView,
    BoardView,
    GatewayView,
    MuteView,
    RefusedRow,
    Revision,
    ShiftRow,
    TimelineView,
    Update,
)
from contract.machine_key import MachineKey


class CloudReader(Protocol):
    """Questions. The live ones are ready in memory; the others are one indexed read away."""

    @property
    def plant(self) -> Plant:
        """What the factory is, as plant.toml says it now."""
        ...

    def board(self) -> BoardView:
        """Return everything that the board shows now."""
        ...

    def timeline(self, machine_key: MachineKey, from_us: int, to_us: int) -> TimelineView:
        """Return a machine's states in [from_us, to_us) [us since 1970], without holes, never beyond now."""
        ...

    def shift_table(self, from_us: int, to_us: int, level: Level) -> list[ShiftRow]:
        """Return the shifts that touch [from_us, to_us), oldest first, of one level such as `line`."""
        ...

    def figures(
        self,
        from_us: int,
        to_us: int,
        *,
        every: Every,
        level: Level,
        place: tuple[str, ...] = (),
        product: str | None = None,
    ) -> list[ShiftRow]:
        """Return the figures of each window of [from_us, to_us), oldest first.

        every: `range` is one row for the whole
        place: one to four levels from the site down; only rows of it
        product: only what was made of it, and the time in which it was
        """
        ...

    def revisions(self, scope: str, start_us: int) -> list[Revision]:
        """Return the revisions of a closed shift, oldest first; scope is `site/area/line[/machine]`."""
        ...

    def after_lock(self, scope: str, start_us: int) -> AfterLockView | None:
        """Return what arrived of a closed shift when it was locked; None when nothing did."""
        ...

    def corrections(self) -> list[Correction]:
        """Return what people said of the past, oldest first, also what was taken back."""
        ...

    def alerts(self, open_only: bool) -> list[AlertView]:  # noqa: FBT001  its name says it
        """Return alerts, newest first."""
        ...

    def mutes(self) -> list[MuteView]:
        """Return the mutes in force, oldest first."""
        ...

    def gateways(self) -> list[GatewayView]:
        """Return the gateways as they last reported."""
        ...

    def dead_letters(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return the newest refused messages: `received_epochtime topic reason payload`."""
        ...

    def refused_rows(self) -> list[RefusedRow]:
        """Return the rows of master data that cannot be used as things are."""
        ...

    def subscribe(self) -> AsyncIterator[Update]:
        """Iterate over what changes, at most one Update a second; who falls behind gets the whole."""
        ...


class CloudWriter(Protocol):
    """What people may change. Each change is recorded with who made it, and shown on the next read."""

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
        """Say why a machine stood in [from_us, to_us); a part of a stop splits it.

        reason: its key in plant.toml; None takes the reason back
        """
        ...

    def correct(self, correction: Correction) -> int:
        """Keep a correction of the past and return its number; raise CorrectionError for what may not be."""
        ...

    def ask_gateway(
        self, site: str, gateway: str, connection: str, action: Literal["start", "stop"], *, by: str
    ) -> str:
        """Ask a gateway to start or stop the reading of one PLC; raise CloudError when it would not.

        Returns the command's id, under which the gateway's status tells what became of it.
        """
        ...

    def acknowledge(self, alert_id: str, by: str, note: str = "") -> AlertView:
        """Say that somebody looks after an alert; raise CloudError for one that is not open."""
        ...

    def mute(self, place: str, until_us: int, *, who: str, why: str, rules: Sequence[str] = ()) -> MuteView:
        """Let alerts of a place wake nobody until an instant; raise CloudError when that may not be said.

        rules: only of these; empty: of all
        """
        ...

    def unmute(self, number: int, by: str) -> MuteView:
        """End a mute; raise CloudError when none of that number is in force."""
        ...


class Cloud(CloudReader, CloudWriter, Protocol):
    """Both."""
