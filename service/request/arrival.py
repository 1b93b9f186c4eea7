"""When a request arrived, and its deadline."""

from __future__ import annotations

import math
import re
import time

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.schemas import RerankRequest
from service.batching.batcher import Batcher, IncomingRequest

ARRIVAL = "arrival"
"""The key of the arrival in the state of a request."""
INCOMING = "incoming"
"""The same for its `IncomingRequest`, if the connection has counted it."""

_DEFAULT_MS: int = RerankRequest.model_fields["timeout_ms"].default
_GZIP = b"\x1f\x8b"
_TIMEOUT_KEY = b'"timeout_ms"'
_TIMEOUT_VALUE = re.compile(rb"\s*:\s*([1-9]\d{0,8})")


def arrival_of(request: Request) -> float:
    """When the head of the request arrived, in seconds of `time.monotonic`."""
    at: float = getattr(request.state, ARRIVAL)
    return at


def incoming_request(request: Request, body: bytes, batcher: Batcher) -> IncomingRequest:
    """Like `Batcher.incoming_request`, with `deadline_of`. What the connection has checked is not
    checked again: most lists that get this far should be answered."""
    counted: IncomingRequest | None = getattr(request.state, INCOMING, None)
    if counted is not None:
        if counted.checked:
            return counted
        counted.end()
    return batcher.incoming_request(deadline_of(body, arrival_of(request)))


def deadline_of(body: bytes | bytearray, arrival: float) -> float:
    """The deadline by the last `timeout_ms` in a body that is not parsed yet. Only for early
    refusals: a body that hides its timeout, such as a compressed one, is parsed before it is
    refused."""
    if body.startswith(_GZIP):
        return math.inf
    key = body.rfind(_TIMEOUT_KEY)
    value = None if key < 0 else _TIMEOUT_VALUE.match(body, key + len(_TIMEOUT_KEY))
    return arrival + (_DEFAULT_MS if value is None else int(value[1])) / 1000


class Arrivals:
    """Notes when a request arrived, unless the connection has done so."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {}).setdefault(ARRIVAL, time.monotonic())
        await self.app(scope, receive, send)
