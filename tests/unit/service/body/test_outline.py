"""Bodies as JSON: what pydantic would make of them, at a cost in proportion to their size."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from locore_client.packing import pack
from service.api.arrays import MAX_ROWS, unpack
from service.api.errors import ApiError, InvalidJsonError, TooLargeError, UnprocessableError
from service.api.schemas import RegisterRequest, RerankRequest
from service.body.decoding import decode_query, decode_registration
from service.body.outline import read_request
from tests.expensive_bodies import expensive_registrations, honest_registration, image_with
from tests.factories import tiny_config

CONFIG = tiny_config()

SIZES = (256 << 10, 4 << 20)
EXPENSIVE = {
    (name, size): case for size in SIZES for name, case in expensive_registrations(size).items()
}


def parse_body(body: bytes) -> RegisterRequest:
    """With its arrays decoded, as the service does."""

    def decoded(request: RegisterRequest) -> None:
        for image in request.images:
            assert image.descriptors is not None
            unpack(image.descriptors, 2)

    return read_request(body, RegisterRequest, decoded, 256)[0]


def register(body: bytes) -> None:
    """As `POST /gallery` does."""
    read_request(body, RegisterRequest, lambda r: decode_registration(r, CONFIG, 1 << 20), 256)


def seconds(body: bytes) -> float:
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        with contextlib.suppress(ApiError):
            register(body)
        best = min(best, time.process_time() - started)
    return best


@pytest.fixture(scope="module")
def honest() -> dict[int, float]:
    return {size: seconds(honest_registration(size)) for size in SIZES}


@pytest.mark.parametrize(("name", "size"), EXPENSIVE)
def test_a_refusal_costs_no_more_than_a_few_honest_bodies_of_the_size(
    name: str, size: int, honest: dict[int, float]
) -> None:
    body, field = EXPENSIVE[name, size]
    with pytest.raises(ApiError) as refusal:
        register(body)
    assert 400 <= refusal.value.status < 423
    if field:
        assert refusal.value.details["field"] == field
    assert len(json.dumps(refusal.value.details)) < 2000
    assert seconds(body) < 4 * honest[size]


@pytest.mark.parametrize(("name", "size"), EXPENSIVE)
def test_a_refusal_takes_little_memory(name: str, size: int) -> None:
    body, _ = EXPENSIVE[name, size]
    tracemalloc.start()
    try:
        with pytest.raises(ApiError):
            register(body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 6 * len(body) + (12 << 20)


def test_a_packed_query_is_not_copied_as_text() -> None:
    """Beside the body there are its decoded bytes and the unit rows made of them, each three
    quarters of its size."""
    rows = np.ones((1400, 1024), np.float32)
    query = {"descriptors": pack(rows), "global": pack(rows[0])}
    body = json.dumps({"query": query, "gallery_ids": ["a"]}).encode()
    assert 7 << 20 < len(body) < 8 << 20
    tracemalloc.start()
    try:
        read_request(body, RerankRequest, lambda r: decode_query(r, CONFIG, 1 << 20))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1.8 * len(body)


numbers = st.floats(-1e6, 1e6, width=32)
small = st.integers(0, 1)


@st.composite
def images(draw: st.DrawFn) -> dict[str, Any]:
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(2, 6))
    values = draw(
        st.lists(
            st.lists(numbers, min_size=columns, max_size=columns), min_size=rows, max_size=rows
        )
    )
    image: dict[str, Any] = {"id": draw(st.text("ab/.:", min_size=1, max_size=5))}
    packed = draw(st.booleans())
    image["descriptors"] = pack(np.array(values, np.float32)) if packed else values
    if draw(st.booleans()):
        image["scales"] = draw(st.none() | st.lists(small, min_size=rows, max_size=rows))
    if draw(st.booleans()):
        image["global"] = draw(st.none() | st.lists(numbers, min_size=2, max_size=9))
    if draw(st.booleans()):
        image["metadata"] = draw(st.none() | st.dictionaries(st.text(max_size=9), numbers))
    return image


@given(st.lists(images(), min_size=1, max_size=3), st.sampled_from([None, 0, 2]))
def test_a_body_means_what_pydantic_makes_of_it(images: list[dict[str, Any]], indent: int) -> None:
    body = json.dumps({"images": images, "ttl_seconds": 5}, indent=indent).encode()
    expected, got = RegisterRequest.model_validate_json(body), parse_body(body)
    assert (got.collection, got.ttl_seconds) == (expected.collection, expected.ttl_seconds)
    for one, other in zip(expected.images, got.images, strict=True):
        assert (one.id, one.scales, one.metadata) == (other.id, other.scales, other.metadata)
        for name, ndim in (("descriptors", 2), ("global_", 1)):
            a, b = getattr(one, name), getattr(other, name)
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_array_equal(unpack(a, ndim), unpack(b, ndim))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from([*RerankRequest.model_fields, "unknown"])


@given(st.dictionaries(FIELDS, json_values) | json_values)
def test_what_pydantic_refuses_is_refused(value: Any) -> None:
    body = json.dumps(value).encode()
    with pytest.raises(ValidationError):
        RerankRequest.model_validate_json(body)
    with pytest.raises(UnprocessableError) as refusal:
        read_request(body, RerankRequest, lambda _: None)
    assert refusal.value.details["field"]


@given(st.binary(max_size=40))
def test_any_bytes_are_refused_in_the_one_way(body: bytes) -> None:
    with pytest.raises(ApiError):
        parse_body(body)


def test_many_rows_are_read_in_pieces_and_none_is_lost() -> None:
    values = np.arange(MAX_ROWS * 40, dtype=np.float32).reshape(MAX_ROWS, 40)
    body = json.dumps({"images": [{"id": "a", "descriptors": values.tolist()}]}, indent=1).encode()
    descriptors = parse_body(body).images[0].descriptors
    assert descriptors is not None
    np.testing.assert_array_equal(unpack(descriptors, 2), values)


@pytest.mark.parametrize(
    ("row", "place"),
    [("[1]", ""), ('"x]"', ".9999"), ('[1,"]"]', ".9999.1"), ("[[1],[2]]", ".9999.0")],
)
def test_the_last_row_of_many_is_checked_too(row: str, place: str) -> None:
    rows = ",\n".join([json.dumps([0.5] * 40)] * (MAX_ROWS - 1) + [row])
    with pytest.raises(UnprocessableError) as refusal:
        parse_body(image_with(f"[{rows}]"))
    assert refusal.value.details["field"] == f"images.0.descriptors{place}"


def test_one_row_or_image_too_many_is_refused() -> None:
    image = {"id": "a", "descriptors": [[1, 2]] * (MAX_ROWS + 1)}
    with pytest.raises(Exception, match="over 10,000 rows"):
        parse_body(json.dumps({"images": [image]}).encode())
    with pytest.raises(TooLargeError, match="over 256"):
        parse_body(json.dumps({"images": [{"id": "a", "descriptors": [[1, 2]]}] * 257}).encode())


def test_a_byte_order_mark_is_no_fault() -> None:
    assert (
        parse_body(b'\xef\xbb\xbf{"images":[{"id":"a","descriptors":[[1,2]]}]}').images[0].id == "a"
    )


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{} x", b'{"images":[}', b'{"unknown":[}', b'{"collection":"\xff"}']
)
def test_what_is_no_json_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(InvalidJsonError):
        parse_body(body)
