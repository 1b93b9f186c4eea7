"""Both clients against a real service: everything once blocking, once with asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from both_clients import Blocking, both
from locore_client import (
    ERRORS,
    AsyncClient,
    Client,
    ClientError,
    DeadlineExceededError,
    DescriptorDimMismatchError,
    DuplicateGalleryIdsError,
    GalleryIdsMissingError,
    InternalError,
    InvalidDescriptorsError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    OverloadedError,
    PayloadTooLargeError,
    RequestValidationError,
    ShuttingDownError,
    StoreFullError,
    StoreUnavailableError,
    TooManyImagesError,
    UnauthorizedError,
    UnreachableError,
)
from model.descriptors import ImageDescriptors
from tests.e2e.service import OnRedis, RunningService, free_port, ids_of, running
from tests.e2e.test_lifecycle import slow_request
from tests.e2e.valkey import plain_valkey
from tests.factories import LOCAL_DIM, image, tiny_config

CONFIG = tiny_config()
Images = dict[str, ImageDescriptors]


def made_up(count: int) -> Iterator[tuple[str, ImageDescriptors]]:
    rng = np.random.default_rng(5)
    for n in range(count):
        yield f"many/{n:04}", image(rng, CONFIG, 2, with_global=n % 2 > 0)


@both
def test_a_registration_is_split_by_the_service_s_limits(
    strict: RunningService, kind: type[Blocking], gallery: Images
) -> None:
    collection = f"split-{kind.__name__}"
    client = kind(strict.url, "secret", max_images_per_request=20, max_payload_bytes=20_000)
    images = dict(list(gallery.items())[:100])
    assert client.register(images, collection).registered == 100
    assert client.ids(collection) == list(images)

    heavy = np.ones((900, LOCAL_DIM), np.float32)
    few = dict(list(images.items())[:3])
    with pytest.raises(PayloadTooLargeError) as large:
        client.register({**few, "heavy": heavy}, f"{collection}-heavy")
    assert (large.value.registered, large.value.status) == (3, 413)
    too_high = kind(strict.url, "secret")
    with pytest.raises(TooManyImagesError) as many:
        too_high.register(dict(made_up(21)), collection)
    assert many.value.registered == 0


def test_50_requests_at_a_time_get_through_a_queue_that_holds_one(
    strict: RunningService, query: ImageDescriptors
) -> None:
    rejected = 'locore_rejected_total{reason="queue_full"}'
    ids = ["image-000", "image-001"]

    async def work(retries: int, requests: int) -> list[Any]:
        async with AsyncClient(strict.url, "secret", retries=retries) as client:
            asked = (
                client.rerank(query, ids, "default", window=1, stride=1) for _ in range(requests)
            )
            return await asyncio.gather(*asked, return_exceptions=True)

    without = asyncio.run(work(0, 50))
    refused = [answer for answer in without if isinstance(answer, OverloadedError)]
    assert refused
    for error in refused:
        assert (error.status, error.code) == (429, "overloaded")
        assert error.retry_after is not None
        assert error.retry_after >= 1
        assert error.request_id
    before = strict.metric(rejected)
    patient = asyncio.run(work(40, 50))
    assert strict.metric(rejected) > before
    assert {tuple(sorted(r.id for r in answer.results)) for answer in patient} == {tuple(ids)}


def test_threads_share_a_client_and_wait_out_a_429(
    strict: RunningService, query: ImageDescriptors
) -> None:
    with Client(strict.url, "secret", retries=40) as client, ThreadPoolExecutor(16) as pool:

        def ask(_: int) -> int:
            answer = client.rerank(query, ["image-000", "image-001"], window=1, stride=1)
            return len(answer.results)

        assert list(pool.map(ask, range(48))) == [2] * 48


@both
def test_a_store_that_comes_back_is_waited_for(
    on_redis: OnRedis, tmp_path: Path, kind: type[Blocking], query: ImageDescriptors
) -> None:
    service, port = on_redis
    images = dict(made_up(3))
    with pytest.raises(StoreUnavailableError) as raised:
        kind(service.url, retries=0).register(images)
    assert (raised.value.status, raised.value.retry_after) == (503, None)
    with pytest.raises(StoreUnavailableError):
        kind(service.url).ready()
    started = time.monotonic()
    # The time may be over in a wait or in one more try.
    over = (StoreUnavailableError, DeadlineExceededError)
    with pytest.raises(over, match="the gallery store does not answer"):
        kind(service.url, retries=100, timeout=1).register(images)
    assert time.monotonic() - started < 3

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(kind(service.url, retries=100).register, images)
        time.sleep(0.5)
        assert not waiting.done()
        with plain_valkey(port, tmp_path):
            assert waiting.result(30).registered == 3
            assert kind(service.url).rerank(query, list(images)).usage.images == 3


@both
def test_a_full_store_and_a_damaged_record(
    on_redis: OnRedis, tmp_path: Path, kind: type[Blocking]
) -> None:
    service, port = on_redis
    client = kind(service.url)
    with plain_valkey(port, tmp_path), redis.Redis(port=port) as raw:
        raw.config_set("maxmemory", 1)
        with pytest.raises(StoreFullError) as full:
            client.register(dict(made_up(2)))
        assert full.value.status == 507
        raw.config_set("maxmemory", 0)
        client.register(dict(made_up(1)))
        (key,) = raw.keys("*many/0000*")
        raw.set(key, b"not a record, but long enough to have a header")
        with pytest.raises(InternalError, match="damaged") as broken:
            client.get("many/0000")
        assert (broken.value.status, broken.value.image_id) == (500, "many/0000")
        assert broken.value.request_id


@both
def test_each_mistake_has_its_error(
    service: RunningService, strict: RunningService, kind: type[Blocking], query: ImageDescriptors
) -> None:
    client, one = kind(service.url), ["image-001"]

    def fails(error: type[ClientError], method: str, *arguments: Any, **how: Any) -> ClientError:
        with pytest.raises(error) as raised:
            getattr(how.pop("client", client), method)(*arguments, **how)
        exception = raised.value
        assert type(exception) is error
        if exception.status is not None:
            assert ERRORS[exception.code] is error
            assert exception.request_id == "find-me"
        return exception

    how: dict[str, Any] = {"request_id": "find-me"}
    locked = fails(UnauthorizedError, "page", client=kind(strict.url), **how)
    assert locked.status == 401
    fails(UnauthorizedError, "rerank", query, one, client=kind(strict.url, "wrong"), **how)
    fails(NotFoundError, "get", "nobody", **how)
    missing = fails(GalleryIdsMissingError, "rerank", query, ["image-001", "x", "y"], **how)
    assert isinstance(missing, GalleryIdsMissingError)
    assert (missing.missing, missing.count) == (["x", "y"], 2)
    fails(MethodNotAllowedError, "rerank", query, one, client=kind(f"{service.url}/gallery"), **how)
    wrong = fails(RequestValidationError, "rerank", query, one, alpha=2, **how)
    assert wrong.field == "alpha"
    assert fails(RequestValidationError, "get", "a b", **how).field == "image_id"
    narrow = np.ones((1, 3))
    assert fails(DescriptorDimMismatchError, "rerank", narrow, one, **how).field == (
        "query.descriptors"
    )
    zeros = np.zeros((1, LOCAL_DIM))
    fails(InvalidDescriptorsError, "rerank", zeros, one, **how)
    twice = fails(DuplicateGalleryIdsError, "rerank", query, one * 2, **how)
    assert twice.image_id == "image-001"
    assert fails(InvalidDescriptorsError, "rerank", np.ones(3), one, **how).status is None
    assert fails(InvalidRequestError, "rerank", query, one, alpha=np.nan, **how).status is None
    fails(InvalidRequestError, "ready", client=kind("localhost:8000"))
    closed = kind(f"http://127.0.0.1:{free_port()}", retries=1)
    gone = fails(UnreachableError, "rerank", query, one, client=closed, **how)
    assert (gone.code, gone.status, gone.request_id) == ("unreachable", None, "find-me")


def test_a_service_that_drains_says_so(
    checkpoint: Path, tmp_path: Path, gallery: Images, query: ImageDescriptors
) -> None:
    with running(checkpoint, tmp_path) as service, ThreadPoolExecutor(1) as pool:
        slow = slow_request(service, pool, query, gallery, direction="end-to-start-to-end")
        service.process.terminate()
        with Client(service.url, retries=0) as client:
            while True:
                try:
                    client.ready()
                    assert not slow.done()
                except ShuttingDownError:
                    break
            with pytest.raises(ShuttingDownError) as raised:
                client.rerank(query, ["image-001"])
            assert raised.value.retry_after == 5
            # A wait of 5 seconds does not fit: the refusal comes at once.
            started = time.monotonic()
            with pytest.raises(ShuttingDownError), Client(service.url) as patient:
                patient.rerank(query, ["image-001"], timeout=3)
            assert time.monotonic() - started < 3
        assert len(ids_of(slow.result())) == 210


@both
def test_a_deadline_ends_the_work_in_the_service_too(
    service: RunningService, gallery: Images, query: ImageDescriptors, kind: type[Blocking]
) -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError) as raised:
        kind(service.url).rerank(query, list(gallery), window=2, stride=1, timeout=0.1)
    assert time.monotonic() - started < 3
    assert (raised.value.code, raised.value.status) in {
        ("deadline_exceeded", 504),
        ("deadline_exceeded", None),
    }
    until = time.monotonic() + 5
    while service.metric("locore_queue_tokens") and time.monotonic() < until:
        time.sleep(0.02)
    assert service.metric("locore_queue_tokens") == 0
    shorter = kind(service.url)
    with pytest.raises(DeadlineExceededError) as told:
        shorter.rerank(query, list(gallery), window=2, stride=1, timeout_ms=40)
    assert told.value.status == 504


@both
def test_a_request_id_is_found_in_the_log(service: RunningService, kind: type[Blocking]) -> None:
    named = f"find-me-{kind.__name__}"
    kind(service.url).page(request_id=named)
    with pytest.raises(NotFoundError) as raised:
        kind(service.url).get("nobody")
    for expected in (named, raised.value.request_id):
        until = time.monotonic() + 5
        # A line is written once the answer is sent.
        while f'"request_id": "{expected}"' not in service.log:
            assert time.monotonic() < until
            time.sleep(0.02)
