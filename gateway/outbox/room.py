"""Room on the disk: how far an outbox may grow, what is held back for a full disk, and the alarm of it."""

import contextlib
import errno
import os
import sqlite3
from pathlib import Path
from typing import Any, Final

from gateway.outbox.faults import file_limit_bytes

PAGE_BYTES: Final = 4096
_MOST_PAGES: Final = 1_073_741_823
_LEAST_PAGES: Final = 32
_RESERVE_BYTES: Final = 8_388_608


class Alarm:
    """What presses on an outbox: said once, taken back once.

    text: what is wrong now, one sentence; None when all is well
    is_pressed: whether something pressed since it was looked at last
    """

    def __init__(self, log: Any) -> None:
        self._log = log
        self.text: str | None = None
        self.is_pressed = False

    def sound(self, text: str) -> None:
        """Say what is wrong."""
        if self.text != text:
            self._log.error("outbox alarm", alarm=text)
        self.text = text
        self.is_pressed = True

    def settle(self, *, has_room: bool) -> None:
        """Take it back when nothing has pressed since the last time and there is room again."""
        if self.text is not None and not self.is_pressed and has_room:
            self._log.info("outbox alarm over", alarm=self.text)
            self.text = None
        self.is_pressed = False


class Room:
    """The disk under an outbox's file.

    reserve: a file beside it, room to work with when the disk is full
    is_capped: whether the file may not grow, because the disk was full
    """

    def __init__(self, reserve: Path, alarm: Alarm) -> None:
        self._reserve = reserve
        self._alarm = alarm
        self.is_capped = False

    def let_grow(self, connection: sqlite3.Connection) -> None:
        """Let the file grow as far as the process may; the log must always fit into it to be emptied."""
        self.is_capped = False
        limit_bytes = file_limit_bytes()
        pages = _MOST_PAGES if limit_bytes is None else max(_LEAST_PAGES, limit_bytes // PAGE_BYTES - 1)
        connection.execute(f"PRAGMA max_page_count = {pages}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {min(1000, pages // 4)}")

    def make(self, connection: sqlite3.Connection) -> None:
        """Give up the reserve, empty the log into the file, and let the file grow no more.

        From then on room comes from deleting, which works on a full disk as long as the log can be emptied.
        """
        self._reserve.unlink(missing_ok=True)
        self.is_capped = True
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")

    def keep(self, connection: sqlite3.Connection) -> None:
        """Hold a little of the disk for the day it is full."""
        if self._alarm.is_pressed or self._reserve.exists():
            return
        try:
            with self._reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
            self.let_grow(connection)
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            if error.errno == errno.ENOSPC:
                self._alarm.sound("the disk is nearly full")
            else:
                self.let_grow(connection)
