"""Backups: one tar file with a consistent copy of the store and the history, made while the service runs."""

import contextlib
import os
import shutil
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final

from cloud.errors import StoreError
from cloud.store.port import Store

STORE_FILE: Final = "store.sqlite3"
HISTORY_FOLDER: Final = "history"
_PREFIX: Final = "oee-cloud-"
_SUFFIX: Final = ".tar"
_ABANDONED_SECS: Final = 86_400.0


def back_up(store: Store, history: Path, target: Path) -> int:
    """Write a backup to a new file; return its size [bytes]; raise StoreError when that cannot be.

    The store is copied first: what moves to the history meanwhile is in both, and one record to readers.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{_PREFIX}") as folder:
            copy = Path(folder) / STORE_FILE
            store.back_up(copy)
            with partial.open("wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
                archive.add(copy, STORE_FILE)
                if history.is_dir():
                    archive.add(history, HISTORY_FOLDER, filter=_without_hidden)
                archive.close()
                file.flush()
                os.fsync(file.fileno())
        partial.rename(target)
        return target.stat().st_size
    except (OSError, tarfile.TarError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise StoreError(f"{target}: the backup cannot be written: {error}") from error


def file_name(now_us: int) -> str:
    """Return what a backup made now is called; names sort by time."""
    return f"{_PREFIX}{datetime.fromtimestamp(now_us / 1e6, UTC):%Y%m%dT%H%M%SZ}{_SUFFIX}"


def forget(folder: Path, keep: int) -> int:
    """Delete all backups of a folder but the newest; return how many were.

    What a backup left behind whose process was killed goes too, when it is a day older than the newest.
    """
    backups = sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}"))
    for path in backups[:-keep]:
        path.unlink()
    for path in folder.glob(f".{_PREFIX}*") if backups else ():
        if backups[-1].stat().st_mtime - path.stat().st_mtime > _ABANDONED_SECS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return len(backups[:-keep])


def restore(source: Path, data_dir: Path, history: Path) -> None:
    """Put a backup in place of nothing; raise StoreError when anything is there, or the backup is none."""
    for path in (data_dir / STORE_FILE, history):
        if path.exists():
            raise StoreError(f"{path} exists: move it away first; a backup is restored in place of nothing")
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=data_dir, prefix=".restore-") as folder,
            tarfile.open(source) as archive,
        ):
            for member in archive:
                _extract(archive, member, Path(folder))
            if not (Path(folder) / STORE_FILE).is_file():
                raise StoreError(f"{source} is no backup: it holds no {STORE_FILE}")
            if (Path(folder) / HISTORY_FOLDER).is_dir():
                history.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(Path(folder) / HISTORY_FOLDER, history)
            (Path(folder) / STORE_FILE).rename(data_dir / STORE_FILE)
    except (OSError, tarfile.TarError) as error:
        raise StoreError(f"{source}: the backup cannot be restored: {error}") from error


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Write a member out, if it is one that a backup has."""
    path = PurePosixPath(member.name)
    known = path.parts[:1] == (HISTORY_FOLDER,) or member.name == STORE_FILE
    if not known or ".." in path.parts or path.is_absolute():
        raise StoreError(f"{member.name!r} has no place in a backup")
    target = folder / path
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
    elif member.isfile() and (content := archive.extractfile(member)) is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with content, target.open("wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
    else:
        raise StoreError(f"{member.name!r} is no file")


def _without_hidden(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what is being written."""
    return None if PurePosixPath(member.name).name.startswith(".") else member
