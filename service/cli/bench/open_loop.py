"""Requests that come when they come, whether or not earlier ones were answered.

A service that falls behind is not spared, as it is by clients that wait for their answers. One
process shares the machine with the service, so a request costs it little: bodies are made before,
and answers are read only as far as their status.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools
import numpy as np
import uvloop

_GRACE_SECONDS = 5.0
"""So long after its deadline an answer is waited for."""


@dataclass(frozen=True)
class Answer:
    """`status`: 0 where none came. `seconds`: from sending to its last byte."""

    status: int
    seconds: float


@dataclass(frozen=True)
class OpenLoop:
    """`seconds`: from the first request to the last answer; `slo_seconds`: of an answer in time."""

    answers: Sequence[Answer]
    seconds: float
    slo_seconds: float

    @property
    def in_time(self) -> list[float]:
        """Seconds of the answers with a result that came within the deadline."""
        return [a.seconds for a in self.answered if a.seconds <= self.slo_seconds]

    @property
    def answered(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status == 200]

    @property
    def goodput(self) -> float:
        """Results in time, a second."""
        return len(self.in_time) / self.seconds

    def count(self, *statuses: int) -> int:
        return sum(answer.status in statuses for answer in self.answers)


def open_loop(
    url: str,
    headers: dict[str, str],
    bodies: Sequence[bytes],
    *,
    requests: int,
    rate: float,
    slo_seconds: float,
) -> OpenLoop:
    """POST /rerank at `rate` requests a second on average, at times that do not know of each other
    (Poisson), the bodies in turn."""
    target = _Target(url, headers)
    ready = [target.request(body) for body in bodies]
    pauses = np.random.default_rng(0).exponential(1 / rate, requests)

    async def work() -> OpenLoop:
        pool = _Pool(target)
        started = time.perf_counter()
        due, sent = started, []
        for place, pause in enumerate(pauses):
            due += pause
            delay = due - time.perf_counter()
            # One that is overdue goes at once, but answers get their turn.
            await asyncio.sleep(max(0.0, delay))
            request = ready[place % len(ready)]
            answer = pool.answer(request, slo_seconds + _GRACE_SECONDS)
            sent.append(asyncio.create_task(answer))
        answers = await asyncio.gather(*sent)
        seconds = time.perf_counter() - started
        pool.close()
        return OpenLoop(answers, seconds, slo_seconds)

    return uvloop.run(work())


class _Target:
    def __init__(self, url: str, headers: dict[str, str]) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or "127.0.0.1"
        self.tls = parts.scheme == "https"
        self.port = parts.port or (443 if self.tls else 80)
        fields = {"Host": parts.netloc, "Content-Type": "application/json", **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._head = f"POST {parts.path.rstrip('/')}/rerank HTTP/1.1\r\n{lines}"

    def request(self, body: bytes) -> bytes:
        return f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _Pool:
    """Connections, as many as there are requests under way."""

    def __init__(self, target: _Target) -> None:
        self._target = target
        self._idle: list[_Connection] = []

    async def answer(self, request: bytes, patience: float) -> Answer:
        started = time.perf_counter()
        status = 0
        try:
            async with asyncio.timeout(patience):
                connection = await self._connection()
                try:
                    status = await connection.ask(request)
                finally:
                    if not status:
                        connection.close()
            if connection.open:
                self._idle.append(connection)
        except (OSError, TimeoutError):
            pass
        return Answer(status, time.perf_counter() - started)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        target = self._target
        _, connection = await asyncio.get_running_loop().create_connection(
            _Connection, target.host, target.port, ssl=target.tls or None
        )
        return connection


class _Connection(asyncio.Protocol):
    """One request at a time; httptools calls its methods back."""

    def __init__(self) -> None:
        self.open = False
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._answer: asyncio.Future[int] | None = None

    def ask(self, request: bytes) -> asyncio.Future[int]:
        self._answer = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        self.open = False
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.open = cast(asyncio.Transport, transport), True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()
            self._ended(ConnectionError("this is not HTTP"))

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._parser.get_status_code())

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._ended(exc or ConnectionError("the connection was closed"))

    def _ended(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
