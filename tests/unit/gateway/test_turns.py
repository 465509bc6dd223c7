"""Whether what has come is heard before time is judged, in a loop that had no processor."""

import asyncio
import socket
import time

from gateway.turns import let_in


async def test_what_came_while_nothing_ran_is_taken_in_before_a_time_out_is_believed() -> None:
    """As a publish response: read by one task, handled by another that it wakes."""
    near, far = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=near)
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    handled = []

    async def read() -> None:
        arrived.put_nowait(await reader.readexactly(1))

    async def handle() -> None:
        handled.append(await arrived.get())

    def starve() -> None:
        far.send(b"x")
        time.sleep(0.1)  # this is how a process without processor looks from inside

    tasks = [asyncio.create_task(read()), asyncio.create_task(handle())]
    with far:
        asyncio.get_running_loop().call_later(0.01, starve)
        await asyncio.sleep(0.05)
        assert handled == [], "this is why time is not judged yet"
        await let_in(lambda: bool(handled))
        assert handled == [b"x"]
    await asyncio.gather(*tasks)
    writer.close()
    await writer.wait_closed()
