"""The live board: how much is loaded first, and what 100 open pages cost the server.

A server process shows a plant of eight machines whose counts move each second and of which one changes its
state every ten seconds; real WebSocket clients follow it. Beside it, in the same run, the same pages taken
anew every two seconds, as a board without a feed would.

    python -m benchmarks.board [--browsers 100] [--secs 10] [--rounds 3]
"""

import asyncio
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator

import msgspec
import websockets

from benchmarks.harness import alternate, arguments, conclude, machine, table, versions
from cloud.views import BoardView, MachineView, Update
from tests.support.demo_cloud import DemoCloud

GOAL_MS_PER_SEC = 5.0
GOAL_KB = 500.0
PERIOD_SECS = 2.0
NOON = 1_625_047_200.0


class Recorded(DemoCloud):
    """A cloud side whose updates cost next to nothing to make, so that the pages' cost is what is seen."""

    def __init__(self) -> None:
        super().__init__(lambda: NOON)
        self._still = super().board()

    def board(self) -> BoardView:
        """Return what stands since the last second."""
        return self._still

    async def subscribe(self) -> AsyncIterator[Update]:
        """Count on, once a second."""
        second = 0
        while True:
            await asyncio.sleep(1)
            second += 1
            self._still = msgspec.structs.replace(
                self._still,
                generated_epochtime=NOON + second,
                lines=[
                    msgspec.structs.replace(
                        line, machines=[self._moved(one, second) for one in line.machines]
                    )
                    for line in self._still.lines
                ],
            )
            yield Update(
                generated_epochtime=NOON + second,
                machines=[one for line in self._still.lines for one in line.machines],
            )

    def _moved(self, one: MachineView, second: int) -> MachineView:
        if second % 10 == 0 and one.machine == "filler-1":
            state = "running" if one.state == "idle" else "idle"
            return msgspec.structs.replace(one, state=state, state_since_epochtime=NOON + second)
        return msgspec.structs.replace(one, good_units=one.good_units + 3, total_units=one.total_units + 3)


async def _serve() -> None:
    from dashboards.web.server import serve

    await serve(Recorded(), "127.0.0.1", 0, on_ready=lambda address: print(address, flush=True))


def cpu_secs(pid: int) -> float:
    """Return the processor time of a process so far [s]."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123  # a file of the kernel's
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def first_load_kb(address: str) -> float:
    """Return what a browser loads at its first visit, compressed [kB]."""

    def fetch(url: str) -> tuple[bytes, int]:
        request = urllib.request.Request(url, headers={"accept-encoding": "gzip"})
        with urllib.request.urlopen(request) as answer:
            body = answer.read()
        return body, len(body)

    import gzip

    page, total = fetch(address)
    text = gzip.decompress(page).decode()
    files = set(re.findall(r'/static/[^"]+', text))
    for name in list(files):
        body, size = fetch(address.rstrip("/") + name)
        total += size
        if name.endswith(".js"):
            script = gzip.decompress(body).decode()
            for other in re.findall(r'from "\./([^"]+)"', script):
                if f"/static/{other}" not in files:
                    total += fetch(f"{address}static/{other}")[1]
    return total / 1000


async def _calm(pid: int) -> None:
    """Wait until the server has answered what other sides of the run still had under way."""
    for _ in range(40):
        before = cpu_secs(pid)
        await asyncio.sleep(0.5)
        if cpu_secs(pid) - before <= 0.01:
            return


async def _follow(address: str, browsers: int, secs: float, pid: int) -> float:
    """Return the server's processor time per second while pages follow the feed [ms/s]."""
    url = address.replace("http", "ws") + "feed?topic=board"

    opened = asyncio.Semaphore(0)

    async def one() -> None:
        async with websockets.connect(url, compression=None, max_size=2**24) as socket:
            await socket.recv()
            opened.release()
            while True:
                await socket.recv()

    await _calm(pid)
    tasks = [asyncio.create_task(one()) for _ in range(browsers)]
    for _ in range(browsers):
        await opened.acquire()
    await asyncio.sleep(2)
    before, began = cpu_secs(pid), time.monotonic()
    await asyncio.sleep(secs)
    used = (cpu_secs(pid) - before) / (time.monotonic() - began) * 1000
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return used


async def _poll(address: str, browsers: int, secs: float, pid: int) -> float:
    """Return the same while pages are taken anew every PERIOD_SECS [ms/s]."""
    import httpx

    async with httpx.AsyncClient(
        base_url=address, limits=httpx.Limits(max_connections=20), timeout=60
    ) as client:

        async def one(number: int) -> None:
            await asyncio.sleep(PERIOD_SECS * number / browsers)
            while True:
                await client.get("/", headers={"accept-encoding": "gzip"})
                await asyncio.sleep(PERIOD_SECS)

        tasks = [asyncio.create_task(one(number)) for number in range(browsers)]
        await asyncio.sleep(3)
        before, began = cpu_secs(pid), time.monotonic()
        await asyncio.sleep(secs)
        used = (cpu_secs(pid) - before) / (time.monotonic() - began) * 1000
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return used


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--browsers", type=int, default=100)
    parser.add_argument("--secs", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help="be the server (used by itself)")
    chosen = parser.parse_args()
    if chosen.serve:
        asyncio.run(_serve())
        return
    print(f"board: {machine()}; {versions('uvicorn', 'starlette', 'websockets', 'jinja2')}")
    command = [sys.executable, "-m", "benchmarks.board", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address, pid = process.stdout.readline().strip(), process.pid
            kilobytes = first_load_kb(address)
            found = alternate(
                {
                    "idle": lambda: asyncio.run(_follow(address, 0, chosen.secs, pid)),
                    "feed": lambda: asyncio.run(_follow(address, chosen.browsers, chosen.secs, pid)),
                    "polled": lambda: asyncio.run(_poll(address, chosen.browsers, chosen.secs, pid)),
                },
                chosen.rounds,
            )
        finally:
            process.terminate()
    table(
        {
            "first load": f"{kilobytes:.0f} kB compressed (goal {GOAL_KB:.0f})",
            f"{chosen.browsers} pages by the feed": f"{found['feed']:.1f} ms/s (goal {GOAL_MS_PER_SEC:.0f})",
            "of which without any page": f"{found['idle']:.1f} ms/s",
            f"{chosen.browsers} pages taken anew": f"{found['polled']:.1f} ms/s",
            "NiceGUI, Dash": "not measured: not installed",
        }
    )
    conclude(
        "board",
        found["feed"],
        "ms/s",
        {"polled": found["feed"] / found["polled"]},
        {"ms_per_sec": GOAL_MS_PER_SEC, "first_load_kb": GOAL_KB},
        met=found["feed"] <= GOAL_MS_PER_SEC and kilobytes <= GOAL_KB,
    )


if __name__ == "__main__":
    main()
