"""The pages on which people say why a machine stood."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import quote

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cloud.errors import CloudError
from cloud.oee.corrections import Correction
from cloud.plant import Reason
from contract.machine_key import MachineKey
from dashboards.links import link
from dashboards.port import Cloud
from dashboards.reports import model
from dashboards.reports.model import Stop
from dashboards.selection import AddressError
from dashboards.web.screen import Screen
from dashboards.web.signin import operator_name, who_acts

_US: Final = 1_000_000
_TEXT_LENGTH: Final = 500
_SHORTEST_SECS: Final = 120.0
_YEAR_SECS: Final = 31_536_000
ONLY_COMMENT: Final = "#comment"
"""What the button says instead of a reason; no key in plant.toml may be called so."""


class Group(NamedTuple):
    """Reasons that belong together: the first level of the two."""

    name: str
    reasons: list[Reason]


class WorkPages(Screen):
    """Lists of what waits for a person, and the forms that answer it."""

    def __init__(self, cloud: Cloud, jinja: Environment, note: Callable[[Request, str, str], None]) -> None:
        super().__init__(cloud, jinja)
        self._note = note

    def stops(self, request: Request) -> Response:
        """Answer `/stops`: what stood in a shift, the unexplained first."""
        board = self.cloud.board()
        chosen = self.select(request, board)
        all_stops = request.query_params.get("small") == "all"
        shortest = 0.0 if all_stops else _SHORTEST_SECS
        found: list[Stop] = []
        small = 0
        for key in chosen.machines:
            for stop in model.stops(self.cloud.timeline(key, chosen.from_us, chosen.to_us)):
                if stop.secs >= shortest or stop.end >= chosen.now - 1:
                    found.append(stop)
                else:
                    small += 1
        found.sort(key=lambda stop: stop.start, reverse=True)
        waiting = [stop for stop in found if not stop.is_explained]
        account = getattr(request.state, "account", None)
        may_answer = chosen.is_live and (account is None or account.may("operator"))
        asked = next((stop for stop in waiting if stop.end < chosen.now - 1), None) if may_answer else None
        return self.answer(
            request,
            "stops.html",
            "stops",
            board,
            selection=chosen,
            asked=asked,
            groups=self._groups(asked.machine) if asked else [],
            operator=operator_name(request),
            waiting=waiting,
            explained=[stop for stop in found if stop.is_explained],
            small=small,
            all_stops=all_stops,
            said=request.query_params.get("said"),
        )

    def stop(self, request: Request) -> Response:
        """Answer `/stop`: one stop with the plant's reasons as big buttons."""
        board = self.cloud.board()
        key = _machine(request.query_params)
        since, until = _span(request.query_params, board.generated_epochtime)
        stop = self._stop(key, since, until)
        view = self.cloud.timeline(key, round((since - 900) * _US), round((until + 900) * _US))
        return self.answer(
            request,
            "stop.html",
            "stops",
            board,
            stop=stop,
            around=view,
            groups=self._groups(key),
            said=model.comments(self.cloud, tuple(key), round(since * _US), round(until * _US)),
            only_comment=ONLY_COMMENT,
            operator=operator_name(request),
            back=request.query_params.get("back") or link("/stops", at=f"{key.site}/{key.area}/{key.line}"),
        )

    async def classify(self, request: Request) -> Response:
        """Take the form of `/stop`: record the reason, and go back to the list."""
        form = {name: str(value) for name, value in (await request.form()).items()}
        board = self.cloud.board()
        key = _machine(form)
        since, until = _span(form, board.generated_epochtime)
        by = who_acts(request, form)
        cut = _cut(form, since, until)
        if cut is not None:
            since, until = (since, cut) if form.get("part") == "first" else (cut, until)
        reason = form.get("reason") or None
        comment = form.get("comment", "")[:_TEXT_LENGTH].strip() or None
        span = round(since * _US), round(until * _US)
        if reason == ONLY_COMMENT and comment is None:
            raise AddressError("There is no comment to keep: write one first.")
        try:
            if reason == ONLY_COMMENT:
                await asyncio.to_thread(self.cloud.correct, _spoken(key, span, by, comment or ""))
            else:
                await asyncio.to_thread(
                    self.cloud.classify, key, *span, reason=reason, comment=comment, by=by
                )
        except CloudError as error:
            raise AddressError(str(error)) from error
        what = "wrote a comment" if reason == ONLY_COMMENT else "gave a reason"
        self._note(request, what, f"{key} {comment if reason == ONLY_COMMENT else reason or 'none'}")
        back = link(self.base + "/stops", at=f"{key.site}/{key.area}/{key.line}", said=key.machine)
        answer = RedirectResponse(back, status_code=303)
        answer.set_cookie("operator", quote(by), max_age=_YEAR_SECS, samesite="lax", httponly=True)
        return answer

    def _stop(self, key: MachineKey, since: float, until: float) -> Stop:
        view = self.cloud.timeline(key, round(since * _US), round(until * _US))
        found = list(model.stops(view))
        if not found:
            raise AddressError(f"{key.machine} did not stand in that time.")
        whole = max(found, key=lambda stop: stop.secs)
        return whole._replace(start=since, end=min(until, view.to_epochtime))

    def _groups(self, key: MachineKey) -> list[Group]:
        """Return the site's reasons in two levels, in the order of plant.toml."""
        site = self.cloud.plant.sites.get(key.site)
        found: dict[str, Group] = {}
        for reason in site.reasons.values() if site else ():
            found.setdefault(reason.group, Group(reason.group, [])).reasons.append(reason)
        return list(found.values())


def _spoken(key: MachineKey, span: tuple[int, int], by: str, text: str) -> Correction:
    """Return a comment on a stretch of time [us since 1970]."""
    return Correction(
        machine=str(key), kind="comment", from_us=span[0], to_us=span[1], who=by, when_us=0, why=text
    )


def _machine(asked: Mapping[str, str]) -> MachineKey:
    try:
        return MachineKey.parse(asked.get("at", ""))
    except ValueError as error:
        raise AddressError(str(error)) from error


def _span(asked: Mapping[str, str], now: float) -> tuple[float, float]:
    try:
        since, until = float(asked["since"]), float(asked["until"])
    except (KeyError, ValueError) as error:
        raise AddressError("That address names no stop.") from error
    if not 0 < since < until <= now + 86_400 or until - since > _YEAR_SECS:
        raise AddressError("That address names no stop.")
    return since, until


def _cut(form: Mapping[str, str], since: float, until: float) -> float | None:
    """Return the instant at which a person splits a stop, or None."""
    if form.get("part") not in ("first", "second"):
        return None
    try:
        cut = since + float(form.get("cut", ""))
    except ValueError:
        return None
    return cut if since < cut < until else None
