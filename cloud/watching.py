"""Sees when a configuration file was changed."""

import contextlib
from pathlib import Path


def stamp(path: Path) -> object:
    """Return what differs when a file, or any file of a folder, was changed."""
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    found = []
    for file in files:
        with contextlib.suppress(OSError):
            status = file.stat()
            found.append((file, status.st_mtime_ns, status.st_size, status.st_ino))
    return found
