"""What SQLite and the disk say, as our own errors."""

import contextlib
import resource
import sqlite3
from collections.abc import Iterator
from typing import Final

from gateway.errors import OutboxCorruptError, OutboxError, OutboxFullError

_CORRUPT_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@contextlib.contextmanager
def mapped() -> Iterator[None]:
    """Turn what SQLite and the disk raise into OutboxError, and into which one of them where that matters."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_FULL or (
            code == sqlite3.SQLITE_IOERR_WRITE and file_limit_bytes() is not None
        ):
            raise OutboxFullError(str(error)) from error
        if code & 0xFF in _CORRUPT_CODES:
            raise OutboxCorruptError(str(error)) from error
        raise OutboxError(str(error)) from error
    except OSError as error:
        raise OutboxFullError(str(error)) from error


def file_limit_bytes() -> int | None:
    """Return how large this process may make a file; None for any size.

    SQLite does not tell a write that met this limit from one that failed.
    """
    limit_bytes = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit_bytes == resource.RLIM_INFINITY else limit_bytes
