"""When a request came, and a cheap refusal where it came too late.

In a large overload the cost of refusals limits the service. So they are answered here, before a
route, a log line or a parser sees the request.
"""

from __future__ import annotations

import asyncio
import re
import time

from starlette._utils import get_route_path
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import DeadlineExceededError, OverloadedError
from service.api.schemas import RerankRequest
from service.request.error_answers import error_response
from service.state import ServiceState

_LOOKED_AT = 1 << 18
"""Bytes of a body that are searched for its timeout; larger bodies are not refused here."""

_BODY_SECONDS = 5.0
_BUSY_SECONDS = 0.1
"""Below this wait no body is searched."""

_DEFAULT_MS: int = RerankRequest.model_fields["timeout_ms"].default
_TIMEOUT_KEY = b'"timeout_ms"'
_TIMEOUT_VALUE = re.compile(rb"\s*:\s*([1-9]\d{0,8})")


def arrival_of(request: Request) -> float:
    """When the head of the request arrived, in seconds of `time.monotonic`."""
    at: float = request.state.arrival
    return at


def deadline_of(body: bytes, arrival: float) -> float:
    """The deadline by the last `timeout_ms` in a body that is not parsed yet. For early refusals
    only: a body that hides its timeout is parsed before it is refused."""
    key = body.rfind(_TIMEOUT_KEY)
    value = None if key < 0 else _TIMEOUT_VALUE.match(body, key + len(_TIMEOUT_KEY))
    return arrival + (_DEFAULT_MS if value is None else int(value[1])) / 1000


class Arrivals:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            arrival = scope.setdefault("state", {})["arrival"] = time.monotonic()
            if get_route_path(scope) == "/rerank" and scope["method"] == "POST":
                service: ServiceState = scope["app"].state.service
                batcher = service.batcher
                if batcher.wait_seconds > _BUSY_SECONDS and service.refusal() is None:
                    messages = await _first_messages(receive)
                    body = b"".join(message.get("body", b"") for message in messages)
                    try:
                        batcher.refuse_hopeless(deadline_of(body, arrival))
                    except (OverloadedError, DeadlineExceededError) as error:
                        await error_response(error)(scope, receive, send)
                        return
                    receive = _again(messages, receive)
        await self.app(scope, receive, send)


async def _first_messages(receive: Receive) -> list[Message]:
    """The whole body where it is small and arrives at once, else its beginning."""
    messages: list[Message] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while size < _LOOKED_AT:
                message = await receive()
                messages.append(message)
                size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        pass
    return messages


def _again(messages: list[Message], receive: Receive) -> Receive:
    """`receive`, which first repeats these messages."""
    waiting = iter(messages)

    async def replay() -> Message:
        return next(waiting, None) or await receive()

    return replay
