"""Signing in: who a request is from, and what that person may do."""

import asyncio
import contextlib
import hmac
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dashboards.people import ROLES, SESSION_SECS, Account, People, PeopleError, Role, TooManyTriesError
from dashboards.port import Cloud
from dashboards.selection import AddressError
from dashboards.web.screen import Screen
from dashboards.web.security import Application, Message, Receive, Scope, Send

SESSION_COOKIE: Final = "oee_session"
DISPLAY_COOKIE: Final = "oee_display"
RECHECK_SECS: Final = 30.0
"""How often it is asked whether whoever follows live still may."""
_OPEN: Final = frozenset({"/favicon.ico", "/healthz", "/sign-in", "/first-run"})
_OPEN_BELOW: Final = "/static/"
_NAME_LENGTH: Final = 64
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NEEDS: Final[tuple[tuple[str, bool, Role], ...]] = (
    ("/people", False, "engineer"),
    ("/audit", False, "supervisor"),
    ("/stop", True, "operator"),
    ("/alerts", True, "operator"),
    ("/api/v1/alerts", True, "operator"),
    ("/api/v1/mutes", True, "operator"),
    ("/sign-out", True, "viewer"),
    ("", True, "engineer"),
    ("", False, "viewer"),
)
"""(path, whether only for what changes something, role): the first that fits says who may."""


class SignIn:
    """ASGI middleware: finds out who asks, and sends strangers to the door."""

    def __init__(
        self,
        app: Application,
        people: People,
        base: str,
        *,
        forbidden: Callable[[Request, Role], Response],
        recheck_secs: float = RECHECK_SECS,
    ) -> None:
        """Stand before an application.

        forbidden: makes the page for somebody who lacks a role
        """
        self._app = app
        self._people = people
        self._base = base
        self._forbidden = forbidden
        self._recheck_secs = recheck_secs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what the asker may do; refuse the rest."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = str(scope["path"])
        account = await asyncio.to_thread(self._who, scope)
        scope.setdefault("state", {})["account"] = account
        if path in _OPEN or path.startswith(_OPEN_BELOW):
            await self._app(scope, receive, send)
            return
        needed = needed_role(path, is_reading=scope["type"] == "websocket" or scope["method"] in _READING)
        if account is not None and account.may(needed):
            if scope["type"] == "websocket":
                await self._let_follow(scope, receive, send, needed)
            else:
                await self._app(scope, receive, self._keeping_display(scope, account, send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "sign in first"})
        else:
            await self._refusal(scope, path, account, needed)(scope, receive, send)

    async def _let_follow(self, scope: Scope, receive: Receive, send: Send, needed: Role) -> None:
        """Let somebody follow live for as long as that is allowed: a session may end under an open page."""
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._end_when_over(scope, send, needed), name="pages.session.watch")
            try:
                await self._app(scope, receive, send)
            finally:
                watch.cancel()

    async def _end_when_over(self, scope: Scope, send: Send, needed: Role) -> None:
        while True:
            await asyncio.sleep(self._recheck_secs)
            account = await asyncio.to_thread(self._who, scope)
            if account is None or not account.may(needed):
                with contextlib.suppress(RuntimeError):  # the other side has just closed
                    await send({"type": "websocket.close", "code": 1008, "reason": "sign in again"})
                return

    def _who(self, scope: Scope) -> Account | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        cookies = _cookies(headers.get(b"cookie", ""))
        if (token := cookies.get(SESSION_COOKIE)) and (account := self._people.of_session(token)):
            return account
        bearer = headers.get(b"authorization", "")
        shown = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        for token in (bearer.removeprefix("Bearer ").strip(), shown, cookies.get(DISPLAY_COOKIE, "")):
            if token and (account := self._people.of_display(token)):
                return account
        return None

    def _keeping_display(self, scope: Scope, account: Account, send: Send) -> Send:
        """Let a screen that came by its address's token go on by a cookie: its scripts know no address."""
        shown = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if not account.is_display or not shown or scope["type"] != "http":
            return send
        cookie = f"{DISPLAY_COOKIE}={quote(shown)}; Path={self._base or '/'}; Max-Age=31536000"
        cookie += "; HttpOnly; SameSite=Lax"
        if scope.get("scheme") == "https":
            cookie += "; Secure"

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"set-cookie", cookie.encode())]
            await send(message)

        return keep

    def _refusal(self, scope: Scope, path: str, account: Account | None, needed: Role) -> Response:
        if account is not None:
            if path.startswith("/api/"):
                return Response(f"This needs the role {needed}.", status_code=403, media_type="text/plain")
            return self._forbidden(Request(scope), needed)
        if path.startswith("/api/") or scope["method"] not in _READING:
            return Response("Sign in first.", status_code=401, media_type="text/plain")
        door = "/first-run" if self._people.is_empty else "/sign-in"
        query = scope.get("query_string", b"").decode("latin-1")
        onward = quote(path + (f"?{query}" if query else ""), safe="")
        return RedirectResponse(f"{self._base}{door}?to={onward}", status_code=303)


