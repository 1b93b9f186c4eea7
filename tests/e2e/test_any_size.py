"""Collections of any size of descriptors behind a model that takes any."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis

from model.descriptors import ImageDescriptors
from service.gallery.record import GalleryRecord, pack_record
from tests.any_size import COMMAND, chamfer
from tests.e2e.service import RunningService, code_of, ids_of, running, stored
from tests.factories import unit


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with running(
        Path("none.safetensors"), tmp_path_factory.mktemp("data"), command=COMMAND
    ) as started:
        yield started


def image(rng: np.random.Generator, dim: int, global_dim: int | None = None) -> ImageDescriptors:
    global_ = None if global_dim is None else unit(rng, 1, global_dim)[0]
    return ImageDescriptors(unit(rng, 4, dim), np.zeros(4, np.uint8), global_)


def images(dim: int, global_dim: int | None = None, count: int = 3) -> dict[str, ImageDescriptors]:
    rng = np.random.default_rng(dim)
    return {f"image-{n}": image(rng, dim, global_dim) for n in range(count)}


def sizes_of(service: RunningService, collection: str) -> dict[str, int | None] | None:
    page = service.http.get("/gallery", params={"collection": collection}).json()
    sizes: dict[str, int | None] | None = page["sizes"]
    return sizes


def mismatch(response: httpx.Response) -> dict[str, Any]:
    assert code_of(response) == (422, "descriptor_dim_mismatch")
    details: dict[str, Any] = response.json()["error"]["details"]
    return details


def test_lists_of_several_sizes_are_re_ranked_side_by_side(service: RunningService) -> None:
    dims = (2, 5, 64, 300)
    galleries = {dim: images(dim, count=20) for dim in dims}
    queries = {dim: image(np.random.default_rng(1), dim) for dim in dims}
    for dim in dims:
        assert service.register(galleries[dim], collection=f"of-{dim}").is_success

    def order(dim: int) -> list[str]:
        answer = service.rerank(queries[dim], list(galleries[dim]), collection=f"of-{dim}")
        return ids_of(answer)

    with ThreadPoolExecutor(16) as pool:
        orders = list(pool.map(order, dims * 8))
    for dim, order_found in zip(dims * 8, orders, strict=True):
        likeness = {i: chamfer(queries[dim], stored(im)) for i, im in galleries[dim].items()}
        assert order_found == sorted(likeness, key=lambda i: -likeness[i])


def test_a_collection_keeps_the_sizes_of_its_first_images(service: RunningService) -> None:
    assert sizes_of(service, "kept") is None
    assert service.register(images(8), collection="kept").is_success
    assert sizes_of(service, "kept") == {"local": 8, "global": None}
    new = {"new": image(np.random.default_rng(0), 9)}
    details = mismatch(service.register(new, collection="kept"))
    assert details == {"field": "images.0.descriptors", "expected": 8, "found": 9, "id": "new"}
    assert service.register(images(8, 12), collection="kept").json()["replaced"] == 3
    assert sizes_of(service, "kept") == {"local": 8, "global": 12}
    mixed = images(8, None, 1) | {"new": image(np.random.default_rng(0), 8, 13)}
    details = mismatch(service.register(mixed, collection="kept"))
    assert details == {"field": "images.1.global", "expected": 12, "found": 13, "id": "new"}
    assert service.http.get("/gallery/new", params={"collection": "kept"}).status_code == 404


def test_one_request_has_one_size(service: RunningService) -> None:
    mixed = images(8, 12) | {"new": image(np.random.default_rng(0), 7, 12)}
    details = mismatch(service.register(mixed, collection="mixed"))
    assert details == {"field": "images.3.descriptors", "expected": 8, "found": 7, "id": "new"}
    assert sizes_of(service, "mixed") is None


def test_the_query_fits_the_collection(service: RunningService) -> None:
    rng = np.random.default_rng(0)
    some = images(8, 12) | {"bare": image(rng, 8)}
    assert service.register(some, collection="asked").is_success
    for ids in (["image-0", "bare"], ["bare"]):
        for query, field, lengths in (
            (image(rng, 9, 12), "query.descriptors", (8, 9)),
            (image(rng, 8, 11), "query.global", (12, 11)),
        ):
            details = mismatch(service.rerank(query, ids, collection="asked"))
            assert details["field"] == field
            assert (details["expected"], details["found"]) == lengths
        assert len(ids_of(service.rerank(image(rng, 8), ids, collection="asked"))) == len(ids)


@pytest.mark.parametrize("length", [1, 4097])
def test_lengths_have_limits(service: RunningService, length: int) -> None:
    listed = {"id": "x", "descriptors": [[1.0] * 8], "global": [1.0] * length}
    for body, field in (
        ({"images": [{"id": "x", "descriptors": [[1.0] * length]}]}, "images.0.descriptors"),
        ({"images": [listed]}, "images.0.global"),
    ):
        answer = service.http.post("/gallery", json={"collection": "limits", **body})
        assert code_of(answer) == (422, "validation_error")
        error = answer.json()["error"]
        assert error["details"] == {"field": field}
        assert f"{length} numbers, but 2 to 4,096 are allowed" in error["message"]
    assert sizes_of(service, "limits") is None


def test_the_limits_themselves_are_taken(service: RunningService) -> None:
    for number, (dim, global_dim) in enumerate(((2, 4096), (4096, 2))):
        collection = f"limit-{number}"
        assert service.register(images(dim, global_dim), collection=collection).is_success
        query = image(np.random.default_rng(0), dim, global_dim)
        assert len(ids_of(service.rerank(query, ["image-0"], collection=collection))) == 1


def test_an_emptied_collection_takes_other_sizes(service: RunningService) -> None:
    for dim in (8, 9):
        assert service.register(images(dim, count=2), collection="emptied").is_success
        for image_id in ("image-0", "image-1"):
            service.http.delete(f"/gallery/{image_id}", params={"collection": "emptied"})
    assert sizes_of(service, "emptied") is None


def test_of_two_first_registrations_at_once_one_is_stored(service: RunningService) -> None:
    for attempt in range(10):
        collection = f"race-{attempt}"

        def register(dim: int, collection: str = collection) -> int:
            return service.register(images(dim, count=30), collection=collection).status_code

        with ThreadPoolExecutor(2) as pool:
            statuses = dict(zip((8, 9), pool.map(register, (8, 9)), strict=True))
        assert sorted(statuses.values()) == [200, 422]
        winner = min(statuses, key=lambda dim: statuses[dim])
        assert sizes_of(service, collection) == {"local": winner, "global": None}
        for image_id in images(8, count=30):
            answer = service.http.get(f"/gallery/{image_id}", params={"collection": collection})
            assert answer.json()["dimension"] == winner


def test_an_old_gallery_of_several_sizes_is_refused_by_image(service: RunningService) -> None:
    (socket,) = Path(service._log.parent).rglob("valkey.sock")
    rng = np.random.default_rng(0)
    with redis.Redis(unix_socket_path=str(socket)) as raw:
        for image_id, dim in (("a", 8), ("b", 9)):
            record = pack_record("old", image_id, GalleryRecord(image(rng, dim)), "float16")
            raw.set(f"locore:image:old|{image_id}", record)
            raw.zadd("locore:ids:{old}", {image_id: 0})
    details = mismatch(service.rerank(image(rng, 8), ["a", "b"], collection="old"))
    assert details == {"field": "gallery_ids", "expected": 8, "found": 9, "id": "b"}
    assert ids_of(service.rerank(image(rng, 9), ["b"], collection="old")) == ["b"]
    assert sizes_of(service, "old") == {"local": 8, "global": None}


def test_it_asks_for_no_sizes(service: RunningService) -> None:
    assert service.http.get("/info").json()["sizes"] is None
