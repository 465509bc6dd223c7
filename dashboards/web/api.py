"""The API: figures, timelines, stops, alerts, plant and gateways as JSON, CSV and Parquet."""

import asyncio
import io
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeVar
from zoneinfo import ZoneInfo

import msgspec
from fastapi import FastAPI, Query
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from cloud.errors import CloudError
from cloud.oee.corrections import Correction
from cloud.oee.rollup import Level
from cloud.questions import Every
from cloud.report import flat
from cloud.views import (
    AlertView,
    BoardView,
    GatewayView,
    MuteView,
    RefusedRow,
    Revision,
    ShiftRow,
    TimelineView,
    Update,
)
from contract.machine_key import MachineKey
from dashboards.links import Place
from dashboards.port import Cloud
from dashboards.reports import model, plain
from dashboards.selection import AddressError, instant_us
from dashboards.web.signin import who_acts

_US: Final = 1_000_000
_MAX_DAYS: Final = 400
_MOST_AT_ONCE: Final = 2
_MOST_FEEDS: Final = 200
_TEXTS: Final = frozenset(
    {"site", "area", "line", "machine", "crew", "product", "order", "production_date", "shift"}
)
"""Columns of figures that hold texts, also where every row lacks them."""
_ENCODER = msgspec.json.Encoder()
_Answer = TypeVar("_Answer")

DESCRIPTION: Final = """
Everything that the pages show, for programs. Instants are Unix seconds UTC in answers (`_epochtime`), and in
questions either Unix seconds, `2021-06-30T06:00:00+02:00`, or `2021-06-30` (midnight at the plant).
Durations are seconds (`_secs`), ratios 0 to 1, units whole. A figure that does not exist is null. Within
version 1 a field may be added, never renamed or given another meaning.

`GET /figures` with `format=csv` or `format=parquet` gives the same rows as a table; columns of nested tables
are joined by dots. `WS /api/v1/live` sends the board first, then what changes, at most once a second.
"""

Moment = Annotated[
    str,
    Query(description="Unix seconds, ISO 8601, or a date: midnight at the plant.", examples=["2021-06-30"]),
]
At = Annotated[
    str, Query(description="`site/area/line/machine` from the left; the whole plant when left out.")
]

Since = Annotated[
    str,
    Query(alias="from", description="Where it begins, written like `to`.", examples=["2021-06-30"]),
]
By = Annotated[str, Query(max_length=64, description="Who asks, where nobody signs in.")]


class ApiError(ValueError):
    """A question that cannot be answered: status 400 with the reason."""


