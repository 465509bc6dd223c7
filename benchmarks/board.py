"""The live board: how much is loaded first, and what 100 open pages cost the server.

Two real cloud services (`oee cloud run`) take the same telemetry from one broker: eight machines that send a
record a second each, one of which changes its state every ten seconds. In each round 100 pages follow the
one, nobody looks at the other, and both are measured over the same seconds; in the next round they change
places. What the watched one uses more is what the pages cost; the rest it needs anyway, to store records and
to keep figures. All is processor time of the server's process, of all its threads.

Beside it, in the same run: the same service while its page is taken anew every two seconds, as a board
without a feed would, and the same eight machines by NiceGUI and by Dash, in an environment of their own, each
with a few pages open in a real Chromium.

    python -m benchmarks.board [--browsers 100] [--secs 10] [--rounds 5] [--no-peers]
"""

import asyncio
import contextlib
import gzip
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import paho.mqtt.client as paho
import websockets
from paho.mqtt.enums import CallbackAPIVersion
from playwright.async_api import async_playwright

from benchmarks.board_parts.peers import MissingError, Peer, peer
from benchmarks.harness import arguments, conclude, machine, table, versions
from contract import topics
from contract.machine_key import MachineKey
from contract.states import MachineState
from contract.telemetry import Telemetry
from tests.support.mosquitto import Mosquitto
from tests.support.ports import free_port

GOAL_MS_PER_SEC = 5.0
GOAL_KB = 500.0
PERIOD_SECS = 2.0
SETTLE_SECS = 3.0
PEER_PAGES = 6
START_SECS = 30.0
MACHINES = tuple(
    MachineKey("demo-plant", "packaging", f"line-{line}", f"{name}-{line}")
    for line in (1, 2)
    for name in ("filler", "capper", "labeller", "packer")
)
PLANT = (
    '[site]\nname = "demo-plant"\ntimezone = "Europe/Berlin"\n[calendar.main]\nshifts = ['
    '{ name = "1", start = "06:00", end = "14:00" }, { name = "2", start = "14:00", end = "22:00" },'
    ' { name = "3", start = "22:00", end = "06:00" } ]\n'
) + "".join(
    f'[[machine]]\narea = "{key.area}"\nline = "{key.line}"\nname = "{key.machine}"\n'
    'calendar = "main"\nideal_run_rate = 200\n'
    for key in MACHINES
)


def cpu_secs(pid: int) -> float:
    """Return the processor time of a process so far [s, all its threads]."""
    return time.clock_gettime((~pid << 3) | 2)  # how Linux numbers another process's clock


class Spent(NamedTuple):
    """Processor time per second of one round [ms/s]."""

    watched: float
    alone: float


