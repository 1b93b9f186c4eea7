"""Every row of the contract's error table, each in the one shape that errors have."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis

from model.descriptors import ImageDescriptors
from service.client import packed_image
from service.gallery.record import GalleryRecord, pack_record
from tests.e2e.service import RunningService, code_of, free_port, ids_of, running
from tests.e2e.valkey import plain_valkey
from tests.factories import tiny_config

CONFIG = tiny_config()
Images = dict[str, ImageDescriptors]


def body_of(query: ImageDescriptors, /, **changes: Any) -> dict[str, Any]:
    return {"query": packed_image(query), "gallery_ids": ["image-000", "image-001"]} | changes


def descriptors(value: float, rows: int = 1) -> list[list[float]]:
    return [[value] * CONFIG.descriptor_dim for _ in range(rows)]


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
    "no descriptors": ({"query": {}}, "validation_error", "query.descriptors"),
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
    "packed too short": (
        {
            "query": {
                "descriptors": {
                    "dtype": "float32",
                    "shape": [1, CONFIG.descriptor_dim],
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
        {"query": {"descriptors": descriptors(1), "global": [1.0]}},
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
    rows = ", ".join([number] + ["1"] * (CONFIG.descriptor_dim - 1))
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
    "dimension": ({"id": "bad", "descriptors": [[1.0]]}, "descriptor_dim_mismatch"),
    "id": ({"id": "b d", "descriptors": descriptors(1)}, "validation_error"),
    "long id": ({"id": "b" * 257, "descriptors": descriptors(1)}, "validation_error"),
    "twice": (GOOD, "validation_error"),
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
    assert page == {"count": 0, "ids": [], "next_cursor": None}


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"\\ud800"'])
def test_422_metadata_that_is_no_json(service: RunningService, value: str) -> None:
    rows = ", ".join(["1"] * CONFIG.descriptor_dim)
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


def test_404_and_405_of_paths(service: RunningService) -> None:
    http = service.http
    assert code_of(http.get("/nothing")) == (404, "not_found")
    assert code_of(http.get("/gallery/none")) == (404, "not_found")
    assert code_of(http.delete("/gallery/none")) == (404, "not_found")
    assert code_of(http.get("/rerank")) == (405, "method_not_allowed")
    assert code_of(http.put("/gallery", json={})) == (405, "method_not_allowed")
    assert code_of(http.post("/rerank/", json={})) == (404, "not_found")


def test_request_ids_are_taken_over_or_made(service: RunningService) -> None:
    given = service.http.get("/nothing", headers={"X-Request-ID": "my-request.1"})
    assert given.headers["X-Request-ID"] == "my-request.1"
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
        raw.set("locore:{damaged}:image:broken", b"not a record, but long enough to have a header")
    response = service.rerank(query, ["broken"], collection="damaged")
    # The image may still be in the cache for as long as a cached image is trusted.
    until = time.monotonic() + 3
    while response.status_code == 200 and time.monotonic() < until:
        time.sleep(0.1)
        response = service.rerank(query, ["broken"], collection="damaged")
    assert code_of(response) == (500, "internal")
    assert response.json()["error"]["details"] == {"id": "broken"}
    assert "Traceback" not in response.text
    shown = service.http.get("/gallery/broken", params={"collection": "damaged"})
    assert code_of(shown) == (500, "internal")


@pytest.fixture(scope="module")
def strict(
    checkpoint: Path, gallery: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    """A service with a key and small limits."""
    with running(
        checkpoint,
        tmp_path_factory.mktemp("strict"),
        api_key="secret",
        max_payload_bytes=20_000,
        max_images_per_request=2,
        max_queue_tokens=100,
        max_batch_tokens=1_000,
    ) as started:
        started.http.headers["Authorization"] = "Bearer secret"
        assert started.register({i: gallery[i] for i in ("image-000", "image-001")}).is_success
        yield started


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic secret", "secret", "Bearer"])
def test_401_without_the_key(strict: RunningService, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    with httpx.Client(base_url=strict.url, headers=headers) as http:
        for method, path in (
            ("POST", "/rerank"),
            ("POST", "/gallery"),
            ("GET", "/gallery"),
            ("GET", "/gallery/image-000"),
            ("DELETE", "/gallery/image-000"),
        ):
            response = http.request(method, path)
            assert code_of(response) == (401, "unauthorized")
            assert response.headers["WWW-Authenticate"] == "Bearer"
        open_to_all = ("/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json", "/")
        for path in open_to_all:
            assert http.get(path, follow_redirects=True).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/rerank", "/gallery"])
def test_413_payload_too_large(strict: RunningService, path: str, chunked: bool) -> None:
    body = b" " * 1_000_000
    content = iter([body[:9_000]] * 10) if chunked else body
    assert code_of(strict.http.post(path, content=content)) == (413, "payload_too_large")


def test_413_too_many_images(strict: RunningService) -> None:
    images = [{"id": str(n), "descriptors": descriptors(1)} for n in range(3)]
    response = strict.http.post("/gallery", json={"images": images})
    assert code_of(response) == (413, "too_many_images")
    assert strict.http.get("/gallery").json()["count"] == 2


def at_once(service: RunningService, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
    async def work() -> list[httpx.Response]:
        async with httpx.AsyncClient(
            base_url=service.url, timeout=60, headers=service.http.headers
        ) as http:
            return await asyncio.gather(*(http.post("/rerank", json=body) for body in bodies))

    return asyncio.run(work())


def test_429_overloaded_says_when_to_come_back(
    strict: RunningService, query: ImageDescriptors
) -> None:
    # Windows of one image: two forward passes of 16 tokens each, 64 admitted for the two.
    body = body_of(query, window=1, stride=1)
    rejected = 'locore_rejected_total{reason="queue_full"}'
    before = strict.metric(rejected)
    answers = at_once(strict, [body] * 100)
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert strict.metric(rejected) > before
    for answer in refused:
        assert code_of(answer) == (429, "overloaded")
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
    for answer in answers:
        if answer not in refused:
            assert len(ids_of(answer)) == 2
    assert len(ids_of(strict.http.post("/rerank", json=body))) == 2
    assert strict.metric("locore_queue_tokens") == 0


def test_504_deadline_exceeded_frees_the_queue(
    service: RunningService, gallery: Images, query: ImageDescriptors
) -> None:
    body = body_of(query, gallery_ids=list(gallery), window=2, stride=1, timeout_ms=40)
    response = service.http.post("/rerank", json=body)
    assert code_of(response) == (504, "deadline_exceeded")
    assert service.metric("locore_queue_tokens") == 0
    assert len(ids_of(service.rerank(query, ["image-000"]))) == 1


def test_a_client_that_disconnects_frees_the_queue(
    service: RunningService, gallery: Images, query: ImageDescriptors
) -> None:
    body = body_of(query, gallery_ids=list(gallery), window=2, stride=1, timeout_ms=600_000)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{service.url}/rerank", json=body, timeout=0.15)
    gone = 'locore_requests_total{endpoint="rerank",status="499"}'
    until = time.monotonic() + 5
    while not service.metric(gone) and time.monotonic() < until:
        time.sleep(0.05)
    assert service.metric(gone) == 1
    assert service.metric("locore_queue_tokens") == 0


def test_503_store_unavailable(checkpoint: Path, tmp_path: Path, query: ImageDescriptors) -> None:
    """A service is live but not ready while its Redis is away, and ready once it is there."""
    port = free_port()
    with plain_valkey(port, tmp_path) as valkey:
        url = f"redis://127.0.0.1:{port}"
        with running(checkpoint, tmp_path / "data", redis_url=url) as service:
            assert service.metric("locore_store_up") == 1
            valkey.kill()
            valkey.wait()
            assert code_of(service.rerank(query, ["a"])) == (503, "store_unavailable")
            assert code_of(service.http.get("/gallery")) == (503, "store_unavailable")
            assert code_of(service.http.get("/health/ready")) == (503, "store_unavailable")
            assert service.http.get("/health/live").status_code == 200
            assert service.metric("locore_store_up") == 0
            with plain_valkey(port, tmp_path):
                assert service.http.get("/health/ready").status_code == 200
                assert service.metric("locore_store_up") == 1


def test_503_when_the_store_refuses_writes(
    checkpoint: Path, tmp_path: Path, gallery: Images
) -> None:
    port = free_port()
    with plain_valkey(port, tmp_path), redis.Redis(port=port) as raw:
        url = f"redis://127.0.0.1:{port}"
        with running(checkpoint, tmp_path / "data", redis_url=url) as service:
            # As after a failed snapshot: reads are answered, writes are not.
            raw.config_set("min-replicas-to-write", 1)
            response = service.register({"ROOM-1": gallery["image-001"]})
            assert code_of(response) == (503, "store_unavailable")
            assert service.http.get("/gallery").json()["count"] == 0


def test_507_store_full(checkpoint: Path, tmp_path: Path, gallery: Images) -> None:
    port = free_port()
    with plain_valkey(port, tmp_path), redis.Redis(port=port) as raw:
        url = f"redis://127.0.0.1:{port}"
        with running(checkpoint, tmp_path / "data", redis_url=url) as service:
            raw.config_set("maxmemory", 1)
            response = service.register({"a": gallery["image-001"], "b": gallery["image-002"]})
            assert code_of(response) == (507, "store_full")
            raw.config_set("maxmemory", 0)
            assert service.http.get("/gallery").json()["count"] == 0


def test_descriptors_of_another_checkpoint_are_refused(
    service: RunningService, query: ImageDescriptors
) -> None:
    """An image that was registered when the checkpoint was another one."""
    other = ImageDescriptors(
        np.ones((2, CONFIG.descriptor_dim + 1), np.float32), np.zeros(2, np.uint8)
    )
    (socket,) = Path(service._log.parent).rglob("valkey.sock")
    with redis.Redis(unix_socket_path=str(socket)) as raw:
        record = pack_record("old", "old-image", GalleryRecord(other), "float16")
        raw.set("locore:{old}:image:old-image", record)
    response = service.rerank(query, ["old-image"], collection="old")
    assert code_of(response) == (422, "descriptor_dim_mismatch")
    assert response.json()["error"]["details"]["id"] == "old-image"
