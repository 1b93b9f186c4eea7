"""The client's parts that do no I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Unpack

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import Retrying

from model.descriptors import ImageDescriptors
from service.arrays import PackedArray, unpack
from service.client import (
    ERRORS,
    AsyncClient,
    Client,
    ClientError,
    DeadlineExceededError,
    InvalidDescriptorsError,
    InvalidRequestError,
    NotFromServiceError,
    NotReadyError,
    OverloadedError,
    RequestValidationError,
    StoreUnavailableError,
    UnreachableError,
    calls,
    image_from_arrays,
    packed_image,
)
from service.client.bodies import to_json
from service.client.exchange import Answer, Exchange
from service.client.patience import Deadline, policy, retry_after
from service.client.splitting import NewImage, Registration, parts
from service.gallery.record import GalleryRecord
from service.schemas import MAX_TIMEOUT_MS, RegisterRequest, RegisterResponse, RerankRequest
from tests.factories import image, tiny_config

API = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
CONFIG = tiny_config()
QUERY = image(np.random.default_rng(0), CONFIG)


def test_every_code_of_the_contract_has_a_class_of_its_own() -> None:
    table = API.split("## Errors")[1].split("## ")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")]
    codes = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert len(codes) == 23
    assert codes == set(ERRORS)
    assert len(set(ERRORS.values())) == len(ERRORS)
    assert all(issubclass(kind, ClientError) for kind in ERRORS.values())


# ------------------------------------------------------------------------------- splitting


@given(
    rows=st.lists(st.integers(1, 6), max_size=40),
    max_images=st.integers(1, 10),
    max_bytes=st.integers(150, 3_000),
)
def test_a_split_registration_has_every_image_once_and_keeps_the_limits(
    rows: list[int], max_images: int, max_bytes: int
) -> None:
    rng = np.random.default_rng(0)
    images = [(f"image-{n}", image(rng, CONFIG, count)) for n, count in enumerate(rows)]
    made = list(parts(images, "shop", 60, max_images, max_bytes))
    sent = [RegisterRequest.model_validate_json(part.body) for part in made]
    assert [one.id for request in sent for one in request.images] == [i for i, _ in images]
    assert [i for part in made for i in part.ids] == [i for i, _ in images]
    for part, request in zip(made, sent, strict=True):
        assert (request.collection, request.ttl_seconds) == ("shop", 60)
        assert len(request.images) <= max_images
        assert len(part.body) <= max_bytes or len(part.ids) == 1
    # No more requests than are needed: what follows would not have gone into the one before.
    for part, following in pairwise(made):
        first = json.loads(following.body)["images"][0]
        longer = len(part.body) + 1 + len(to_json(first))
        assert len(part.ids) == max_images or longer > max_bytes


def test_images_are_taken_as_they_are_sent() -> None:
    taken = 0

    def lazily() -> Iterator[tuple[str, ImageDescriptors]]:
        nonlocal taken
        for n in range(1_000):
            taken += 1
            yield str(n), QUERY

    split = parts(lazily(), "default", None, 10, 1 << 20)
    assert next(split).ids == [str(n) for n in range(10)]
    assert taken == 11


def test_metadata_goes_with_an_image() -> None:
    record = GalleryRecord(QUERY, {"url": "https://example.org/ü.jpg"})
    images: dict[str, NewImage] = {"a": record, "b": QUERY}
    (part,) = parts(images, "default", None, 10, 1 << 20)
    first, second = RegisterRequest.model_validate_json(part.body).images
    assert (first.metadata, second.metadata) == (record.metadata, None)


def test_an_error_says_what_is_stored_and_which_image_it_is_about() -> None:
    split = Registration(parts({str(n): QUERY for n in range(5)}, "default", None, 2, 1 << 20))

    def fail_in_the_second(field: str) -> None:
        with split.counting():
            for part in split:
                if part.ids[0] == "2":
                    raise ClientError("validation_error", "no", 422, details={"field": field})
                split.add(RegisterResponse(registered=2, replaced=1, truncated=0))

    with pytest.raises(ClientError) as raised:
        fail_in_the_second("images.1.global")
    assert (raised.value.registered, raised.value.image_id) == (2, "3")
    assert split.answer == RegisterResponse(registered=2, replaced=1, truncated=0)


def test_an_image_that_cannot_be_packed_is_named() -> None:
    images: dict[str, NewImage] = {"fine": QUERY, "flat": np.ones(3)}
    with pytest.raises(InvalidDescriptorsError, match="locals_: shape") as raised:
        list(parts(images, "default", None, 10, 1 << 20))
    assert (raised.value.image_id, raised.value.status) == ("flat", None)


# ------------------------------------------------------------------------------- arrays


def test_arrays_make_an_image() -> None:
    rows = np.arange(6.0).reshape(3, 2)
    packed = packed_image(rows)
    assert packed == packed_image(image_from_arrays(rows))
    assert unpack(PackedArray.model_validate(packed["descriptors"]), 2).tolist() == rows.tolist()
    assert packed["scales"] == [0, 0, 0]
    whole = image_from_arrays(rows.tolist(), [2, 0, 1], np.ones(4, np.float16))
    assert whole.scales.tolist() == [2, 0, 1]
    assert packed_image(whole)["global"]["dtype"] == "float16"


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (([1.0, 2.0],), "locals_: shape"),
        ((np.empty((0, 4)),), "locals_: shape"),
        (([[1.0], [1.0, 2.0]],), "locals_: an array of numbers"),
        (([["a"]],), "locals_: an array of numbers"),
        ((np.ones((2, 3)), [0]), "scales: 1 for 2 rows"),
        ((np.ones((1, 3)), [0.5]), "scales: whole numbers"),
        ((np.ones((1, 3)), [256]), "scales: whole numbers"),
        ((np.ones((1, 3)), [np.nan]), "scales: whole numbers"),
        ((np.ones((1, 3)), None, np.ones((2, 2))), "global_: shape"),
    ],
)
def test_arrays_of_other_shapes_are_refused(arrays: tuple[Any, ...], said: str) -> None:
    with pytest.raises(InvalidDescriptorsError, match=said):
        image_from_arrays(*arrays)


def test_numbers_of_numpy_go_into_a_request() -> None:
    scores = np.array([0.5, 0.25], np.float32)
    how = calls.HowToRerank(global_scores=scores, alpha=float(np.float32(0.5)), timeout=3.0)
    body = calls.rerank(QUERY, ["a", "b"], "default", how).body
    assert body is not None
    sent = RerankRequest.model_validate_json(body(2.5))
    assert (sent.global_scores, sent.alpha, sent.timeout_ms) == ([0.5, 0.25], 0.5, 2_500)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes"])
def test_what_json_has_no_form_for_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequestError):
        to_json({"metadata": value})


# ------------------------------------------------------------------------------- deadlines


@given(st.floats(0, 1e6), st.integers(1, MAX_TIMEOUT_MS))
def test_what_is_left_is_told_within_the_contract_s_bounds(seconds: float, longest: int) -> None:
    told = calls.timeout_ms(seconds, longest)
    assert 1 <= told <= longest
    assert told == 1 or told <= seconds * 1000
    bounds = json.loads((Path(__file__).parents[3] / "docs" / "openapi.json").read_text())
    schema = bounds["components"]["schemas"]["RerankRequest"]["properties"]["timeout_ms"]
    assert (schema["minimum"], schema["maximum"]) == (1, MAX_TIMEOUT_MS)


def test_a_deadline_gives_each_step_what_is_left() -> None:
    deadline = Deadline(100)
    left = [deadline[step] for step in deadline]
    assert len(left) == len(deadline) == 4
    assert sorted(left, reverse=True) == left
    assert 99 < left[-1] < 100
    over = Deadline(0)
    assert 0 < over["read"] < 0.01
    with pytest.raises(TimeoutError):
        list(over.watch([b"a"]))


# ------------------------------------------------------------------------------- retries


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": " 17 "}, 17.0),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "soon"}, None),
        (
            {
                "Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT",
                "Date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            30.0,
        ),
        (
            {
                "Retry-After": "Wednesday, 21-Oct-26 07:28:05 GMT",
                "Date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            5.0,
        ),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(httpx.Headers(headers)) == seconds


def refused(seconds: float | None = None) -> OverloadedError:
    return OverloadedError("overloaded", "full", 429, retry_after=seconds)


def tried(
    error: ClientError,
    *,
    timeout: float = 1_000,
    retries: int = 4,
    repeatable: bool = True,
) -> tuple[int, list[float]]:
    """How often what always fails is tried, and the waits between."""
    waits: list[float] = []
    attempts = 0

    def attempt() -> None:
        nonlocal attempts
        attempts += 1
        raise error

    with pytest.raises(type(error)):
        Retrying(**policy(timeout, retries, repeatable=repeatable), sleep=waits.append)(attempt)
    return attempts, waits


def test_a_refusal_is_waited_out_as_it_asks_for() -> None:
    attempts, waits = tried(refused(8))
    assert attempts == 5
    assert all(8 <= wait <= 10 for wait in waits)
    assert len(set(waits)) == 4


def test_without_a_time_the_waits_grow_at_random() -> None:
    many = [tried(refused(), retries=7)[1] for _ in range(50)]
    bounds = [0.25, 0.5, 1, 2, 4, 5, 5]
    for place, bound in enumerate(bounds):
        waits = [waits[place] for waits in many]
        assert all(0 <= wait <= bound for wait in waits)
        assert max(waits) > bound / 2
        assert min(waits) < bound / 2


def test_no_wait_is_begun_that_ends_after_the_deadline() -> None:
    assert tried(refused(30), timeout=29) == (1, [])
    assert tried(refused(), timeout=1e-9) == (1, [])


def test_retries_can_be_turned_off() -> None:
    assert tried(refused(), retries=0) == (1, [])


@pytest.mark.parametrize(
    ("error", "repeatable", "again"),
    [
        (refused(), False, True),
        (StoreUnavailableError("store_unavailable", "away", 503), False, True),
        (NotFromServiceError("not_ours", "a proxy's", 503), True, True),
        (NotFromServiceError("not_ours", "a proxy's", 502), True, False),
        (UnreachableError("unreachable", "gone"), True, True),
        (UnreachableError("unreachable", "gone"), False, False),
        (DeadlineExceededError("deadline_exceeded", "late", 504), True, False),
        (RequestValidationError("validation_error", "wrong", 422), True, False),
        (ClientError("internal", "a defect", 500), True, False),
    ],
)
def test_what_is_tried_again(error: ClientError, repeatable: bool, again: bool) -> None:
    attempts, _ = tried(error, retries=2, repeatable=repeatable)
    assert attempts == (3 if again else 1)


# ------------------------------------------------------------------------------- exchanges


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
    given = begun(calls.ready(), headers={"x-request-id": "theirs", "traceparent": "00-1-2-01"})
    assert given.headers["X-Request-ID"] == "theirs"
    assert given.headers["traceparent"] == "00-1-2-01"
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
