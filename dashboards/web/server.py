"""The web server inside another program's TaskGroup: no signal handlers, quick to stop."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator, Iterable
from typing import Final

import uvicorn

from cloud.config import is_loopback
from dashboards.people import People
from dashboards.port import Cloud
from dashboards.web.app import Pages

STOP_SECS: Final = 1.0
_BACKLOG: Final = 512
_TICK_SECS: Final = 1.0
_PING_SECS: Final = 60.0
"""How often an open page is asked whether it is there; that the server is, the feed tells it all the time."""


class PortTakenError(OSError):
    """The pages cannot listen where they were told to."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"The pages cannot listen on {host}:{port}: {reason}")


class OpenDoorError(ValueError):
    """The pages would let in everybody who reaches this machine."""

    def __init__(self, host: str) -> None:
        super().__init__(f"Pages without sign-in are served on 127.0.0.1 only, not on {host}.")


class _Quiet(uvicorn.Server):
    """Leaves signals to the program it runs in, and sleeps while nobody asks anything."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Stop soon."""
        self.should_exit = True
        self._leaving.set()

    async def main_loop(self) -> None:
        """Wait for the end; of itself the server would look for it ten times a second."""
        while not await self.on_tick(0):  # 0: the turn at which the date of answers is renewed
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECS):
                    await self._leaving.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(
    cloud: Cloud,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    stop: asyncio.Event | None = None,
    on_ready: Callable[[str], None] | None = None,
    hosts: Iterable[str] = (),
    base: str = "",
    trusted_proxies: Iterable[str] = (),
    people: People | None = None,
) -> None:
    """Serve the pages until `stop` is set or the task is cancelled; then end within STOP_SECS.

    port: 0 takes any free one
    on_ready: is told the address once the server listens
    hosts: names by which people reach the pages, beside IP addresses and this machine's own names
    base: the path under which a reverse proxy serves the pages
    trusted_proxies: addresses whose X-Forwarded headers are believed
    people: who may sign in; None lets everybody in, which is possible on a loopback address only
    """
    if people is None and not is_loopback(host):
        raise OpenDoorError(host)
    listener = listen(host, port)
    pages = Pages(cloud, hosts=hosts, base=base, people=people)
    config = uvicorn.Config(
        pages.application,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_max_size=64 * 1024,
        ws_ping_interval=_PING_SECS,
        server_header=False,
        proxy_headers=bool(list(trusted_proxies)),
        forwarded_allow_ips=list(trusted_proxies),
        timeout_graceful_shutdown=1,
        timeout_keep_alive=30,
        root_path="",
    )
    server = _Quiet(config)
    stop = stop or asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(_serve(server, listener, pages), name="pages.serve")
            feeding = group.create_task(pages.feed.run(), name="pages.feed")
            group.create_task(_say_ready(server, listener, on_ready), name="pages.ready")
            stopping = group.create_task(stop.wait(), name="pages.stop")
            await asyncio.wait((serving, stopping, feeding), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            feeding.cancel()
            pages.feed.close()
            server.leave()
    finally:
        listener.close()


async def _serve(server: _Quiet, listener: socket.socket, pages: Pages) -> None:
    """Run the server, and let it close its connections even when this task is cancelled."""
    running = asyncio.create_task(server.serve(sockets=[listener]), name="pages.uvicorn")
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        pages.feed.close()
        server.leave()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(running, STOP_SECS * 2)
        raise


async def _say_ready(
    server: uvicorn.Server, listener: socket.socket, on_ready: Callable[[str], None] | None
) -> None:
    while not server.started and not server.should_exit:  # noqa: ASYNC110  # uvicorn offers no event
        await asyncio.sleep(0.01)
    if on_ready and server.started:
        on_ready(address(listener))


def listen(host: str, port: int) -> socket.socket:
    """Bind the pages' socket; raise PortTakenError with the reason in plain words."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise PortTakenError(host, port, error.strerror or str(error)) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise PortTakenError(host, port, error.strerror or str(error)) from error
    return listener


def address(listener: socket.socket) -> str:
    """Return the URL at which a person opens the pages."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  # a name that a browser can open
        host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
