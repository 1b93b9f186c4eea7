"""The page's routes on collections of one's own: pictures, labels, a first stage, matches."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from locore_client import packed_image
from locore_client.packing import PackedArray, unpack
from model.config import DEFAULT_CHECKPOINT
from model.descriptors import ImageDescriptors
from model.matches import mutual_matches
from tests.e2e.service import RunningService, code_of, running, stored
from tests.factories import image, tiny_config
from tests.pictures import PHOTOGRAPHS, photograph

CDN = "https://cdn.example"
CONFIG = tiny_config()
IMAGES = {
    f"{n:02}": image(np.random.default_rng(n), CONFIG, with_global=n % 5 > 0) for n in range(20)
}
WITH_GLOBAL = {i: one for i, one in IMAGES.items() if one.global_ is not None}


@pytest.fixture(scope="module")
def service(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """20 images of descriptors alone, every fifth of them without a global."""
    data = tmp_path_factory.mktemp("data")
    with running(checkpoint, data, thumbnail_origins=CDN, page_bytes=2000) as started:
        assert started.register(IMAGES, collection="plain").is_success
        bare = {i: ImageDescriptors(one.locals, one.scales) for i, one in IMAGES.items()}
        assert started.register(bare, collection="bare").is_success
        yield started


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Photographs that came as pictures."""
    with running(DEFAULT_CHECKPOINT, tmp_path_factory.mktemp("pictures")) as started:
        images = [
            {
                "id": f"{name}/{side}.jpg",
                "image": {"data": base64.b64encode(photograph(name, side)).decode()},
                "metadata": {"label": name},
            }
            for name in PHOTOGRAPHS
            for side in (160, 240)
        ]
        body = {"collection": "mine", "images": images}
        answer = started.http.post("/gallery", json=body)
        assert answer.is_success, answer.text
        yield started


def get(service: RunningService, path: str, **asked: object) -> Any:
    response = service.http.get(f"/page/{path}", params={n: str(v) for n, v in asked.items()})
    assert response.status_code == 200, response.text
    return response.json()