class Factory:
    """Eight machines that tell a broker what they do, once a second; nothing while it is `silent`."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._sequence = 0
        self.silent = False

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await asyncio.sleep(1.0 - time.time() % 1.0)
            if not self.silent:
                self.send()

    def send(self) -> None:
        """Send one record of each machine."""
        second = int(time.time())
        for number, key in enumerate(MACHINES):
            self._sequence += 1
            stands = number == 0 and second // 10 % 2 == 1
            record = Telemetry(
                **key._asdict(),
                epochtime=time.time(),
                state=MachineState.STOPPED if stands else MachineState.RUNNING,
                total_units=self._sequence * 3,
                off_quality_units=self._sequence // 40,
                gateway="gw",
                sequence=self._sequence,
            )
            self._client.publish(topics.machine_topic(key, "telemetry"), msgspec.json.encode(record), qos=1)

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()


class Service(NamedTuple):
    """A cloud service that serves pages."""

    address: str
    pid: int


@contextlib.contextmanager
def service(folder: Path, broker: Mosquitto) -> Iterator[Service]:
    """Run a cloud service in a folder of its own."""
    folder.mkdir()
    port = free_port()
    (folder / "plant.toml").write_text(PLANT)
    (folder / "cloud.toml").write_text(
        f'[cloud]\ndata_dir = "store"\n[mqtt]\nurl = "{broker.url}"\nclient_id = "{folder.name}"\n'
        f"[web]\nport = {port}\nsign_in = false\n"
    )
    command = [sys.executable, "-m", "oee", "cloud", "run", "--config", str(folder / "cloud.toml")]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            address = f"http://127.0.0.1:{port}/"
            until = time.monotonic() + START_SECS
            while not is_served(address):
                if process.poll() is not None or time.monotonic() > until:
                    sys.exit((folder / "log").read_text(errors="replace"))
                time.sleep(0.1)
            yield Service(address, process.pid)
        finally:
            process.terminate()


def is_served(address: str) -> bool:
    """Tell whether pages are there."""
    try:
        with urllib.request.urlopen(address + "healthz", timeout=1):
            return True
    except OSError:
        return False


def first_load_kb(address: str) -> float:
    """Return what a browser loads at its first visit, compressed [kB]."""

    def fetch(url: str) -> bytes:
        request = urllib.request.Request(url, headers={"accept-encoding": "gzip"})
        with urllib.request.urlopen(request) as answer:
            body: bytes = answer.read()
        return body

    page = fetch(address)
    total = len(page)
    files = set(re.findall(r'/static/[^"]+', gzip.decompress(page).decode()))
    for name in list(files):
        body = fetch(address.rstrip("/") + name)
        total += len(body)
        if name.endswith(".js"):
            for other in re.findall(r'from "\./([^"]+)"', gzip.decompress(body).decode()):
                if f"/static/{other}" not in files:
                    total += len(fetch(f"{address}static/{other}"))
    return total / 1000


@contextlib.asynccontextmanager
async def following(address: str, browsers: int) -> AsyncIterator[None]:
    """Hold so many pages' feeds open; as browsers do, they ask nothing of the server of themselves."""
    url = address.replace("http", "ws") + "feed?topic=board"
    opened = asyncio.Semaphore(0)

    async def one() -> None:
        async with websockets.connect(url, compression=None, max_size=2**24, ping_interval=None) as socket:
            await socket.recv()
            opened.release()
            while True:
                await socket.recv()

    tasks = [asyncio.create_task(one()) for _ in range(browsers)]
    try:
        for _ in range(browsers):
            await opened.acquire()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def polling(address: str, browsers: int) -> AsyncIterator[None]:
    """Take the page anew every PERIOD_SECS, as so many browsers would."""
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as client:

        async def one(number: int) -> None:
            await asyncio.sleep(PERIOD_SECS * number / browsers)
            while True:
                await client.get("/", headers={"accept-encoding": "gzip"})
                await asyncio.sleep(PERIOD_SECS)

        tasks = [asyncio.create_task(one(number)) for number in range(browsers)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def spent(watched: int, alone: int, secs: float) -> Spent:
    """Measure two processes over the same seconds, once what came before has settled."""
    await asyncio.sleep(SETTLE_SECS)
    began = time.monotonic()
    before = cpu_secs(watched), cpu_secs(alone)
    await asyncio.sleep(secs)
    after = cpu_secs(watched), cpu_secs(alone)
    took = time.monotonic() - began
    return Spent(*(1000 * (late - early) / took for early, late in zip(before, after, strict=True)))


async def measure(
    services: list[Service], factory: Factory, *, browsers: int, secs: float, rounds: int
) -> dict[str, list[Spent]]:
    """Measure our sides in turn, round after round."""
    found: dict[str, list[Spent]] = {"feed": [], "polled": [], "silent": []}
    sending = asyncio.create_task(factory.run())
    try:
        for number in range(rounds):
            watched, alone = services if number % 2 == 0 else services[::-1]
            async with following(watched.address, browsers):
                found["feed"].append(await spent(watched.pid, alone.pid, secs))
            async with polling(watched.address, browsers):
                found["polled"].append(await spent(watched.pid, alone.pid, secs))
            factory.silent = True
            found["silent"].append(await spent(watched.pid, alone.pid, secs))
            factory.silent = False
            print(f"\r  round {number + 1}/{rounds}", end="", file=sys.stderr, flush=True)
    finally:
        sending.cancel()
    return found


async def beside(
    services: list[Service], peers: Mapping[str, Peer], factory: Factory, *, secs: float, rounds: int
) -> dict[str, float]:
    """Return what PEER_PAGES pages in a real browser cost each server [ms/s, median]."""
    boards: dict[str, Service | Peer] = {"feed": services[0], **peers}
    found: dict[str, list[float]] = {name: [] for name in boards}
    sending = asyncio.create_task(factory.run())
    try:
        async with async_playwright() as playwright:
            chromium = await playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
            )
            for number in range(rounds):
                for name in list(boards)[:: 1 if number % 2 == 0 else -1]:
                    board = boards[name]
                    context = await chromium.new_context()
                    for _ in range(PEER_PAGES):
                        await (await context.new_page()).goto(board.address)
                    each = await spent(board.pid, services[1].pid, secs)
                    found[name].append(each.watched - (each.alone if name == "feed" else 0.0))
                    await context.close()
                    print(f"\r  {name:<20}", end="", file=sys.stderr, flush=True)
            await chromium.close()
    finally:
        sending.cancel()
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--browsers", type=int, default=100)
    parser.add_argument("--secs", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true", help="neither NiceGUI nor Dash")
    chosen = parser.parse_args()
    print(f"board: {machine()}; {versions('uvicorn', 'starlette', 'websockets', 'jinja2')}")
    secs, rounds = chosen.secs, chosen.rounds
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="oee-board-")))
        broker = running.enter_context(Mosquitto(folder / "broker"))
        services = [running.enter_context(service(folder / name, broker)) for name in ("one", "other")]
        factory = Factory(broker.port)
        running.callback(factory.close)
        kilobytes = first_load_kb(services[0].address)
        found = asyncio.run(measure(services, factory, browsers=chosen.browsers, secs=secs, rounds=rounds))
        peers: dict[str, Peer] = {}
        missing: dict[str, str] = {}
        for name in () if chosen.no_peers else ("nicegui", "dash"):
            try:
                peers[name] = running.enter_context(peer(name, folder, free_port()))
            except MissingError as error:
                missing[name] = f"not measured: {error}"
        pages = asyncio.run(beside(services, peers, factory, secs=secs, rounds=rounds)) if peers else {}
    print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
    tell(
        chosen.browsers, kilobytes, found, pages, {name: one.version for name, one in peers.items()}, missing
    )


