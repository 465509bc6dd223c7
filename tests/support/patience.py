"""How much longer than promised a test waits before it fails.

A promise in seconds holds on a machine that has time; a test runs beside others on two noisy cores, where it
shall fail for what does not come, not for what comes late. The chaos report measures the seconds themselves.
"""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final

PATIENCE: Final = float(os.environ.get("OEE_TEST_PATIENCE", "6"))


async def until(done: Callable[[], bool], secs: float = 10 * PATIENCE) -> bool:
    """Wait for something that servers in other threads do; return whether it came."""
    end = time.monotonic() + secs
    while not done() and time.monotonic() < end:  # noqa: ASYNC110  servers in other threads
        await asyncio.sleep(0.02)
    return done()
