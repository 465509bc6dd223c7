"""The connections: gateways, their PLCs, what arrives and what was refused, and who stops and starts them."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from jinja2 import Environment
from msgspec import UnsetType
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cloud.errors import CloudError
from cloud.views import GatewayView
from dashboards.links import link
from dashboards.port import Cloud
from dashboards.selection import AddressError
from dashboards.web.feed import machines_of
from dashboards.web.screen import Question, Screen
from dashboards.web.signin import who_acts

ACTIONS: Final[dict[str, Literal["start", "stop"]]] = {"start": "start", "stop": "stop"}
_REFRESH_SECS: Final = 5
_WAITING_SECS: Final = 1


class Asked(NamedTuple):
    """A command that somebody on this page gave, and what became of it."""

    gateway: str
    connection: str
    action: str
    is_answered: bool
    refusal: str | None


class ConnectionPages(Screen):
    """One page for the engineer who connects PLCs."""

    def __init__(self, cloud: Cloud, jinja: Environment, note: Callable[[Request, str, str], None]) -> None:
        super().__init__(cloud, jinja)
        self._note = note

    def show(self, request: Request) -> Response:
        """Answer `/connections`."""
        board = self.cloud.board()
        gateways = self.cloud.gateways()
        account = getattr(request.state, "account", None)
        asked = _asked(request.query_params, gateways)
        return self.answer(
            request,
            "connections.html",
            "connections",
            board,
            gateways=gateways,
            machines=machines_of(board),
            letters=self.cloud.dead_letters(30),
            refused=self.cloud.refused_rows(),
            given=given,
            may_control=account is None or account.may("engineer"),
            asked=asked,
            refresh_secs=_WAITING_SECS if asked and not asked.is_answered else _REFRESH_SECS,
        )

    async def control(self, request: Request) -> Response:
        """Take the form of a connection: ask its gateway to start or stop reading it."""
        form = {name: str(value) for name, value in (await request.form()).items()}
        action = ACTIONS.get(form.get("action", ""))
        if action is None:
            raise AddressError("A connection can be started and stopped, nothing else.")
        site, gateway, connection = (form.get(name, "") for name in ("site", "gateway", "connection"))
        by = who_acts(request, form)
        try:
            number = await asyncio.to_thread(self.cloud.ask_gateway, site, gateway, connection, action, by=by)
        except CloudError as error:
            raise AddressError(f"{error}.") from error
        self._note(request, f"asked to {action} a connection", f"{site}/{gateway}/{connection}")
        query = {"asked": number, "gateway": gateway, "connection": connection, "action": action}
        return RedirectResponse(link(self.base + "/connections", **query), status_code=303)

    def api(self, schema: Callable[[], dict[str, Any]]) -> Question:
        """Return what answers `/api`: the read API, described."""

        def show(request: Request) -> Response:
            return self.answer(request, "api.html", "api", self.cloud.board(), document=schema())

        return show


def given(value: object) -> object:
    """Return what a gateway said, None where it said nothing."""
    return None if isinstance(value, UnsetType) else value


def _asked(query: Any, gateways: list[GatewayView]) -> Asked | None:
    """Return the command that the address names, with the answer in its gateway's status."""
    number, name = query.get("asked", ""), query.get("gateway", "")
    view = next((found for found in gateways if found.gateway == name), None)
    if not number or view is None or query.get("action") not in ACTIONS:
        return None
    answers = view.status.answers if view.status is not None else []
    answer = next((found for found in answers if found.id == number), None)
    return Asked(
        name,
        query.get("connection", "")[:128],
        query["action"],
        answer is not None,
        None if answer is None or answer.done else str(given(answer.reason) or "it would not"),
    )
