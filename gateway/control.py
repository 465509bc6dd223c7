"""Which connections are stopped, by whose command, and what is answered: kept on disk over restarts."""

import os
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from contract.delivery import Answer, Command
from contract.telemetry import DEFAULT_MAX_FUTURE_SECS

_US: Final = 1_000_000
_ANSWERS: Final = 10
"""How many commands are remembered; a message that comes again is answered again and not carried out."""


class Decision(Struct, frozen=True):
    """The last command that was carried out for one connection.

    since_us: [us since 1970, our clock] when
    asked_us: [us since 1970, the asker's clock] when it was asked for
    """

    action: str
    by: str
    id: str
    since_us: int
    asked_us: int


class Control:
    """What was decided, in a file beside the outbox, and the answers to the last commands.

    folder: the data folder
    is_open: whether commands are accepted; where not, earlier ones hold no more
    """

    def __init__(self, folder: Path, *, is_open: bool) -> None:
        self._file = folder / "connections.json"
        self._is_open = is_open
        self._log = structlog.get_logger("gateway")
        self._decisions = self._kept() if is_open else {}
        self.answers: deque[Answer] = deque(maxlen=_ANSWERS)

    @property
    def is_open(self) -> bool:
        """Tell whether commands are accepted."""
        return self._is_open

    def turn(self, *, is_open: bool) -> None:
        """Accept commands from now on, or none; earlier ones hold as after a start."""
        self._is_open = is_open
        self._decisions = self._kept() if is_open else {}

    def stopped(self, connection: str) -> Decision | None:
        """Return who has stopped a connection, and when; None when it is to be read."""
        decision = self._decisions.get(connection)
        return decision if decision is not None and decision.action == "stop" else None

    def causes(self) -> Iterator[tuple[str, str]]:
        """Yield each stopped connection with the cause that its gap is told with."""
        for name, decision in self._decisions.items():
            if decision.action == "stop":
                yield name, stop_cause(decision.by)

    def is_answered(self, command: Command) -> bool:
        """Tell whether this is a message that has come before."""
        return any(answer.id == command.id for answer in self.answers)

    def refusal(self, command: Command, connections: Collection[str], now_us: int) -> str | None:
        """Return why a command may not be carried out; None when it may."""
        last = self._decisions.get(command.connection)
        if not self._is_open:
            return "this gateway accepts no commands"
        if command.connection not in connections:
            return "there is no such connection"
        if command.expires_epochtime * _US <= now_us:
            return "it has expired"
        if command.epochtime * _US > now_us + DEFAULT_MAX_FUTURE_SECS * _US:
            return "it was asked for in the future: one of the clocks is wrong"
        if last is not None and command.epochtime * _US <= last.asked_us:
            return "a newer command has been carried out"
        return None

    def decide(self, command: Command, now_us: int) -> None:
        """Put a command on disk before it is carried out; raises OSError when that cannot be done."""
        last = self._decisions.get(command.connection)
        by, since_us = command.requested_by, now_us
        if last is not None and last.action == command.action:
            by, since_us = last.by, last.since_us  # it is so already, by somebody else's word
        decision = Decision(command.action, by, command.id, since_us, round(command.epochtime * _US))
        decisions = {**self._decisions, command.connection: decision}
        fresh = self._file.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(decisions))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._file)
        folder = os.open(self._file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._decisions = decisions

    def answer(self, command: Command, now_us: int, reason: str | None = None) -> None:
        """Remember what became of a command; `reason` says why it was not carried out."""
        self.answers.append(
            Answer(
                id=command.id,
                epochtime=now_us / _US,
                done=reason is None,
                reason=msgspec.UNSET if reason is None else reason[:256],
            )
        )

    def _kept(self) -> dict[str, Decision]:
        """Read the decisions of earlier; what cannot be read is put aside, and everything is read."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, Decision])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            self._log.error(
                "which connections were stopped cannot be read; all start",
                file=str(self._file),
                reason=str(error),
            )
            with suppress(OSError):
                self._file.replace(self._file.with_suffix(".damaged"))
            return {}


def stop_cause(by: str) -> str:
    """Return the cause of the gap of a connection that somebody stopped."""
    return f"stopped by {by}"
