"""The web application: its routes, put together."""

import time
from collections.abc import Callable, Iterable

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket

from dashboards.port import CloudReader
from dashboards.web.assets import Assets
from dashboards.web.board import BoardPages
from dashboards.web.feed import Feed
from dashboards.web.security import Application, Guard
from dashboards.web.templating import environment


class Pages:
    """Everything that one server serves: the pages and their live feed."""

    application: Application
    feed: Feed

    def __init__(
        self,
        cloud: CloudReader,
        *,
        hosts: Iterable[str] = (),
        base: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        assets = Assets()
        jinja = environment(assets, base)
        board = BoardPages(cloud, jinja)
        self.feed = Feed(cloud, board.renderer(), clock)
        app = FastAPI(title="oee-gateway", docs_url=None, redoc_url=None, openapi_url=None)
        app.add_route("/static/{name}", assets.serve, methods=["GET", "HEAD"])
        app.add_route("/", board.show, methods=["GET"])
        app.add_api_websocket_route("/feed", self._feed)
        app.add_api_route("/healthz", _healthz, methods=["GET"], include_in_schema=False)
        app.add_middleware(GZipMiddleware, minimum_size=1500, compresslevel=5)
        self.application = Guard(app, hosts)

    async def _feed(self, socket: WebSocket) -> None:
        await self.feed.serve(socket)


def _healthz() -> Response:
    return PlainTextResponse("ok\n")
