"""Health and metrics over HTTP on loopback: /healthz as JSON, /metrics for Prometheus."""

import asyncio
import contextlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import msgspec

from gateway.health import Health

_READ_SECS: Final = 5.0
_MAX_CLIENTS: Final = 20
_CONTENT_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"


class HealthServer:
    """Answers GET /healthz and GET /metrics; 503 on /healthz when there are problems."""

    def __init__(self, health: Callable[[], Health]) -> None:
        self._health = health
        self._clients = 0

    async def run(self, host: str, port: int, listening: Callable[[str], None]) -> None:
        """Serve until cancelled; `listening(url)` is called once the port is open. Raises OSError."""
        server = await asyncio.start_server(self._serve, host, port, limit=8192)
        async with server:
            bound = server.sockets[0].getsockname()[1]
            listening(f"http://{f'[{host}]' if ':' in host else host}:{bound}")
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= _MAX_CLIENTS:
                async with asyncio.timeout(_READ_SECS):
                    request = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(request))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._clients -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.split(b"\r\n", 1)[0].partition(b" ")
        path = rest.split(b" ", 1)[0].split(b"?", 1)[0]
        if method not in (b"GET", b"HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"only GET\n")
        if path == b"/healthz":
            health = self._health()
            status = HTTPStatus.SERVICE_UNAVAILABLE if health.problems else HTTPStatus.OK
            body = msgspec.json.encode(health)
            return _response(status, "application/json", body, head=method == b"HEAD")
        if path == b"/metrics":
            from gateway.metrics import (
                metrics,
            )  # a client library that a gateway whom nobody scrapes need not carry

            return _response(HTTPStatus.OK, _CONTENT_METRICS, metrics(self._health()), head=method == b"HEAD")
        return _response(HTTPStatus.NOT_FOUND, "text/plain", b"try /healthz or /metrics\n")


def _response(status: HTTPStatus, content_type: str, body: bytes, *, head: bool = False) -> bytes:
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    ).encode() + (b"" if head else body)
