"""Both clients with servers that are slow, cut off or say when to come back."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest

from both_clients import Blocking, both
from locore_client import (
    DeadlineExceededError,
    NotFromServiceError,
    UnreachableError,
)
from tests.e2e.odd_server import OddServer, odd_server, reply
from tests.factories import image, tiny_config

QUERY = image(np.random.default_rng(0), tiny_config())
PAGE = b'{"count": 0, "ids": [], "next_cursor": null}'
NOT_READY = b'{"error": {"code": "not_ready", "message": "warming up", "details": {}}}'
RANKED = json.dumps(
    {
        "id": "x",
        "model": "odd",
        "results": [],
        "missing": [],
        "truncated": False,
        "usage": {"images": 0, "windows": 0, "tokens": 0},
        "timings_ms": dict.fromkeys(("decode", "fetch", "queue", "inference", "total"), 0.0),
    }
).encode()


def in_turn(*answers: Callable[[BaseHTTPRequestHandler], None]) -> Callable[..., None]:
    """Each request gets the next answer, the last one for good."""

    def answer(handler: BaseHTTPRequestHandler, before: int) -> None:
        answers[min(before, len(answers) - 1)](handler)

    return answer


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def in_two_seconds(handler: BaseHTTPRequestHandler) -> None:
    at = formatdate(time.time() + 2, usegmt=True)
    reply(handler, 503, NOT_READY, Retry_After=at)


@both
def test_a_date_in_retry_after_is_waited_for(kind: type[Blocking]) -> None:
    answers = in_turn(in_two_seconds, lambda handler: reply(handler, 200, PAGE))
    with odd_server(answers) as server:
        started = time.monotonic()
        assert kind(server.url).page().count == 0
        # Dates are whole seconds; a quarter more is added at random.
        assert 1 <= time.monotonic() - started < 4
        assert len(server.requests) == 2


@both
def test_what_a_call_has_left_is_told_anew_each_time(kind: type[Blocking]) -> None:
    refusal = in_turn(
        lambda handler: reply(handler, 503, NOT_READY, Retry_After="1"),
        lambda handler: reply(handler, 200, RANKED),
    )
    with odd_server(refusal) as server:
        kind(server.url).rerank(QUERY, ["a"], timeout=5)
        first, second = (json.loads(body)["timeout_ms"] for _, body in server.requests)
    assert 4_000 < first <= 5_000
    assert 2_000 < second <= 4_000


@both
def test_a_call_of_which_no_answer_came_is_made_again(kind: type[Blocking]) -> None:
    with odd_server(in_turn(cut_off, lambda h: reply(h, 200, RANKED))) as server:
        assert kind(server.url).rerank(QUERY, ["a"]).model == "odd"
        assert [method for method, _ in server.requests] == ["POST", "POST"]
    with odd_server(in_turn(cut_off)) as server:
        with pytest.raises(UnreachableError):
            kind(server.url, retries=2).page()
        assert len(server.requests) == 3
        with pytest.raises(UnreachableError):
            kind(server.url, retries=2).delete("a")
        assert len(server.requests) == 4


@both
def test_headers_of_client_and_call_are_sent(kind: type[Blocking]) -> None:
    seen: list[dict[str, str]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append({name.lower(): value for name, value in handler.headers.items()})
        reply(handler, 200, PAGE)

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with odd_server(in_turn(answer)) as server:
        client = kind(server.url, "key", headers={"X-Team": "search", "X-Kind": "usual"})
        client.page(request_id="mine", headers={"traceparent": trace, "X-Kind": "other"})
    wanted = {
        "authorization": "Bearer key",
        "x-team": "search",
        "x-kind": "other",
        "traceparent": trace,
        "x-request-id": "mine",
    }
    assert wanted.items() <= seen[0].items()


@both
def test_another_server_is_told_from_the_service(kind: type[Blocking]) -> None:
    answers = in_turn(lambda handler: reply(handler, 200, b"<html>"))
    with odd_server(answers) as server, pytest.raises(NotFromServiceError, match="HTTP 200"):
        kind(server.url).page()


def never(handler: BaseHTTPRequestHandler) -> None:
    assert isinstance(handler.server, OddServer)
    handler.server.stopping.wait(10)
    handler.close_connection = True


def drop_by_drop(handler: BaseHTTPRequestHandler) -> None:
    """Always something within a read's own time, never all of it."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


@both
@pytest.mark.parametrize("answer", [never, drop_by_drop])
def test_a_slow_answer_is_not_waited_for_past_the_deadline(
    kind: type[Blocking],
    answer: Callable[[BaseHTTPRequestHandler], None],
) -> None:
    with odd_server(in_turn(answer)) as server:
        started = time.monotonic()
        with pytest.raises(DeadlineExceededError) as raised:
            kind(server.url, timeout=0.5).page()
        assert 0.5 <= time.monotonic() - started < 3
    assert raised.value.status is None
    assert "no answer within 0.5 seconds" in str(raised.value)


@both
def test_a_server_that_does_not_read_is_not_waited_for(kind: type[Blocking]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        rows = np.ones((20_000, 128), np.float32)
        started = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            kind(url).register({"large": rows}, timeout=0.5)
        assert 0.5 <= time.monotonic() - started < 3
