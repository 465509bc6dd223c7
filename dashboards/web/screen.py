"""What all pages share: the templates, the plant's time, and how an address that cannot be is answered."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

import structlog
from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cloud.views import BoardView
from contract.machine_key import MachineKey
from dashboards import selection
from dashboards.port import Cloud
from dashboards.selection import AddressError, Selection

Handler = Callable[[Request], Awaitable[Response]]
Question = Callable[[Request], Response]
REFRESH_SECS: Final = 15
MOST_AT_ONCE: Final = 2
_LONG_SECS: Final = 2 * 86_400
_CLOSING_SECS: Final = 600
"""For how long after its end a page still moves: its last records come and it is closed."""
_log = structlog.get_logger("dashboards.pages")


def _refresh_secs(chosen: Selection | None) -> int:
    """Return how often a page is taken anew; 0 for what does not move."""
    if chosen is None:
        return 0
    if not chosen.query.keys() & {"shift", "days", "from", "to"}:
        return REFRESH_SECS  # the next shift is shown when it begins
    if chosen.now - chosen.end > _CLOSING_SECS:
        return 0
    return REFRESH_SECS if chosen.end - chosen.start < _LONG_SECS else 4 * REFRESH_SECS


class Screen:
    """Renders pages of one kind each."""

    def __init__(self, cloud: Cloud, jinja: Environment) -> None:
        self.cloud = cloud
        self.jinja = jinja
        self.base = str(jinja.globals["base"])
        self._zones: dict[str, tzinfo] = {}
        self.slots = asyncio.Semaphore(MOST_AT_ONCE)

    def zone(self, board: BoardView) -> tzinfo:
        """Return the plant's time zone."""
        if board.timezone not in self._zones:
            self._zones[board.timezone] = ZoneInfo(board.timezone)
        return self._zones[board.timezone]

    def select(self, request: Request, board: BoardView) -> Selection:
        """Read what the address asks for."""
        return selection.select(self.cloud, board, self.zone(board), dict(request.query_params))

    def answer(
        self,
        request: Request,
        template: str,
        page: str,
        board: BoardView,
        *,
        status: int = 200,
        **context: Any,
    ) -> Response:
        """Render a page; it is never stored, because its figures move."""
        chosen: Selection | None = context.get("selection")
        filters = (
            {
                "place_choices": selection.places(board, chosen.place),
                "time_choices": selection.times(chosen),
                "products": self._products(board, chosen),
            }
            if chosen
            else {}
        )
        context.setdefault("refresh_secs", _refresh_secs(chosen))
        html = self.jinja.get_template(template).render(
            board=board,
            now=board.generated_epochtime,
            zone=self.zone(board),
            theme=request.cookies.get("theme", "auto"),
            page=page,
            account=getattr(request.state, "account", None),
            path=self.base + request.url.path,
            **filters,
            **context,
        )
        return HTMLResponse(html, status_code=status, headers={"cache-control": "no-store"})

    def _products(self, board: BoardView, chosen: Selection) -> list[str]:
        """Return the products that a place is known to make: by plant.toml, or by what it makes now."""
        plant = self.cloud.plant
        known = {
            name
            for key in chosen.machines
            if key in plant.machines
            for name in plant.machines[key].product_cycles_us
        }
        known |= {
            machine.product
            for line in board.lines
            for machine in line.machines
            if machine.product
            and MachineKey(machine.site, machine.area, machine.line, machine.machine) in chosen.place
        }
        return sorted(known | ({chosen.product} if chosen.product else set()))

    def asking(self, question: Question) -> Handler:
        """Answer a question to the cloud side in a thread, a few at a time; ingest and feed go on."""

        async def handle(request: Request) -> Response:
            async with self.slots:
                return await asyncio.to_thread(question, request)

        return self.guarded(handle)

    def guarded(self, handler: Handler) -> Handler:
        """Answer an impossible address, and a page that fails, with a page that says what is wrong."""

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except AddressError as error:
                return self.fault(request, 400, "Not found here", str(error))
            except Exception:  # noqa: BLE001  # a supervisor: what fails here is one page
                _log.exception("a page could not be made", path=request.url.path)
                text = "The server could not make this page; its log says why. The other pages go on."
                return self.fault(request, 500, "This page failed", text)

        return handle

    def fault(self, request: Request, status: int, title: str, text: str) -> Response:
        """Answer with a page that says what is wrong."""
        board = self.cloud.board()
        return self.answer(request, "fault.html", "fault", board, status=status, title=title, text=text)

    async def missing(self, request: Request, error: Exception) -> Response:
        """Answer an address that leads nowhere."""
        del error
        return self.fault(request, 404, "Not found here", "There is no such page.")
