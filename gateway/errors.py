"""What can go wrong at the edge.

GatewayError
├── ConfigError              gateway.toml asks for something impossible (exit code 2)
├── ExpressionError          an expression is none, or has no value for these tags
├── StartError               this machine does not let the daemon start (exit code 2)
│   └── OutboxLockedError    another process uses the same data folder
├── SourceError              a PLC cannot be read
│   └── CertificateError     a certificate is missing, unusable or not trusted
├── OutboxError              a record could not be put on disk
│   ├── OutboxFullError      the disk, or the file's limit, is full
│   └── OutboxCorruptError   the file is damaged
│       └── PackCorruptError one pack of it is
├── UplinkError              a broker cannot be used
│   ├── UnreachableError     no connection, or it was lost
│   ├── RefusedError         the broker refused the connection or subscription
│   ├── PublishRefusedError  the broker refused one message
│   └── MessageTooLargeError a message is beyond the broker's limit
└── ProvisionError           a thing could not be prepared or registered
"""


class GatewayError(Exception):
    """Base of every error of the edge; `str()` is one sentence for people."""


class ConfigError(GatewayError):
    """The configuration cannot be used; `faults` has a line per fault: file, key path, what is allowed."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class ExpressionError(GatewayError):
    """An expression of a state rule is none, or has no value for these tag values."""


class StartError(GatewayError):
    """The daemon cannot start on this machine as it is; nothing that retrying would heal."""


class OutboxLockedError(StartError):
    """Another process uses the same outbox."""


class SourceError(GatewayError):
    """A PLC cannot be read."""


class CertificateError(SourceError):
    """A certificate is missing, unusable or not trusted."""


class OutboxError(GatewayError):
    """Records could not be put on disk; what delivered them must not be acknowledged."""


class OutboxFullError(OutboxError):
    """There is no room on the disk for another record."""


class OutboxCorruptError(OutboxError):
    """The outbox file is damaged."""


class PackCorruptError(OutboxCorruptError):
    """One pack of the outbox file is damaged, the one of this run and rank."""

    def __init__(self, run: int, rank: int, reason: str) -> None:
        super().__init__(reason)
        self.run = run
        self.rank = rank


class UplinkError(GatewayError):
    """A broker cannot be used."""


class UnreachableError(UplinkError):
    """There is no connection to the broker, or it was lost."""


class RefusedError(UplinkError):
    """The broker refused the connection or a subscription, and says why."""


class PublishRefusedError(UplinkError):
    """The broker refused one message.

    reason: as the broker tells it
    transient: the same message may be accepted later (a quota)
    """

    def __init__(self, reason: str, *, transient: bool = False) -> None:
        super().__init__(f"the broker refused the message: {reason}")
        self.reason = reason
        self.transient = transient


class MessageTooLargeError(UplinkError):
    """A message is larger than the broker takes."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"a message of {size_bytes} bytes; the broker takes {limit_bytes}")
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class ProvisionError(GatewayError):
    """A thing could not be prepared or registered."""
