"""The connections: gateways, their PLCs, what arrives and what was refused."""

from collections.abc import Callable
from typing import Any

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from contract.delivery import ConnectionStatus, Status
from dashboards.web.feed import machines_of
from dashboards.web.screen import Question, Screen


class ConnectionPages(Screen):
    """One page for the engineer who connects PLCs."""

    def show(self, request: Request) -> Response:
        """Answer `/connections`."""
        board = self.cloud.board()
        return self.answer(
            request,
            "connections.html",
            "connections",
            board,
            gateways=self.cloud.gateways(),
            machines=machines_of(board),
            letters=self.cloud.dead_letters(30),
            last_error=last_error,
            refresh_secs=5,
        )

    def api(self, schema: Callable[[], dict[str, Any]]) -> Question:
        """Return what answers `/api`: the read API, described."""

        def show(request: Request) -> Response:
            return self.answer(request, "api.html", "api", self.cloud.board(), document=schema())

        return show


def last_error(said: Status | ConnectionStatus) -> str | None:
    """Return the last error that a gateway or connection told of, if any."""
    return None if said.last_error is UNSET else str(said.last_error)
