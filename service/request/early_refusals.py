"""Refuses re-rank requests that cannot be answered in time before there is a task for them.

In a large overload the cost of refusals limits the service. An ASGI application costs several times
as much as everything here, so a refusal is written straight to the connection. Whatever is not
plainly to be refused goes to the application, which checks again.
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
from service.batching.batcher import Expected
from service.request.arrival import ARRIVAL, EXPECTED, deadline_of
from service.request.error_answers import error_response
from service.request.middleware import REQUEST_ID
from service.state import ServiceState
from service.watch.metrics import REQUEST_SECONDS, REQUESTS

_MAX_BODY_BYTES = 1 << 18
"""Larger bodies are not kept here."""

_MAX_BODY_SECONDS = 5.0
"""So long a body may take to arrive before the application gets it piece by piece."""

_BUSY_SECONDS = 0.1
"""Below this wait nothing is refused here."""

_FOR_THE_APPLICATION = {b"expect", b"origin", b"upgrade"}
"""Headers of requests that need more than a plain answer."""

_REQUEST_ID = REQUEST_ID_HEADER.lower().encode()
_REFUSED = REQUESTS.labels("rerank", "429")
_SECONDS = REQUEST_SECONDS.labels("rerank")


class EarlyRefusals(HttpToolsProtocol):
    """While the service is busy, the body of a re-rank request is kept until it is complete. Then
    the request is refused, or handed to the application as it came."""

    def __init__(self, *, service: Callable[[], ServiceState], **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._service = service
        self._rerank_urls = (b"/rerank", f"{service().settings.root_path}/rerank".encode())
        self._kept: bytearray | None = None
        self._keep_timer: asyncio.TimerHandle | None = None
        self._expected: Expected | None = None

    @property
    def keeps_a_request(self) -> bool:
        return self._kept is not None

    def on_headers_complete(self) -> None:
        self.scope["state"][ARRIVAL] = time.monotonic()
        if not self._is_rerank():
            super().on_headers_complete()
        elif self._may_be_refused():
            self._kept = bytearray()
            self._keep_timer = self.loop.call_later(_MAX_BODY_SECONDS, self._hand_over)
        else:
            self._expect(checked=False)
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._kept is None:
            super().on_body(body)
            return
        self._kept += body
        if len(self._kept) > _MAX_BODY_BYTES:
            self._hand_over()

    def on_message_complete(self) -> None:
        if self._kept is not None:
            error = self._refusal(self._kept)
            if error is not None:
                self._forget()
                self._refuse_early(error)
                return
            self._hand_over(checked=True)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._end_expected()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        self._end_expected()
        super().connection_lost(exc)

    def _is_rerank(self) -> bool:
        """And no answer before this one is still on its way."""
        return (
            self.parser.get_method() == b"POST"
            and self.url in self._rerank_urls
            and (self.cycle is None or self.cycle.response_complete)
        )

    def _expect(self, *, checked: bool) -> None:
        """Many requests may come before the application runs for the first of them: each is counted
        now."""
        self._expected = Expected(self._service().batcher, checked=checked)
        self.scope["state"][EXPECTED] = self._expected

    def _end_expected(self) -> None:
        if self._expected is not None:
            self._expected.end()
            self._expected = None

    def _may_be_refused(self) -> bool:
        return self._service().batcher.wait_seconds > _BUSY_SECONDS and not any(
            name in _FOR_THE_APPLICATION for name, _ in self.headers
        )

    def _refusal(self, body: bytes | bytearray) -> OverloadedError | None:
        service = self._service()
        if service.refusal() is not None:
            return None
        try:
            service.batcher.refuse_hopeless(deadline_of(body, self.scope["state"][ARRIVAL]))
        except OverloadedError as error:
            return error
        except DeadlineExceededError:
            pass
        return None

    def _hand_over(self, *, checked: bool = False) -> None:
        """The application gets the request, and what has come of its body."""
        body = self._forget()
        self._expect(checked=checked)
        super().on_headers_complete()
        if body:
            super().on_body(bytes(body))

    def _forget(self) -> bytearray:
        body, self._kept = self._kept or bytearray(), None
        if self._keep_timer is not None:
            self._keep_timer.cancel()
            self._keep_timer = None
        return body

    def _refuse_early(self, error: OverloadedError) -> None:
        """As the application would: with an id, and counted. No log line: the metrics tell of an
        overload."""
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
    """(status and headers, body). In an overload there are few different ones."""
    answer = error_response(OverloadedError(message, retry_after=retry_after))
    status = f"HTTP/1.1 {answer.status_code} {HTTPStatus(answer.status_code).phrase}".encode()
    fields = (b"%b: %b" % field for field in answer.raw_headers)
    return b"\r\n".join([status, *fields]), bytes(answer.body)
