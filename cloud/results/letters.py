"""Letters to people: made once, kept in the store, sent to each recipient until the mail server has them."""

from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from cloud.carrier import Carrier
from cloud.postbox import Attachment, Postbox, key_of
from cloud.results.config import MailTable
from cloud.store.port import Delivery, Store

_AT_ONCE: Final = 5


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One mail."""

    title: str
    html: str
    made_epochtime: float
    files: list[Attachment] = []
    key: str = ""
    """What it tells, such as a report's name, period and edition: the same in a letter that is made again."""


def encode(letter: Letter) -> bytes:
    """Write a letter for the store."""
    return msgspec.msgpack.encode(letter)


def open_postbox(table: MailTable, to: str | None) -> Postbox:
    """Return where letters to somebody go out; raise NotificationError or AddressError."""
    url = table.address()
    if to is not None:
        url += f"{'&' if '?' in url else '?'}to={quote(to)}"
    return Postbox(table.name, url, allow_insecure=table.allow_insecure)


def send_test(table: MailTable, to: str | None) -> None:
    """Send a test mail; raise NotificationError or AddressError when it was not taken."""
    text = f"<p>This is a test of <b>{table.name}</b>. Reports will come like this.</p>"
    open_postbox(table, to).send(f"OEE test of {table.name}", text, is_html=True)


class Post(Carrier[Delivery]):
    """Sends the letters that wait for one recipient."""

    def __init__(
        self, channel: str, table: MailTable, to: str | None, store: Store, *, now_us: Callable[[], int]
    ) -> None:
        super().__init__(channel, store, kind="mail", retry_max_secs=table.retry_max_secs, now_us=now_us)
        self.table: MailTable = table
        self._to = to
        self._postbox: Postbox | None = None

    def backlog(self) -> int:
        """Return how many letters wait."""
        return self._store.delivery_count(self.name)

    def reopen(self) -> None:
        """Read the account anew next time."""
        self._postbox = None

    def waiting(self) -> Sequence[Delivery]:
        """Return letters that were not sent yet."""
        return self._store.deliveries(self.name, _AT_ONCE)

    def done(self, item: Delivery) -> None:
        """Note that a letter was sent, or never will be."""
        self._store.delivery_done(item.id)

    def carry(self, item: Delivery) -> bool:
        """Send a letter, or drop one that grew too old."""
        letter = msgspec.msgpack.decode(item.payload, type=Letter)
        if self._now_us() / 1e6 - letter.made_epochtime > self.table.max_age_secs:
            self._note_dropped("too old to be sent", letter.title)
            return True
        if self._postbox is None:
            self._postbox = open_postbox(self.table, self._to)
        key = key_of(self.name, letter.key or item.payload)
        self._postbox.send(letter.title, letter.html, key=key, is_html=True, files=letter.files)
        self._note_sent()
        return True
