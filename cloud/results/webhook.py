"""Posts closed and revised shifts to a web address, signed, in the order in which they were made.

Messages are signed as the Standard Webhooks specification says: `webhook-signature` is `v1,` and the base64
of the HMAC-SHA256 of `webhook-id`, `webhook-timestamp` and the body, joined by dots. A message that was sent
twice has one `webhook-id`.
"""

import base64
import binascii
import hashlib
import hmac
import http.client
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec
import structlog

from cloud.errors import ResultsError
from cloud.results.config import WebhookTable, web_fault
from cloud.results.follower import Follower
from cloud.store.port import ClosedShift, LoggedShift, Store

_BASE64: Final = "whsec_"
"""What stands before a secret that is written as base64."""
_AT_ONCE: Final = 100
_TAKEN: Final = range(200, 300)

_log = structlog.get_logger("cloud.results.webhook")


class ShiftMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a message."""

    id: str
    event: Literal["closed", "revised", "test"]
    scope: str
    """`site/area/line/machine` or `site/area/line`."""
    revision: int
    epochtime: float
    """When the revision was made."""
    why: str
    figures: dict[str, Any]
    """The flat object of `oee compute --format json`."""


class Signed(NamedTuple):
    """What is posted."""

    headers: Mapping[str, str]
    body: bytes


def message_of(shift: ClosedShift) -> ShiftMessage:
    """Return the message of a revision."""
    revision = shift.revision
    name = f"{shift.scope}|{shift.start_us}|{revision.revision}"
    return ShiftMessage(
        id=hashlib.sha256(name.encode()).hexdigest()[:32],
        event="closed" if revision.revision == 1 else "revised",
        scope=shift.scope,
        revision=revision.revision,
        epochtime=revision.made_epochtime,
        why=revision.why,
        figures=revision.figures,
    )


def signed(message: ShiftMessage, secret: str | None, now_us: int) -> Signed:
    """Return a message with its headers; without a secret it is not signed."""
    body = msgspec.json.encode(message)
    timestamp = str(now_us // 1_000_000)
    headers = {
        "content-type": "application/json",
        "user-agent": "oee-gateway",
        "webhook-id": message.id,
        "webhook-timestamp": timestamp,
    }
    if secret is not None:
        content = f"{message.id}.{timestamp}.".encode() + body
        digest = hmac.new(_key(secret), content, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return Signed(headers, body)


class WebAddress:
    """Where messages of one webhook go."""

    def __init__(self, table: WebhookTable) -> None:
        """Read what the table names; raise ResultsError or AddressError when it cannot be used."""
        url = table.address()
        if (fault := web_fault(url, allow_insecure=table.allow_insecure)) is not None:
            raise ResultsError(f"{table.name}: its URL {fault}")
        self._table = table
        self._secret = table.secret()
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (
            f"?{parts.query}" if parts.query else ""
        )
        if web_fault(url, allow_insecure=False) is not None:
            _log.warning("figures go to another machine in plain text", to=table.name)
        if self._secret is None:
            _log.warning("messages are not signed", to=table.name)
        self._context: ssl.SSLContext | None = None
        if parts.scheme == "https":
            try:
                self._context = ssl.create_default_context(cafile=table.ca_file)
            except OSError as error:
                raise ResultsError(f"{table.name}: {table.ca_file} holds no certificates") from error

    def post(self, message: ShiftMessage, now_us: int) -> None:
        """Post one message; raise ResultsError when the answer is not 2xx. A redirection is not followed."""
        posted = signed(message, self._secret, now_us)
        connection = self._connection()
        try:
            connection.request("POST", self._target, posted.body, dict(posted.headers))
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ResultsError(f"{self._table.name}: {self._host} cannot be reached: {reason}") from error
        finally:
            connection.close()
        if status not in _TAKEN:
            raise ResultsError(f"{self._table.name}: {self._host} answered {status}")

    def _connection(self) -> http.client.HTTPConnection:
        timeout = self._table.timeout_secs
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._context)


def send_test(table: WebhookTable, now_us: int) -> None:
    """Post a message that says nothing of any shift; raise ResultsError when it is refused."""
    message = ShiftMessage(
        id=f"test-{now_us}",
        event="test",
        scope="test/test/test/test",
        revision=0,
        epochtime=now_us / 1e6,
        why="a test",
        figures={},
    )
    WebAddress(table).post(message, now_us)


class Webhook(Follower[LoggedShift]):
    """Posts the revisions of one webhook; where it has got to is noted in the store."""

    def __init__(self, table: WebhookTable, store: Store, *, now_us: Callable[[], int]) -> None:
        super().__init__(
            f"webhook:{table.name}",
            store,
            from_start=table.history,
            retry_max_secs=table.retry_max_secs,
            now_us=now_us,
        )
        self.table: WebhookTable = table
        self._address: WebAddress | None = None

    def reopen(self) -> None:
        """Read address and secret anew next time."""
        self._address = None

    def waiting(self) -> Sequence[LoggedShift]:
        """Return the next revisions that this webhook wants."""
        while found := self.next(_AT_ONCE):
            wanted = [item for item in found if self.table.wants(item.shift.scope)]
            if wanted:
                return wanted
            self.reach(found[-1].position)
        return []

    def done(self, item: LoggedShift) -> None:
        """Note that a revision was posted, or never will be."""
        self.reach(item.position)

    def carry(self, item: LoggedShift) -> bool:
        """Post a revision, or drop one that waited too long."""
        message, now_us = message_of(item.shift), self._now_us()
        if not self.table.history and now_us / 1e6 - message.epochtime > self.table.max_age_secs:
            self._note_dropped("too old to be posted", f"{message.scope} revision {message.revision}")
            return True
        if self._address is None:
            self._address = WebAddress(self.table)
        self._address.post(message, now_us)
        self._note_sent()
        return True


def _key(secret: str) -> bytes:
    if not secret.startswith(_BASE64):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_BASE64), validate=True)
    except binascii.Error as error:
        raise ResultsError(f"the secret begins with {_BASE64} but is not base64 after it") from error
