"""Who follows live is let in by a session, and let go when that is over."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from starlette.responses import PlainTextResponse

from dashboards.people import SESSION_SECS, People
from dashboards.web.signin import SESSION_COOKIE, SignIn
from tests.support.patience import PATIENCE

PASSWORD = "correct horse battery"


class Clock:
    def __init__(self) -> None:
        self.now = 1_625_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def people(tmp_path: Path, clock: Clock) -> Iterator[People]:
    found = People(tmp_path / "people.sqlite3", clock, PasswordHasher(1, 64, 1))
    found.add("vi", "viewer", PASSWORD)
    found.add("en", "engineer", PASSWORD)
    yield found
    found.close()


async def followed(people: People, cookie: str, ending) -> list[dict]:
    """Follow the feed, let something end it, and return what was sent."""
    sent: list[dict] = []
    closed = asyncio.Event()

    async def feed(scope, receive, send):
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def receive():
        await closed.wait()
        return {"type": "websocket.disconnect", "code": 1008}

    async def send(message):
        sent.append(message)
        if message["type"] == "websocket.close":
            closed.set()
        else:
            ending()

    door = SignIn(
        feed, people, "", forbidden=lambda request, role: PlainTextResponse(role, 403), recheck_secs=0.01
    )
    scope = {"type": "websocket", "path": "/feed", "headers": [(b"cookie", cookie.encode())]}
    await asyncio.wait_for(door(scope, receive, send), PATIENCE * 10)
    return sent


@pytest.mark.parametrize("how", ["signs out", "is over", "account is removed"])
async def test_a_feed_ends_with_the_session_that_let_it_in(people: People, clock: Clock, how: str) -> None:
    _, token = people.sign_in("vi", PASSWORD, "127.0.0.1")
    endings = {
        "signs out": lambda: people.sign_out(token),
        "is over": lambda: setattr(clock, "now", clock.now + SESSION_SECS + 1),
        "account is removed": lambda: people.remove("vi"),
    }
    sent = await followed(people, f"{SESSION_COOKIE}={token}", endings[how])
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert sent[-1]["code"] == 1008


async def test_a_feed_goes_on_while_its_session_does(people: People) -> None:
    _, token = people.sign_in("vi", PASSWORD, "127.0.0.1")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await followed(people, f"{SESSION_COOKIE}={token}", lambda: None)
