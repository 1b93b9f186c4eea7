"""uvicorn's HTTP connection, with limits on what a client may send, and how slowly."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from service.request.early_refusals import EarlyRefusals
from service.watch.metrics import REJECTED

MAX_HEAD_BYTES = 32 << 10
"""For a request's address and headers, and for what may come between two pieces of a body, such as
the trailers after it."""
MAX_HEADERS = 128


@dataclass(frozen=True)
class Patience:
    """Seconds that a client has for the head of a request from its first byte on, and for reading
    an answer that does not fit into the socket."""

    head: float = 10
    answer: float = 60


class BoundedConnection(EarlyRefusals):
    """`max_connections`: how many may be open. One more closes the connection that has waited
    longest for a request; while all are being answered, the new one is refused. `waiting`: all that
    wait for a request, the longest first; one dictionary for all connections."""

    def __init__(
        self,
        *,
        max_connections: int,
        waiting: dict[BoundedConnection, None],
        patience: Patience,
        **uvicorns: Any,
    ) -> None:
        super().__init__(**uvicorns)
        self._max_connections = max_connections
        self._waiting = waiting
        self._patience = patience
        self._unplaced = 0  # bytes since the last head, or piece of a body
        self._head_timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        full = len(self.connections) >= self._max_connections and not self._close_longest_waiting()
        super().connection_made(transport)
        self._waiting[self] = None
        if full:
            self._refuse(503, "overloaded", "too many connections", "connections")
            return
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _close_longest_waiting(self) -> bool:
        longest = next(iter(self._waiting), None)
        if longest is None:
            return False
        del self._waiting[longest]
        self.connections.discard(longest)
        longest.transport.abort()
        REJECTED.labels("connections").inc()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        self._waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._unplaced += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._unplaced > MAX_HEAD_BYTES:
            self._refuse_head()
        elif self._unplaced and self in self._waiting and self._head_timer is None:
            self._head_timer = self.loop.call_later(self._patience.head, self._refuse_slow_head)

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._refuse_head()
        if self.transport.is_closing():
            return
        self._unplaced = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._waiting.pop(self, None)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.transport.is_closing():
            return
        self._unplaced = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.transport.is_closing():
            return
        self._unplaced = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The next request may be there already.
        if self.cycle is None or self.cycle.response_complete:
            self._waiting[self] = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._answer_timer = self.loop.call_later(self._patience.answer, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "malformed_request", msg, "malformed")

    def _refuse_head(self) -> None:
        message = f"over {MAX_HEAD_BYTES:,} bytes of address and headers, or over {MAX_HEADERS}"
        self._refuse(431, "headers_too_large", message, "malformed")

    def _refuse_slow_head(self) -> None:
        message = f"the head of the request took over {self._patience.head:g} seconds"
        self._refuse(408, "request_timeout", message, "slow")

    def _refuse(self, status: int, code: str, message: str, reason: str) -> None:
        """Answers with the error, unless an answer has begun, and closes."""
        if self.transport.is_closing():
            return
        REJECTED.labels(reason).inc()
        if self in self._waiting:
            body = json.dumps({"error": {"code": code, "message": message, "details": {}}})
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
                + ("retry-after: 1\r\n" if status == 503 else "")
                + "connection: close\r\n\r\n"
            )
            self.transport.write((head + body).encode())
        self._stop_timers()
        self.transport.close()

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._answer_timer):
            if timer is not None:
                timer.cancel()
        self._unset_keepalive_if_required()
