"""TCP proxies between the processes, each of which can go wrong in its own way."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

Mode = Literal["pass", "refuse", "hang", "one_way", "delay", "trickle"]
_Result = TypeVar("_Result")
_CHUNK_BYTES = 65_536
_TRICKLE_BYTES = 400
_TRICKLE_SECS = 0.1
_DELAY_SECS = 2.0


class Proxy:
    """One way between a client and a port of loopback; all but the constructor runs in the proxies' loop.

    pass: as if it were not there
    refuse: nobody listens, and what was open is reset
    hang: connections are accepted and stay open, nothing comes through; it comes later
    one_way: what the client says arrives, the answers come later
    delay: each chunk takes two seconds
    trickle: four kilobytes a second
    """

    def __init__(self, name: str, target_port: int) -> None:
        self.name = name
        self.target_port = target_port
        self.port = 0
        self.connections = 0
        self.passed_bytes = 0
        self._mode: Mode = "pass"
        self._turned = asyncio.Event()
        self._truncate_after: int | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen, on the same port as before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def turn(self, mode: Mode) -> None:
        """Behave otherwise from now on."""
        self._mode = mode
        self._turned.set()
        self._turned = asyncio.Event()
        if mode == "refuse":
            await self._shut()
            self.reset()
        else:
            await self.open()

    def reset(self) -> None:
        """Cut all connections without a word."""
        for writer in list(self._writers):
            writer.transport.abort()

    def truncate(self, after_bytes: int) -> None:
        """Cut the next connection that has something to say in the middle of it."""
        self._truncate_after = after_bytes

    async def close(self) -> None:
        """End everything."""
        await self._shut()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _shut(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._join(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        onward: asyncio.StreamWriter | None = None
        try:
            with contextlib.suppress(OSError):
                onward_reader, onward = await asyncio.open_connection("127.0.0.1", self.target_port)
                self._writers.add(onward)
                ways = {
                    asyncio.ensure_future(self._pass(reader, onward, answers=False)),
                    asyncio.ensure_future(self._pass(onward_reader, writer, answers=True)),
                }
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
        finally:
            for one in (writer, onward):
                if one is not None:
                    one.transport.abort()
                    self._writers.discard(one)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while content := await reader.read(_CHUNK_BYTES):
            await self._hold(answers=answers)
            if self._mode == "delay":
                await asyncio.sleep(_DELAY_SECS)
                await self._hold(answers=answers)
            if self._truncate_after is not None:
                kept, self._truncate_after = self._truncate_after, None
                writer.write(content[: min(kept, max(0, len(content) - 1))])
                await writer.drain()
                return
            while self._mode == "trickle" and len(content) > _TRICKLE_BYTES:
                writer.write(content[:_TRICKLE_BYTES])
                content = content[_TRICKLE_BYTES:]
                await asyncio.sleep(_TRICKLE_SECS)
            await self._hold(answers=answers)
            self.passed_bytes += len(content)
            writer.write(content)
            await writer.drain()

    async def _hold(self, *, answers: bool) -> None:
        """Wait while nothing may come through this way."""
        while self._mode == "hang" or (self._mode == "one_way" and answers):
            await self._turned.wait()


class Proxies:
    """All proxies of a trial in a thread of their own, so that the driver may block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._proxies: dict[str, list[Proxy]] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for group in self._proxies.values():
            for proxy in group:
                self._do(proxy.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def add(self, name: str, target_port: int) -> int:
        """Put a proxy before a port, in the group of this name; returns the port to use instead."""

        async def open_one() -> int:
            proxy = Proxy(name, target_port)
            self._proxies.setdefault(name, []).append(proxy)
            await proxy.open()
            return proxy.port

        return self._do(open_one())

    def turn(self, name: str, mode: Mode) -> None:
        """Let a group behave otherwise."""
        for proxy in self._proxies[name]:
            self._do(proxy.turn(mode))

    def reset(self, name: str) -> None:
        """Cut a group's connections."""
        for proxy in self._proxies[name]:
            self._call(proxy.reset)

    def truncate(self, name: str, after_bytes: int) -> None:
        """Cut the next message of each of a group after so many bytes."""
        for proxy in self._proxies[name]:
            self._call(partial(proxy.truncate, after_bytes))

    def _do(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _call(self, work: Callable[[], None]) -> None:
        async def once() -> None:
            work()

        self._do(once())
