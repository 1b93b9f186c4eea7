"""Gives every request an id, a log line and metrics."""

from __future__ import annotations

import re
import time
from collections.abc import MutableMapping
from typing import Any

import structlog
from asgi_correlation_id import CorrelationIdMiddleware, correlation_id
from fastapi import FastAPI
from opentelemetry import trace
from starlette._utils import get_route_path
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from locore_client.contract import REQUEST_ID_HEADER
from service.request.arrival import Arrivals
from service.request.guards import Guards
from service.watch.logs import current_ids
from service.watch.metrics import INFLIGHT, REQUEST_SECONDS, REQUESTS, STATUSES

log = structlog.get_logger("service.access")

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/@=+\-]{1,128}")
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
        # For log lines about the request outside its span, such as uvicorn's about a defect.
        structlog.contextvars.bind_contextvars(**current_ids())
        endpoint = endpoint_of(scope)
        # A scrape is not load, and would count itself.
        inflight = int(endpoint != "metrics")
        INFLIGHT.inc(inflight)
        try:
            await self.app(scope, receive, watch)
        finally:
            INFLIGHT.dec(inflight)
            seconds = time.perf_counter() - started
            REQUESTS.labels(endpoint, status if status in STATUSES else "500").inc()
            REQUEST_SECONDS.labels(endpoint).observe(seconds)
            # The metrics show an overload; log lines would cost more than the refusals.
            if endpoint not in _QUIET and status != "429":
                log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=int(status),
                    milliseconds=round(seconds * 1000, 1),
                )


def quiet(scope: MutableMapping[str, Any]) -> bool:
    """Whether requests like this are frequent and uninteresting: they are not logged or traced."""
    return endpoint_of(scope) in _QUIET


def endpoint_of(scope: MutableMapping[str, Any]) -> str:
    """The `endpoint` label of a request's path, one of `service.watch.metrics.ENDPOINTS`."""
    path = get_route_path(scope)
    match path.strip("/").split("/")[0]:
        case "" | "page":
            return "page"
        case "gallery":
            return "gallery" if path.rstrip("/") == "/gallery" else "gallery_image"
        case (
            "rerank" | "extract" | "collections" | "aliases" | "info" | "health" | "metrics"
        ) as endpoint:
            return endpoint
        case "docs" | "openapi.json":
            return "docs"
        case _:
            return "other"


def install_middleware(app: FastAPI, allowed_origins: tuple[str, ...]) -> None:
    """The middleware added last is outermost, so the log lines of the others have the id."""
    app.add_middleware(Arrivals)
    app.add_middleware(Guards, allowed_origins=allowed_origins)
    if allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=allowed_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", REQUEST_ID_HEADER],
            expose_headers=["Retry-After", REQUEST_ID_HEADER],
        )
    app.add_middleware(ObservedRequests)
    app.add_middleware(
        CorrelationIdMiddleware,
        header_name=REQUEST_ID_HEADER,
        validator=lambda value: REQUEST_ID.fullmatch(value) is not None,
    )
