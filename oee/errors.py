"""How a fault reaches the person at the terminal: one plain line, an exit code, and no traceback."""

import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Final

EXIT_FAULT: Final = 1
EXIT_USAGE: Final = 2
"""Something must be changed by hand first: an option, what was asked for, a file, a missing package."""
EXIT_INTERRUPTED: Final = 130

EXTRA_OF_PACKAGE: Final[dict[str, str]] = {
    # rooms of ours, which an edge-only install lacks
    "cloud": "cloud",
    "dashboards": "cloud",
    "simulator": "demo",
    # what those rooms import
    "apprise": "cloud",
    "apscheduler": "cloud",
    "argon2": "cloud",
    "brotli": "cloud",
    "fastapi": "cloud",
    "jinja2": "cloud",
    "numpy": "cloud",
    "openpyxl": "cloud",
    "pandas": "cloud",
    "pyarrow": "cloud",
    "python_multipart": "cloud",
    "sqlalchemy": "cloud",
    "starlette": "cloud",
    "uvicorn": "cloud",
    "weasyprint": "cloud",
    "websockets": "cloud",
    "xlsxwriter": "cloud",
    "amqtt": "demo",
    "awscrt": "aws",
    "awsiot": "aws",
    "boto3": "aws",
    "botocore": "aws",
    "pyspark": "spark",
}
"""Top-level package -> the extra of `oee-gateway` that brings it."""

_ROOMS: Final = ("gateway", "cloud", "simulator", "dashboards")
_UNUSABLE: Final = frozenset({"ConfigError", "StartError", "AskedError"})
"""Errors of any room after which a person must change something before another try makes sense: a file, the
machine, or what was asked."""


class CommandError(Exception):
    """What the command itself cannot do, said in one line."""

    def __init__(self, message: str, exit_code: int = EXIT_FAULT) -> None:
        """Keep the line and the code that the process ends with."""
        super().__init__(message)
        self.exit_code = exit_code


class UsageError(CommandError):
    """The person must change something first: exit code 2."""

    def __init__(self, message: str) -> None:
        """Keep the line."""
        super().__init__(message, EXIT_USAGE)


def require(*packages: str) -> None:
    """Raise UsageError, naming the extra to install, unless every package can be imported.

    Asked before work begins, so that a missing extra is told at once and not by a child process later.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UsageError(missing(package))


def missing(package: str) -> str:
    """Return the line that says how to get a package that is not installed."""
    extra = EXTRA_OF_PACKAGE.get(package.partition(".")[0])
    if extra is None:
        return f"the Python package {package!r} is missing: pip install --force-reinstall oee-gateway"
    return f"this needs the {extra!r} extra ({package} is missing): pip install 'oee-gateway[{extra}]'"


def told(command: Callable[[], object]) -> int:
    """Run a command; tell whatever goes wrong in plain lines on stderr; return the exit code.

    OEE_DEBUG=1 in the environment lets errors through with their tracebacks.
    """
    try:
        command()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        sys.stderr.close()
        return EXIT_FAULT
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseExceptionGroup as group:
        return _tell(_first(group))
    except Exception as error:  # noqa: BLE001 - the last line of defence of a command
        return _tell(error)
    return 0


def _first(error: BaseException) -> BaseException:
    """Return the first error inside nested groups; a TaskGroup wraps even a lone one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _tell(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if os.environ.get("OEE_DEBUG", "") not in {"", "0"}:
        raise error
    lines, code = _lines(error)
    sys.stderr.write("".join(f"oee: {line}\n" for line in lines))
    return code


def _lines(error: BaseException) -> tuple[list[str], int]:
    """Return what to say of an error, and the exit code."""
    if isinstance(error, CommandError):
        return str(error).splitlines(), error.exit_code
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return [missing(error.name)], EXIT_USAGE
    if (room := _room_of(error)) is not None:
        unusable = any(base.__name__ in _UNUSABLE for base in type(error).__mro__)
        return str(error).splitlines() or [
            f"{room}: {type(error).__name__}"
        ], EXIT_USAGE if unusable else EXIT_FAULT
    if isinstance(error, OSError) and error.strerror is not None:
        where = f": {error.filename}" if error.filename is not None else ""
        return [f"{error.strerror}{where}"], EXIT_FAULT
    said = str(error) or "no message"
    return [
        f"{type(error).__name__}: {said}",
        "this is a fault of the program; OEE_DEBUG=1 shows where it happened",
    ], EXIT_FAULT


def _room_of(error: BaseException) -> str | None:
    """Return the room whose error tree an error belongs to: then its text is meant for people."""
    for room in _ROOMS:
        errors = sys.modules.get(f"{room}.errors")  # whoever raised it has loaded it
        base = getattr(errors, f"{room.capitalize()}Error", None)
        if isinstance(base, type) and isinstance(error, base):
            return room
    return None
