"""A daemon in this process, with counting machines instead of PLCs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gateway import config
from gateway.service import Daemon, MakeSource
from tests.support.gateway_process import configuration_text, counting
from tests.support.patience import PATIENCE


def written(tmp_path: Path, **options: Any) -> Path:
    """Write a gateway.toml and return its path; see `configuration_text`."""
    path = tmp_path / "gateway.toml"
    path.write_text(configuration_text(tmp_path / "data", **options))
    return path


@contextlib.asynccontextmanager
async def running(path: Path, make_source: MakeSource | None = counting) -> AsyncIterator[Daemon]:
    """Run a daemon in this process; end it as SIGTERM does."""
    daemon = Daemon(config.load(path), path=path, make_source=make_source)
    task = asyncio.create_task(daemon.run())
    await asyncio.wait_for(daemon.started.wait(), PATIENCE * 5)
    try:
        yield daemon
    finally:
        daemon.stop()
        await asyncio.wait_for(task, PATIENCE * 5)
