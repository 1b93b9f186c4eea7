"""A call from its start to its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import httpx
import pytest

from locore_client import (
    ERRORS,
    AsyncClient,
    Client,
    ClientError,
    DeadlineExceededError,
    InvalidRequestError,
    NotFromServiceError,
    NotReadyError,
    UnreachableError,
    calls,
)
from locore_client.bodies import to_json
from locore_client.exchange import Answer, Exchange


def begun(call: calls.Call[Any], **how: Unpack[calls.HowToCall]) -> Exchange[Any]:
    return Exchange(call, "http://here", 60, 4, how)


def error_of(status: int, content: bytes, **headers: str) -> ClientError:
    with pytest.raises(ClientError) as raised:
        begun(calls.ready()).result(Answer(status, httpx.Headers(headers), content))
    return raised.value


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_a_code_is_raised_as_its_class_with_all_that_came(code: str) -> None:
    details = {"field": "images.0.id", "id": "a", "more": 1}
    body = to_json({"error": {"code": code, "message": "why", "details": details}})
    error = error_of(418, body, **{"X-Request-ID": "it", "Retry-After": "3"})
    assert type(error) is ERRORS[code]
    assert (error.code, error.message, str(error), error.status) == (code, "why", "why", 418)
    assert (error.field, error.image_id, error.details) == ("images.0.id", "a", details)
    assert (error.request_id, error.retry_after) == ("it", 3.0)


def test_an_unknown_code_is_a_client_error() -> None:
    body = to_json({"error": {"code": "brand_new", "message": "why", "details": {}}})
    assert type(error_of(400, body)) is ClientError


@pytest.mark.parametrize(
    ("status", "content"), [(200, b"hello"), (502, b"<html>"), (503, b"{}"), (307, b"")]
)
def test_an_answer_that_is_not_the_service_s_is_told(status: int, content: bytes) -> None:
    error = error_of(status, content)
    assert isinstance(error, NotFromServiceError)
    assert error.status == status
    assert "http://here" in str(error)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (httpx.ReadTimeout("slow"), DeadlineExceededError),
        (TimeoutError(), DeadlineExceededError),
        (httpx.ConnectError("refused"), UnreachableError),
        (httpx.ReadError(""), UnreachableError),
        (httpx.RemoteProtocolError("cut off"), UnreachableError),
        (httpx.UnsupportedProtocol("no scheme"), InvalidRequestError),
        (httpx.LocalProtocolError("a header"), InvalidRequestError),
        (httpx.InvalidURL("too long"), InvalidRequestError),
    ],
)
def test_faults_on_the_way_are_client_errors(fault: Exception, kind: type[ClientError]) -> None:
    exchange = begun(calls.ready(), request_id="mine")
    with pytest.raises(kind, match=r"http://here: .") as raised, exchange.faults():
        raise fault
    assert (raised.value.request_id, raised.value.status) == ("mine", None)


def test_a_deadline_in_a_second_try_tells_of_the_first() -> None:
    exchange = begun(calls.page("default", 10, None))
    refusal = to_json({"error": {"code": "not_ready", "message": "warming up", "details": {}}})
    with pytest.raises(NotReadyError):
        exchange.result(Answer(503, httpx.Headers(), refusal))
    with (
        pytest.raises(DeadlineExceededError, match="60 seconds; before that: warming up"),
        exchange.faults(),
    ):
        raise TimeoutError


def test_a_request_id_is_the_caller_s_or_made() -> None:
    assert begun(calls.ready(), request_id="mine").headers["X-Request-ID"] == "mine"
    exchange = begun(calls.ready(), headers={"x-request-id": "theirs", "traceparent": "00-1-2-01"})
    assert exchange.headers["X-Request-ID"] == "theirs"
    assert exchange.headers["traceparent"] == "00-1-2-01"
    made = {begun(calls.ready()).headers["X-Request-ID"] for _ in range(10)}
    assert len(made) == 10
    with pytest.raises(InvalidRequestError):
        begun(calls.ready(), request_id="ü")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_is_no_url_is_refused_at_once(kind: Callable[[str], object]) -> None:
    with pytest.raises(InvalidRequestError, match="localhost:abc"):
        kind("http://localhost:abc")


def test_an_id_is_a_path_that_nobody_resolves() -> None:
    assert calls.get("a/b:c@d=e+f.jpg", "x", False).path == "/gallery/a/b:c@d=e+f.jpg"
    assert calls.get("../a/./..b", "x", False).path == "/gallery/%2E%2E/a/%2E/..b"
    assert calls.delete("a b?c#d", "x").path == "/gallery/a%20b%3Fc%23d"
    with pytest.raises(InvalidRequestError):
        calls.get("", "x", False)
