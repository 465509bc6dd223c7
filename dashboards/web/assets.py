"""Static files under names that carry their content's hash, compressed once at start."""

import gzip
import hashlib
import mimetypes
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

import brotli
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

_COMPRESSED: Final = frozenset({".css", ".js", ".svg", ".txt"})
_TYPES: Final = {".js": "text/javascript", ".woff2": "font/woff2", ".svg": "image/svg+xml"}
_REFERENCE: Final = re.compile(r"""(url\(|from ["']|import ["'])(?:\./)?([A-Za-z0-9_.-]+)(["')])""")


class Asset(NamedTuple):
    """One file, ready to be sent."""

    media_type: str
    plain: bytes
    gzip: bytes | None
    brotli: bytes | None


class Assets:
    """All static files, in memory (about 300 kB)."""

    def __init__(self, folder: Traversable | None = None) -> None:
        folder = folder or files("dashboards.web") / "static"
        self._raw = {item.name: item.read_bytes() for item in folder.iterdir() if item.is_file()}
        self._names: dict[str, str] = {}
        self._assets: dict[str, Asset] = {}
        for name in sorted(self._raw):
            self._publish(name)

    def path(self, name: str) -> str:
        """Return the hashed file name of a static file, to stand behind `/static/`."""
        return self._names[name]

    async def icon(self, request: Request) -> Response:
        """Answer `/favicon.ico`, which browsers ask for by themselves."""
        del request
        return Response(self._raw["icon.svg"], media_type="image/svg+xml")

    async def serve(self, request: Request) -> Response:
        """Answer `/static/{name}`; a name carries its hash, so it may be kept for ever."""
        asset = self._assets.get(request.path_params["name"])
        if asset is None:
            return PlainTextResponse("not found", status_code=404)
        headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding"}
        accepted = request.headers.get("accept-encoding", "")
        body = asset.plain
        if asset.brotli is not None and "br" in accepted:
            body, headers["content-encoding"] = asset.brotli, "br"
        elif asset.gzip is not None and "gzip" in accepted:
            body, headers["content-encoding"] = asset.gzip, "gzip"
        return Response(body, headers=headers, media_type=asset.media_type)

    def _publish(self, name: str) -> str:
        """Hash a file after the files it refers to, and return its public name."""
        if name in self._names:
            return self._names[name]
        stem, dot, suffix = name.rpartition(".")
        body = self._raw[name]
        if suffix in ("css", "js"):
            body = _REFERENCE.sub(
                lambda found: (
                    found[1] + ("./" if "url" not in found[1] else "") + self._publish(found[2]) + found[3]
                    if found[2] in self._raw
                    else found[0]
                ),
                body.decode(),
            ).encode()
        public = f"{stem}.{hashlib.sha256(body).hexdigest()[:10]}{dot}{suffix}"
        self._names[name] = public
        self._assets[public] = _asset(dot + suffix, body)
        return public


def _asset(suffix: str, body: bytes) -> Asset:
    media_type = _TYPES.get(suffix) or mimetypes.guess_type("x" + suffix)[0] or "application/octet-stream"
    if suffix not in _COMPRESSED:
        return Asset(media_type, body, None, None)
    return Asset(
        f"{media_type}; charset=utf-8",
        body,
        gzip.compress(body, 9, mtime=0),
        brotli.compress(body, quality=9),
    )
