"""Errors of the cloud side.

CloudError
├── ConfigError             a configuration or plant file cannot be used: all its faults at once
├── AskedError              what was asked for cannot be, and has to be asked otherwise
│   ├── UnknownMachineError a machine that plant.toml does not name
│   ├── UnknownReasonError  a reason that plant.toml does not name
│   ├── CorrectionError     a correction that may not be made
│   └── TelemetryFileError  a file of telemetry cannot be read
├── ControlError            a gateway cannot be asked to start or stop a connection
├── StoreError              the store cannot be opened, read or written
│   └── HistoryError        a Parquet partition of the history cannot be read or written
├── NotificationError       a channel of alerts cannot be reached or refuses us
├── AddressError            a URL or secret is not where the configuration says
├── ResultsError            a report cannot be made, or a database or web address takes no results
├── MasterDataError         an MES or quality database cannot be read
└── EngineError             a cluster engine cannot be started or has failed
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class CloudError(Exception):
    """Base of all errors of the cloud side; its text is meant for people."""


class Fault(NamedTuple):
    """One thing wrong in a file: where, what, and what is allowed there ('' where that is plain)."""

    file: str
    key: str
    problem: str
    allowed: str = ""

    def __str__(self) -> str:
        """Return `file: key.path: what is wrong; what is allowed`."""
        place = f"{self.file}: {self.key}: " if self.key else f"{self.file}: "
        return place + self.problem + (f"; {self.allowed}" if self.allowed else "")


class ConfigError(CloudError):
    """A configuration that cannot be used; `faults` holds every fault, the text one per line."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))

    @classmethod
    def unreadable(cls, file: Path | str, problem: str) -> "ConfigError":
        """Return the error of a file that cannot be read at all."""
        return cls([Fault(str(file), "", problem)])


class AskedError(CloudError):
    """What was asked for cannot be; the text says what to ask for instead. Asking again changes nothing."""


class UnknownMachineError(AskedError):
    """A machine that plant.toml does not name."""


class UnknownReasonError(AskedError):
    """A reason that plant.toml does not name."""


class CorrectionError(AskedError):
    """A correction that may not be made; the text says why and what would be possible."""


class ControlError(CloudError):
    """A gateway cannot be asked to start or stop a connection."""


class TelemetryFileError(AskedError):
    """A file of telemetry cannot be read."""


class StoreError(CloudError):
    """The store cannot be opened, read or written."""


class HistoryError(StoreError):
    """A Parquet partition of the history cannot be read or written."""


class NotificationError(CloudError):
    """A channel of alerts cannot be reached or refuses us."""


class AddressError(CloudError):
    """A URL or secret is not where the configuration says."""


class ResultsError(CloudError):
    """A report cannot be made, or a database or web address takes no results."""


class MasterDataError(CloudError):
    """An MES or quality database cannot be read."""


class EngineError(CloudError):
    """A cluster engine cannot be started or has failed."""
