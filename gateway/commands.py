"""What `oee gateway ...` does; each function returns the exit code."""

import asyncio
import sys
from pathlib import Path

from gateway import config
from gateway.errors import ConfigError, StartError
from gateway.logging import configure

CONFIG_FAULT = 2


def run(path: Path) -> int:
    """Run the daemon until SIGTERM or SIGINT; 2 when the configuration or this machine forbids it."""
    try:
        configuration = config.load(path)
        configure(configuration.log.level, configuration.log.format)
        from gateway.service import Daemon

        asyncio.run(Daemon(configuration, path=path).run())
    except (ConfigError, StartError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the answer to who typed the command
        return CONFIG_FAULT
    return 0
