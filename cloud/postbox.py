"""Mail, chat, SMS, whatever a URL of Apprise names: the only door to that library."""

import logging
import threading
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from cloud.config import is_loopback
from cloud.errors import NotificationError

_LOADING = threading.Lock()
"""Apprise loads its services when the first URL is read, which two threads may not do at once."""

Tone = Literal["plain", "good", "warning"]


class Attachment(NamedTuple):
    """A file that goes along."""

    name: str
    media_type: str
    content: bytes


class Postbox:
    """Where messages of one URL go out; the URL is a secret, and never told."""

    def __init__(self, name: str, url: str, *, allow_insecure: bool = True) -> None:
        """Read the URL; raise NotificationError when it is of no known service, or lacks a part.

        allow_insecure: whether a service may be spoken to in plain text over a network
        """
        import apprise
        from apprise.attachment.memory import AttachMemory

        # Its log may tell parts of the URL.
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
        self._name = name
        self._attach: Any = AttachMemory
        self._tones = {
            "plain": apprise.NotifyType.INFO,
            "good": apprise.NotifyType.SUCCESS,
            "warning": apprise.NotifyType.WARNING,
        }
        self._apprise = apprise.Apprise()
        with _LOADING:
            is_known = self._apprise.add(url)
        if not is_known:
            raise NotificationError(f"{name}: its URL is of no known service, or lacks a part")
        for service in self._apprise:
            mail_host = getattr(service, "smtp_host", None)
            if mail_host is not None:
                # Apprise waits 5.5 s between two mails, which a mail server of one's own does not ask for.
                service.request_rate_per_sec = 0
            host = mail_host or service.host
            if not allow_insecure and not service.secure and host and not is_loopback(host):
                raise NotificationError(
                    f"{name}: its URL would speak in plain text: use mailtos://, or say allow_insecure = true"
                )

    def send(
        self,
        title: str,
        body: str,
        *,
        tone: Tone = "plain",
        is_html: bool = False,
        files: Sequence[Attachment] = (),
    ) -> None:
        """Send one message; raise NotificationError when it was not taken."""
        attached = [
            self._attach(content=file.content, name=file.name, mimetype=file.media_type) for file in files
        ]
        try:
            taken = self._apprise.notify(
                body=body,
                title=title,
                notify_type=self._tones[tone],
                body_format="html" if is_html else None,
                attach=attached or None,
            )
        except Exception as error:  # noqa: BLE001  each service has errors of its own; their texts may hold the URL
            raise NotificationError(f"{self._name}: {type(error).__name__}") from None
        if not taken:
            raise NotificationError(f"{self._name}: the service cannot be reached or refuses the message")
