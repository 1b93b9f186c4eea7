"""Errors of limits and faults: keys, sizes, a full queue, deadlines, a store that is away."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from locore_client import packed_image
from model.descriptors import ImageDescriptors
from tests.e2e.service import OnRedis, RunningService, code_of, ids_of
from tests.e2e.valkey import plain_valkey
from tests.factories import LOCAL_DIM, tiny_config

CONFIG = tiny_config()
Images = dict[str, ImageDescriptors]


def body_of(query: ImageDescriptors, /, **changes: Any) -> dict[str, Any]:
    return {"query": packed_image(query), "gallery_ids": ["image-000", "image-001"]} | changes


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
        open_to_all = (
            *("/health/live", "/health/ready", "/info", "/metrics"),
            *("/docs", "/openapi.json", "/"),
        )
        for path in open_to_all:
            assert http.get(path, follow_redirects=True).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/rerank", "/gallery"])
def test_413_payload_too_large(strict: RunningService, path: str, chunked: bool) -> None:
    body = b" " * 1_000_000
    content = iter([body[:9_000]] * 10) if chunked else body
    assert code_of(strict.http.post(path, content=content)) == (413, "payload_too_large")


def test_413_too_many_images(strict: RunningService) -> None:
    images = [{"id": str(n), "descriptors": [[1.0] * LOCAL_DIM]} for n in range(21)]
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
    gone = 'locore_requests_total{endpoint="rerank",status="499"}'
    before = service.metric(gone)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{service.url}/rerank", json=body, timeout=0.15)
    until = time.monotonic() + 5
    while service.metric(gone) == before and time.monotonic() < until:
        time.sleep(0.05)
    assert service.metric(gone) == before + 1
    assert service.metric("locore_queue_tokens") == 0


def test_503_store_unavailable(on_redis: OnRedis, tmp_path: Path, query: ImageDescriptors) -> None:
    """A service is live but not ready while its Redis is away, and ready once it is there."""
    service, port = on_redis
    assert code_of(service.rerank(query, ["a"])) == (503, "store_unavailable")
    assert code_of(service.http.get("/gallery")) == (503, "store_unavailable")
    assert code_of(service.http.get("/health/ready")) == (503, "store_unavailable")
    assert service.http.get("/health/live").status_code == 200
    assert service.metric("locore_store_up") == 0
    with plain_valkey(port, tmp_path):
        assert service.http.get("/health/ready").status_code == 200
        assert service.metric("locore_store_up") == 1


def test_503_when_the_store_refuses_writes(
    on_redis: OnRedis, tmp_path: Path, gallery: Images
) -> None:
    service, port = on_redis
    with plain_valkey(port, tmp_path), redis.Redis(port=port) as raw:
        # As after a failed snapshot: reads are answered, writes are not.
        raw.config_set("min-replicas-to-write", 1)
        response = service.register({"ROOM-1": gallery["image-001"]})
        assert code_of(response) == (503, "store_unavailable")
        assert service.http.get("/gallery").json()["count"] == 0


def test_507_store_full(on_redis: OnRedis, tmp_path: Path, gallery: Images) -> None:
    service, port = on_redis
    with plain_valkey(port, tmp_path), redis.Redis(port=port) as raw:
        raw.config_set("maxmemory", 1)
        response = service.register({"a": gallery["image-001"], "b": gallery["image-002"]})
        assert code_of(response) == (507, "store_full")
        raw.config_set("maxmemory", 0)
        assert service.http.get("/gallery").json()["count"] == 0
