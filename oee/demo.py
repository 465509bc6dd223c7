"""`oee demo`: a whole factory on one machine, each part a process of its own, as it would be in a plant."""

import asyncio
import contextlib
import os
import signal
import sys
import time
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from oee import demo_folder
from oee.errors import EXIT_USAGE, CommandError, UsageError, require
from oee.ports import choose, listening
from oee.processes import Child, stop_all

if TYPE_CHECKING:
    from contract.delivery import Alert
    from oee.demo_files import Ports
    from simulator.scenarios import Scenario

DEFAULT_BOARD_PORT: Final = 8080
DEFAULT_OPCUA_PORT: Final = 4840
DEFAULT_BROKER_PORT: Final = 1883
DEFAULT_HEALTH_PORT: Final = 9464
_START_SECS: Final = 30.0
_RESTARTS: Final = 5
_STEADY_SECS: Final = 60.0
"""A part that ran for so long gets all its restarts back."""
_RESTART_AFTER_SECS: Final = 0.5
_LOOK_SECS: Final = 0.5
_REST_SECS: Final = 3.0
_REST_UNKNOWN_SECS: Final = 30.0
"""A shift of which little is known is most likely still arriving."""

FIRST_LOOK: Final = """\
  What stands out there needs somebody; a click on a machine or a line tells all about it.
  Stops asks why a machine stood, Losses says where the time went, Reports has each shift as PDF and Excel.
  The last shifts were played before you came, so that every page has figures. Ctrl-C ends all of it.
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How `oee demo` was called; a port that is None is chosen."""

    data_dir: Path | None = None
    board_port: int | None = None
    opcua_port: int | None = None
    broker_port: int | None = None
    broker: str | None = None
    seed: int = 1
    speed: float = 1.0
    scenario: str = "demo"
    fresh: bool = False
    browser: bool = True


def run(options: Options) -> int:
    """Run the factory until Ctrl-C or SIGTERM; return the exit code."""
    require("simulator", "cloud", "dashboards", "numpy", "pyarrow", "fastapi", "uvicorn", "websockets")
    if options.broker is None:
        require("amqtt")
    elif (fault := _broker_fault(options.broker)) is not None:
        raise UsageError(f"--broker {options.broker}: {fault}")
    scenario = _scenario(options)
    begun_with = {"scenario": options.scenario, "seed": options.seed, "speed": options.speed}
    folder = options.data_dir or demo_folder.default()
    with demo_folder.opened(folder, begun_with, fresh=options.fresh) as held:
        asyncio.run(_Demo(options, scenario, held.absolute()).run())
    return 0


