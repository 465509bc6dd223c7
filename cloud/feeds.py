"""Brings what changes to everybody who follows the board."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from cloud.live import Picture
from cloud.views import BoardView, MachineView, Update
from contract.machine_key import MachineKey

_FEED_LIMIT: Final = 8


class Feeds:
    """All who follow; told in the loop's thread."""

    def __init__(self, board: Callable[[], BoardView], *, now_us: Callable[[], int]) -> None:
        self._board = board
        self._now_us = now_us
        self._open: set[_Feed] = set()

    async def subscribe(self) -> AsyncIterator[Update]:
        """Iterate over what changes, at most one Update per live interval.

        The first holds the whole board, and so does the next after a reader fell behind.
        """
        feed = _Feed(_FEED_LIMIT)
        self._open.add(feed)
        try:
            yield Update(generated_epochtime=self._now_us() / 1e6, whole=self._board())
            while True:
                update = await feed.get()
                yield (
                    Update(generated_epochtime=self._now_us() / 1e6, whole=self._board())
                    if (update is None)
                    else update
                )
        finally:
            self._open.discard(feed)

    def tell(self, before: Picture, picture: Picture, board: BoardView) -> None:
        """Send what changed to everybody who follows."""
        if not self._open:
            return
        views = {
            MachineKey(view.site, view.area, view.line, view.machine): view
            for line in board.lines
            for view in line.machines
        }
        update = Update(
            generated_epochtime=board.generated_epochtime,
            machines=[view for key, view in views.items() if before.machines.get(key) != view]
            + [view for view in board.not_in_plant if before.machines.get(_key_of(view)) != view],
            lines=[view for key, view in picture.lines.items() if before.lines.get(key) != view],
            alerts=board.alerts,
            shift=board.shift,
            health=board.health,
        )
        for feed in list(self._open):
            feed.put(update)

    def put_whole(self) -> None:
        """Let everybody have the whole board next, from any thread."""
        for feed in list(self._open):
            feed.put_whole()


class _Feed:
    """Updates for one reader: bounded; a reader that falls behind gets the whole instead."""

    def __init__(self, limit: int) -> None:
        self._updates: asyncio.Queue[Update | None] = asyncio.Queue(limit)
        self._loop = asyncio.get_running_loop()

    async def get(self) -> Update | None:
        """Return the next update; None stands for the whole."""
        return await self._updates.get()

    def put(self, update: Update) -> None:
        """Add an update; in the loop's thread."""
        if self._updates.full():
            while not self._updates.empty():
                self._updates.get_nowait()
            self._updates.put_nowait(None)
        else:
            self._updates.put_nowait(update)

    def put_whole(self) -> None:
        """Ask for the whole, from any thread."""
        self._loop.call_soon_threadsafe(self._replace)

    def _replace(self) -> None:
        while not self._updates.empty():
            self._updates.get_nowait()
        self._updates.put_nowait(None)


def _key_of(view: MachineView) -> MachineKey:
    return MachineKey(view.site, view.area, view.line, view.machine)
