"""Fairness to what has come while this process had no processor."""

import asyncio
from collections.abc import Callable
from typing import Final

_TURNS: Final = 5
"""As many turns of the loop as a message takes from the socket to whoever waits for it."""


async def let_in(is_enough: Callable[[], bool] = lambda: False) -> None:
    """Have what stands at the sockets taken in, before the passing of time is judged.

    After seconds without a processor all time-outs are due in the first turn of the loop, and what would have
    spoken against them comes only in the turns after it.

    is_enough: nothing more need be waited for
    """
    for _ in range(_TURNS):
        if is_enough():
            return
        await asyncio.sleep(0)