class PeoplePages(Screen):
    """The door, and the pages on which engineers let people in."""

    def __init__(self, cloud: Cloud, jinja: Any, people: People) -> None:
        super().__init__(cloud, jinja)
        self._people = people
        self._hashing = asyncio.Semaphore(2)

    def forbidden(self, request: Request, needed: Role) -> Response:
        """Answer what somebody may not do."""
        account: Account = request.state.account
        text = f"This needs the role {needed}; {account.name} is signed in as {account.role}."
        return self.fault(request, 403, "Not with this account", text)

    async def door(self, request: Request) -> Response:
        """Answer `/sign-in`."""
        if self._people.is_empty:
            return RedirectResponse(self.base + "/first-run", status_code=303)
        return self._door(request)

    async def enter(self, request: Request) -> Response:
        """Take the form of `/sign-in`."""
        form = {name: str(value) for name, value in (await request.form()).items()}
        name, address = form.get("name", ""), _address(request)
        try:
            async with self._hashing:
                account, token = await asyncio.to_thread(
                    self._people.sign_in, name, form.get("password", ""), address
                )
        except TooManyTriesError as error:
            self._people.note(name[:64], "sign-in refused", "too many tries", address)
            answer = self._door(request, str(error), form, status=429)
            answer.headers["retry-after"] = str(error.wait_secs)
            return answer
        except PeopleError as error:
            self._people.note(name[:64], "sign-in failed", "", address)
            return self._door(request, str(error), form, status=401)
        self._people.note(account.name, "signed in", "", address)
        return self._welcome(request, token, form.get("to", ""))

    async def leave(self, request: Request) -> Response:
        """Take `/sign-out`."""
        if token := request.cookies.get(SESSION_COOKIE):
            self._people.sign_out(token)
            self._people.note(request.state.account.name, "signed out", "", _address(request))
        answer = RedirectResponse(self.base + "/sign-in", status_code=303)
        answer.delete_cookie(SESSION_COOKIE, path=self.base or "/")
        return answer

    async def first(self, request: Request) -> Response:
        """Answer `/first-run`: nobody has an account yet."""
        if not self._people.is_empty:
            return RedirectResponse(self.base + "/sign-in", status_code=303)
        return self._first(request)

    async def settle(self, request: Request) -> Response:
        """Take the form of `/first-run`: make the first engineer."""
        form = {name: str(value) for name, value in (await request.form()).items()}
        if not self._people.is_empty:
            return RedirectResponse(self.base + "/sign-in", status_code=303)
        if not hmac.compare_digest(form.get("code", "").strip().encode(), self._people.setup_code.encode()):
            return self._first(request, "That is not the code that the server printed.", 403)
        try:
            async with self._hashing:
                await asyncio.to_thread(
                    self._people.add, form.get("name", ""), "engineer", form.get("password", "")
                )
                account, token = await asyncio.to_thread(
                    self._people.sign_in, form.get("name", ""), form.get("password", ""), _address(request)
                )
        except PeopleError as error:
            return self._first(request, str(error), 400)
        self._people.note(account.name, "made the first account", account.name, _address(request))
        return self._welcome(request, token, "/")

    def people(self, request: Request) -> Response:
        """Answer `/people`."""
        return self._people_page(request)

    async def change(self, request: Request) -> Response:
        """Take the forms of `/people`."""
        form = {name: str(value) for name, value in (await request.form()).items()}
        name, what = form.get("name", ""), form.get("what", "")
        token: str | None = None
        try:
            async with self._hashing:
                token = await asyncio.to_thread(self._change, what, name, form)
        except PeopleError as error:
            return self._people_page(request, str(error), status=400)
        about = f"{name} as {form['role']}" if "role" in form else name
        self._people.note(request.state.account.name, what, about, _address(request))
        return self._people_page(request, token=token, token_name=name)

    def audit(self, request: Request) -> Response:
        """Answer `/audit`."""
        board = self.cloud.board()
        return self.answer(request, "audit.html", "audit", board, entries=self._people.entries())

    def _change(self, what: str, name: str, form: dict[str, str]) -> str | None:
        people = self._people
        match what:
            case "add":
                people.add(name, form.get("role", ""), form.get("password", ""))
            case "role":
                people.set_role(name, form.get("role", ""))
            case "password":
                people.set_password(name, form.get("password", ""))
            case "remove":
                people.remove(name)
            case "add display":
                return people.add_display(name)
            case "remove display":
                people.remove_display(name)
            case _:
                raise PeopleError("That cannot be done here.")
        return None

    def _people_page(
        self,
        request: Request,
        fault: str | None = None,
        *,
        token: str | None = None,
        token_name: str = "",
        status: int = 200,
    ) -> Response:
        host = request.headers.get("host", "")
        return self.answer(
            request,
            "people.html",
            "people",
            self.cloud.board(),
            status=status,
            accounts=self._people.accounts(),
            displays=self._people.displays(),
            roles=ROLES,
            fault=fault,
            token=token,
            token_name=token_name,
            wall=f"{request.url.scheme}://{host}{self.base}/tv?token={token}" if token else "",
        )

    def _door(
        self,
        request: Request,
        fault: str | None = None,
        said: Mapping[str, str] | None = None,
        *,
        status: int = 200,
    ) -> Response:
        said = said or request.query_params
        return self.answer(
            request,
            "sign_in.html",
            "sign-in",
            self.cloud.board(),
            status=status,
            fault=fault,
            name=said.get("name", ""),
            onward=said.get("to", "/"),
        )

    def _first(self, request: Request, fault: str | None = None, status: int = 200) -> Response:
        return self.answer(
            request, "first_run.html", "sign-in", self.cloud.board(), status=status, fault=fault
        )

    def _welcome(self, request: Request, token: str, onward: str) -> Response:
        # Only a path of ours: `//evil.example` and `https:` would lead elsewhere.
        is_ours = onward.startswith("/") and not onward.startswith(("//", "/\\"))
        answer = RedirectResponse(self.base + (onward if is_ours else "/"), status_code=303)
        answer.set_cookie(
            SESSION_COOKIE,
            token,
            max_age=SESSION_SECS,
            path=self.base or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",
        )
        return answer


