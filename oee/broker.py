"""The MQTT broker of the demo: amqtt on loopback, for one factory on one machine and nothing more."""

import asyncio
import contextlib
import logging
import signal
from typing import Any

from oee.errors import require


def settings(port: int) -> dict[str, Any]:
    """Return amqtt's configuration: loopback only, everybody may speak, no statistics topics."""
    return {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }


async def serve(port: int) -> None:
    """Serve MQTT 3.1.1 on a port of loopback until SIGTERM or SIGINT."""
    from amqtt.broker import Broker

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    broker = Broker(settings(port))
    await broker.start()
    await stopped.wait()
    with contextlib.suppress(TimeoutError):  # it waits for clients that may be gone
        await asyncio.wait_for(broker.shutdown(), timeout=1)


def run(port: int) -> int:
    """Run the broker; return the exit code."""
    require("amqtt")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(serve(port))
    return 0
