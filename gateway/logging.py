"""How the daemon speaks: lines for people or JSON, one way for our own words and the libraries'."""

import logging
import sys
from typing import Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from contract.printable import printable

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]

_SECRET_WORDS: Final = ("password", "secret", "private_key", "token")
_NOISY: Final = ("asyncua", "paho", "awscrt", "botocore", "urllib3")
"""Libraries that repeat themselves; what matters in their words, our own code says once.

Below warnings some write out whole messages, with the passwords and session tokens in them.
"""


def configure(level: Level, form: Format, stream: TextIO | None = None) -> None:
    """Send every log line of this process to a stream (stderr when None)."""
    target = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_secrets,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendered(form, colors=target.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING if level == "debug" else logging.CRITICAL)


def _rendered(form: Format, *, colors: bool) -> list[Processor]:
    if form == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    plain = structlog.dev.plain_traceback
    return [
        _on_one_line,
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain, pad_event_to=0),
    ]


def _on_one_line(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Write out what is not visible: names come from PLCs, and the reader's terminal believes them."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}


def _without_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blank a value whose key says that it is a secret, should one ever come this way."""
    for key in event:
        if any(word in key.lower() for word in _SECRET_WORDS) and not key.endswith(("_file", "_env")):
            event[key] = "***"
    return event
