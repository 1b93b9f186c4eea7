"""Every row of the error table that a request alone can bring about, each in the one shape that
errors have; `test_faults.py` has the rest."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from locore_client import packed_image
from model.descriptors import ImageDescriptors
from service.gallery.record import GalleryRecord, pack_record
from tests.e2e.service import RunningService, code_of
from tests.factories import LOCAL_DIM, tiny_config

CONFIG = tiny_config()
Images = dict[str, ImageDescriptors]


def body_of(query: ImageDescriptors, /, **changes: Any) -> dict[str, Any]:
    return {"query": packed_image(query), "gallery_ids": ["image-000", "image-001"]} | changes


def descriptors(value: float, rows: int = 1) -> list[list[float]]:
    return [[value] * LOCAL_DIM for _ in range(rows)]


@pytest.mark.parametrize("path", ["/rerank", "/gallery"])
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"images": [}'])
def test_400_invalid_json(service: RunningService, path: str, body: bytes) -> None:
    assert code_of(service.http.post(path, content=body)) == (400, "invalid_json")


RERANK_ERRORS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown field": ({"topn": 3}, "validation_error", "topn"),
    "no ids": ({"gallery_ids": []}, "validation_error", "gallery_ids"),
    "too many ids": (
        {"gallery_ids": [f"i{n}" for n in range(1601)]},
        "validation_error",
        "gallery_ids",
    ),
    "bad id": ({"gallery_ids": ["a b"]}, "validation_error", "gallery_ids.0"),
    "an id twice": ({"gallery_ids": ["a", "b", "a"]}, "duplicate_gallery_ids", "gallery_ids"),
    "alpha": ({"alpha": 1.5}, "validation_error", "alpha"),
    "temperature": ({"temperature": 0}, "validation_error", "temperature"),
    "stride over window": ({"window": 10, "stride": 11}, "validation_error", "stride"),
    "direction": ({"direction": "sideways"}, "validation_error", "direction"),
    "on_missing": ({"on_missing": "ignore"}, "validation_error", "on_missing"),
    "timeout": ({"timeout_ms": 0}, "validation_error", "timeout_ms"),
    "scores too few": ({"global_scores": [1.0]}, "validation_error", "global_scores"),
    "no query": ({"query": None}, "validation_error", "query"),
    "no form of query": ({"query": {}}, "validation_error", "query"),
    "no descriptors": ({"query": {"global": [1.0]}}, "validation_error", "query"),
    "two forms of query": (
        {"query": {"id": "image-000", "descriptors": descriptors(1)}},
        "validation_error",
        "query",
    ),
    "an id and what is for descriptors": (
        {"query": {"id": "image-000", "scales": [1]}},
        "validation_error",
        "query.scales",
    ),
    "bad query id": ({"query": {"id": "a b"}}, "validation_error", "query.id"),
    "no query id": ({"query": {"id": None}}, "validation_error", "query.id"),
    "query is a text": ({"query": "image-000"}, "validation_error", "query"),
    "min_score": ({"min_score": "much"}, "validation_error", "min_score"),
    "min_score beyond all scores": ({"min_score": 1e39}, "validation_error", "min_score"),
    "no rows": ({"query": {"descriptors": []}}, "validation_error", "query.descriptors"),
    "ragged": (
        {"query": {"descriptors": [[1.0], [1.0, 2.0]]}},
        "validation_error",
        "query.descriptors",
    ),
    "scales": (
        {"query": {"descriptors": descriptors(1), "scales": [1, 2]}},
        "validation_error",
        "query.scales",
    ),
    "mask": (
        {"query": {"descriptors": descriptors(1), "mask": [0, 1]}},
        "validation_error",
        "query.mask",
    ),
    "all masked": (
        {"query": {"descriptors": descriptors(1), "mask": [1]}},
        "invalid_descriptors",
        "query.descriptors",
    ),
    "packed too short": (
        {
            "query": {
                "descriptors": {
                    "dtype": "float32",
                    "shape": [1, LOCAL_DIM],
                    "data": base64.b64encode(b"12").decode(),
                }
            }
        },
        "validation_error",
        "query.descriptors",
    ),
    "packed dtype": (
        {"query": {"descriptors": {"dtype": "int8", "shape": [1, 8], "data": ""}}},
        "validation_error",
        "query.descriptors.dtype",
    ),
    "dimension": (
        {"query": {"descriptors": [[1.0, 2.0]]}},
        "descriptor_dim_mismatch",
        "query.descriptors",
    ),
    "global dimension": (
        {"query": {"descriptors": descriptors(1), "global": [1.0, 2.0]}},
        "descriptor_dim_mismatch",
        "query.global",
    ),
    "a million wrong elements": (
        {"query": {"descriptors": ["x"] * 100_000}},
        "validation_error",
        "query.descriptors.0",
    ),
    "score": ({"global_scores": [1e39, 0]}, "validation_error", "global_scores.0"),
    "packed shape": (
        {"query": {"descriptors": {"dtype": "float32", "shape": [0, 2**62], "data": ""}}},
        "validation_error",
        "query.descriptors.shape.0",
    ),
    "zeros": (
        {"query": {"descriptors": descriptors(0)}},
        "invalid_descriptors",
        "query.descriptors",
    ),
}


@pytest.mark.parametrize("name", RERANK_ERRORS)
def test_422_of_rerank_names_the_field(
    service: RunningService, query: ImageDescriptors, name: str
) -> None:
    changes, code, field = RERANK_ERRORS[name]
    response = service.http.post("/rerank", json=body_of(query, **changes))
    assert code_of(response) == (422, code)
    assert response.json()["error"]["details"]["field"] == field


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e300"])
def test_422_what_is_no_number(service: RunningService, number: str) -> None:
    rows = ", ".join([number] + ["1"] * (LOCAL_DIM - 1))
    content = f'{{"query": {{"descriptors": [[{rows}]]}}, "gallery_ids": ["image-000"]}}'
    response = service.http.post("/rerank", content=content)
    assert code_of(response) == (422, "invalid_descriptors")


@pytest.mark.parametrize(
    ("parameters", "field"),
    [({"limit": "0"}, "limit"), ({"limit": "x"}, "limit"), ({"cursor": "ä"}, "cursor")],
)
def test_422_of_query_parameters(
    service: RunningService, parameters: dict[str, str], field: str
) -> None:
    response = service.http.get("/gallery", params=parameters)
    assert code_of(response) == (422, "validation_error")
    assert response.json()["error"]["details"]["field"] == field


GOOD = {"id": "good", "descriptors": descriptors(1)}
BAD_IMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "zeros": ({"id": "bad", "descriptors": descriptors(0)}, "invalid_descriptors"),
    "dimension": ({"id": "bad", "descriptors": [[1.0, 2.0]]}, "descriptor_dim_mismatch"),
    "id": ({"id": "b d", "descriptors": descriptors(1)}, "validation_error"),
    "long id": ({"id": "b" * 257, "descriptors": descriptors(1)}, "validation_error"),
    "twice": (GOOD, "validation_error"),
    "mask": ({"id": "bad", "descriptors": descriptors(1), "mask": [2]}, "validation_error"),
    "scale": ({"id": "bad", "descriptors": descriptors(1), "scales": [256]}, "validation_error"),
    "metadata": (
        {"id": "bad", "descriptors": descriptors(1), "metadata": {"x": "y" * 4097}},
        "validation_error",
    ),
    "unknown field": ({"id": "bad", "descriptors": descriptors(1), "url": ""}, "validation_error"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_422_of_registration_stores_nothing(service: RunningService, name: str) -> None:
    bad, code = BAD_IMAGES[name]
    body = {"collection": "refused", "images": [GOOD, bad]}
    response = service.http.post("/gallery", json=body)
    assert code_of(response) == (422, code)
    assert response.json()["error"]["details"]["field"].startswith("images.1")
    page = service.http.get("/gallery", params={"collection": "refused"}).json()
    assert page == {
        "collection": "refused",
        "count": 0,
        "ids": [],
        "next_cursor": None,
        "sizes": None,
    }


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"\\ud800"'])
def test_422_metadata_that_is_no_json(service: RunningService, value: str) -> None:
    rows = ", ".join(["1"] * LOCAL_DIM)
    image = f'{{"id": "x", "descriptors": [[{rows}]], "metadata": {{"x": {value}}}}}'
    response = service.http.post("/gallery", content=f'{{"images": [{image}]}}')
    assert code_of(response)[0] in (400, 422)
    assert service.http.get("/gallery/x").status_code == 404


def test_404_unknown_ids(service: RunningService, query: ImageDescriptors) -> None:
    unknown = [f"none-{n}" for n in range(30)]
    response = service.rerank(query, ["image-000", *unknown])
    assert code_of(response) == (404, "gallery_ids_missing")
    assert response.json()["error"]["details"] == {"missing": unknown[:20], "count": 30}
    response = service.rerank(query, unknown, on_missing="skip")
    assert code_of(response) == (404, "gallery_ids_missing")


def test_404_unknown_query(service: RunningService) -> None:
    body = {"query": {"id": "none"}, "gallery_ids": ["image-000", "none-either"]}
    response = service.http.post("/rerank", json=body)
    assert code_of(response) == (404, "not_found")
    assert response.json()["error"]["details"] == {"field": "query.id", "id": "none"}


def test_404_and_405_of_paths(service: RunningService) -> None:
    http = service.http
    assert code_of(http.get("/nothing")) == (404, "not_found")
    assert code_of(http.get("/gallery/none")) == (404, "not_found")
    assert code_of(http.delete("/gallery/none")) == (404, "not_found")
    assert code_of(http.get("/rerank")) == (405, "method_not_allowed")
    assert code_of(http.put("/gallery", json={})) == (405, "method_not_allowed")
    assert code_of(http.post("/rerank/", json={})) == (404, "not_found")


def test_request_ids_are_taken_over_or_made(service: RunningService) -> None:
    answer = service.http.get("/nothing", headers={"X-Request-ID": "my-request.1"})
    assert answer.headers["X-Request-ID"] == "my-request.1"
    made = service.http.get("/health/live").headers["X-Request-ID"]
    assert len(made) >= 16
    unfit = service.http.get("/health/live", headers={"X-Request-ID": "a b\tc"})
    assert unfit.headers["X-Request-ID"] not in ("a b\tc", made)
    assert '"request_id": "my-request.1"' in service.log


def test_500_names_a_damaged_record_and_shows_no_trace(
    service: RunningService, query: ImageDescriptors, gallery: Images
) -> None:
    service.register({"broken": gallery["image-001"]}, collection="damaged")
    (socket,) = Path(service._log.parent).rglob("valkey.sock")
    with redis.Redis(unix_socket_path=str(socket)) as raw:
        raw.set("locore:image:damaged|broken", b"not a record, but long enough to have a header")
    response = service.rerank(query, ["broken"], collection="damaged")
    # The image may still be in the cache for as long as a cached image is trusted.
    until = time.monotonic() + 3
    while response.status_code == 200 and time.monotonic() < until:
        time.sleep(0.1)
        response = service.rerank(query, ["broken"], collection="damaged")
    assert code_of(response) == (500, "internal")
    assert response.json()["error"]["details"] == {"id": "broken"}
    assert "Traceback" not in response.text
    answer = service.http.get("/gallery/broken", params={"collection": "damaged"})
    assert code_of(answer) == (500, "internal")


def test_a_query_that_does_not_fit_what_was_stored_is_refused(
    service: RunningService, query: ImageDescriptors
) -> None:
    """An image that was stored before collections had sizes: the collection has the image's."""
    other = ImageDescriptors(np.ones((2, LOCAL_DIM + 1), np.float32), np.zeros(2, np.uint8))
    (socket,) = Path(service._log.parent).rglob("valkey.sock")
    with redis.Redis(unix_socket_path=str(socket)) as raw:
        record = pack_record("old", "old-image", GalleryRecord(other), "float16")
        raw.set("locore:image:old|old-image", record)
    response = service.rerank(query, ["old-image"], collection="old")
    assert code_of(response) == (422, "descriptor_dim_mismatch")
    details = response.json()["error"]["details"]
    wanted = {"field": "query.descriptors", "expected": LOCAL_DIM + 1, "found": LOCAL_DIM}
    assert details == wanted
