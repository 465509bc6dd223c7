"""Puts pages and reports onto the cloud side: the only place that knows both."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloud.results.reports import Print
    from cloud.service import Cloud


def printer(cloud: "Cloud") -> "Print":
    """Return what makes the reports that a cloud side mails."""
    from dashboards.reports.mail import Printer

    return Printer(cloud)


async def serve(cloud: "Cloud") -> None:
    """Serve the pages of a running cloud side, where its configuration says."""
    import structlog

    from dashboards.people import People
    from dashboards.web import server

    web = cloud.config.web
    log = structlog.get_logger("pages")
    people = People(cloud.config.cloud.data_dir / "people.sqlite3", time.time) if web.sign_in else None
    if people is not None and people.is_empty:
        log.warning("nobody has an account yet: the first page asks for this code", code=people.setup_code)
    try:
        await server.serve(
            cloud,
            web.host,
            web.port,
            on_ready=lambda url: log.info("board is served", url=url),
            hosts=web.hosts,
            base=web.base_path,
            trusted_proxies=web.trusted_proxies,
            people=people,
        )
    finally:
        if people is not None:
            people.close()
