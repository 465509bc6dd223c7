"""Every route of the server, with no, wrong, expired and each kind of sign-in, found by walking."""

import asyncio
import contextlib
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from starlette.routing import Mount, Route

from cloud.service import Cloud
from dashboards.people import ROLES, SESSION_SECS, People
from dashboards.web import server
from dashboards.web.app import Pages
from tests.support import small_cloud

PASSWORD = "correct horse battery"
QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
READING = frozenset({"GET", "HEAD"})
OPEN = frozenset({"/static/{name}", "/favicon.ico", "/healthz", "/sign-in", "/first-run"})
"""What strangers must reach to get in at all."""
MAY_READ = {"/people": "engineer", "/audit": "supervisor"}
MAY_WRITE = {
    **dict.fromkeys(
        ("/stop", "/alerts", "/alerts/mute", "/alerts/unmute", "/alerts/acknowledge"), "operator"
    ),
    **dict.fromkeys(("/mutes", "/mutes/{number}"), "operator"),
    "/sign-out": "viewer",
}
"""The least role that may; whoever adds a route that lets more people in than engineers says so here."""


class Clock:
    """Seconds since 1970 that a test may put forward."""

    def __init__(self) -> None:
        self.ahead_secs = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_secs


def routes() -> list[tuple[str, str, str]]:
    """Return (method, path as declared, path to ask) of everything that the server routes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(People(Path(folder) / "people.sqlite3", time.time, QUICK)) as people,
        small_cloud.opened(Path(folder)) as (cloud, _),
    ):
        outer = Pages(cloud, people=people).application
        while not isinstance(outer, FastAPI):
            outer = outer._app
        return sorted(set(_walk(outer, "")))


def _walk(app: FastAPI, base: str) -> Iterator[tuple[str, str, str]]:
    for route in app.routes:
        if isinstance(route, Mount):
            assert isinstance(route.app, FastAPI)
            yield from _walk(route.app, base + route.path)
        elif isinstance(route, Route):
            asked = re.sub(r"\{\w+(:\w+)?\}", "x", base + route.path)
            yield from ((method, base + route.path, asked) for method in route.methods or ())


ROUTES = routes()
GUARDED = [route for route in ROUTES if route[1] not in OPEN]


def needed(method: str, path: str) -> str:
    if method in READING:
        return MAY_READ.get(path, "viewer")
    return MAY_WRITE.get(path.removeprefix("/api/v1"), "engineer")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def people(tmp_path: Path, clock: Clock) -> Iterator[People]:
    found = People(tmp_path / "people.sqlite3", clock, QUICK)
    for role in ROLES:
        found.add(f"a {role}", role, PASSWORD)
    yield found
    found.close()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with small_cloud.opened(tmp_path_factory.mktemp("cloud")) as (found, _):
        yield found


Served = Callable[[], contextlib.AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def served(people: People, cloud: Cloud) -> Served:
    """Return what serves the pages for as long as a `with` lasts."""
    return lambda: serving(people, cloud)


@contextlib.asynccontextmanager
async def serving(people: People, cloud: Cloud) -> AsyncIterator[httpx.AsyncClient]:
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        server.serve(cloud, "127.0.0.1", 0, stop=stop, on_ready=ready.set_result, people=people)
    )
    try:
        async with httpx.AsyncClient(base_url=await ready, timeout=30) as client:
            yield client
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


async def enter(client: httpx.AsyncClient, name: str) -> None:
    client.cookies.clear()
    answer = await client.post("/sign-in", data={"name": name, "password": PASSWORD})
    assert answer.status_code == 303, answer.text


async def outsiders(client: httpx.AsyncClient) -> set[tuple[str, str]]:
    """Return what somebody got to see who must not."""
    seen = set()
    for method, path, asked in GUARDED:
        answer = await client.request(method, asked)
        door = answer.status_code == 303 and answer.headers["location"].startswith("/sign-in")
        if answer.status_code != 401 and not door:
            seen.add((method, path))
    return seen


def test_the_walk_finds_what_there_is() -> None:
    paths = {path for _, path, _ in ROUTES}
    assert paths > {"/", "/tv", "/people", "/stop", "/sign-out", "/report.{suffix}", "/api/v1/board"}
    assert len(GUARDED) > 20


async def test_nothing_opens_without_a_sign_in(served: Served) -> None:
    async with served() as client:
        assert await outsiders(client) == set()


async def test_nothing_opens_to_made_up_or_expired_sessions(served: Served, clock: Clock) -> None:
    async with served() as client:
        client.cookies.set("oee_session", "0" * 43)
        assert await outsiders(client) == set()
        await enter(client, "a engineer")
        assert (await client.get("/people")).status_code == 200
        clock.ahead_secs = SESSION_SECS + 1
        assert await outsiders(client) == set()


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_reaches_what_is_its_own_and_nothing_above(served: Served, role: str) -> None:
    wrong = []
    async with served() as client:
        await enter(client, f"a {role}")
        for method, path, asked in GUARDED:
            if path == "/sign-out" or method == "HEAD":
                continue  # the one would end this walk, the other shows what GET does
            answer = await client.request(method, asked)
            may = ROLES.index(role) >= ROLES.index(needed(method, path))
            if (answer.status_code not in {401, 403}) is not may:
                wrong.append((method, path, answer.status_code))
    assert wrong == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_no_other_site_makes_anybody_do_anything(served: Served, headers: dict[str, str]) -> None:
    async with served() as client:
        await enter(client, "a engineer")
        answers = {
            (method, path): (await client.request(method, asked, headers=headers)).status_code
            for method, path, asked in ROUTES
            if method not in READING
        }
        assert set(answers.values()) == {403}
        assert (await client.get("/people")).status_code == 200, "still signed in"


async def test_a_lost_role_and_a_lost_account_count_at_once(served: Served, people: People) -> None:
    async with served() as client:
        await enter(client, "a engineer")
        people.set_role("a supervisor", "engineer")
        people.set_role("a engineer", "viewer")
        assert (await client.get("/people")).status_code == 403
        form = {"what": "role", "name": "a engineer", "role": "engineer"}
        assert (await client.post("/people", data=form)).status_code == 403
        people.remove("a engineer")
        assert (await client.get("/")).status_code == 303


async def test_paths_that_climb_reach_nothing(served: Served) -> None:
    async with served() as client:
        for path in (
            "/static/../people",
            "/static/%2e%2e/people",
            "/static/..%2f..%2fpeople.sqlite3",
            "/static/%00",
            "/sign-in/../people",
            "//people",
            "/people/",
            "/PEOPLE",
        ):
            answer = await client.get(path)
            assert answer.status_code in {303, 307, 401, 404}, path
            assert "a engineer" not in answer.text
