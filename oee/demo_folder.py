"""The folder of a demo: one running demo at a time, one factory for as long as it is kept."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from oee.errors import CommandError, UsageError

_MARK: Final = "demo.json"
_LOCK: Final = "lock"


def default() -> Path:
    """Return `.oee-demo` inside a clone, else a folder for state in the user's home."""
    if (Path("pyproject.toml").is_file() and Path("simulator").is_dir()) or Path(".oee-demo").is_dir():
        return Path(".oee-demo")
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "oee-gateway" / "demo"


@contextlib.contextmanager
def opened(folder: Path, factory: Mapping[str, Any], *, fresh: bool) -> Iterator[Path]:
    """Hold a folder for one demo, made when missing; raise CommandError with the reason where that cannot be.

    factory: what the factory depends on; a folder keeps to the one that it was begun with
    fresh: delete what a demo left in the folder before
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("a+")
    except OSError as error:
        raise CommandError(
            f"{folder} cannot be used: {error.strerror}; name another with --data-dir"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            where = lock.read().strip()
            raise CommandError(
                f"a demo already runs in {folder}{f', see {where}' if where else ''}"
            ) from error
        lock.truncate(0)
        if fresh:
            _clear(folder)
        _keep_to(folder, factory)
        yield folder


def announce(folder: Path, url: str) -> None:
    """Write down where the running demo shows its board, for whoever tries to start another."""
    (folder / _LOCK).write_text(url)


def _keep_to(folder: Path, factory: Mapping[str, Any]) -> None:
    mark = folder / _MARK
    if mark.exists():
        try:
            begun = json.loads(mark.read_text())
        except ValueError as error:
            raise UsageError(f"{mark} is damaged: add --fresh to begin anew") from error
        if begun != dict(factory):
            raise UsageError(
                f"{folder} holds a factory begun with {_said(begun)}, not {_said(factory)}: "
                "add --fresh to begin anew, or name another folder with --data-dir"
            )
        return
    if others := sorted(path.name for path in folder.iterdir() if path.name != _LOCK):
        raise UsageError(
            f"{folder} holds {others[0]}, which no demo made: name another folder with --data-dir"
        )
    mark.write_text(json.dumps(dict(factory)))


def _clear(folder: Path) -> None:
    if not (folder / _MARK).exists():
        return  # no demo ever ran here; _keep_to judges what else lies in it
    for path in folder.iterdir():
        if path.name == _LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _said(factory: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in factory.items())
