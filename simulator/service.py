"""A running factory: each line's past is played to whoever reads it, then its present as it happens."""

import asyncio
import contextlib
import itertools
import json
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from simulator.errors import OptionError
from simulator.factory import Factory, Forced, Line, Run, Tagged
from simulator.scenarios import Outage, Scenario
from simulator.server import Endpoint, LineServer
from simulator.timetable import US_PER_SEC
from simulator.truth import Row, TagWriter, TruthLog

FORCED_IDLE_AFTER_SECS: Final = 8.0
FORCED_IDLE_SECS: Final = 75.0
_MOST_MOMENTS: Final = 300
_SAVE_SECS: Final = 2.0
_LAST_VALUES_SECS: Final = 1.5
_TAIL_BYTES: Final = 262_144


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a factory is run.

    data_dir: remembers the origin, so that a restart goes on where the clock is; None: begins anew each time
    truth_log: where each write is logged before it is made
    history_secs: how much past is played at the first start; None: as the scenario has it
    history_pace: simulated seconds per second while there is past to play; 0: as fast as it is read
    wait_for_subscriber: play no past before somebody reads it
    replay_missed: after a restart play what was missed; otherwise that time stays unseen, as with a real PLC
    now_us: [us since 1970] the clock
    server: what serves a line
    seen_as: what a moment looks like to the outside, for PLCs that misbehave
    """

    host: str = "127.0.0.1"
    port: int = 4840
    certificate: Path | None = None
    private_key: Path | None = None
    plain: bool = True
    data_dir: Path | None = None
    truth_log: Path | None = None
    fsync: bool = False
    history_secs: float | None = None
    history_pace: float = 0.0
    wait_for_subscriber: bool = True
    replay_missed: bool = False
    now_us: Callable[[], int] = field(default=lambda: time.time_ns() // 1000)
    server: type[LineServer] = LineServer
    seen_as: Callable[[Tagged], Tagged] = field(default=lambda tagged: tagged)


class Simulation:
    """All lines of a scenario behind their servers, for as long as an `async with` lasts.

    Each line goes by itself: one that nobody reads does not hold up the others.
    """

    def __init__(self, scenario: Scenario, settings: Settings) -> None:
        self.scenario = scenario
        self._settings = settings
        self._started_us = settings.now_us()
        self._memory = _Memory(settings.data_dir)
        self.run = self._begin()
        self._log = self._open_log()
        self.lines = [self._line_show(index, line) for index, line in enumerate(scenario.factory.lines)]
        self._playing: asyncio.Task[None] | None = None

    @property
    def endpoints(self) -> dict[str, str]:
        """Return each line's endpoint URL."""
        return {show.line.name: show.server.url for show in self.lines}

    @property
    def is_live(self) -> bool:
        """Tell whether every line has caught up with the clock."""
        return all(show.live.is_set() for show in self.lines)

    async def wait_until_live(self) -> None:
        """Return when every line has caught up with the clock, or the scenario's span is over."""
        for show in self.lines:
            await show.live.wait()

    async def wait_until_over(self) -> None:
        """Return when the play has ended: at the end of the scenario's span, or by a fault."""
        assert self._playing is not None
        await asyncio.wait({self._playing})

    async def start(self) -> None:
        """Open all ports, each with the values of the moment from which it goes on, then play.

        No PLC waits for another one to boot: it would show for so long what it did when it was switched on.
        """
        for show in self.lines:
            await show.server.prepare()
        opened = await asyncio.gather(*(show.open() for show in self.lines), return_exceptions=True)
        for failure in opened:
            if failure is not None:
                raise failure
        self._playing = asyncio.create_task(self._play(), name="simulator.play")

    async def stop(self) -> None:
        """Close all ports and the log; raises what ended the play."""
        if self._playing is not None:
            self._playing.cancel()
            await asyncio.wait({self._playing})
        for show in self.lines:
            await show.end()
        if self._log is not None:
            self._log.close()
        if self._playing is not None and not self._playing.cancelled():
            self._playing.result()

    async def _play(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for show in self.lines:
                tasks.create_task(show.play(), name=f"simulator[{show.line.name}].play")

    def _begin(self) -> Run:
        scenario, settings = self.scenario, self._settings
        remembered = self._memory.read()
        said = _identity(scenario.factory)
        if remembered and remembered["factory"] != said:
            raise OptionError(
                f"{settings.data_dir} belongs to another factory: {remembered['factory']}, not {said}"
            )
        forced = [Forced(*item) for item in remembered.get("forced", [])] if remembered else []
        if remembered:
            origin_us = int(remembered["origin_us"])
        elif scenario.span_us is not None:
            origin_us = scenario.span_us[0]
        else:
            history = scenario.history_secs if settings.history_secs is None else settings.history_secs
            origin_us = _floor(self._started_us - round(history * US_PER_SEC), scenario.factory.tick_us)
        if scenario.idle_soon is not None and scenario.span_us is None:
            start_us = _floor(
                self._started_us + round(FORCED_IDLE_AFTER_SECS * US_PER_SEC), scenario.factory.tick_us
            )
            end_us = start_us + round(FORCED_IDLE_SECS) * US_PER_SEC
            end_us = _floor(end_us, scenario.factory.tick_us)
            if not forced or forced[-1].end_us < start_us:
                forced.append(Forced(scenario.idle_soon, start_us, end_us))
        self._memory.write(
            {"factory": said, "origin_us": origin_us, "forced": [list(item) for item in forced]}
        )
        return Run(factory=scenario.factory, origin_us=origin_us, forced=tuple(forced))

    def _open_log(self) -> TruthLog | None:
        settings = self._settings
        if settings.truth_log is None:
            return None
        _mend(settings.truth_log)
        return TruthLog(settings.truth_log, self.scenario.factory, self.run.origin_us, fsync=settings.fsync)

    def _line_show(self, index: int, line: Line) -> "LineShow":
        settings = self._settings
        endpoint = Endpoint(
            host=settings.host,
            port=settings.port + index if settings.port else 0,
            certificate=settings.certificate,
            private_key=settings.private_key,
            plain=settings.plain,
        )
        return LineShow(
            settings.server(self.scenario.factory, line, endpoint),
            self.run,
            settings,
            log=self._log,
            memory=self._memory,
            outages=self.scenario.outages,
            until_us=self.scenario.span_us[1] if self.scenario.span_us else None,
        )


class LineShow:
    """One line: where it is in time, and how it gets on."""

    def __init__(
        self,
        server: LineServer,
        run: Run,
        settings: Settings,
        *,
        log: TruthLog | None,
        memory: "_Memory",
        outages: tuple[Outage, ...],
        until_us: int | None,
    ) -> None:
        self.server = server
        self.line = server.line
        self.live = asyncio.Event()
        self._run = run
        self._settings = settings
        self._log = log
        self._memory = memory
        self._outages = outages
        self._until_us = until_us
        self._waits = settings.wait_for_subscriber and settings.history_secs != 0
        self._paced = settings.history_secs != 0
        self._is_back = False
        """Whether what is played is the present since a restart, however late a boot lets it be written."""
        self._writer = TagWriter()
        self._moments: Iterator[Tagged] = iter(())
        self._next: Tagged | None = None

    async def end(self) -> None:
        """Close the port, once whoever reads has had the last values, but without waiting long."""
        if self.server.is_up and self.live.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_VALUES_SECS):
                    await self.server.wait_until_read()
        await self.server.stop()

    async def open(self) -> None:
        """Find the moment from which to go on, and open the port with its values."""
        self._go_to(self._resume_us())
        await self._boot()

    async def play(self) -> None:
        """Play the past, then the present."""
        await self._play_past()
        self.live.set()
        self._remember()
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._remember)
            await self._play_present()

    def _resume_us(self) -> int:
        """Return the moment from which this line is shown."""
        origin_us = self._run.origin_us
        shown = self._memory.line(self.line.name)
        if shown is None:
            return origin_us
        if self._settings.replay_missed or not shown["live"]:
            return max(origin_us, int(shown["at_us"]))
        tick_us = self._run.factory.tick_us
        now_us = -(-self._settings.now_us() // tick_us) * tick_us
        self._log_missed(now_us)
        self._waits = self._paced = False
        self._is_back = True
        return max(now_us, origin_us)

    def _log_missed(self, until_us: int) -> None:
        """Log what happened since the last row while nobody could have read it."""
        if self._log is None or self._settings.truth_log is None:
            return
        last_us = _last_logged_us(self._settings.truth_log, self.line.name)
        if last_us is None:
            return
        missed = self._run.line_moments(self.line, last_us)
        writer = TagWriter()
        for part in _parts(missed, until_us):
            self._log.write([row for item in part for row in writer.rows(item, served=False)])

    def _go_to(self, at_us: int) -> None:
        self._moments = self._run.line_moments(self.line, at_us)
        self._next = next(self._moments)

    async def _boot(self) -> None:
        """Open the port with all tags as they are at the next moment of each machine."""
        if (wait_secs := (self._peek_us() - self._settings.now_us()) / US_PER_SEC) > 0:
            await asyncio.sleep(wait_secs)
        first = self._take(self._peek_us())
        rows = self._rows(first, whole=True)
        self._write_log(rows)
        await self.server.start(rows)

    async def _play_past(self) -> None:
        settings = self._settings
        begun = time.monotonic()
        from_us = self._peek_us()
        waited = not self._waits
        while not self._is_over():
            limit_us = settings.now_us()
            if settings.history_pace > 0:
                played_us = round((time.monotonic() - begun) * settings.history_pace * US_PER_SEC)
                limit_us = min(limit_us, from_us + played_us)
            if self._peek_us() > settings.now_us():
                return
            if self._peek_us() > limit_us:
                await asyncio.sleep(0.02)
                continue
            if not waited:
                await self.server.wait_for_subscriber()
                waited = True
            room = await self.server.wait_until_read() if self._paced else _MOST_MOMENTS
            if room == 0 and self._waits:
                waited = False
                continue
            await self._show(self._chunk(limit_us, min(room or _MOST_MOMENTS, _MOST_MOMENTS)))
            self._remember()
            await asyncio.sleep(0)

    async def _play_present(self) -> None:
        began = time.monotonic()
        saved = began
        outages = [(began + outage.after_secs, outage.secs) for outage in self._outages]
        while not self._is_over():
            wait_secs = (self._peek_us() - self._settings.now_us()) / US_PER_SEC
            until_outage = outages[0][0] - time.monotonic() if outages else math.inf
            if until_outage <= 0:
                await self._be_away(outages.pop(0)[1])
                continue
            if wait_secs > 0:
                await asyncio.sleep(min(wait_secs, max(until_outage, 0.001), 0.5))
                continue
            await self._show(self._take(self._peek_us()))
            if time.monotonic() - saved > _SAVE_SECS:
                saved = time.monotonic()
                self._remember()

    async def _be_away(self, secs: float) -> None:
        """Close the port for a while; what happens meanwhile is logged as unseen."""
        back = time.monotonic() + secs
        await self.server.stop()
        await self.server.prepare()
        while (left := back - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.2))
            while self._peek_us() <= self._settings.now_us():
                self._write_log(self._rows(self._take(self._peek_us()), served=False))
        tick_us = self._run.factory.tick_us
        self._go_to(-(-self._settings.now_us() // tick_us) * tick_us)
        await self._boot()

    async def _show(self, moments: list[Tagged]) -> None:
        """Log moments, then write them, each with all its tags at once."""
        rows = self._rows(moments)
        self._write_log(rows)
        await self.server.write(rows)

    def _rows(self, moments: list[Tagged], *, served: bool = True, whole: bool = False) -> list[Row]:
        seen = map(self._settings.seen_as, moments)
        return [row for item in seen for row in self._writer.rows(item, served=served, whole=whole)]

    def _write_log(self, rows: list[Row]) -> None:
        if self._log is not None:
            is_present = self.live.is_set() or self._is_back
            self._log.write(rows, self._settings.now_us() if is_present else None)

    def _peek_us(self) -> int:
        assert self._next is not None
        return self._next.moment.at_us

    def _is_over(self) -> bool:
        return self._until_us is not None and self._peek_us() >= self._until_us

    def _take(self, at_us: int) -> list[Tagged]:
        """Take all moments up to an instant."""
        taken = []
        while self._next is not None and self._next.moment.at_us <= at_us:
            taken.append(self._next)
            self._next = next(self._moments)
        return taken

    def _chunk(self, limit_us: int, room: int) -> list[Tagged]:
        """Take moments up to the limit, at most `room` of one machine, and never half an instant."""
        counts = dict.fromkeys((machine.name for machine in self.line.machines), 0)
        if self._until_us is not None:
            limit_us = min(limit_us, self._until_us - 1)
        taken: list[Tagged] = []
        while max(counts.values()) < room and self._peek_us() <= limit_us:
            instant = self._take(self._peek_us())
            for item in instant:
                counts[item.machine] += 1
            taken += instant
        return taken

    def _remember(self) -> None:
        self._memory.set_line(self.line.name, self._peek_us(), live=self.live.is_set())


class _Memory:
    """What a restart has to know, in one small file; nothing without a folder."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / "factory.json"
        self._known: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        if self._path is not None and self._path.exists():
            self._known = json.loads(self._path.read_text())
        return self._known

    def write(self, changes: dict[str, Any]) -> None:
        self._known = {**self._known, **changes}
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside = self._path.with_suffix(".new")
            beside.write_text(json.dumps(self._known))
            beside.replace(self._path)

    def line(self, name: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._known.get("lines", {}).get(name)
        return found

    def set_line(self, name: str, at_us: int, *, live: bool) -> None:
        lines = {**self._known.get("lines", {}), name: {"at_us": at_us, "live": live}}
        self.write({"lines": lines})


@contextlib.asynccontextmanager
async def simulate(scenario: Scenario, settings: Settings) -> AsyncIterator[Simulation]:
    """Run a factory in the background of an `async with`."""
    simulation = Simulation(scenario, settings)
    try:
        await simulation.start()
        yield simulation
    finally:
        await simulation.stop()


def quicken(factory: Factory, speed: float) -> Factory:
    """Return a factory in which everything happens so many times as fast, its ideal rates included."""
    if speed == 1:
        return factory

    def faster(line: Line) -> Line:
        return replace(
            line,
            machines=tuple(
                replace(
                    machine,
                    products=tuple(
                        replace(made, ideal_run_rate=round(made.ideal_run_rate * speed, 6))
                        for made in machine.products
                    ),
                    run_mean_secs=machine.run_mean_secs / speed,
                    stops=tuple(
                        replace(
                            stop,
                            mean_secs=stop.mean_secs / speed,
                            shortest_secs=stop.shortest_secs / speed,
                        )
                        for stop in machine.stops
                    ),
                    changeover_every_secs=machine.changeover_every_secs / speed,
                    changeover_mean_secs=machine.changeover_mean_secs / speed,
                    reset_every_secs=machine.reset_every_secs / speed,
                )
                for machine in line.machines
            ),
        )

    return replace(factory, lines=tuple(map(faster, factory.lines)))


def _identity(factory: Factory) -> dict[str, Any]:
    return {
        "scenario": factory.scenario,
        "seed": factory.seed,
        "tick_us": factory.tick_us,
        "site": factory.site,
        "machines": [machine.name for line in factory.lines for machine in line.machines],
        "ideal_run_rate": factory.lines[0].machines[0].products[0].ideal_run_rate,
    }


def _floor(at_us: int, tick_us: int) -> int:
    return at_us - at_us % tick_us


def _parts(moments: Iterator[Tagged], until_us: int, size: int = 2000) -> Iterator[list[Tagged]]:
    before = itertools.takewhile(lambda item: item.moment.at_us < until_us, moments)
    while part := list(itertools.islice(before, size)):
        yield part


def _mend(path: Path) -> None:
    """Cut off a last line that a kill left torn, so that the next row begins a line."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - 65_536)
        file.seek(start)
        tail = file.read()
        if tail and not tail.endswith(b"\n"):
            file.truncate(start + tail.rfind(b"\n") + 1)


def _last_logged_us(path: Path, line: str) -> int | None:
    """Return the latest instant that the log has of a line."""
    size = path.stat().st_size
    back = _TAIL_BYTES
    while True:
        with path.open("rb") as file:
            file.seek(max(0, size - back))
            lines = file.read().split(b"\n")[1 if back < size else 0 : -1]
        found = [
            row["at_us"] for row in map(json.loads, lines) if row.get("machine", "").startswith(f"{line}/")
        ]
        if found or back >= size:
            return max(found, default=None)
        back *= 8
