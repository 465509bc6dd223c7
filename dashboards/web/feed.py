"""The live feed: what changed on the board, rendered once and sent to every browser.

A fragment is a piece of HTML with an id. Each browser holds at most one waiting version of each fragment:
one that reads slowly gets the latest and skips what lay between; nothing piles up and nobody waits for it.
"""

import asyncio
import contextlib
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from cloud.views import BoardView, LineView, MachineView, Update
from contract.machine_key import MachineKey
from dashboards.port import CloudReader

MAX_BROWSERS: Final = 1000
BEAT_SECS: Final = 6.0
"""After so much silence a sign of life: longer than the slowest pace, and half of what makes a page stale."""
PACE_SECS: Final = 1.9
"""How often counts and percentages are sent; a change of state, reason or alert never waits."""
PACE_SECS_PER_BROWSER: Final = 0.05
SLOWEST_PACE_SECS: Final = 5.0
"""Many browsers get counts less often, so that they cost the server no more than a few."""
RETRY_SECS: Final = 1.0
RIBBON_SECS: Final = 20.0
_log = structlog.get_logger("dashboards.feed")
_ENCODER = msgspec.json.Encoder()

Fragments = dict[str, str]


class Browser:
    """One open page: what it has not been sent yet, at most one version of each fragment."""

    def __init__(self) -> None:
        self.waiting: Mapping[str, str] = {}
        self.shared: str | None = None
        """The one message that says all of `waiting`, encoded once for all; None when several were merged."""
        self.generated = 0.0
        self.reload = False
        self.skipped = 0
        self.wake = asyncio.Event()

    def offer(self, generated: float, changed: Mapping[str, str], message: str) -> None:
        """Leave the latest for the browser to be sent as soon as it can take it."""
        if self.wake.is_set():
            self.skipped += 1
            self.waiting = {**self.waiting, **changed}
            self.shared = None
        else:
            self.waiting = changed  # one for all browsers: never changed in place
            self.shared = message
            self.wake.set()
        self.generated = generated

    def take(self) -> str:
        """Return the message to send now."""
        self.wake.clear()
        message = self.shared or encode(self.generated, self.waiting, reload=self.reload)
        self.waiting, self.shared, self.reload = {}, None, False
        return message


class Renderer:
    """How the board's parts become HTML; `pages` gives the functions, the feed knows no template."""

    def __init__(
        self,
        *,
        tile: Callable[[MachineView, BoardView], Fragments],
        line: Callable[[LineView, BoardView], Fragments],
        ribbon: Callable[[MachineView, BoardView], Fragments],
        frame: Callable[[BoardView], Fragments],
    ) -> None:
        self.tile = tile
        self.line = line
        self.ribbon = ribbon
        self.frame = frame


