"""Pictures in place of descriptors: POST /extract, in registrations and as queries."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from locore_client import packed_image
from model.config import DEFAULT_CHECKPOINT
from model.extraction.registry import load_extractor
from service.api.arrays import PackedArray, unpack
from tests.e2e.picture_requests import PICTURES, QUERY, in_json, register, rerank
from tests.e2e.service import RunningService, code_of, ids_of, running, scores_of
from tests.pictures import EXTRACTOR, blank, photograph
from tests.processes import CHILD, children

MAX_BYTES = 100_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The shipped checkpoint, so the shipped extractor; `PICTURES` are registered as pictures."""
    data = tmp_path_factory.mktemp("pictures")
    with running(DEFAULT_CHECKPOINT, data, max_image_bytes=MAX_BYTES) as started:
        # Before a picture has come there is no extractor's process.
        assert "extractor_ready" not in started.log
        assert register(started, PICTURES).json() == {
            "registered": len(PICTURES),
            "replaced": 0,
            "truncated": 0,
        }
        yield started


def test_a_picture_is_extracted_as_by_the_command(service: RunningService) -> None:
    raw = service.http.post("/extract", content=QUERY, headers={"Content-Type": "image/jpeg"})
    assert raw.status_code == 200, raw.text
    answer = raw.json()
    image = Image.open(io.BytesIO(QUERY))
    expected = load_extractor(EXTRACTOR).extract(image, 48)
    for packed, array in (
        (answer["query"]["descriptors"], expected.descriptors),
        (answer["query"]["global"], expected.global_),
        (answer["keypoints"], expected.keypoints),
    ):
        unpacked = unpack(PackedArray.model_validate(packed), array.ndim)
        np.testing.assert_allclose(unpacked, array, atol=2e-4)
    assert answer["query"]["scales"] == expected.scales.tolist()
    assert (answer["width"], answer["height"]) == image.size
    assert answer["extractor"] == service.http.get("/info").json()["extractor"]
    assert answer["extractor"]["name"] == EXTRACTOR
    same = service.http.post("/extract", json={"image": in_json(QUERY)}).json()
    assert {**same, "ms": 0} == {**answer, "ms": 0}


def test_a_registered_picture_is_what_its_descriptors_are(service: RunningService) -> None:
    data = PICTURES["coffee.jpg"]
    described = service.http.post("/extract", json={"image": in_json(data)}).json()["query"]
    images = [
        {"id": "by-picture", "image": in_json(data), "metadata": {"label": "x"}},
        {"id": "by-descriptors", **described},
    ]
    body = {"collection": "both", "images": images}
    assert service.http.post("/gallery", json=body).is_success
    stored = [
        service.http.get(f"/gallery/{i['id']}?collection=both&include=descriptors").json()
        for i in images
    ]
    assert stored[0].pop("metadata") == {"label": "x"}
    assert stored[0]["arrays"] == stored[1]["arrays"]
    assert stored[0]["global_dimension"] == 512


def test_a_picture_asks_as_its_descriptors_do(service: RunningService) -> None:
    described = service.http.post("/extract", json={"image": in_json(QUERY)}).json()["query"]
    by_picture = rerank(service, {"image": in_json(QUERY)})
    by_descriptors = rerank(service, described)
    assert ids_of(by_picture)[0] == "chelsea.jpg"
    assert scores_of(by_picture) == pytest.approx(scores_of(by_descriptors), abs=1e-5)
    assert by_picture.json()["timings_ms"]["extract"] > 1
    assert by_descriptors.json()["timings_ms"]["extract"] == 0


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ({"descriptors": [[1, 2]], "image": in_json(QUERY)}, "query", "exactly one"),
        ({"image": in_json(QUERY), "scales": [1]}, "query.scales", ""),
        ({"image": None}, "query.image", ""),
        ({"image": {}}, "query.image.data", "required"),
        ({"image": {"data": "no!"}}, "query.image.data", "base64"),
        ({"image": {"data": 7}}, "query.image.data", "bytes"),
        ({"image": {"data": [1234]}}, "query.image.data", "bytes"),
        ({"image": {"url": "http://localhost"}}, "query.image.url", ""),
        ({"image": "text"}, "query.image", ""),
    ],
)
def test_what_is_neither_one_nor_the_other(
    service: RunningService, query: dict[str, Any], field: str, message: str
) -> None:
    refusal = rerank(service, query)
    assert code_of(refusal) == (422, "validation_error")
    error = refusal.json()["error"]
    assert error["details"]["field"] == field
    assert message in error["message"]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"descriptors": [[1, 2]], "image": in_json(QUERY)}, "either"),
        ({"image": in_json(QUERY), "scales": [1]}, "come with descriptors"),
        ({"image": None}, "either"),
        ({}, "either"),
    ],
)
def test_an_image_of_a_registration_is_one_or_the_other(
    service: RunningService, image: dict[str, Any], message: str
) -> None:
    refusal = service.http.post("/gallery", json={"images": [{"id": "odd", **image}]})
    assert code_of(refusal) == (422, "validation_error")
    error = refusal.json()["error"]
    assert error["details"]["field"] == "images.0"
    assert message in error["message"]