def until(true: Callable[[], bool]) -> None:
    """A collection that has just been read is not read again at once."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end


def shortlist(service: RunningService, collection: str, query_id: str, **more: object) -> Any:
    query = get(service, "image", collection=collection, id=query_id)["query"]
    body = {"collection": collection, "query": query, "without": query_id, **more}
    return service.http.post("/page/shortlist", json=body)


def test_images_come_in_the_order_of_their_ids(service: RunningService) -> None:
    first = get(service, "images", collection="plain", limit=8)
    assert [one["id"] for one in first["images"]] == sorted(IMAGES)[:8]
    assert (first["count"], first["next"]) == (20, "07")
    assert first["images"][0] == {"id": "00", "label": None, "picture": None}
    more = get(service, "images", collection="plain", limit=50, after=first["next"])
    assert [one["id"] for one in more["images"]] == sorted(IMAGES)[8:]
    assert more["next"] is None


@pytest.mark.parametrize(
    ("start", "first"), [("1", "10"), ("07", "07"), ("075", "08"), ("0", "00")]
)
def test_images_from_an_id_on(service: RunningService, start: str, first: str) -> None:
    images = get(service, "images", collection="plain", start=start)["images"]
    assert images[0]["id"] == first
    assert get(service, "images", collection="plain", start="9")["images"] == []


def test_the_first_stage_is_exact_and_leaves_the_query_out(service: RunningService) -> None:
    answer = shortlist(service, "plain", "03", top=7).json()
    globals_ = {i: stored(one).global_ for i, one in WITH_GLOBAL.items()}
    query = globals_["03"]
    cosines = {i: float(np.dot(row, query)) for i, row in globals_.items() if i != "03"}  # type: ignore[arg-type]
    best = sorted(cosines, key=lambda i: (-cosines[i], i))[:7]
    assert [one["id"] for one in answer["results"]] == best
    assert [one["score"] for one in answer["results"]] == pytest.approx(
        [cosines[i] for i in best], abs=1e-3
    )
    assert (answer["order"], answer["images"], answer["searched"]) == ("globals", 20, 16)


def test_what_changes_is_seen(service: RunningService) -> None:
    some = dict(list(WITH_GLOBAL.items())[:4])
    assert service.register(some, collection="changing").is_success
    ids = sorted(some)

    def found() -> list[str]:
        answer = shortlist(service, "changing", ids[0]).json()
        return [one["id"] for one in answer["results"]]

    assert sorted(found()) == ids[1:]
    assert service.http.delete(f"/gallery/{ids[1]}?collection=changing").is_success
    assert sorted(found()) == ids[2:]
    assert service.register({"new": WITH_GLOBAL["19"]}, collection="changing").is_success
    until(lambda: sorted(found()) == [*ids[2:], "new"])
    # Another image under an id that is there: the count is the same.
    assert service.register({"new": some[ids[0]]}, collection="changing").is_success
    until(lambda: found()[0] == "new")


def test_an_alias_is_followed_when_it_moves(service: RunningService) -> None:
    for name, ids in (("one", ("01", "02")), ("two", ("03", "04"))):
        some = {i: WITH_GLOBAL[i] for i in ids}
        assert service.register(some, collection=name).is_success
    for name, ids in (("one", ("01", "02")), ("two", ("03", "04"))):
        assert service.http.put("/aliases/swapped", json={"collection": name}).is_success
        answer = shortlist(service, "swapped", ids[0]).json()
        assert answer["collection"] == name
        assert [one["id"] for one in answer["results"]] == [ids[1]]


def test_without_globals_the_list_is_by_ids(service: RunningService) -> None:
    for collection, query in (("bare", "02"), ("plain", "00")):
        answer = shortlist(service, collection, query, top=5).json()
        expected = [i for i in sorted(IMAGES) if i != query][:5]
        assert [one["id"] for one in answer["results"]] == expected
        assert answer["order"] == "ids"
        assert {one["score"] for one in answer["results"]} == {None}


def test_a_collection_that_is_too_large_is_refused(service: RunningService) -> None:
    many = {f"{n}": WITH_GLOBAL["01"] for n in range(100)}
    assert service.register(many, collection="large").is_success
    response = shortlist(service, "large", "1")
    assert code_of(response) == (422, "too_many_images_to_search")
    assert "LOCORE_PAGE_BYTES" in response.json()["error"]["message"]


def test_unknown_images_and_collections_are_not_found(service: RunningService) -> None:
    for path in (
        "image?collection=plain&id=none",
        "image?collection=none&id=00",
        "thumbnail?collection=plain&id=00",
        "thumbnail?collection=none&id=00",
    ):
        assert code_of(service.http.get(f"/page/{path}")) == (404, "not_found"), path
    assert get(service, "images", collection="none")["count"] == 0
    for path in ("images", "images?collection={x}", "image?collection=plain&id=a|b"):
        assert code_of(service.http.get(f"/page/{path}")) == (422, "validation_error"), path


def test_a_thumbnail_url_is_shown_of_origins_that_are_named(service: RunningService) -> None:
    urls = {"ours": f"{CDN}/a.jpg", "theirs": "https://evil.example/a.jpg"}
    images = [
        {"id": i, **packed_image(WITH_GLOBAL["01"]), "metadata": {"thumbnail_url": url}}
        for i, url in urls.items()
    ]
    assert service.http.post("/gallery", json={"collection": "urls", "images": images}).is_success
    listing = get(service, "images", collection="urls")["images"]
    assert {one["id"]: one["picture"] for one in listing} == {"ours": urls["ours"], "theirs": None}
    policy = service.http.get("/").headers["Content-Security-Policy"]
    assert f"img-src 'self' blob: {CDN};" in policy


def test_pictures_have_thumbnails_and_labels(pictures: RunningService) -> None:
    images = get(pictures, "images", collection="mine")["images"]
    assert [(one["id"], one["label"]) for one in images] == [
        (f"{name}/{side}.jpg", name) for name in PHOTOGRAPHS for side in (160, 240)
    ]
    for one in images:
        response = pictures.http.get(f"/{one['picture']}")
        assert response.headers["Content-Type"] == "image/webp"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        picture = Image.open(io.BytesIO(response.content))
        assert max(picture.size) == (160 if "160" in one["id"] else 192)
        tag = {"If-None-Match": response.headers["ETag"]}
        assert pictures.http.get(f"/{one['picture']}", headers=tag).status_code == 304


def test_a_picture_of_the_collection_finds_its_like(pictures: RunningService) -> None:
    answer = shortlist(pictures, "mine", "coffee/160.jpg").json()
    assert answer["results"][0]["id"] == "coffee/240.jpg"
    assert answer["results"][0]["label"] == "coffee"
    assert len(answer["results"]) == 2 * len(PHOTOGRAPHS) - 1


def test_matches_lie_where_the_locals_do(pictures: RunningService) -> None:
    one, other = "chelsea/160.jpg", "chelsea/240.jpg"
    asked = get(pictures, "image", collection="mine", id=one)
    fields = {"query": asked["query"], "keypoints": asked["keypoints"]}
    body = {"collection": "mine", "id": other, **fields}
    matches = pictures.http.post("/page/matches", json=body).json()["matches"]
    assert len(matches) > 10
    # The same picture in two sizes: what matches is in the same place.
    apart = [np.abs(np.subtract(match["query"], match["gallery"])).max() for match in matches]
    assert np.median(apart) < 0.1
    body["keypoints"] = None
    unplaced = pictures.http.post("/page/matches", json=body).json()["matches"]
    assert [match["query"] for match in unplaced] == [None] * len(matches)
    assert [match["gallery"] for match in unplaced] == [match["gallery"] for match in matches]


def test_of_descriptors_alone_the_matches_have_no_places(service: RunningService) -> None:
    asked = get(service, "image", collection="plain", id="01")
    assert asked["keypoints"] is None
    body = {"collection": "plain", "id": "02", "query": asked["query"]}
    matches = service.http.post("/page/matches", json=body).json()["matches"]
    assert {(m["query"], m["gallery"]) for m in matches} == {(None, None)}
    expected = mutual_matches(stored(IMAGES["01"]), stored(IMAGES["02"]))
    assert [m["cosine"] for m in matches] == pytest.approx([m.cosine for m in expected], abs=1e-3)


def test_an_image_as_a_query_is_what_is_stored(service: RunningService) -> None:
    query = get(service, "image", collection="plain", id="04")["query"]
    image = stored(IMAGES["04"])
    rows = unpack(PackedArray.model_validate(query["descriptors"]))
    np.testing.assert_allclose(rows, image.locals, atol=1e-3)
    assert query["scales"] == image.scales.tolist()