class Feed:
    """Follows the cloud side's updates for as long as `run` runs, and tells the open pages."""

    def __init__(self, cloud: CloudReader, render: Renderer, clock: Callable[[], float]) -> None:
        self._cloud = cloud
        self._render = render
        self._clock = clock
        self._browsers: set[Browser] = set()
        self._fragments: Fragments = {}
        self._board: BoardView | None = None
        self._drawn: dict[MachineKey, tuple[float, object]] = {}
        self._last_sent = clock()
        self._touched: set[MachineKey] = set()
        self._touched_lines: set[tuple[str, str, str]] = set()
        self._told_epochtime = 0.0
        self._closing = asyncio.Event()
        self._rendering = asyncio.Lock()
        self.skipped = 0
        """Versions that slow browsers never saw, of all browsers that have left."""

    @property
    def browsers(self) -> int:
        """How many pages are open."""
        return len(self._browsers)

    async def run(self) -> None:
        """Publish each update; between updates, a sign of life.

        A board that cannot be drawn is logged and tried again: it must not end the program it runs in.
        """
        async with asyncio.TaskGroup() as group:
            beat = group.create_task(self._beat(), name="pages.beat")
            try:
                while await self._followed():  # noqa: ASYNC110  # a pause after a failure
                    await asyncio.sleep(RETRY_SECS)
            finally:
                beat.cancel()

    async def _followed(self) -> bool:
        """Publish until the cloud side ends its updates; tell whether to try again after a failure."""
        try:
            async for update in self._cloud.subscribe():
                await self.publish(update)
        except Exception as error:  # noqa: BLE001  # a supervisor: what goes on is worth more than the board
            where = traceback.format_exc(limit=-4)
            _log.error("the board could not be drawn; it is tried again", reason=repr(error), where=where)
            self._board = None
            return True
        return False

    def close(self) -> None:
        """Ask every open page to go away; they come back by themselves."""
        self._closing.set()
        for browser in self._browsers:
            browser.wake.set()

    async def publish(self, update: Update) -> None:
        """Render what changed, once and beside the loop, and offer it to every browser."""
        if not self._browsers:
            self._board = None  # nobody looks: the next one to come gets everything anew
            return
        async with self._rendering:
            before = self._board
            board = update.whole or (merged(before, update) if before else self._cloud.board())
            rebuilt = update.whole is not None or before is None
            moved = before is not None and _layout(before) != _layout(board)
            urgent = rebuilt or moved or frame_of(before) != frame_of(board) or _looks_differ(before, update)
            self._board = board
            self._touched.update(map(key_of, update.machines))
            self._touched_lines.update((line.site, line.area, line.line) for line in update.lines)
            if not urgent and board.generated_epochtime - self._told_epochtime < self.pace_secs:
                return
            fresh = await asyncio.to_thread(self._all if rebuilt else self._some, board)
            changed = {key: html for key, html in fresh.items() if self._fragments.get(key) != html}
            self._fragments = fresh if rebuilt else self._fragments | changed
            self._touched.clear()
            self._touched_lines.clear()
        if moved or changed:
            self._tell(board.generated_epochtime, changed, reload=moved)
            self._told_epochtime = board.generated_epochtime

    @property
    def pace_secs(self) -> float:
        """How often counts and percentages are sent to as many browsers as there are."""
        return min(max(PACE_SECS, PACE_SECS_PER_BROWSER * len(self._browsers)), SLOWEST_PACE_SECS)

    def _all(self, board: BoardView) -> Fragments:
        fragments = self._render.frame(board)
        for line in board.lines:
            fragments |= self._render.line(line, board)
        for machine in machines_of(board):
            fragments |= self._render.tile(machine, board)
            fragments |= self._ribbon(machine, board)
        return fragments

    def _some(self, board: BoardView) -> Fragments:
        """Render what updates have touched since the last time."""
        fragments = self._render.frame(board)
        for line in board.lines:
            if (line.site, line.area, line.line) in self._touched_lines:
                fragments |= self._render.line(line, board)
        for machine in machines_of(board):
            key = key_of(machine)
            if key in self._touched:
                fragments |= self._render.tile(machine, board)
            if self._ribbon_is_due(key, machine, board):
                fragments |= self._ribbon(machine, board)
        return fragments

    def _ribbon_is_due(self, key: MachineKey, machine: MachineView, board: BoardView) -> bool:
        drawn = self._drawn.get(key)
        return (
            drawn is None
            or drawn[1] != look_of(machine, board)
            or board.generated_epochtime - drawn[0] >= RIBBON_SECS
        )

    def _ribbon(self, machine: MachineView, board: BoardView) -> Fragments:
        self._drawn[key_of(machine)] = (board.generated_epochtime, look_of(machine, board))
        return self._render.ribbon(machine, board)

    def _tell(self, generated: float, changed: Fragments, *, reload: bool = False) -> None:
        message = encode(generated, changed, reload=reload)
        self._last_sent = self._clock()
        for browser in self._browsers:
            browser.reload |= reload
            browser.offer(generated, changed, message)

    async def _beat(self) -> None:
        while True:
            silent_secs = self._clock() - self._last_sent
            if 0.0 <= silent_secs < BEAT_SECS:
                await asyncio.sleep(BEAT_SECS - silent_secs)
            else:
                self._tell(self._clock(), {})

    async def serve(self, socket: WebSocket) -> None:
        """Talk to one browser until either side goes away."""
        if len(self._browsers) >= MAX_BROWSERS or self._closing.is_set():
            await socket.close(1013, "too many open pages")
            return
        await socket.accept()
        browser = Browser()
        async with self._rendering:
            board = self._board
            if not self._browsers or board is None:
                board = self._cloud.board()
                self._fragments = await asyncio.to_thread(self._all, board)
                self._board = board
            browser.offer(
                board.generated_epochtime, self._fragments, encode(board.generated_epochtime, self._fragments)
            )
            self._browsers.add(browser)
        try:
            async with asyncio.TaskGroup() as group:
                listener = group.create_task(self._listen(socket), name="pages.browser.listen")
                sender = group.create_task(self._send(socket, browser), name="pages.browser.send")
                await asyncio.wait((listener, sender), return_when=asyncio.FIRST_COMPLETED)
                listener.cancel()
                sender.cancel()
        finally:
            self._browsers.discard(browser)
            self.skipped += browser.skipped
        if self._closing.is_set():
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await socket.close(1012, "the server restarts")

    async def _listen(self, socket: WebSocket) -> None:
        """Notice the end; browsers have nothing to say."""
        while True:
            if (await socket.receive())["type"] == "websocket.disconnect":
                return

    async def _send(self, socket: WebSocket, browser: Browser) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):
            while True:
                await browser.wake.wait()
                if self._closing.is_set():
                    return
                await socket.send_text(browser.take())


