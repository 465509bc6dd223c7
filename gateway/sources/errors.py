"""The door for the library's errors: whatever asyncua raises becomes a SourceError that a person can read."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from asyncua import ua
from asyncua.crypto.uacrypto import InvalidSignature

from gateway.errors import SourceError
from gateway.sources.statuses import status_name

LIBRARY_ERRORS: Final = (
    ua.UaError,
    OSError,
    TimeoutError,
    asyncio.IncompleteReadError,
    InvalidSignature,
    struct.error,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
)
"""What asyncua lets out when a server is gone, refuses, or answers nonsense."""


class ServiceError(SourceError):
    """The server answered a whole request with a bad status."""

    def __init__(self, what: str, status: int) -> None:
        super().__init__(f"{what}: the server says {status_name(status)}")
        self.status = status


class NoAnswerError(SourceError):
    """The server has not answered in time: it is gone, or only slow."""


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turn the library's errors into SourceError: a bad answer into ServiceError, none into NoAnswerError."""
    try:
        yield
    except ua.UaStatusCodeError as error:
        raise ServiceError(what, int(error.code)) from error
    except TimeoutError as error:
        raise NoAnswerError(f"{what}: no answer in time") from error
    except LIBRARY_ERRORS as error:
        raise SourceError(f"{what}: {_plain(error)}") from error


def _plain(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(error, socket.gaierror):
        return f"the name is unknown here ({error.strerror})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).split("\n", 1)[0]
    return text[:200] or type(error).__name__
