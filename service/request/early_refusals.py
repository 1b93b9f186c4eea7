"""Refuses re-rank requests that cannot be answered in time, before they get a task.

In a large overload the cost of refusals limits the service. An ASGI application costs several times
as much as everything here, so a refusal is written directly to the connection. In doubt the
application decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from locore_client.contract import REQUEST_ID_HEADER
from service.api.errors import DeadlineExceededError, OverloadedError
from service.batching.batcher import IncomingRequest
from service.request.arrival import ARRIVAL, INCOMING, deadline_of
from service.request.error_answers import error_response
from service.request.middleware import REQUEST_ID
from service.state import ServiceState
from service.watch.metrics import REJECTED, REQUEST_SECONDS, REQUESTS

_MAX_BODY_BYTES = 1 << 18
"""Larger bodies are not held here."""

_MAX_BODY_SECONDS = 5.0
"""After this time the application reads the rest of the body itself."""

_BUSY_SECONDS = 0.1
"""If the wait is shorter, nothing is refused here."""

_FOR_THE_APPLICATION = {b"expect", b"origin", b"upgrade"}
"""Headers of requests that need more than a plain answer, so the application gets them."""

_REQUEST_ID = REQUEST_ID_HEADER.lower().encode()
_REFUSED = REQUESTS.labels("rerank", "429")
_SECONDS = REQUEST_SECONDS.labels("rerank")


class EarlyRefusals(HttpToolsProtocol):
    """While the service is busy, the body of a re-rank request is held until it is complete. Then
    the request is refused, or handed to the application unchanged."""

    def __init__(
        self, *, service: Callable[[], ServiceState], max_requests: int, **uvicorn_options: Any
    ) -> None:
        """`max_requests`: that are being answered before more are refused here."""
        super().__init__(**uvicorn_options)
        self._service = service
        self._max_requests = max_requests
        self._rerank_urls = (b"/rerank", f"{service().settings.root_path}/rerank".encode())
        self._is_rerank = False
        self._held_body: bytearray | None = None
        self._hand_over_timer: asyncio.TimerHandle | None = None
        self._incoming: IncomingRequest | None = None

    def on_headers_complete(self) -> None:
        self.scope["state"][ARRIVAL] = time.monotonic()
        self._is_rerank = (
            self.parser.get_method() == b"POST"
            and self.url in self._rerank_urls
            # No earlier answer is pending on this connection.
            and (self.cycle is None or self.cycle.response_complete)
        )
        if self._is_rerank and self._may_be_refused():
            self._held_body = bytearray()
            self._hand_over_timer = self.loop.call_later(_MAX_BODY_SECONDS, self._hand_over)
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._held_body is None:
            super().on_body(body)
            return
        self._held_body += body
        has_room = self._service().intake.hold(len(body))
        if not has_room or len(self._held_body) > _MAX_BODY_BYTES:
            self._hand_over()

    def on_message_complete(self) -> None:
        checked = False
        if self._held_body is not None:
            error = self._lateness(self._held_body)
            if error is not None:
                self._take_body()
                self._refuse_early(error)
                return
            self._hand_over()
            checked = True
        # An upgrade to another protocol has no cycle.
        if self._is_rerank and self.cycle is not None and not self.cycle.response_complete:
            # Many requests may arrive before the application runs for the first of them: each
            # counts from now on. Not before: a body that never arrives must not count.
            self._incoming = IncomingRequest(self._service().batcher, checked=checked)
            self.scope["state"][INCOMING] = self._incoming
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._end_incoming()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._take_body()
        self._end_incoming()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """A held request goes to the application, which answers it first."""
        if self._held_body is not None:
            self._hand_over()
        super().shutdown()

    def _may_be_refused(self) -> bool:
        service = self._service()
        return (
            service.batcher.wait_seconds > _BUSY_SECONDS
            and not any(name in _FOR_THE_APPLICATION for name, _ in self.headers)
            and service.refusal() is None
        )

    def _lateness(self, body: bytes | bytearray) -> OverloadedError | None:
        service = self._service()
        if service.refusal() is not None:
            return None
        if len(self.tasks) >= self._max_requests:
            REJECTED.labels("requests").inc()
            return OverloadedError("too many requests wait", retry_after=1)
        try:
            service.batcher.refuse_hopeless(deadline_of(body, self.scope["state"][ARRIVAL]))
        except OverloadedError as error:
            return error
        except DeadlineExceededError:
            pass
        return None

    def _hand_over(self) -> None:
        """Gives the application the request, and what has arrived of its body."""
        body = self._take_body()
        super().on_headers_complete()
        if body:
            super().on_body(bytes(body))

    def _take_body(self) -> bytearray:
        body, self._held_body = self._held_body or bytearray(), None
        self._service().intake.release(len(body))
        if self._hand_over_timer is not None:
            self._hand_over_timer.cancel()
            self._hand_over_timer = None
        return body

    def _end_incoming(self) -> None:
        if self._incoming is not None:
            self._incoming.end()
            self._incoming = None

    def _refuse_early(self, error: OverloadedError) -> None:
        """Answers as the application would: with an id, and counted. There is no log line, since
        the metrics show an overload."""
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        head, body = _answer(str(error), error.retry_after)
        fields = [
            *self.server_state.default_headers,
            (_REQUEST_ID, self._request_id()),
        ]
        if not keep_alive:
            fields.append((b"connection", b"close"))
        lines = [head, *(b"%b: %b" % field for field in fields), b"", body]
        self.transport.write(b"\r\n".join(lines))
        _REFUSED.inc()
        _SECONDS.observe(time.monotonic() - self.scope["state"][ARRIVAL])
        self.on_response_complete()
        if not keep_alive:
            self.transport.close()

    def _request_id(self) -> bytes:
        for name, value in self.headers:
            if name == _REQUEST_ID and REQUEST_ID.fullmatch(value.decode("latin-1")):
                return value
        return uuid4().hex.encode()


@lru_cache
def _answer(message: str, retry_after: int | None) -> tuple[bytes, bytes]:
    """(status and headers, body). Cached: in an overload there are few different ones."""
    answer = error_response(OverloadedError(message, retry_after=retry_after))
    status = f"HTTP/1.1 {answer.status_code} {HTTPStatus(answer.status_code).phrase}".encode()
    fields = (b"%b: %b" % field for field in answer.raw_headers)
    return b"\r\n".join([status, *fields]), bytes(answer.body)
