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
from cloud.oee.figures import SELF_EXPLAINED, UNKNOWN_CODE
from cloud.plant import Reason, Site
from contract.machine_key import MachineKey
from dashboards import words
from dashboards.links import link
from dashboards.port import Cloud
from dashboards.reports import model
from dashboards.reports.model import Stop
from dashboards.selection import AddressError
from dashboards.web.screen import Screen
from dashboards.web.signin import may_act, operator_name, who_acts

_US: Final = 1_000_000
_TEXT_LENGTH: Final = 500
_NAME_LENGTH: Final = 400
"""Of what an address says of place, time or reason."""
_SHORTEST_SECS: Final = 120.0
_YEAR_SECS: Final = 31_536_000
_MOST_CARDS: Final = 300
_LIST: Final = ("shift", "days", "from", "to", "loss", "why", "group", "small")
"""What the address of a list of stops says beside its place; a stop's page leads back to it."""
NO_REASON: Final = "-"
ONLY_COMMENT: Final = "#comment"
"""What the button says instead of a reason; no key in plant.toml may be called so."""


class Group(NamedTuple):
    """Reasons that belong together: the first level of the two."""

    name: str
    reasons: list[Reason]


class Sought(NamedTuple):
    """Which stops are listed; empty texts ask for nothing."""

    loss: str
    """A bucket of the time-loss tree."""
    why: str
    """The name of a reason, or NO_REASON."""
    group: str

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Sought":
        """Read what an address says."""
        return cls(*(query.get(name, "")[:_NAME_LENGTH] for name in cls._fields))

    def __bool__(self) -> bool:
        """Tell whether anything is asked for."""
        return any(self)

    @property
    def title(self) -> str:
        """Return what people call it."""
        if self.why == NO_REASON and not self.loss:
            return "No reason"
        why = "" if self.why == NO_REASON else self.why
        return ", ".join(filter(None, (words.loss_name(self.loss) if self.loss else "", why or self.group)))

    def fits(self, stop: Stop, site: Site | None) -> bool:
        """Tell whether a stop is one of them."""
        if self.loss and stop.loss != self.loss:
            return False
        if self.why == NO_REASON:
            return stop.reason is None and (bool(self.loss) or stop.loss not in SELF_EXPLAINED)
        if self.why and (stop.reason_name or stop.reason) != self.why:
            return False
        return not self.group or (stop.reason is not None and self.group == _group_of(stop.reason, site))


class WorkPages(Screen):
    """Lists of what waits for a person, and the forms that answer it."""

    def __init__(self, cloud: Cloud, jinja: Environment, note: Callable[[Request, str, str], None]) -> None:
        super().__init__(cloud, jinja)
        self._note = note

    def stops(self, request: Request) -> Response:
        """Answer `/stops`: what stood in a shift, the unexplained first, or what is behind a loss."""
        board = self.cloud.board()
        chosen = self.select(request, board)
        sought = Sought.of(request.query_params)
        all_stops = bool(sought) or request.query_params.get("small") == "all"
        shortest = 0.0 if all_stops else _SHORTEST_SECS
        found: list[Stop] = []
        small = 0
        for key in chosen.machines:
            site = self.cloud.plant.sites.get(key.site)
            for stop in model.stops(self.cloud.timeline(key, chosen.from_us, chosen.to_us)):
                if not sought.fits(stop, site):
                    continue
                if stop.secs >= shortest or stop.end >= chosen.now - 1:
                    found.append(stop)
                else:
                    small += 1
        found.sort(key=lambda stop: stop.start, reverse=True)
        waiting = [stop for stop in found if not stop.is_explained]
        asks = chosen.is_live and not sought and may_act(request)
        asked = next((stop for stop in waiting if stop.end < chosen.now - 1), None) if asks else None
        return self.answer(
            request,
            "stops.html",
            "stops",
            board,
            selection=chosen,
            asked=asked,
            may_answer=may_act(request),
            groups=self._groups(asked.machine) if asked else [],
            operator=operator_name(request),
            waiting=waiting[:_MOST_CARDS],
            explained=[stop for stop in found if stop.is_explained][:_MOST_CARDS],
            number=sum(stop.start > chosen.start for stop in found),
            from_before=sum(stop.start <= chosen.start for stop in found),
            minutes=sum(stop.secs for stop in found),
            most=_MOST_CARDS,
            sought=sought,
            came_from=_came_from({**request.query_params, **chosen.query}, str(chosen.place)),
            small=small,
            all_stops=all_stops,
            said=_said(request.query_params),
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
            groups=self._groups(key) if may_act(request) else [],
            may_answer=may_act(request),
            came_from=_came_from(request.query_params, request.query_params.get("place", "")),
            said=model.comments(self.cloud, tuple(key), round(since * _US), round(until * _US)),
            only_comment=ONLY_COMMENT,
            operator=operator_name(request),
            back=_list_of(self.base, key, request.query_params),
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
        said = f"{key}@{since}-{until}"
        answer = RedirectResponse(_list_of(self.base, key, form, said=said), status_code=303)
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


def _group_of(code: str, site: Site | None) -> str:
    """Return the group that a Pareto puts a reason's key, or a PLC's code for it, into."""
    known = site.reason_for_code(code) if site else None
    return UNKNOWN_CODE if known is None else known.group or known.name


def _came_from(asked: Mapping[str, str], place: str) -> dict[str, str]:
    """Return what leads back to the list of stops that a person came from, as that says it or a form does."""
    kept = {name: asked[name][:_NAME_LENGTH] for name in _LIST if asked.get(name)}
    return {**kept, "place": place[:_NAME_LENGTH]} if place else kept


def _list_of(base: str, key: MachineKey, asked: Mapping[str, str], **said: str) -> str:
    """Return the address of the list of stops that a person came from; else of the machine's line."""
    kept = _came_from(asked, asked.get("place", ""))
    place = kept.pop("place", f"{key.site}/{key.area}/{key.line}")
    return link(base + "/stops", **{"at": place, **kept, **said})


class Said(NamedTuple):
    """The stop of which something has just been said."""

    machine: MachineKey
    since: float
    until: float


def _said(asked: Mapping[str, str]) -> Said | None:
    """Return what an address says of the form that led to it; None for anything else."""
    place, _, times = asked.get("said", "").partition("@")
    try:
        since, until = map(float, times.split("-"))
        return Said(MachineKey.parse(place), since, until)
    except ValueError:
        return None


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
