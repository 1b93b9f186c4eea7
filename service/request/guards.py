"""Checks before routing: HEAD, odd paths, and writes from pages of other sites."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.errors import ApiError, ForbiddenError, NotFoundError
from service.request.error_answers import error_response

_HARMLESS = {"GET", "HEAD", "OPTIONS"}
_PORTS = {"http": 80, "https": 443}


class Guards:
    """Answers HEAD like GET without a body. Refuses paths with characters that are not printable,
    since route patterns ignore a line break at the end. Refuses writes from pages of other sites:
    browsers send some of them without a preflight request."""

    def __init__(self, app: ASGIApp, allowed_origins: tuple[str, ...]) -> None:
        self.app = app
        self._allowed = allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await error_response(refusal)(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # uvicorn, which sees the original method, leaves out the body.
            scope = {**scope, "method": "GET"}
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        if not scope["path"].isprintable():
            return NotFoundError("the path has characters that are not printable")
        headers = Headers(scope=scope)
        if scope["method"] in _HARMLESS or self._is_ours(headers):
            return None
        return ForbiddenError("sent by a page of another site; LOCORE_ALLOWED_ORIGINS can allow it")

    def _is_ours(self, headers: Headers) -> bool:
        origin = headers.get("origin", "").lower()
        if not origin or origin in self._allowed or "*" in self._allowed:
            return True
        # Set by browsers; it is also right behind a proxy that changes Host.
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site in ("same-origin", "none")
        scheme = origin.partition(":")[0]
        from_here = _address(f"{scheme}://{headers.get('host')}")
        return from_here is not None and _address(origin) == from_here


def _address(url: str) -> tuple[str, int | None] | None:
    """Host and port; None for `null`, which pages without an address send, and for an invalid
    URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
        return None if parts.hostname is None else (parts.hostname, port)
    except ValueError:
        return None
