"""A mail server on loopback that keeps what it gets, and may be shut or refuse."""

import email
import email.message
import email.policy
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from tests.support.ports import free_port


class Mailbox:
    """Every mail that was taken, in order."""

    def __init__(self) -> None:
        self.mails: list[email.message.EmailMessage] = []
        self.recipients: list[str] = []
        self.refused: set[str] = set()
        """Recipients that are unknown here."""
        self._controller: Controller | None = None
        self.port = 0

    def open(self) -> None:
        """Listen, on the same port as before."""
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port or free_port())
        self._controller.start()
        self.port = self._controller.port

    def shut(self) -> None:
        """Listen no more."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    def url(self, *, to: str = "") -> str:
        """Return the address of Apprise for this server."""
        return f"mailto://127.0.0.1:{self.port}/?from=oee@example.com" + (f"&to={to}" if to else "")

    @property
    def titles(self) -> list[str]:
        """Return the subjects, in order."""
        return [str(mail["Subject"]) for mail in self.mails]

    async def handle_RCPT(  # noqa: N802  as aiosmtpd has it
        self, server: SMTP, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        """Refuse who is unknown."""
        if address in self.refused:
            return "550 unknown"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802
        """Keep a mail."""
        found = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(found, email.message.EmailMessage)
        self.mails.append(found)
        self.recipients += envelope.rcpt_tos
        return "250 OK"

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shut()
