"""A way between client and server that can swallow what it should pass on, or be long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """Passes bytes on, unless told to swallow them: both ways, or only the server's answers.

    answer_secs: how long the server's answers are under way
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.swallow = False
        self.swallow_answers = False
        self.answer_secs = 0.0
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ends = {writer}
        try:
            onward_reader, onward = await asyncio.open_connection("127.0.0.1", self.target_port)
            ends.add(onward)
            self._writers |= ends
            await asyncio.gather(
                self._pass(reader, onward, answers=False), self._pass(onward_reader, writer, answers=True)
            )
        except OSError:
            pass
        finally:
            for one in ends:
                one.transport.abort()
            self._writers -= ends
        self._tasks.discard(task)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while content := await reader.read(65_536):
            if not (self.swallow or (answers and self.swallow_answers)):
                if answers and self.answer_secs:
                    asyncio.get_running_loop().call_later(self.answer_secs, writer.write, content)
                    continue
                writer.write(content)
                await writer.drain()
        raise ConnectionResetError

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def close(self) -> None:
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def proxy(target_port: int) -> AsyncIterator[Proxy]:
    """Run a proxy on a free port."""
    made = Proxy(target_port)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.close()
        await server.wait_closed()
