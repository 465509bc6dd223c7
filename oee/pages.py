"""Puts pages onto the cloud side: the only place that knows both."""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloud.service import Cloud


def serve(cloud: "Cloud") -> Coroutine[Any, Any, None]:
    """Serve the pages of a running cloud side, where its configuration says."""
    import structlog

    from dashboards.web import server

    web = cloud.config.web
    log = structlog.get_logger("pages")
    return server.serve(cloud, web.host, web.port, on_ready=lambda url: log.info("board is served", url=url))