BAD = {
    "text": (b"Dear Sir or Madam", 422, "not_an_image"),
    "nothing": (b"", 422, "not_an_image"),
    "half": (QUERY[:700], 422, "not_an_image"),
    "too many pixels": (blank((70_000, 1), "L"), 413, "payload_too_large"),
    "too many bytes": (b"\xff\xd8\xff" + bytes(MAX_BYTES), 413, "payload_too_large"),
}


@pytest.mark.parametrize("name", BAD)
def test_one_bad_picture_refuses_the_registration(service: RunningService, name: str) -> None:
    data, status, code = BAD[name]
    pictures = {"good": PICTURES["coffee.jpg"], "bad": data, "other": PICTURES["coffee.jpg"]}
    refusal = register(service, pictures, collection="bad")
    assert code_of(refusal) == (status, code)
    details = refusal.json()["error"]["details"]
    assert (details["id"], details["field"]) == ("bad", "images.1.image")
    assert service.http.get("/gallery?collection=bad").json()["count"] == 0
    asked = rerank(service, {"image": in_json(data)})
    assert code_of(asked) == (status, code)
    assert asked.json()["error"]["details"]["field"] == "query.image"
    raw = service.http.post("/extract", content=data, headers={"Content-Type": "image/png"})
    assert code_of(raw) == (status, code)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "audio/ogg"])
def test_another_type_of_body_is_refused(service: RunningService, kind: str) -> None:
    answer = service.http.post("/extract", content=QUERY, headers={"Content-Type": kind})
    assert code_of(answer) == (415, "unsupported_media_type")


def test_a_collection_of_other_sizes(service: RunningService) -> None:
    other = {"collection": "other", "images": [{"id": "a", "descriptors": [[1, 2], [2, 1]]}]}
    assert service.http.post("/gallery", json=other).is_success
    refusal = register(service, PICTURES, collection="other")
    assert code_of(refusal) == (422, "descriptor_dim_mismatch")
    details = refusal.json()["error"]["details"]
    assert (details["expected"], details["found"]) == (2, 128)
    assert details["id"] == next(iter(PICTURES))
    asked = rerank(service, {"image": in_json(QUERY)}, collection="other", gallery_ids=["a"])
    assert code_of(asked) == (422, "descriptor_dim_mismatch")


def test_extraction_counts_against_the_deadline(service: RunningService) -> None:
    """The deadline passes while others wait: those are not extracted."""
    before = service.metric('locore_extraction_pictures_total{result="described"}')
    with ThreadPoolExecutor(12) as pool:
        asked = [
            pool.submit(rerank, service, {"image": in_json(QUERY)}, timeout_ms=100)
            for _ in range(12)
        ]
        codes = [each.result() for each in asked]
    late = [code_of(answer) for answer in codes if not answer.is_success]
    assert set(late) <= {(504, "deadline_exceeded"), (429, "overloaded")}
    assert len(late) >= 6
    settled(service)
    extracted = service.metric('locore_extraction_pictures_total{result="described"}') - before
    # Where one had its turn as its deadline passed, it was extracted for nobody.
    assert extracted <= 12 - len(late) + 2
    answer = service.http.post("/extract?timeout_ms=1", json={"image": in_json(QUERY)})
    assert code_of(answer)[0] in (429, 504)


def settled(service: RunningService) -> None:
    while service.metric("locore_extraction_queue"):
        time.sleep(0.05)


def test_what_a_client_left_is_not_extracted(service: RunningService) -> None:
    before = service.metric('locore_extraction_pictures_total{result="described"}')
    pictures = {f"left-{n}": photograph("coffee", 320) for n in range(60)}
    images = [{"id": name, "image": in_json(data)} for name, data in pictures.items()]
    body = json.dumps({"collection": "left", "images": images})
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{service.url}/gallery", content=body, timeout=1.0)
    settled(service)
    extracted = service.metric('locore_extraction_pictures_total{result="described"}') - before
    assert extracted < 40
    assert service.http.get("/gallery?collection=left").json()["count"] == 0


def test_a_process_that_dies_takes_one_request_along(service: RunningService) -> None:
    assert service.http.post("/extract", json={"image": in_json(QUERY)}).is_success
    (child,) = children(service.process.pid, CHILD)
    with ThreadPoolExecutor(1) as pool:
        os.kill(child, signal.SIGSTOP)
        asked = pool.submit(rerank, service, {"image": in_json(QUERY)})
        while not service.metric("locore_extraction_queue"):
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(child, signal.SIGKILL)
        refusal = asked.result()
    assert code_of(refusal) == (503, "extractor_unavailable")
    assert refusal.headers["Retry-After"]
    assert rerank(service, {"image": in_json(QUERY)}).is_success
    assert children(service.process.pid, CHILD) != [child]


def test_packed_answers_are_those_of_the_client(service: RunningService) -> None:
    """What `/extract` answers is registered as it is."""
    query = service.http.post("/extract", json={"image": in_json(QUERY)}).json()["query"]
    features = load_extractor(EXTRACTOR).extract(Image.open(io.BytesIO(QUERY)), 48)
    assert set(packed_image(features.for_reranking())) == set(query)