def _scenario(options: Options) -> "Scenario":
    from simulator import scenarios
    from simulator.service import quicken

    try:
        scenario = scenarios.build(options.scenario, seed=options.seed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return replace(scenario, factory=quicken(scenario.factory, options.speed))


class _Demo:
    """One run of the factory in its folder."""

    def __init__(self, options: Options, scenario: "Scenario", folder: Path) -> None:
        from oee import demo_files
        from oee.screen import Screen
        from oee.watch import Heard

        self._options = options
        self._folder = folder
        self._lines = len(scenario.factory.lines)
        self._ports = _ports(options, self._lines)
        self._broker_url = options.broker or f"mqtt://127.0.0.1:{self._ports.broker}"
        self._board_url = f"http://127.0.0.1:{self._ports.board}/"
        self._files = demo_files.write(folder, scenario, self._ports, self._broker_url)
        self._heard = Heard(scenario.factory.site, since=time.time())
        self._order = [
            scenario.factory.key(line.name, machine.name)
            for line in scenario.factory.lines
            for machine in line.machines
        ]
        self._screen = Screen(self._heard, order=self._order)
        self._parts = self._all_parts()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Start all parts, watch over them until a signal comes, end them."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        working = asyncio.create_task(self._work(), name="demo.work")
        stopping = asyncio.create_task(self._stop.wait(), name="demo.stop")
        try:
            with self._screen:
                await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
                working.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await working
        finally:
            await self._end()

    def _on_signal(self) -> None:
        if self._stop.is_set():  # asked twice: at once
            for part in self._parts.values():
                part.signal(signal.SIGKILL)
        self._stop.set()

    async def _work(self) -> None:
        """Start the parts in the order in which they need each other, then report what is heard."""
        from oee.watch import Listener

        loop = asyncio.get_running_loop()
        options = self._options
        self._screen.say(
            f"oee demo: scenario {options.scenario}, seed {options.seed}, kept in {_short(self._folder)}",
            "bold",
        )
        async with asyncio.TaskGroup() as tasks:
            if "broker" in self._parts:
                await self._begin(tasks, "broker", self._broker_url, [self._ports.broker or 0])
            await self._begin(tasks, "simulator", self._opcua_said(), [])
            await self._begin(tasks, "cloud", self._board_url, [self._ports.board])
            await self._begin(
                tasks, "gateway", f"health on http://127.0.0.1:{self._ports.health}/healthz", []
            )
            demo_folder.announce(self._folder, self._board_url)
            self._screen.say(f"\n  board  {self._board_url}", "bold cyan")
            self._screen.say(FIRST_LOOK)
            if options.browser:
                _open_browser(self._board_url)

            def on_alert(alert: "Alert") -> None:
                loop.call_soon_threadsafe(self._screen.alert, alert)

            with Listener(self._broker_url, self._heard, on_alert):
                await self._report_closed_shifts()

    async def _begin(self, tasks: asyncio.TaskGroup, name: str, where: str, ports: Sequence[int]) -> None:
        """Start a part, keep it running from then on, and wait until it listens."""
        part = self._parts[name]
        await part.start()
        tasks.create_task(self._keep_running(part), name=f"demo.keep[{name}]")
        for port in ports:
            if not await listening(port, within_secs=_START_SECS):
                raise CommandError(_ended(part, f"does not listen on port {port} after {_START_SECS:.0f} s"))
        self._screen.say(f"  {name:10} pid {part.pid or '-':<8} {where}")

    async def _keep_running(self, part: Child) -> None:
        """Start a part again whenever it ends, unless it ends again and again."""
        left = _RESTARTS
        while True:
            began = time.monotonic()
            code = await part.wait()
            if time.monotonic() - began > _STEADY_SECS:
                left = _RESTARTS
            if code == EXIT_USAGE or left == 0:
                raise CommandError(_ended(part, f"ended with {_said(code)}"))
            left -= 1
            self._screen.say(f"{part.name} ended with {_said(code)}; it is started again", "yellow")
            await asyncio.sleep(_RESTART_AFTER_SECS)
            await part.start()

    async def _report_closed_shifts(self) -> None:
        """Say each line's last closed shift once it has rested, and again when late records revise it."""
        from oee.screen import closed_shift

        seen: dict[str, tuple[str, float]] = {}
        told: dict[str, str] = {}
        while True:
            lines: dict[str, list[dict[str, Any]]] = {}
            for machine in self._order:
                lines.setdefault(machine.line, []).append(self._heard.closed.get(machine, {}))
            for line, closed in lines.items():
                if not all(closed) or len({_shift(item) for item in closed}) > 1:
                    continue
                said = f"{line} {closed_shift(closed)}"
                if seen.get(line, ("", 0.0))[0] != said:
                    seen[line] = (said, time.monotonic())
                elif told.get(line) != said and time.monotonic() - seen[line][1] > _rest_secs(closed):
                    told[line] = said
                    self._screen.say(said)
            await asyncio.sleep(_LOOK_SECS)

    async def _end(self) -> None:
        began = time.monotonic()
        broker = self._parts.get("broker")
        late = await stop_all([part for part in self._parts.values() if part is not broker])
        if broker is not None:  # last, so that the others can say goodbye
            late += await stop_all([broker], within_secs=0.5)
        if late:
            self._screen.say(f"had to be killed: {', '.join(late)}", "yellow")
        took_secs = time.monotonic() - began
        self._screen.say(
            f"ended in {took_secs:.1f} s; {_short(self._folder)} keeps the factory for the next start", "bold"
        )

    def _all_parts(self) -> dict[str, Child]:
        options, ports = self._options, self._ports
        oee = [sys.executable, "-m", "oee"]
        commands = {
            "broker": [*oee, "broker", "--port", str(ports.broker)],
            "simulator": [
                *(*oee, "simulate", "--port", str(ports.opcua), "--seed", str(options.seed)),
                *("--speed", str(options.speed), "--scenario", options.scenario),
                *("--data-dir", str(self._folder / "simulator")),
            ],
            "cloud": [*oee, "cloud", "run", "--config", str(self._files["cloud"])],
            "gateway": [*oee, "gateway", "run", "--config", str(self._files["gateway"])],
        }
        if options.broker is not None:
            del commands["broker"]
        return {
            name: Child(name, command, self._folder / "logs" / f"{name}.log")
            for name, command in commands.items()
        }

    def _opcua_said(self) -> str:
        return ", ".join(f"opc.tcp://127.0.0.1:{self._ports.opcua + index}" for index in range(self._lines))


def _ports(options: Options, lines: int) -> "Ports":
    """Choose all ports before anything starts, so that one in use is told at once."""
    from oee.demo_files import Ports

    board = choose(
        options.board_port or DEFAULT_BOARD_PORT, "the board", fixed=options.board_port is not None
    )
    taken = {board}
    broker = None
    if options.broker is None:
        wanted = options.broker_port or DEFAULT_BROKER_PORT
        broker = choose(wanted, "the broker", fixed=options.broker_port is not None, taken=taken)
        taken.add(broker)
    opcua = choose(
        options.opcua_port or DEFAULT_OPCUA_PORT,
        "the PLCs",
        fixed=options.opcua_port is not None,
        taken=taken,
        count=lines,
    )
    taken.update(range(opcua, opcua + lines))
    health = choose(DEFAULT_HEALTH_PORT, "the gateway's health", fixed=False, taken=taken)
    return Ports(opcua=opcua, board=board, broker=broker, health=health)


def _broker_fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "mqtt" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    return None if usable else "use mqtt://HOST or mqtt://HOST:PORT"


def _open_browser(url: str) -> None:
    """Show the board where a person sits before a screen; never a text browser in the same terminal."""
    seen = sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if seen and sys.stdout.isatty():
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(url)


def _rest_secs(closed: Sequence[Mapping[str, Any]]) -> float:
    """Return how long a closed shift's figures stay unchanged before they are told."""
    unknown_secs, planned_secs = (
        sum(figures.get(key) or 0.0 for figures in closed)
        for key in ("unknown_secs", "planned_production_secs")
    )
    return _REST_UNKNOWN_SECS if unknown_secs > planned_secs / 2 else _REST_SECS


def _shift(figures: Mapping[str, object]) -> tuple[object, ...]:
    return figures.get("production_date"), figures.get("shift")


def _ended(part: Child, how: str) -> str:
    """Return why a part is not running, with the last words of its log."""
    return "\n".join([f"{part.name} {how}; the end of {_short(part.log)}:", *part.last_lines()])


def _said(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
