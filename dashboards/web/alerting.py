"""The page of alerts: who looks after what, and what is muted for planned work."""

import asyncio
from collections.abc import Callable
from datetime import tzinfo
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cloud.errors import CloudError
from cloud.plant import Plant
from dashboards.port import Cloud
from dashboards.selection import AddressError, instant_us
from dashboards.web.screen import Screen
from dashboards.web.signin import may_act, operator_name, who_acts

_US: Final = 1_000_000
_TEXT_LENGTH: Final = 500
_YEAR_SECS: Final = 31_536_000
_PAST: Final = 200
_FIRST: Final = 3
"""An alert of this level or above stands out."""
MUTE_MINUTES: Final = (30, 60, 120, 240, 480)
REFRESH_SECS: Final = 5


class AlertPages(Screen):
    """Open and past alerts, mutes and channels, and the forms that act on them."""

    def __init__(self, cloud: Cloud, jinja: Environment, note: Callable[[Request, str, str], None]) -> None:
        super().__init__(cloud, jinja)
        self._note = note

    def alerts(self, request: Request) -> Response:
        """Answer `/alerts`."""
        board = self.cloud.board()
        now_open = self.cloud.alerts(open_only=True)
        past = [alert for alert in self.cloud.alerts(open_only=False) if alert.state == "cleared"]
        return self.answer(
            request,
            "alerts.html",
            "alerts",
            board,
            open_alerts=sorted(now_open, key=lambda alert: (alert.state != "open", -alert.level)),
            past=past[:_PAST],
            mutes=self.cloud.mutes(),
            places=_places(self.cloud.plant),
            minutes=MUTE_MINUTES,
            urgent=_FIRST,
            operator=operator_name(request),
            may_act=may_act(request),
            said=request.query_params.get("said"),
            refresh_secs=REFRESH_SECS,
        )

    async def acknowledge(self, request: Request) -> Response:
        """Take the form of an alert: somebody looks after it."""
        form = await _form(request)
        by = who_acts(request, form)
        note = form.get("note", "")[:_TEXT_LENGTH]
        try:
            await asyncio.to_thread(self.cloud.acknowledge, form.get("id", ""), by=by, note=note)
        except CloudError as error:
            raise AddressError("That alert is not open any more.") from error
        self._note(request, "acknowledged an alert", form.get("id", ""))
        return self._back(by, "seen")

    async def mute(self, request: Request) -> Response:
        """Take the form of a mute: somebody works there until a moment."""
        form = await _form(request)
        by = who_acts(request, form)
        board = self.cloud.board()
        until_us = _until_us(form, board.generated_epochtime, self.zone(board))
        place = form.get("place", "")
        rules = [form["rule"]] if form.get("rule") else []
        try:
            await asyncio.to_thread(
                self.cloud.mute, place, until_us, who=by, why=form.get("why", ""), rules=rules
            )
        except CloudError as error:
            raise AddressError(f"That cannot be muted: {error}.") from error
        self._note(request, "muted alerts", f"{place} {form.get('why', '')}")
        return self._back(by, "muted")

    async def unmute(self, request: Request) -> Response:
        """Take the button that ends a mute."""
        form = await _form(request)
        by = who_acts(request, form)
        number = form.get("id", "")
        try:
            await asyncio.to_thread(self.cloud.unmute, int(number) if number.isdecimal() else 0, by)
        except CloudError as error:
            raise AddressError("That mute is over already.") from error
        self._note(request, "unmuted alerts", number)
        return self._back(by, "unmuted")

    def _back(self, by: str, said: str) -> Response:
        answer = RedirectResponse(f"{self.base}/alerts?said={said}", status_code=303)
        answer.set_cookie("operator", quote(by), max_age=_YEAR_SECS, samesite="lax", httponly=True)
        return answer


async def _form(request: Request) -> dict[str, str]:
    return {name: str(value) for name, value in (await request.form()).items()}


def _until_us(form: dict[str, str], now: float, zone: tzinfo) -> int:
    """Return when a mute ends: at a moment of the plant's clock, or after some minutes [us since 1970]."""
    if text := form.get("until", "").strip():
        try:
            return instant_us(text, zone)
        except ValueError as error:
            raise AddressError(str(error)) from error
    minutes = form.get("minutes", "")
    if not minutes.isdecimal() or len(minutes) > 6:
        raise AddressError("Say until when alerts are muted.")
    return round((now + 60 * int(minutes)) * _US)


def _places(plant: Plant) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what may be muted, by line: its path and its name."""
    found: list[tuple[str, list[tuple[str, str]]]] = [
        ("Sites", [(site, f"all of {site}") for site in plant.sites])
    ]
    for line, machines in plant.lines.items():
        whole: list[Any] = [("/".join(line), f"all of {line[2]}")]
        found.append((" › ".join(line[1:]), whole + [(str(each.key), each.key.machine) for each in machines]))
    return found