class Api:
    """The sub-application under /api/v1."""

    def __init__(self, cloud: Cloud, note: Callable[[Request, str, str], None]) -> None:
        self._cloud = cloud
        self._note = note
        self._slots = asyncio.Semaphore(_MOST_AT_ONCE)
        self._feeds = 0
        app = FastAPI(
            title="oee-gateway",
            version="1",
            description=DESCRIPTION,
            docs_url=None,
            redoc_url=None,
            openapi_url="/openapi.json",
        )
        self.application = app
        get = app.get
        get("/plant", summary="Sites, lines, machines, targets and reasons")(self._plant)
        get("/board", summary="Everything that the live board shows", **_answers(BoardView))(self._board)
        get("/figures", summary="Figures of any window, place and product")(self._figures)
        get("/shifts", summary="Shifts as they are kept, the running one last")(self._shifts)
        get("/revisions", summary="How a closed shift came to be as it is", **_answers(list[Revision]))(
            self._revisions
        )
        get("/after-lock", summary="Records of a closed shift that came too late to count")(self._after_lock)
        get("/corrections", summary="What people said of the past", **_answers(list[Correction]))(
            self._corrections
        )
        get("/timeline", summary="A machine's states without holes", **_answers(TimelineView))(self._timeline)
        get("/stops", summary="Stops in planned production time")(self._stops)
        get("/alerts", summary="Open and past alerts", **_answers(list[AlertView]))(self._alerts)
        app.post(
            "/alerts/acknowledge",
            summary="Say that somebody looks after an open alert",
            **_answers(AlertView),
        )(self._acknowledge)
        get("/mutes", summary="Places that are muted for planned work", **_answers(list[MuteView]))(
            self._mutes
        )
        app.post(
            "/mutes",
            status_code=201,
            summary="Let alerts of a place and of all below it wake nobody until a moment",
        )(self._mute)
        app.delete("/mutes/{number}", summary="End a mute", **_answers(MuteView))(self._unmute)
        get("/gateways", summary="Gateways and their connections", **_answers(list[GatewayView]))(
            self._gateways
        )
        app.post(
            "/gateways/{gateway}/connections/{connection}/{action}",
            status_code=202,
            summary="Ask a gateway to start or stop reading a PLC; its status answers under the id",
        )(self._control)
        get(
            "/masterdata/refused",
            summary="Rows of master data that cannot be used as things are",
            **_answers(list[RefusedRow]),
        )(self._refused_rows)
        app.add_api_websocket_route("/live", self._live)
        app.add_exception_handler(ApiError, _refused)
        app.add_exception_handler(CloudError, _refused)
        app.openapi = self._schema  # type: ignore[method-assign]

    def schema(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        return self._schema()

    async def _plant(self) -> Response:
        plant = self._cloud.plant
        sites = [
            {
                "site": site.name,
                "timezone": site.timezone.key,
                "reasons": [
                    {
                        "reason": reason.key,
                        "name": reason.name,
                        "group": reason.group,
                        "category": reason.category,
                        "codes": list(reason.codes),
                    }
                    for reason in site.reasons.values()
                ],
                "machines": [
                    {
                        **key._asdict(),
                        "calendar": machine.calendar.name,
                        "ideal_run_rate_per_min": float(60 * _US / machine.cycle_us()),
                        "targets": {
                            name: _float(getattr(machine.targets, name))
                            for name in ("oee", "availability", "performance", "quality")
                        },
                    }
                    for key, machine in plant.machines.items()
                    if key.site == site.name
                ],
            }
            for site in plant.sites.values()
        ]
        return _json({"sites": sites})

    async def _board(self) -> Response:
        return _json(self._cloud.board())

    async def _figures(  # a question's parameters
        self,
        from_: Since,
        to: Moment,
        every: Every = "shift",
        level: Level = "machine",
        at: At = "",
        product: str | None = None,
        format: Annotated[Literal["json", "csv", "parquet"], Query()] = "json",  # noqa: A002  # its public name
    ) -> Response:
        from_us, to_us = self._span(from_, to)
        place = self._place(at)
        rows = await self._ask(
            lambda: self._cloud.figures(
                from_us, to_us, every=every, level=level, place=place, product=product or None
            )
        )
        if format == "csv":
            return _file(plain.table(rows), "text/csv; charset=utf-8", "figures.csv")
        if format == "parquet":
            body = await asyncio.to_thread(as_parquet, rows)
            return _file(body, "application/vnd.apache.parquet", "figures.parquet")
        return _json(rows)

    async def _shifts(self, from_: Since, to: Moment, level: Level = "line", at: At = "") -> Response:
        from_us, to_us = self._span(from_, to)
        place = self._place(at)
        rows = await self._ask(lambda: self._cloud.shift_table(from_us, to_us, level))
        return _json([row for row in rows if model.place_of(row)[: len(place)] == place])

    async def _revisions(self, at: At, start: Moment) -> Response:
        scope, start_us = "/".join(self._place(at)), self._instant_us(start)
        return _json(await self._ask(lambda: self._cloud.revisions(scope, start_us)))

    async def _after_lock(self, at: At, start: Moment) -> Response:
        scope, start_us = "/".join(self._place(at)), self._instant_us(start)
        found = await self._ask(lambda: self._cloud.after_lock(scope, start_us))
        return _json({"records": 0} if found is None else found)

    async def _corrections(self) -> Response:
        return _json(await self._ask(self._cloud.corrections))

    async def _timeline(self, at: At, from_: Since, to: Moment) -> Response:
        from_us, to_us = self._span(from_, to)
        key = self._machine(at)
        return _json(await self._ask(lambda: self._cloud.timeline(key, from_us, to_us)))

    async def _stops(
        self,
        from_: Since,
        to: Moment,
        at: At = "",
        shortest_secs: Annotated[float, Query(ge=0)] = 0.0,
    ) -> Response:
        from_us, to_us = self._span(from_, to)
        place = self._place(at)
        keys = [key for key in self._cloud.plant.machines if tuple(key)[: len(place)] == place]

        def ask() -> list[dict[str, Any]]:
            found = [
                {
                    **stop.machine._asdict(),
                    "start_epochtime": stop.start,
                    "end_epochtime": stop.end,
                    "secs": stop.secs,
                    "state": stop.state,
                    "loss": stop.loss,
                    "reason": stop.reason,
                    "reason_name": stop.reason_name,
                }
                for key in keys
                for stop in model.stops(self._cloud.timeline(key, from_us, to_us))
                if stop.secs >= shortest_secs
            ]
            return sorted(found, key=lambda stop: (stop["start_epochtime"], stop["machine"]))

        return _json(await self._ask(ask))

    async def _alerts(self, open: bool = False) -> Response:  # noqa: A002, FBT001, FBT002  # its public name
        return _json(await self._ask(lambda: self._cloud.alerts(open)))

    async def _acknowledge(
        self,
        request: Request,
        id: Annotated[str, Query(max_length=512)],  # noqa: A002  # its public name
        note: Annotated[str, Query(max_length=500)] = "",
        by: By = "",
    ) -> Response:
        who = _who(request, by)
        alert = await self._ask(lambda: self._cloud.acknowledge(id, who, note))
        self._note(request, "acknowledged an alert", id)
        return _json(alert)

    async def _mutes(self) -> Response:
        return _json(await self._ask(self._cloud.mutes))

    async def _mute(
        self,
        request: Request,
        place: Annotated[str, Query(max_length=400, description="`site/area/line/machine` from the left.")],
        until: Moment,
        why: Annotated[str, Query(max_length=500)],
        rule: Annotated[list[str], Query(description="Only of these rules.")] = [],  # noqa: B006  FastAPI copies it
        by: By = "",
    ) -> Response:
        who, until_us = _who(request, by), self._instant_us(until)
        mute = await self._ask(lambda: self._cloud.mute(place, until_us, who=who, why=why, rules=rule))
        self._note(request, "muted alerts", f"{place} {why}")
        return Response(_ENCODER.encode(mute), status_code=201, media_type="application/json")

    async def _unmute(self, request: Request, number: int, by: By = "") -> Response:
        who = _who(request, by)
        mute = await self._ask(lambda: self._cloud.unmute(number, who))
        self._note(request, "unmuted alerts", str(number))
        return _json(mute)

    async def _gateways(self) -> Response:
        return _json(await self._ask(self._cloud.gateways))

    async def _refused_rows(self) -> Response:
        return _json(await self._ask(self._cloud.refused_rows))

    async def _control(
        self,
        request: Request,
        gateway: str,
        connection: str,
        action: Literal["start", "stop"],
        site: str,
        by: By = "",
    ) -> Response:
        who = _who(request, by)
        number = await self._ask(lambda: self._cloud.ask_gateway(site, gateway, connection, action, by=who))
        self._note(request, f"asked to {action} a connection", f"{site}/{gateway}/{connection}")
        return Response(_ENCODER.encode({"id": number}), status_code=202, media_type="application/json")

    async def _live(self, socket: WebSocket) -> None:
        """Send the board, then each update, as JSON; who falls behind gets the whole board again."""
        if self._feeds >= _MOST_FEEDS:
            await socket.close(1013, "too many feeds")
            return
        await socket.accept()
        self._feeds += 1
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._send(socket), name="api.live.send")
                while (await socket.receive())["type"] != "websocket.disconnect":
                    pass
                sending.cancel()
        finally:
            self._feeds -= 1

    async def _send(self, socket: WebSocket) -> None:
        try:
            async for update in self._cloud.subscribe():
                await socket.send_text(_ENCODER.encode(update).decode())
        except (WebSocketDisconnect, RuntimeError, OSError):
            return  # the listener notices the end by itself

    async def _ask(self, question: Callable[[], _Answer]) -> _Answer:
        """Ask the cloud side in a thread, a few at a time."""
        async with self._slots:
            return await asyncio.to_thread(question)

    def _place(self, text: str) -> tuple[str, ...]:
        if not text:
            return ()
        try:
            return Place.parse(text).levels
        except ValueError as error:
            raise ApiError(f"at: {error}") from error

    def _machine(self, text: str) -> MachineKey:
        try:
            return MachineKey.parse(text)
        except ValueError as error:
            raise ApiError(f"at: {error}") from error

    def _span(self, since: str, until: str) -> tuple[int, int]:
        from_us, to_us = self._instant_us(since), self._instant_us(until)
        if not 0 < to_us - from_us <= _MAX_DAYS * 86_400 * _US:
            raise ApiError(f"`to` must lie after `from`, at most {_MAX_DAYS} days.")
        return from_us, to_us

    def _instant_us(self, text: str) -> int:
        try:
            return instant_us(text, ZoneInfo(self._cloud.board().timezone))
        except ValueError as error:
            raise ApiError(str(error)) from error

    def _schema(self) -> dict[str, Any]:
        """Return the OpenAPI document, with the views' schemas as msgspec writes them."""
        app = self.application
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            _, views = msgspec.json.schema_components(
                (BoardView, TimelineView, AlertView, MuteView, GatewayView, Revision, Correction, Update),
                ref_template="#/components/schemas/{name}",
            )
            document.setdefault("components", {}).setdefault("schemas", {}).update(views)
            document["servers"] = [{"url": "/api/v1"}]
            app.openapi_schema = document
        return app.openapi_schema