def tell(
    browsers: int,
    kilobytes: float,
    found: Mapping[str, list[Spent]],
    pages: Mapping[str, float],
    peers: Mapping[str, str],
    missing: Mapping[str, str],
) -> None:
    """Print what was found, and conclude."""
    cost = statistics.median(one.watched - one.alone for one in found["feed"])
    polled = statistics.median(one.watched - one.alone for one in found["polled"])
    watched = statistics.median(one.watched for one in found["feed"])
    alone = statistics.median(one.alone for one in found["feed"])
    silent = statistics.median(one.alone for one in found["silent"])
    rows = {
        "first load": f"{kilobytes:.0f} kB compressed (goal {GOAL_KB:.0f})",
        f"{browsers} pages by the feed": f"{cost:.1f} ms/s (goal {GOAL_MS_PER_SEC:.0f})",
        "  the watched server in all": f"{watched:.1f} ms/s",
        "  the server that nobody looks at": f"{alone:.1f} ms/s",
        "  of which without telemetry": f"{silent:.1f} ms/s",
        f"{browsers} pages taken anew": f"{polled:.1f} ms/s",
    }
    for name, each in pages.items():
        rows[f"{PEER_PAGES} pages, {name if name == 'feed' else f'{name} {peers[name]}'}"] = (
            f"{each:.1f} ms/s"
        )
    table(rows | dict(missing))
    ratios = {name: pages["feed"] / each for name, each in pages.items() if name != "feed"}
    conclude(
        "board",
        cost,
        "ms/s",
        {"polled": cost / polled, **ratios},
        {"ms_per_sec": GOAL_MS_PER_SEC, "first_load_kb": GOAL_KB},
        met=cost <= GOAL_MS_PER_SEC and kilobytes <= GOAL_KB,
        watched_ms_per_sec=round(watched, 2),
        unwatched_ms_per_sec=round(alone, 2),
        silent_ms_per_sec=round(silent, 2),
    )


if __name__ == "__main__":
    main()
