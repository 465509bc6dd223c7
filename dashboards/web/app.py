"""The web application: its routes, put together."""

import time
from collections.abc import Callable, Iterable

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket

from dashboards.people import People
from dashboards.port import Cloud
from dashboards.web.alerting import AlertPages
from dashboards.web.analysis import AnalysisPages
from dashboards.web.api import Api
from dashboards.web.assets import Assets
from dashboards.web.board import BoardPages
from dashboards.web.connections import ConnectionPages
from dashboards.web.feed import Feed
from dashboards.web.reporting import ReportPages
from dashboards.web.security import Application, Guard
from dashboards.web.signin import PeoplePages, SignIn, recording
from dashboards.web.templating import environment
from dashboards.web.work import WorkPages


class Pages:
    """Everything that one server serves: the pages and their live feed."""

    application: Application
    feed: Feed

    def __init__(
        self,
        cloud: Cloud,
        *,
        hosts: Iterable[str] = (),
        base: str = "",
        people: People | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        assets = Assets()
        jinja = environment(assets, base)
        board = BoardPages(cloud, jinja)
        self.feed = Feed(cloud, board.renderer(), clock)
        app = FastAPI(title="oee-gateway", docs_url=None, redoc_url=None, openapi_url=None)
        app.add_route("/static/{name}", assets.serve, methods=["GET", "HEAD"])
        app.add_route("/favicon.ico", assets.icon, methods=["GET", "HEAD"])
        analysis = AnalysisPages(cloud, jinja)
        app.add_exception_handler(404, analysis.missing)
        app.add_route("/", analysis.asking(board.show), methods=["GET"])
        for path, handler in (
            ("/place", analysis.place),
            ("/timeline", analysis.timeline),
            ("/losses", analysis.losses),
            ("/hourly", analysis.hourly),
            ("/shifts", analysis.shifts),
            ("/trends", analysis.trends),
        ):
            app.add_route(path, analysis.asking(handler), methods=["GET"])
        app.add_route("/tv", analysis.asking(board.wall), methods=["GET"])
        reporting = ReportPages(cloud, jinja)
        app.add_route("/reports", reporting.asking(reporting.archive), methods=["GET"])
        app.add_route("/report", reporting.asking(reporting.sheets), methods=["GET"])
        app.add_route("/report.{suffix}", reporting.guarded(reporting.file), methods=["GET"])
        work = WorkPages(cloud, jinja, recording(people))
        alerting = AlertPages(cloud, jinja, recording(people))
        connections = ConnectionPages(cloud, jinja, recording(people))
        for path, handler in (
            ("/stops", work.stops),
            ("/stop", work.stop),
            ("/alerts", alerting.alerts),
            ("/connections", connections.show),
        ):
            app.add_route(path, work.asking(handler), methods=["GET"])
        for path, taking in (
            ("/stop", work.classify),
            ("/alerts", alerting.acknowledge),
            ("/alerts/mute", alerting.mute),
            ("/alerts/unmute", alerting.unmute),
            ("/connections", connections.control),
        ):
            app.add_route(path, work.guarded(taking), methods=["POST"])
        api = Api(cloud, recording(people))
        app.add_route("/api", connections.asking(connections.api(api.schema)), methods=["GET"])
        app.mount("/api/v1", api.application)
        app.add_api_websocket_route("/feed", self._feed)
        app.add_api_route("/healthz", _healthz, methods=["GET"], include_in_schema=False)
        application: Application = app
        if people is not None:
            door = PeoplePages(cloud, jinja, people)
            for path, shown, taken in (
                ("/sign-in", door.door, door.enter),
                ("/first-run", door.first, door.settle),
                ("/people", door.asking(door.people), door.change),
                ("/audit", door.asking(door.audit), None),
                ("/sign-out", None, door.leave),
            ):
                if shown is not None:
                    app.add_route(path, shown, methods=["GET"])
                if taken is not None:
                    app.add_route(path, taken, methods=["POST"])
            application = SignIn(app, people, base, forbidden=door.forbidden)
        app.add_middleware(GZipMiddleware, minimum_size=1500, compresslevel=5)
        self.application = Guard(application, hosts)

    async def _feed(self, socket: WebSocket) -> None:
        await self.feed.serve(socket)


def _healthz() -> Response:
    return PlainTextResponse("ok\n")
