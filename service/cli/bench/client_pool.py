"""A client that costs the machine little: it may share it with the service that it measures.

Requests are made before, and answers are parsed after the measurement.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

from locore_client.exchange import sendable


@dataclass(frozen=True)
class Answer:
    """`status`: 0 where none came. `seconds`: from sending to its last byte."""

    status: int
    seconds: float
    content: bytes = b""


class Target:
    def __init__(self, url: str, headers: dict[str, str]) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or "127.0.0.1"
        self.tls = parts.scheme == "https"
        self.port = parts.port or (443 if self.tls else 80)
        fields = {"Host": parts.netloc, "Content-Type": "application/json", **sendable(headers)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._head = f"POST {parts.path.rstrip('/')}/rerank HTTP/1.1\r\n{lines}"

    def request(self, body: bytes) -> bytes:
        return f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Pool:
    """Connections, as many as there are requests under way."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._idle: list[_Connection] = []

    async def answer(self, request: bytes, patience: float) -> Answer:
        started = time.perf_counter()
        status, content = 0, b""
        try:
            async with asyncio.timeout(patience):
                connection = await self._connection()
                try:
                    status, content = await connection.ask(request)
                finally:
                    if not status:
                        connection.close()
            if connection.open:
                self._idle.append(connection)
        except (OSError, TimeoutError):
            pass
        return Answer(status, time.perf_counter() - started, content)

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
        self._content: list[bytes] = []
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """The status and body of the answer."""
        self._content = []
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

    def on_body(self, body: bytes) -> None:
        self._content.append(body)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        if self._answer is not None and not self._answer.done():
            status = self._parser.get_status_code()
            self._answer.set_result((status, b"".join(self._content)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._ended(exc or ConnectionError("the connection was closed"))

    def _ended(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
