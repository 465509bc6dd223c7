"""A real mosquitto on a free port of loopback, for as long as a `with` lasts."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import free_port

MISSING = "these tests need the mosquitto broker: install it (Debian: apt-get install mosquitto)"
_START_SECS = 10.0


class MosquittoMissingError(RuntimeError):
    """mosquitto is not installed; the tests that need it fail and say so."""


def find(program: str = "mosquitto") -> str:
    """Return the path of a program of mosquitto's; it often lies in sbin, which may not be on PATH."""
    found = shutil.which(
        program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
    )
    if found is None:
        raise MosquittoMissingError(f"{program} was not found; {MISSING}")
    return found


class Mosquitto:
    """A broker with its own folder; may be killed and started again on the same port.

    folder: where configuration, log and stored sessions live; a temporary one when None
    persistence: keep sessions and retained messages across `stop` and `start`; a `kill` loses the unsaved
    users: name -> password; anonymous clients are refused when given
    acl: text of an access control file
    certificates: PEM paths `cafile`, `certfile`, `keyfile`: the listener speaks TLS only
    require_certificate: clients must show a certificate signed by cafile
    settings: further lines of mosquitto.conf
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        port: int | None = None,
        persistence: bool = True,
        users: Mapping[str, str] | None = None,
        acl: str | None = None,
        certificates: Mapping[str, Path] | None = None,
        require_certificate: bool = False,
        settings: Iterable[str] = (),
    ) -> None:
        self._program = find()
        self._own_folder = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="mosquitto-")) if folder is None else folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.scheme = "mqtts" if certificates else "mqtt"
        self.log_path = self.folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {'false' if users else 'true'}",
            f"persistence {'true' if persistence else 'false'}",
            f"persistence_location {self.folder}/",
            "autosave_interval 1",
            "max_inflight_messages 200",
            "max_queued_messages 0",
            "set_tcp_nodelay true",
            f"log_dest file {self.log_path}",
            "log_type error",
            "log_type warning",
            "log_type notice",
        ]
        if os.geteuid() == 0:
            lines.append("user root")  # it would drop to a user who may not write our folder
        if users:
            lines.append(f"password_file {self._password_file(users)}")
        if acl is not None:
            (self.folder / "acl").write_text(acl)
            (self.folder / "acl").chmod(0o600)
            lines.append(f"acl_file {self.folder / 'acl'}")
        for key, path in (certificates or {}).items():
            lines.append(f"{key} {path}")
        if require_certificate:
            lines += ["require_certificate true", "use_identity_as_username true"]
        (self.folder / "mosquitto.conf").write_text("\n".join([*lines, *settings]) + "\n")

    @property
    def url(self) -> str:
        """Return the address as the product's configuration names it."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Return the process id of the running broker."""
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    def start(self) -> None:
        """Start the broker and wait until it listens; raise RuntimeError with its log when it does not."""
        assert self._process is None, "the broker already runs"
        with (self.folder / "stderr").open("ab") as stderr:  # where faults of the configuration are told
            self._process = subprocess.Popen(
                [self._program, "-c", str(self.folder / "mosquitto.conf")], stderr=stderr
            )
        deadline = time.monotonic() + _START_SECS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                code, self._process = self._process.returncode, None
                raise RuntimeError(f"mosquitto ended with {code}: {self.log()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"mosquitto did not listen on port {self.port}: {self.log()}")

    def stop(self) -> None:
        """End the broker in good order; it saves sessions and retained messages."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker as a loss of power does."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the broker in its tracks: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen broker go on."""
        os.kill(self.pid, signal.SIGCONT)

    def log(self) -> str:
        """Return what the broker has logged."""
        paths = (self.log_path, self.folder / "stderr")
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=5)

    def _password_file(self, users: Mapping[str, str]) -> Path:
        path = self.folder / "passwords"
        path.write_text("".join(f"{name}:{password}\n" for name, password in users.items()))
        path.chmod(0o600)
        subprocess.run([find("mosquitto_passwd"), "-U", str(path)], check=True)
        return path

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
