"""What the cloud side asks of gateways: to start or stop the reading of one PLC."""

import re
import secrets
from typing import Final, Literal

from contract.delivery import Command, Status

_US: Final = 1_000_000
EXPIRES_SECS: Final = 60.0
"""A gateway that was away for longer does not carry out what nobody expects any more."""
_LONGEST: Final = 128
_NO_LINE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def refusal(status: Status | None, gateway: str, connection: str) -> str | None:
    """Return why a gateway need not be asked; None when it may carry a command out.

    status: what the gateway last said of itself
    """
    if status is None:
        return f"{gateway} has never said anything of itself"
    if not status.accepts_commands:
        return f"{gateway} accepts no commands; `accept_commands = true` in its gateway.toml lets it"
    if not status.online:
        return f"{gateway} is offline"
    if all(known.name != connection for known in status.connections):
        return f"{gateway} has no such connection"
    return None


def command(
    site: str, gateway: str, connection: str, action: Literal["start", "stop"], *, by: str, now_us: int
) -> Command:
    """Return a command that was never given before, to be carried out within EXPIRES_SECS."""
    return Command(
        id=secrets.token_hex(8),
        site=site,
        gateway=gateway,
        connection=connection,
        action=action,
        requested_by=_NO_LINE.sub(" ", by)[:_LONGEST] or "somebody",
        epochtime=now_us / _US,
        expires_epochtime=now_us / _US + EXPIRES_SECS,
    )
