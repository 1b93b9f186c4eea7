"""What every request gets: an id, a line in the log, and its metrics."""

from __future__ import annotations

import re
import time
from collections.abc import MutableMapping
from typing import Any

import structlog
from asgi_correlation_id import CorrelationIdMiddleware, correlation_id
from fastapi import FastAPI
from opentelemetry import trace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.arrival import Arrivals
from service.logs import current_ids
from service.metrics import INFLIGHT, REQUEST_SECONDS, REQUESTS, STATUSES
from service.schemas import REQUEST_ID_HEADER

log = structlog.get_logger("service.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/@=+\-]{1,128}")
_QUIET = {"health", "metrics"}


class ObservedRequests:
    """Counts, times and logs requests. Labels come from the route, never from the URL."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = "500"

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        started = time.perf_counter()
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attribute("locore.request_id", correlation_id.get() or "")
        # For what is logged of the request outside its span: uvicorn's line of a defect.
        structlog.contextvars.bind_contextvars(**current_ids())
        INFLIGHT.inc()
        try:
            await self.app(scope, receive, watch)
        finally:
            INFLIGHT.dec()
            seconds = time.perf_counter() - started
            endpoint = endpoint_of(scope["path"])
            REQUESTS.labels(endpoint, status if status in STATUSES else "500").inc()
            REQUEST_SECONDS.labels(endpoint).observe(seconds)
            # Of an overload the metrics tell: lines would cost more than the refusals do.
            if endpoint not in _QUIET and status != "429":
                log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=int(status),
                    milliseconds=round(seconds * 1000, 1),
                )


def quiet(scope: MutableMapping[str, Any]) -> bool:
    """What asks all the time and tells nothing: not logged, not traced."""
    return endpoint_of(scope["path"]) in _QUIET


def endpoint_of(path: str) -> str:
    """The `endpoint` label of a path, one of `service.metrics.ENDPOINTS`."""
    match path.strip("/").split("/")[0]:
        case "" | "page":
            return "page"
        case "gallery":
            return "gallery" if path.rstrip("/") == "/gallery" else "gallery_image"
        case ("rerank" | "info" | "health" | "metrics") as endpoint:
            return endpoint
        case "docs" | "redoc" | "openapi.json":
            return "docs"
        case _:
            return "other"


def install_middleware(app: FastAPI) -> None:
    app.add_middleware(Arrivals)
    app.add_middleware(ObservedRequests)
    # Added last, so outermost: the log lines of the other one carry the id.
    app.add_middleware(
        CorrelationIdMiddleware,
        header_name=REQUEST_ID_HEADER,
        validator=lambda value: _REQUEST_ID.fullmatch(value) is not None,
    )
