"""The pages over a real socket: start, feed, refusals, stop."""

import asyncio
import contextlib
import json
import re
import socket
import time

import httpx
import pytest
import websockets

from dashboards.web import server
from tests.support import small_cloud
from tests.support.patience import PATIENCE
from tests.support.small_cloud import FILLER


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    """The cloud side and its clock."""
    with small_cloud.opened(tmp_path_factory.mktemp("cloud")) as found:
        yield found


@contextlib.asynccontextmanager
async def served(plant, **options):
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        server.serve(
            plant[0],
            "127.0.0.1",
            0,
            stop=stop,
            on_ready=ready.set_result,
            **options,
        )
    )
    await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        async with small_cloud.living(*plant):
            yield await ready
    finally:
        stop.set()
        await asyncio.wait_for(task, PATIENCE * 3)


def feed_of(address):
    return address.replace("http", "ws") + "feed?topic=board"


async def test_the_board_names_every_machine_and_asks_nothing_of_other_hosts(plant):
    async with served(plant) as address, httpx.AsyncClient(base_url=address) as client:
        page = await client.get("/")
        assert page.status_code == 200
        for machine in ("filler-1", "capper-1"):
            assert f'aria-label="{machine}"' in page.text
        assert re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page.text) == []
        assert "<script>" not in page.text
        assert "style=" not in page.text


async def test_static_files_are_compressed_named_by_content_and_kept_for_ever(plant):
    async with served(plant) as address, httpx.AsyncClient(base_url=address) as client:
        page = await client.get("/")
        names = re.findall(r'/static/[^"]+', page.text)
        total = len(page.content)
        for name in set(names):
            answer = await client.get(name, headers={"accept-encoding": "br"})
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
            total += int(answer.headers["content-length"])
        assert len(names) >= 5
        assert total < 500_000
        assert (await client.get("/static/app.css")).status_code == 404
        assert (await client.get("/static/..%2fapp.py")).status_code == 404


async def test_every_answer_carries_the_content_security_policy(plant):
    async with served(plant) as address, httpx.AsyncClient(base_url=address) as client:
        for path in ("/", "/healthz", "/nothing-here"):
            headers = (await client.get(path)).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert "unsafe" not in headers["content-security-policy"]
            assert "server" not in headers


async def test_a_foreign_host_name_is_refused(plant):
    async with served(plant) as address, httpx.AsyncClient(base_url=address) as client:
        answer = await client.get("/", headers={"host": "evil.example"})
        assert answer.status_code == 421
        assert "hosts" in answer.text


async def test_a_configured_host_name_is_served(plant):
    async with (
        served(plant, hosts=["oee.plant.example"]) as address,
        httpx.AsyncClient(base_url=address) as client,
    ):
        assert (await client.get("/", headers={"host": "oee.plant.example:8443"})).status_code == 200


async def test_a_web_socket_of_another_origin_is_refused(plant):
    async with served(plant) as address:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(feed_of(address), origin="http://evil.example"):
                pass
        assert refused.value.response.status_code == 403


async def test_the_feed_sends_everything_first_and_changes_after(plant):
    async with served(plant) as address, websockets.connect(feed_of(address)) as live:
        first = json.loads(await asyncio.wait_for(live.recv(), 3))
        assert f"m/{FILLER}" in first["fragments"]
        assert "alerts" in first["fragments"]
        later = json.loads(await asyncio.wait_for(live.recv(), PATIENCE * 5))
        assert later["generated"] > first["generated"]
        assert f"m/{FILLER}" in later["fragments"]
        assert len(json.dumps(later)) < len(json.dumps(first))


async def test_stopping_takes_less_than_a_second_with_pages_open(plant):
    async with contextlib.AsyncExitStack() as stack:
        stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        task = asyncio.create_task(
            server.serve(plant[0], "127.0.0.1", 0, stop=stop, on_ready=ready.set_result)
        )
        address = await ready
        sockets = [await stack.enter_async_context(websockets.connect(feed_of(address))) for _ in range(8)]
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=address))
        await client.get("/")
        began = time.monotonic()
        stop.set()
        await task
        assert time.monotonic() - began < PATIENCE * 1.0
        await asyncio.wait_for(sockets[0].wait_closed(), 1)
        assert sockets[0].close_code == 1012


async def test_cancelling_frees_the_port(plant):
    ready = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.serve(plant[0], "127.0.0.1", 0, on_ready=ready.set_result))
    port = int((await ready).rstrip("/").rsplit(":", 1)[1])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


async def test_a_taken_port_is_said_plainly(plant):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(server.PortTakenError, match=f"127.0.0.1:{port}: Address already in use"):
            await server.serve(plant[0], "127.0.0.1", port)


async def test_a_browser_that_never_reads_holds_nobody_up(plant):
    async with served(plant) as address:
        port = int(address.rstrip("/").rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(
            f"GET /feed HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        await reader.readline()
        async with websockets.connect(feed_of(address)) as live:
            for _ in range(4):
                await asyncio.wait_for(live.recv(), 6)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
