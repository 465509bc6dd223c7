"""Configuration files under a running service: a change is taken whole when it is valid, else not at all."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from cloud.errors import ConfigError

Loaded = TypeVar("Loaded")

_log = structlog.get_logger("cloud.service")


class Watched(Generic[Loaded]):
    """A file, or a folder of them, that is read again when it was changed."""

    def __init__(self, path: Path, load: Callable[[Path], Loaded], *, seen: object = None) -> None:
        """Watch it.

        load: reads it; raises ConfigError with all its faults
        seen: `stamp` of it from before it was loaded; None: as it is now
        """
        self.path = path
        self._load = load
        self._seen = stamp(path) if seen is None else seen
        self.faults: list[str] = []
        """Why the last change was refused; none when it was not."""

    def load(self) -> Loaded:
        """Return what it says now; raise ConfigError with all its faults."""
        return self._load(self.path)

    def look_again(self, why: str) -> None:
        """Have the next look find it changed: what it said could not be put in force."""
        self._seen = None
        self.faults = [why]

    def changed(self) -> Loaded | None:
        """Return what it says when that was changed since the last look, and may be used."""
        found = stamp(self.path)
        if found == self._seen:
            return None
        self._seen = found
        try:
            loaded = self.load()
        except ConfigError as error:
            self.faults = [str(fault) for fault in error.faults]
            _log.error(
                f"the changed {self.path.name} is refused; the one before stays in force", faults=self.faults
            )
            return None
        self.faults = []
        return loaded


def stamp(path: Path) -> object:
    """Return what differs when a file, or any file of a folder, was changed."""
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    found = []
    for file in files:
        with contextlib.suppress(OSError):
            status = file.stat()
            found.append((file, status.st_mtime_ns, status.st_size, status.st_ino))
    return found
