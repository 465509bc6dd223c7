"""What is sent once more is known again by its key."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from cloud.alerts.channels import AppriseDoor, open_door
from cloud.alerts.config import ChannelTable
from cloud.errors import NotificationError, StoreError
from cloud.postbox import Postbox, key_of
from cloud.results.config import ReportTable
from cloud.results.letters import Letter, Post, encode, open_postbox
from cloud.store.port import Delivery
from cloud.store.sqlite import SqliteStore
from contract.delivery import Alert
from tests.support.mailbox import Mailbox
from tests.support.webhooks import Receiver

NOW = 1_625_000_000.0


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as opened:
        yield opened


HIDDEN = "u:hidden@mail.example.com/?from=a@example.com&to=b@example.com"


@pytest.mark.parametrize(
    ("url", "weakness"),
    [
        ("mailto://mail.example.com/?from=a@example.com&to=b@example.com", "in plain text"),
        (f"mailtos://{HIDDEN}&mode=insecure", "in plain text"),
        (f"mailtos://{HIDDEN}&verify=no", "whatever certificate"),
        ("json://erp.example.com/hidden", "in plain text"),
        ("jsons://erp.example.com/hidden?verify=no", "whatever certificate"),
        ("ntfy://ntfy.example.com/hidden", "in plain text"),
        ("rsyslog://10.0.0.1", "in plain text"),
    ],
)
def test_what_is_not_safe_on_its_way_needs_a_line_that_says_so_and_is_logged(url: str, weakness: str) -> None:
    """Of an alert's channel as of a report's mail."""
    fields = {"name": "c", "kind": "apprise", "url": url}
    with capture_logs() as told:
        with pytest.raises(NotificationError, match=f"{weakness}.*allow_insecure = true") as caught:
            open_door(ChannelTable.model_validate(fields))
        with pytest.raises(NotificationError, match=weakness):
            open_postbox(ReportTable(name="r", url=url), None)
        assert "hidden" not in str(caught.value)
        assert told == []
        open_door(ChannelTable.model_validate({**fields, "allow_insecure": True}))
    assert [(weakness in line["event"], line["to"], line["log_level"]) for line in told] == [
        (True, "c", "warning")
    ]
    assert "hidden" not in str(told)


@pytest.mark.parametrize(
    "url",
    [
        f"mailtos://{HIDDEN}",
        f"mailto://{HIDDEN}&mode=starttls",
        "mailto://127.0.0.1/?from=a@example.com&to=b@example.com",
        f"mailto://{HIDDEN}&smtp=localhost",
        "json://127.0.0.1:8000",
        "jsons://erp.example.com/hidden",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general",
        "tgram://123456789:abcdefg_hijklmnop/12315544/",
        "ntfy://topic",
    ],
)
def test_what_is_safe_on_its_way_needs_no_such_line(url: str) -> None:
    """Chat services have no name for their TLS, and speak nothing else."""
    with capture_logs() as told:
        open_door(ChannelTable.model_validate({"name": "c", "kind": "apprise", "url": url}))
        open_postbox(ReportTable(name="r", url=url), None)
    assert told == []


class Forgetful(Post):
    """Is killed between the server's yes and our note of it, once."""

    fails = True

    def done(self, item: Delivery) -> None:
        """Note that a letter was sent."""
        if self.fails:
            self.fails = False
            raise StoreError("killed")
        super().done(item)


