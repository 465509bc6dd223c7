"""What lies beside an outbox: its folder, the lock against a second process, the ceiling of its sequences."""

import contextlib
import fcntl
import os
from pathlib import Path

from gateway.errors import OutboxLockedError, StartError


def check_writable(folder: Path) -> None:
    """Make the folder and try to write there; raise StartError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StartError(f"the data folder {folder} cannot be written: {error.strerror or error}") from error


def lock(path: Path) -> int:
    """Keep other processes out; return the open lock; raise OutboxLockedError with who is in."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(handle, 32).decode(errors="replace").strip()
        os.close(handle)
        raise OutboxLockedError(
            f"the data folder {path.parent} is used by another gateway process (pid {owner or 'unknown'})"
        ) from error
    with contextlib.suppress(OSError):  # on a full disk nobody is told who is in
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def read_ceiling(path: Path) -> int:
    """Return the sequence that was never reached; 0 where that is not known."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def write_ceiling(path: Path, ceiling: int) -> None:
    """Put it on disk, whole or not at all, before this returns."""
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        file.write(str(ceiling))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
