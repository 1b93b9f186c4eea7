"""What the routes share: made at start-up, reached through the request."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from opentelemetry.trace import Tracer
from starlette.requests import ClientDisconnect

from model.checkpoint import LoadedModel
from service.batching.batcher import Batcher
from service.batching.worker import Worker
from service.errors import (
    ClientDisconnectedError,
    DeadlineExceededError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)
from service.gallery.gallery import Gallery
from service.gallery.store import GalleryStore
from service.metrics import REJECTED
from service.settings import Settings

_BODY_SECONDS = 60


@dataclass(eq=False)
class ServiceState:
    settings: Settings
    model: LoadedModel
    store: GalleryStore
    gallery: Gallery
    worker: Worker
    batcher: Batcher
    tracer: Tracer
    draining: bool = False

    def refusal(self) -> tuple[str, UnavailableError] | None:
        """Why no request is taken now, if so: a reason of `locore_rejected_total`, an error."""
        if self.draining:
            why = UnavailableError("the service is shutting down", code="shutting_down")
            return "shutting_down", why
        problem = self.batcher.problem
        if not self.worker.warm or problem:
            return "not_ready", UnavailableError(problem or "the model is not warm yet")
        return None


async def service_state(request: Request) -> ServiceState:
    state: ServiceState = request.app.state.service
    return state


State = Annotated[ServiceState, Depends(service_state)]


async def authorised(request: Request, state: State) -> None:
    """Raises UnauthorizedError unless the request carries the key, where one is set."""
    key = state.settings.api_key
    if key is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    same = secrets.compare_digest(given.strip().encode(), key.get_secret_value().encode())
    if scheme.lower() != "bearer" or not same:
        REJECTED.labels("unauthorized").inc()
        raise UnauthorizedError("this service asks for `Authorization: Bearer KEY`")


async def accepting(state: State) -> None:
    """Raises UnavailableError while the service drains or cannot score."""
    refusal = state.refusal()
    if refusal is not None:
        reason, error = refusal
        REJECTED.labels(reason).inc()
        error.retry_after = 5
        raise error


async def read_body(request: Request, state: State) -> bytes:
    """The body, given up as soon as it is too large. Raises TooLargeError, and
    DeadlineExceededError or ClientDisconnectedError where it does not come whole."""
    limit = state.settings.max_payload_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        _too_large(limit)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    _too_large(limit)
                chunks.append(chunk)
    except TimeoutError:
        raise DeadlineExceededError(f"the body took over {_BODY_SECONDS} seconds") from None
    except ClientDisconnect:
        raise ClientDisconnectedError("the client has gone") from None
    return b"".join(chunks)


def _too_large(limit: int) -> None:
    REJECTED.labels("too_large").inc()
    raise TooLargeError(f"the body is larger than {limit} bytes", max_payload_bytes=limit)
