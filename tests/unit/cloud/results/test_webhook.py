"""Webhooks: signed as Standard Webhooks says, in order, again until they are taken, over TLS."""

import base64
import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cloud.errors import ResultsError
from cloud.results.config import WebhookTable
from cloud.results.webhook import WebAddress, Webhook, message_of
from cloud.store.port import ClosedShift
from cloud.store.sqlite import SqliteStore
from cloud.views import Revision
from tests.support.authority import Authority
from tests.support.webhooks import Receiver

T0 = 1_625_011_200
SCOPE, LINE = "berlin/packaging/line-1/filler-1", "berlin/packaging/line-1"


def shift(number: int, revision: int = 1, scope: str = SCOPE) -> ClosedShift:
    start_us = (T0 + number * 28_800) * 1_000_000
    made = Revision(revision=revision, made_epochtime=T0, why="shift ended", figures={"oee": 0.5})
    return ClosedShift(scope, start_us, start_us + 1, made)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def table(receiver: Receiver, **changes: Any) -> WebhookTable:
    fields = {"name": "w", "url": receiver.url, "allow_insecure": True, "history": True}
    return WebhookTable.model_validate(fields | changes)


def hook(table: WebhookTable, store: SqliteStore, now: float = T0) -> Webhook:
    return Webhook(table, store, now_us=lambda: round(now * 1e6))


def test_closed_and_revised_shifts_are_posted_once_and_in_order(
    store: SqliteStore, receiver: Receiver
) -> None:
    store.save_closed([shift(0), shift(0, scope=LINE), shift(1)])
    posting = hook(table(receiver), store)
    posting.turn()
    store.save_closed([shift(0, 2)])
    posting.turn()
    hook(table(receiver), store).turn()
    told = [(one.message["scope"], one.message["event"], one.message["revision"]) for one in receiver.posted]
    assert told == [(SCOPE, "closed", 1), (LINE, "closed", 1), (SCOPE, "closed", 1), (SCOPE, "revised", 2)]
    assert receiver.posted[0].message["figures"] == {"oee": 0.5}
    assert receiver.posted[0].path == "/hook?from=oee"
    assert len({one.message["id"] for one in receiver.posted}) == 4
    assert all(one.headers["webhook-id"] == one.message["id"] for one in receiver.posted)


def test_only_some_places_and_levels(store: SqliteStore, receiver: Receiver) -> None:
    other = "berlin/packaging/line-2"
    store.save_closed([shift(0), shift(0, scope=LINE), shift(0, scope=other), shift(0, scope=f"{other}/m")])
    posting = hook(table(receiver, places=["berlin/packaging/line-2"], levels=["line"]), store)
    posting.turn()
    assert [one.message["scope"] for one in receiver.posted] == [other]
    assert posting.backlog() <= 1


def test_a_new_webhook_begins_with_the_next_shift(store: SqliteStore, receiver: Receiver) -> None:
    store.save_closed([shift(0)])
    posting = hook(table(receiver, history=False), store)
    posting.turn()
    store.save_closed([shift(1)])
    posting.turn()
    assert [one.message["id"] for one in receiver.posted] == [message_of(shift(1)).id]


@pytest.mark.parametrize("status", [500, 404, 302])
def test_a_receiver_that_refuses_gets_everything_later(
    store: SqliteStore, receiver: Receiver, status: int
) -> None:
    store.save_closed([shift(0), shift(1)])
    receiver.status = status
    posting = hook(table(receiver), store)
    assert [posting.turn() for _ in range(3)] == [1, 2, 4]
    assert posting.fault == f"w: 127.0.0.1 answered {status}"
    receiver.status = 200
    hook(table(receiver), store).turn()
    assert len(receiver.posted) == 2


def test_what_is_too_old_is_dropped_and_counted(store: SqliteStore, receiver: Receiver) -> None:
    posting = hook(table(receiver, history=False, max_age_secs=60.0), store, T0 + 61)
    posting.turn()
    store.save_closed([shift(0)])
    posting.turn()
    assert receiver.posted == []
    assert posting.statistics.dropped == 1


@pytest.mark.parametrize("secret", ["plain words", "whsec_" + base64.b64encode(b"\x00\xff key").decode()])
def test_messages_are_signed(
    store: SqliteStore, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("SECRET", secret)
    store.save_closed([shift(0)])
    hook(table(receiver, secret_env="SECRET"), store).turn()
    (posted,) = receiver.posted
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    signed = f"{posted.headers['webhook-id']}.{posted.headers['webhook-timestamp']}.".encode() + posted.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert posted.headers["webhook-signature"] == f"v1,{expected}"
    assert int(posted.headers["webhook-timestamp"]) == T0


def test_https_is_believed_only_with_its_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("127.0.0.1")
    with Receiver(certificate, key) as receiver:
        message = message_of(shift(0))
        with pytest.raises(ResultsError, match=r"(?i)certificate"):
            WebAddress(table(receiver)).post(message, T0)
        WebAddress(table(receiver, ca_file=authority.ca_file)).post(message, T0)
        assert len(receiver.posted) == 1


def test_an_address_from_a_secret_place_is_held_to_the_same_rules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOOK", "http://erp.example.com/secret-token")
    with pytest.raises(ResultsError, match="plain text") as caught:
        WebAddress(WebhookTable(name="w", url_env="HOOK"))
    assert "secret-token" not in str(caught.value)
    with capture_logs() as told:
        WebAddress(WebhookTable(name="w", url_env="HOOK", allow_insecure=True))
    said = str(told)
    assert "figures go to another machine in plain text" in said
    assert "messages are not signed" in said
    assert "secret-token" not in said