def needed_role(path: str, *, is_reading: bool) -> Role:
    """Return the role that a request needs."""
    for start, only_changes, role in _NEEDS:
        fits = not start or path == start or path.startswith(start + "/")
        if fits and (not only_changes or not is_reading):
            return role
    return "engineer"


def recording(people: People | None) -> Callable[[Request, str, str], None]:
    """Return what notes a change in the record, where there is one."""

    def note(request: Request, what: str, about: str) -> None:
        account = getattr(request.state, "account", None)
        if people is not None and account is not None:
            people.note(account.name, what, about, _address(request))

    return note


def who_acts(request: Request, form: Mapping[str, str]) -> str:
    """Return who acts: the person signed in, or the name given; raise AddressError without any.

    On a shared tablet one account serves many: then the name given stands before it.
    """
    account = getattr(request.state, "account", None)
    name = form.get("operator", "").strip()[:_NAME_LENGTH]
    if account is not None:
        return account.name if name in ("", account.name) else f"{name} ({account.name})"
    if not name:
        raise AddressError("Give your name, so that others know whom to ask.")
    return name


def may_act(request: Request) -> bool:
    """Tell whether who asks may say why machines stood, and look after alerts."""
    account: Account | None = getattr(request.state, "account", None)
    return account is None or account.may("operator")


def operator_name(request: Request) -> str:
    """Return the name that stands in a form already."""
    account = getattr(request.state, "account", None)
    return unquote(request.cookies.get("operator", "")) or (account.name if account else "")


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _cookies(header: str) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}