def encode(generated: float, fragments: Mapping[str, str], *, reload: bool = False) -> str:
    """Write one message of the feed: `{"generated": s, "fragments": {id: html}, "reload": bool}`."""
    message: dict[str, Any] = {"generated": generated}
    if fragments:
        message["fragments"] = fragments
    if reload:
        message["reload"] = True
    return _ENCODER.encode(message).decode()


def machines_of(board: BoardView) -> list[MachineView]:
    """Return every machine that the board shows, in its order."""
    return [machine for line in board.lines for machine in line.machines] + board.not_in_plant


def key_of(machine: MachineView) -> MachineKey:
    """Return a machine's place."""
    return MachineKey(machine.site, machine.area, machine.line, machine.machine)


def places(board: BoardView) -> list[object]:
    """Return what decides how the board is laid out."""
    return [key_of(machine) for machine in machines_of(board)]


def _layout(board: BoardView) -> tuple[object, ...]:
    """Return what a page is laid out by: its machines, and the shift whose hours stand below the ribbons."""
    shift = board.shift
    return places(board), shift and (shift.start_epochtime, shift.end_epochtime)


def merged(board: BoardView, update: Update) -> BoardView:
    """Return the board after an update."""
    fresh = {key_of(machine): machine for machine in update.machines}
    lines = {(line.site, line.area, line.line): line for line in update.lines}
    after = []
    for line in board.lines:
        newer = lines.get((line.site, line.area, line.line), line)
        after.append(
            msgspec.structs.replace(
                line,
                figures=newer.figures,
                verdicts=newer.verdicts,
                machines=[fresh.pop(key_of(machine), machine) for machine in line.machines],
            )
        )
    strangers = {key_of(machine): machine for machine in board.not_in_plant}
    strangers |= {key: machine for key, machine in fresh.items() if not machine.in_plant}
    return msgspec.structs.replace(
        board,
        generated_epochtime=update.generated_epochtime,
        lines=after,
        not_in_plant=list(strangers.values()),
        alerts=board.alerts if update.alerts is None else update.alerts,
        shift=update.shift or board.shift,
        health=update.health or board.health,
    )


def frame_of(board: BoardView | None) -> object:
    """Return what is told at once wherever it changes: alerts, the shift, and what the service lacks."""
    if board is None:
        return None
    health = board.health
    lacks = health and (
        *(health.broker, health.store_fault, health.clock_warnings),
        *(health.plant_faults, health.alert_faults, health.results_faults, health.masterdata_faults),
    )
    return board.alerts, board.shift, lacks


def _looks_differ(before: BoardView | None, update: Update) -> bool:
    """Tell whether any machine of an update now does something else."""
    if before is None:
        return True
    old = {key_of(machine): machine for machine in machines_of(before)}
    return any(
        key_of(machine) not in old or look_of(old[key_of(machine)], before) != look_of(machine, before)
        for machine in update.machines
    )


def look_of(machine: MachineView, board: BoardView) -> object:
    """Return what decides how a machine's ribbon ends, and in which window it is drawn."""
    shift = board.shift
    return (
        machine.state,
        machine.state_since_epochtime,
        machine.reason,
        machine.category,
        shift and shift.start_epochtime,
    )