@pytest.mark.parametrize("key", ["report:shift berlin|2021-06-28|1 edition 1 of 2 revisions", ""])
def test_a_letter_that_is_sent_once_more_has_the_message_id_that_it_had(
    tmp_path: Path, mailbox: Mailbox, key: str
) -> None:
    store = SqliteStore(tmp_path / "store.sqlite3")
    recipients = ("a@example.com", "b@example.com")
    table = ReportTable(name="shift", url=mailbox.url(), to=recipients)
    letters = [
        Letter(title=f"{n}", html="<p>x</p>", made_epochtime=NOW, key=key and f"{key}{n}") for n in (1, 2)
    ]
    for letter in letters:
        store.queue_deliveries(table.channels(), encode(letter), "report:shift", b"{}")
    for channel, to in table.channels().items():
        Forgetful(channel, table, to, store, now_us=lambda: round(NOW * 1e6)).turn()
        post = Post(channel, table, to, store, now_us=lambda: round(NOW * 1e6))
        post.turn()
        assert post.backlog() == 0
    ids = [(mail["To"], str(mail["Subject"]), mail.get_all("Message-ID")) for mail in mailbox.mails]
    assert [subject for _, subject, _ in ids] == ["1", "1", "2"] * 2
    assert all(len(found) == 1 for _, _, found in ids)
    assert len({found[0] for _, _, found in ids}) == 4  # two letters to two recipients
    for to in recipients:
        first, again, other = (found[0] for receiver, _, found in ids if receiver == to)
        assert first == again != other
    store.close()


def test_a_store_that_cannot_note_what_was_sent_has_nothing_sent_twice(
    tmp_path: Path, mailbox: Mailbox
) -> None:
    store = SqliteStore(tmp_path / "store.sqlite3")
    table = ReportTable(name="shift", url=mailbox.url(), to=("a@example.com",))
    for number in (1, 2):
        letter = Letter(title=f"{number}", html="<p>x</p>", made_epochtime=NOW)
        store.queue_deliveries(table.channels(), encode(letter), "report:shift", b"{}")
    post = Forgetful(
        "mail:shift:a@example.com", table, "a@example.com", store, now_us=lambda: round(NOW * 1e6)
    )
    post.turn()
    assert (post.fault, mailbox.titles) == ("killed", ["1"])
    post.turn()
    assert (post.fault, mailbox.titles, post.backlog()) == (None, ["1", "2"], 0)
    store.close()


def test_an_alert_by_mail_is_text_whatever_a_plc_says(mailbox: Mailbox) -> None:
    lines = "filler-1 is down: <img src='http://x/'> & co\nLook at the infeed."
    Postbox("x", mailbox.url(to="a@example.com")).send("<b>down</b>", lines)
    (mail,) = mailbox.mails
    assert mail.get_content_type() == "text/plain"
    assert mail.get_content().strip().splitlines() == lines.splitlines()
    assert mail["Subject"] == "<b>down</b>"


def test_what_has_no_key_has_an_id_of_its_own(mailbox: Mailbox) -> None:
    box = Postbox("x", mailbox.url(to="a@example.com"))
    box.send("a", "b", key=key_of("1"))
    box.send("a", "b")
    box.send("a", "b")
    assert len({mail["Message-ID"] for mail in mailbox.mails}) == 3


@pytest.mark.parametrize("scheme", ["json", "form", "xml"])
def test_an_alert_that_is_sent_once_more_has_the_webhook_id_that_it_had(scheme: str) -> None:
    alert = Alert(
        id="a1",
        event="raised",
        rule="idle",
        kind="idle",
        site="berlin",
        epochtime=NOW,
        since_epochtime=NOW,
        message="idle",
    )
    over = msgspec.structs.replace(alert, event="cleared")
    with Receiver() as receiver:
        url = receiver.url.replace("http:", f"{scheme}:")
        door = AppriseDoor(ChannelTable(name="hook", kind="apprise", url=url))
        for told in (alert, alert, over):
            door.send(told, "title", "body")
    first, again, other = (one.headers["webhook-id"] for one in receiver.posted)
    assert first == again != other
    assert first


def test_keys_differ_wherever_what_is_told_does() -> None:
    keys: list[Callable[[], str]] = [
        lambda: key_of("ab", "c"),
        lambda: key_of("a", "bc"),
        lambda: key_of("abc"),
        lambda: key_of("abc", ""),
    ]
    assert len({each() for each in keys}) == len(keys)
