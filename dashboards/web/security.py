"""What every request passes before any page sees it: host, origin, and the headers of the answer."""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware: refuses foreign host names and cross-site writes, and hardens each answer.

    hosts: names, beside IP addresses and this machine's own, by which people reach the pages. A page of a
    stranger's domain that resolves to this machine (DNS rebinding) is refused because its name is not here.
    """

    def __init__(self, app: Application, hosts: Iterable[str] = ()) -> None:
        self._app = app
        own = {"localhost", socket.gethostname().lower(), socket.getfqdn().lower()}
        self._hosts = frozenset({host.lower() for host in hosts} | own)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        fault = self._fault(scope, headers)
        if scope["type"] == "websocket":
            if fault is None:
                await self._app(scope, receive, send)
            else:
                await receive()
                await send({"type": "websocket.close", "code": 1008, "reason": fault[1][:120]})
            return

        async def harden(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
                if scope.get("scheme") == "https":
                    message["headers"].append((b"strict-transport-security", b"max-age=31536000"))
            await send(message)

        if fault is None:
            await self._app(scope, receive, harden)
        else:
            await _refuse(harden, *fault)

    def _fault(self, scope: Scope, headers: dict[bytes, str]) -> tuple[int, str] | None:
        host = headers.get(b"host", "")
        name = host_name(host)
        if not self.knows(name):
            return 421, (
                f"This server is not known as {name[:80]!r}: "
                "add the name to `hosts` in the [web] table of cloud.toml."
            )
        if scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS:
            origin = headers.get(b"origin")
            if headers.get(b"sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return 403, "Requests from other sites are refused."
            if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
                return 403, f"Requests from {origin[:80]!r} are refused."
        return None

    def knows(self, name: str) -> bool:
        """Tell whether this server may be called by a name."""
        return name in self._hosts or _is_address(name)


def host_name(host: str) -> str:
    """Return the name in a Host header, without its port: `plant:8080`, `[::1]:8080`."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = reason.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
