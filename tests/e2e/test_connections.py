"""Heads of requests and connections are bounded, whoever asks: no key has been looked at yet."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import RunningService, running
from tests.e2e.test_expensive_bodies import MIB, memory, nobody_waits

START = b"POST /gallery HTTP/1.1\r\nHost: x\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
MOST = 20


@pytest.fixture(scope="module")
def strict(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("connections")
    settings: dict[str, Any] = {
        "api_key": "secret",
        "max_connections": MOST,
        "keep_alive_seconds": 2,
    }
    with running(checkpoint, folder, **settings) as started:
        yield started


def connect(service: RunningService) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def answer_to(service: RunningService, *parts: bytes) -> tuple[int, str] | None:
    """Status and code; None if the connection is cut while more is sent."""
    with connect(service) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            output = connection.makefile("rb").read()
        except OSError:
            return None
    head, _, body = output.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


@pytest.mark.parametrize(
    "sent",
    [
        START + b"x" * (48 * MIB),
        START + b"x: " + b"y" * (48 * MIB),
        START + b"a: b\r\n" * (8 * MIB),
        b"GET /" + b"x" * (48 * MIB),
        CHUNKED + b"1\r\n{\r\n0\r\n" + b"x" * (48 * MIB),
        CHUNKED + b"1\r\n{\r\n0\r\n" + b"a: b\r\n" * (8 * MIB),
        CHUNKED + b"1;" + b"x" * (48 * MIB),
        b"\r\n" * (24 * MIB),
    ],
    ids=["name", "value", "many", "address", "trailer", "trailers", "extension", "nothing"],
)
def test_a_long_head_takes_neither_memory_nor_time(strict: RunningService, sent: bytes) -> None:
    before, started = memory(strict), time.perf_counter()
    with nobody_waits(strict):
        assert answer_to(strict, sent) in (
            None,
            (431, "headers_too_large"),
            (401, "unauthorized"),
        )
    assert time.perf_counter() - started < 10
    assert memory(strict) - before < 20 * MIB


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"GET /" + b"x" * 33_000 + b" HTTP/1.1\r\n\r\n", (431, "headers_too_large")),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 129 + b"\r\n", (431, "headers_too_large")),
        (b"nonsense\r\n\r\n", (400, "malformed_request")),
    ],
)
def test_what_is_refused_is_told_in_the_one_shape(
    strict: RunningService, sent: bytes, answer: tuple[int, str]
) -> None:
    assert answer_to(strict, sent) == answer


def test_a_head_of_an_honest_size_is_read(strict: RunningService) -> None:
    headers = {"Cookie": "c" * 16_000, "Authorization": "Bearer secret"}
    assert strict.http.get("/gallery", headers=headers).status_code == 200


def test_half_a_head_is_waited_for_ten_seconds(strict: RunningService) -> None:
    started = time.monotonic()

    assert answer_to(strict, b"GET / HTTP/1.1\r\nx: ") == (408, "request_timeout")
    assert 9 < time.monotonic() - started < 20


def test_a_connection_waits_for_its_next_request_as_long_as_the_setting_says(
    strict: RunningService,
) -> None:
    with connect(strict) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(4096)
        started = time.monotonic()
        assert connection.recv(1) == b""
        assert 1.5 < time.monotonic() - started < 5
    # And for a first one.
    with connect(strict) as connection:
        assert connection.recv(1) == b""


def test_half_sent_heads_keep_nobody_out(strict: RunningService) -> None:
    strict.http.close()
    strict.http = type(strict.http)(base_url=strict.url, timeout=60)
    with contextlib.ExitStack() as open_ones:
        for _ in range(4 * MOST):
            connection = open_ones.enter_context(connect(strict))
            with contextlib.suppress(OSError):
                connection.sendall(b"GET / HTTP/1.1\r\nx: ")
        assert strict.http.get("/health/live").is_success
        descriptors = list(Path(f"/proc/{strict.process.pid}/fd").iterdir())
        assert len(descriptors) < MOST + 60
    assert strict.metric('locore_rejected_total{reason="connections"}') >= 3 * MOST - 5


def test_many_honest_connections_are_all_answered(strict: RunningService) -> None:
    def ask(_: int) -> int:
        with connect(strict) as connection:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return int(connection.makefile("rb").read().split()[1])

    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(ask, range(100))) == {200}