def as_parquet(rows: list[ShiftRow]) -> bytes:
    """Return figures rows as one Parquet file; columns of nested tables are joined by dots.

    A column keeps its type where no row has a value, so that many files make one table.
    """
    import pyarrow as pa
    from pyarrow import parquet

    lines = [flat(row) for row in rows]
    columns = list(dict.fromkeys(key for line in lines for key in line))
    arrays = {name: pa.array([line.get(name) for line in lines]) for name in columns}
    for name, array in arrays.items():
        if pa.types.is_null(array.type):
            arrays[name] = array.cast(pa.string() if name in _TEXTS else pa.float64())
    buffer = io.BytesIO()
    parquet.write_table(pa.table(arrays), buffer, compression="zstd")
    return buffer.getvalue()


def _who(request: Request, by: str) -> str:
    """Return who acts: the person signed in, or the name given."""
    try:
        return who_acts(request, {"operator": by})
    except AddressError as error:
        raise ApiError(str(error)) from error


def _answers(kind: Any) -> dict[str, Any]:
    """Return what a route says of its answer."""
    (schema,), _ = msgspec.json.schema_components((kind,), ref_template="#/components/schemas/{name}")
    return {"responses": {200: {"content": {"application/json": {"schema": schema}}}}}


def _json(value: Any) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(_ENCODER.encode(value), media_type="application/json", headers=headers)


def _file(body: bytes, media_type: str, name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return Response(body, media_type=media_type, headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    del request
    return Response(_ENCODER.encode({"error": str(error)}), status_code=400, media_type="application/json")


def _float(value: object) -> float | None:
    return None if value is None else float(str(value))
