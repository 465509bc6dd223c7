"""Mail, chat, SMS, whatever a URL of Apprise names: the only door to that library.

What is sent once more, after a crash between the receiver's yes and our note, has the key that it had before:
the Message-ID of a mail, the header `webhook-id` of a webhook. Receivers drop the second by it.
"""

import contextvars
import hashlib
import importlib
import logging
import threading
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import structlog

from cloud.config import is_loopback
from cloud.errors import NotificationError

_KEY_HEADER: Final = "webhook-id"
_sending: contextvars.ContextVar[str | None] = contextvars.ContextVar("_sending", default=None)
"""The key of what is sent in this context."""
_LOADING = threading.Lock()
"""Apprise loads its services when the first URL is read, which two threads may not do at once."""

_log = structlog.get_logger("cloud.postbox")

Tone = Literal["plain", "good", "warning"]


class Attachment(NamedTuple):
    """A file that goes along."""

    name: str
    media_type: str
    content: bytes


def key_of(*told: bytes | str) -> str:
    """Return the key of a message: the same for the same parts, and for no others."""
    digest = hashlib.sha256()
    for part in told:
        whole = part.encode() if isinstance(part, str) else part
        digest.update(len(whole).to_bytes(8, "big") + whole)
    return digest.hexdigest()[:32]


class Postbox:
    """Where messages of one URL go out; the URL is a secret, and never told."""

    def __init__(self, name: str, url: str, *, allow_insecure: bool = False) -> None:
        """Read the URL; raise NotificationError when it is of no known service, or lacks a part.

        allow_insecure: whether a service may be spoken to over a network in plain text, or without a look at
            its certificate; what does so is logged
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
            _give_mails_our_keys()
        self._headers: list[dict[str, str]] = []
        if not is_known:
            raise NotificationError(f"{name}: its URL is of no known service, or lacks a part")
        for service in self._apprise:
            mail_host = getattr(service, "smtp_host", None)
            if mail_host is not None:
                # Apprise waits 5.5 s between two mails, which a mail server of one's own does not ask for.
                service.request_rate_per_sec = 0
            elif isinstance(headers := getattr(service, "headers", None), dict):
                self._headers.append(headers)
            weakness = _weakness(service, mail_host or service.host)
            if weakness is not None and not allow_insecure:
                raise NotificationError(
                    f"{name}: its URL would {weakness}: use TLS, such as mailtos:// or jsons://,"
                    " or say allow_insecure = true"
                )
            if weakness is not None:
                _log.warning(f"messages {weakness}", to=name)

    def send(
        self,
        title: str,
        body: str,
        *,
        key: str | None = None,
        tone: Tone = "plain",
        is_html: bool = False,
        files: Sequence[Attachment] = (),
    ) -> None:
        """Send one message; raise NotificationError when it was not taken.

        key: `key_of` what it tells, where it may be sent once more
        """
        attached = [
            self._attach(content=file.content, name=file.name, mimetype=file.media_type) for file in files
        ]
        for headers in self._headers:
            if key is not None:
                headers[_KEY_HEADER] = key
        token = _sending.set(key)
        try:
            taken = self._apprise.notify(
                body=body,
                title=title,
                notify_type=self._tones[tone],
                body_format="html" if is_html else "text",  # names and reasons are no markup
                attach=attached or None,
            )
        except Exception as error:  # noqa: BLE001  each service has errors of its own; their texts may hold the URL
            raise NotificationError(f"{self._name}: {type(error).__name__}") from None
        finally:
            _sending.reset(token)
        if not taken:
            raise NotificationError(f"{self._name}: the service cannot be reached or refuses the message")


def _weakness(service: Any, host: str | None) -> str | None:
    """Return what lets others on the network read messages, or take them in another's name; None: nothing."""
    if not host or is_loopback(host):
        return None
    mode = getattr(service, "secure_mode", None)  # of mail; what ?mode= says goes before mailtos://
    is_plain = bool(service.protocol) and not service.secure if mode is None else mode == "insecure"
    if is_plain:
        return "go to another machine in plain text"
    return None if service.verify_certificate else "go to another machine whatever certificate it shows"


def _give_mails_our_keys() -> None:
    """Have Apprise, which gives every mail a random Message-ID, take ours where there is one."""
    mails: Any = importlib.import_module("apprise.plugins.email.base")
    random_id = mails.make_msgid
    if getattr(random_id, "is_ours", False):
        return

    def message_id(idstring: str | None = None, domain: str | None = None) -> str:
        key = _sending.get()
        return random_id(idstring, domain) if key is None else f"<{key}@{domain or 'oee-gateway'}>"

    vars(message_id)["is_ours"] = True
    mails.make_msgid = message_id
