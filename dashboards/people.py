"""Who may use the pages: accounts with roles, sessions, wall displays, and the record of what was done.

Kept in a SQLite file of its own. Passwords are hashed with argon2id; tokens are kept as SHA-256 only, so that
the file gives nobody a way in.
"""

import contextlib
import hashlib
import secrets
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

Role = Literal["viewer", "operator", "supervisor", "engineer"]
ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "supervisor", "engineer")
"""Each may do what those before it may."""

SESSION_SECS: Final = 14 * 86_400
MIN_PASSWORD: Final = 10
_MAX_PASSWORD: Final = 256
_MAX_NAME: Final = 64
_MAX_AUDIT: Final = 100_000
_TRIES: Final = 5
_TRY_SECS: Final = 300.0
_MAX_WATCHED: Final = 10_000
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS account(
  name TEXT PRIMARY KEY COLLATE NOCASE, role TEXT NOT NULL, password TEXT NOT NULL,
  created REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS session(
  token BLOB PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE REFERENCES account(name) ON DELETE CASCADE,
  expires REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS display(
  token BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, created REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS audit(
  number INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, about TEXT NOT NULL,
  address TEXT NOT NULL) STRICT;
"""


class PeopleError(Exception):
    """What a person asked for cannot be; the text says why."""


class TooManyTriesError(PeopleError):
    """Somebody guesses passwords."""

    def __init__(self, wait_secs: float) -> None:
        self.wait_secs = max(1, round(wait_secs))
        super().__init__(f"Too many wrong passwords. Try again in {self.wait_secs} s.")


class Account(NamedTuple):
    """Somebody, or a screen on a wall."""

    name: str
    role: Role
    is_display: bool = False

    def may(self, role: Role) -> bool:
        """Tell whether this role includes another."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Entry(NamedTuple):
    """One line of the record of what was done."""

    at: float
    who: str
    what: str
    about: str
    address: str


class People:
    """Accounts, sessions and displays in one file; safe to use from several threads."""

    def __init__(self, path: Path, clock: Callable[[], float], hasher: PasswordHasher | None = None) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._hasher = hasher or PasswordHasher()
        self._nobody = self._hasher.hash(secrets.token_hex())
        self._wrong: dict[str, deque[float]] = {}
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        path.chmod(0o600)
        self._database.executescript("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON;" + _SCHEMA)
        self.setup_code = secrets.token_urlsafe(9)
        """Told on the server's own terminal: who has it may make the first engineer."""

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    @property
    def is_empty(self) -> bool:
        """Tell whether nobody has an account yet."""
        with self._lock:
            return self._database.execute("SELECT 1 FROM account LIMIT 1").fetchone() is None

    def accounts(self) -> list[Account]:
        """Return everybody by name."""
        with self._lock:
            rows = self._database.execute("SELECT name, role FROM account ORDER BY name").fetchall()
        return [Account(name, role) for name, role in rows]

    def add(self, name: str, role: str, password: str) -> Account:
        """Make an account; raise PeopleError for a name that is taken or a password that is too short."""
        name = name.strip()
        known = _role(role)
        if not 1 <= len(name) <= _MAX_NAME:
            raise PeopleError(f"A name has 1 to {_MAX_NAME} characters.")
        hashed = self._hash(password)
        with self._lock:
            try:
                self._database.execute(
                    "INSERT INTO account VALUES (?, ?, ?, ?)", (name, known, hashed, self._clock())
                )
            except sqlite3.IntegrityError as error:
                raise PeopleError(f"There is an account {name} already.") from error
        return Account(name, known)

    def set_password(self, name: str, password: str) -> None:
        """Give an account a new password and end its sessions."""
        hashed = self._hash(password)
        with self._lock:
            self._database.execute("UPDATE account SET password = ? WHERE name = ?", (hashed, name))
            self._database.execute("DELETE FROM session WHERE name = ?", (name,))

    def set_role(self, name: str, role: str) -> None:
        """Give an account another role; raise PeopleError when no engineer would be left."""
        known = _role(role)
        with self._lock:
            if known != "engineer":
                self._keep_an_engineer(name)
            self._database.execute("UPDATE account SET role = ? WHERE name = ?", (known, name))

    def remove(self, name: str) -> None:
        """Remove an account and its sessions; raise PeopleError when no engineer would be left."""
        with self._lock:
            self._keep_an_engineer(name)
            self._database.execute("DELETE FROM account WHERE name = ?", (name,))

    def sign_in(self, name: str, password: str, address: str) -> tuple[Account, str]:
        """Return the account and a new session's token; raise PeopleError for a wrong name or password.

        Wrong tries are counted by name and by address; after a few of them everybody waits.
        """
        keys = (f"name {name.lower()[:_MAX_NAME]}", f"address {address}")
        self._refuse_guessing(keys)
        with self._lock:
            row = self._database.execute(
                "SELECT name, role, password FROM account WHERE name = ?", (name.strip(),)
            ).fetchone()
        # An unknown name takes as long as a known one, so that names cannot be found out.
        is_right = False
        with contextlib.suppress(VerificationError, InvalidHashError):
            is_right = self._hasher.verify(self._nobody if row is None else row[2], password[:_MAX_PASSWORD])
        if row is None or not is_right:
            self._note_wrong(keys)
            raise PeopleError("That name and password do not belong together.")
        with self._lock:
            for key in keys:
                self._wrong.pop(key, None)
            token = secrets.token_urlsafe(32)
            now = self._clock()
            self._database.execute("DELETE FROM session WHERE expires < ?", (now,))
            self._database.execute(
                "INSERT INTO session VALUES (?, ?, ?)", (_digest(token), row[0], now + SESSION_SECS)
            )
        return Account(row[0], row[1]), token

    def of_session(self, token: str) -> Account | None:
        """Return whose session it is; None when it is nobody's, or over."""
        with self._lock:
            row = self._database.execute(
                "SELECT account.name, role FROM session JOIN account USING (name)"
                " WHERE token = ? AND expires > ?",
                (_digest(token), self._clock()),
            ).fetchone()
        return Account(*row) if row else None

    def sign_out(self, token: str) -> None:
        """End a session."""
        with self._lock:
            self._database.execute("DELETE FROM session WHERE token = ?", (_digest(token),))

    def displays(self) -> list[str]:
        """Return the names of the wall displays and programs that have a token."""
        with self._lock:
            return [name for (name,) in self._database.execute("SELECT name FROM display ORDER BY name")]

    def add_display(self, name: str) -> str:
        """Make a token by which a screen or a program may look, and nothing else; it is shown only now."""
        name = name.strip()
        if not 1 <= len(name) <= _MAX_NAME:
            raise PeopleError(f"A name has 1 to {_MAX_NAME} characters.")
        token = secrets.token_urlsafe(32)
        with self._lock:
            try:
                self._database.execute(
                    "INSERT INTO display VALUES (?, ?, ?)", (_digest(token), name, self._clock())
                )
            except sqlite3.IntegrityError as error:
                raise PeopleError(f"There is a display {name} already.") from error
        return token

    def remove_display(self, name: str) -> None:
        """Take a display's token away."""
        with self._lock:
            self._database.execute("DELETE FROM display WHERE name = ?", (name,))

    def of_display(self, token: str) -> Account | None:
        """Return the display that a token belongs to."""
        with self._lock:
            row = self._database.execute(
                "SELECT name FROM display WHERE token = ?", (_digest(token),)
            ).fetchone()
        return Account(row[0], "viewer", is_display=True) if row else None

    def note(self, who: str, what: str, about: str, address: str) -> None:
        """Record that somebody did something; the newest 100,000 are kept."""
        with self._lock:
            self._database.execute(
                "INSERT INTO audit(at, who, what, about, address) VALUES (?, ?, ?, ?, ?)",
                (self._clock(), who, what, about[:500], address),
            )
            self._database.execute(
                "DELETE FROM audit WHERE number <= (SELECT max(number) FROM audit) - ?", (_MAX_AUDIT,)
            )

    def entries(self, limit: int = 300) -> list[Entry]:
        """Return what was done, newest first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT at, who, what, about, address FROM audit ORDER BY number DESC LIMIT ?", (limit,)
            ).fetchall()
        return [Entry(*row) for row in rows]

    def _hash(self, password: str) -> str:
        if not MIN_PASSWORD <= len(password) <= _MAX_PASSWORD:
            raise PeopleError(f"A password has {MIN_PASSWORD} to {_MAX_PASSWORD} characters.")
        return self._hasher.hash(password)

    def _keep_an_engineer(self, name: str) -> None:
        left = self._database.execute(
            "SELECT 1 FROM account WHERE role = 'engineer' AND name <> ? LIMIT 1", (name,)
        ).fetchone()
        if left is None:
            raise PeopleError("At least one engineer must be left.")

    def _refuse_guessing(self, keys: tuple[str, ...]) -> None:
        now = self._clock()
        with self._lock:
            for key in keys:
                tries = self._wrong.get(key)
                while tries and now - tries[0] > _TRY_SECS:
                    tries.popleft()
                if tries and len(tries) >= _TRIES:
                    raise TooManyTriesError(_TRY_SECS - (now - tries[0]))

    def _note_wrong(self, keys: tuple[str, ...]) -> None:
        with self._lock:
            if len(self._wrong) > _MAX_WATCHED:
                self._wrong.clear()
            for key in keys:
                self._wrong.setdefault(key, deque(maxlen=_TRIES)).append(self._clock())


def _role(text: str) -> Role:
    for role in ROLES:
        if role == text:
            return role
    raise PeopleError(f"A role is one of {', '.join(ROLES)}.")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
