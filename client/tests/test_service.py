"""Every method of both clients against the service at LOCORE_URL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from both_clients import Blocking, both
from images import GLOBAL_DIM, LOCAL_DIM, images, picture
from locore_client import (
    Client,
    CollectionInUseError,
    DeadlineExceededError,
    Image,
    InvalidDescriptorsError,
    InvalidRequestError,
    NameTakenError,
    NewImage,
    NotAnImageError,
    NotFoundError,
    Picture,
    descriptors_of,
    image_from_arrays,
)
from locore_client.contract import RegisterResponse


def assert_same_directions(
    rows: NDArray[np.floating], others: NDArray[np.floating], cosine: float = 0.98
) -> None:
    """What is stored is normalised and rounded, locals to four bits by default."""
    lengths = np.linalg.norm(rows, axis=-1) * np.linalg.norm(others, axis=-1)
    assert ((rows * others).sum(-1) > cosine * lengths).all()


@both
def test_any_number_of_images_is_registered_listed_shown_and_deleted(
    url: str, name: str, kind: type[Blocking]
) -> None:
    client = kind(url)
    answer = client.register(images(600), name)
    assert answer == RegisterResponse(registered=600, replaced=0, truncated=0)
    assert client.register(dict(images(300)), name).replaced == 300
    ids = [image_id for image_id, _ in images(600)]
    assert client.ids(name) == client.ids(name, page_size=70) == ids
    page = client.page(name, limit=2)
    assert (page.count, page.ids, page.next_cursor is None) == (600, ids[:2], False)
    assert client.register({}, name).registered == 0

    sent = dict(images(2))["many/0001"]
    record = client.get("many/0001", name, include_descriptors=True)
    back = descriptors_of(record)
    assert (record.count, record.dimension, record.metadata) == (2, LOCAL_DIM, None)
    assert back.scales.tolist() == sent.scales.tolist()
    assert back.global_ is not None
    assert sent.global_ is not None
    assert_same_directions(back.locals, sent.locals)
    assert_same_directions(back.global_, sent.global_, 0.999)
    with pytest.raises(ValueError, match="without its descriptors"):
        descriptors_of(client.get("many/0001", name))

    ranked = client.rerank(sent, ids[:5], name, top_n=2, request_id="mine")
    assert (ranked.id, len(ranked.results), ranked.usage.images) == ("mine", 2, 5)
    client.delete("many/0000", name)
    with pytest.raises(NotFoundError):
        client.delete("many/0000", name)
    assert client.ids(name) == ids[1:]
    assert client.ready().status == "ok"


@both
def test_odd_ids_metadata_and_plain_arrays(url: str, name: str, kind: type[Blocking]) -> None:
    client = kind(url)
    rows = np.random.default_rng(2).standard_normal((3, LOCAL_DIM))
    ids = ["../up", "a//b", "a:b@c=d+e", "/first", ".", "end/"]
    record = NewImage(image_from_arrays(rows, [1, 0, 2]), {"url": "ü"})
    client.register({"plain": rows, **dict.fromkeys(ids, record)}, name)
    for image_id in ids:
        shown = client.get(image_id, name)
        assert (shown.id, shown.scales, shown.metadata) == (image_id, [1, 0, 2], {"url": "ü"})
    scores = np.linspace(1, 0, len(ids), dtype=np.float32)
    answer = client.rerank(rows, ids, name, global_scores=scores, alpha=1.0)
    assert [result.id for result in answer.results] == ids
    for image_id in ids:
        client.delete(image_id, name)
    assert client.ids(name) == ["plain"]


@both
def test_what_was_stored_before_an_error_is_told(url: str, name: str, kind: type[Blocking]) -> None:
    client = kind(url, max_images_per_request=2)
    seven = dict(images(7))
    seven["many/0005"].locals[0] = np.nan
    with pytest.raises(InvalidDescriptorsError) as raised:
        client.register(seven, name)
    assert (raised.value.registered, raised.value.image_id) == (4, "many/0005")
    assert raised.value.field == "images.1.descriptors"
    assert client.ids(name) == list(seven)[:4]


@both
def test_collections_are_listed_emptied_and_dropped(
    url: str, name: str, kind: type[Blocking]
) -> None:
    client, names = kind(url), [f"{name}-{n}" for n in range(3)]
    for place, each in enumerate(names):
        client.register(images(place + 1), each)
    listed = {one.name: one for one in client.collections(page_size=1)}
    assert [listed[each].count for each in names] == [1, 2, 3]
    assert listed == {one.name: one for one in client.collections()}
    one = client.collection(names[1])
    assert one == listed[names[1]]
    assert one.sizes is not None
    assert (one.sizes.local, one.sizes.global_, one.aliases) == (LOCAL_DIM, GLOBAL_DIM, [])
    assert one.bytes > 2 * 2 * LOCAL_DIM

    emptied = client.empty(names[1])
    assert (emptied.collection, emptied.deleted) == (names[1], 2)
    assert (client.ids(names[1]), client.collection(names[1]).sizes) == ([], None)
    client.drop(names[2])
    for call in (client.collection, client.drop):
        with pytest.raises(NotFoundError):
            call(names[2])
    remaining = {one.name for one in client.collections()}
    assert remaining >= set(names[:2])
    assert names[2] not in remaining


@both
def test_an_alias_is_made_moved_and_deleted(url: str, name: str, kind: type[Blocking]) -> None:
    client, alias = kind(url), name
    old, new = f"{alias}-1", f"{alias}-2"
    client.register(images(1), old)
    client.register(images(2), new)
    made = client.set_alias(alias, old)
    assert (made.alias, made.collection, made.previous) == (alias, old, None)
    assert len(client.ids(alias)) == 1
    assert client.set_alias(alias, new).previous == old
    assert len(client.ids(alias)) == 2
    query = dict(images(2))["many/0001"]
    assert client.rerank(query, ["many/0001"], alias).collection == new
    assert (alias, new) in {(one.alias, one.collection) for one in client.aliases(page_size=1)}

    with pytest.raises(CollectionInUseError) as used:
        client.drop(new)
    assert (used.value.status, used.value.aliases) == (409, [alias])
    with pytest.raises(NameTakenError):
        client.set_alias(old, new)
    with pytest.raises(NotFoundError):
        client.set_alias(alias, "nobody")
    client.delete_alias(alias)
    client.drop(new)
    with pytest.raises(NotFoundError):
        client.delete_alias(alias)


def test_a_listing_keeps_to_the_collection_that_an_alias_stood_for(url: str, name: str) -> None:
    with Client(url) as client:
        client.register(images(4), f"{name}-1")
        client.set_alias(name, f"{name}-1")
        listing = client.ids(name, page_size=2)
        began = [next(listing)]
        client.register({"other": next(images(1))[1]}, f"{name}-2")
        client.set_alias(name, f"{name}-2")
        assert began + list(listing) == [image_id for image_id, _ in images(4)]
        client.delete_alias(name)


@both
def test_a_stored_image_is_a_query_and_a_score_a_threshold(
    url: str, name: str, kind: type[Blocking]
) -> None:
    client = kind(url)
    client.register(images(6), name)
    ids = [image_id for image_id, _ in images(6)]
    nearest = client.rerank(ids[1], ids, name)
    assert {result.id for result in nearest.results} == set(ids)
    second = nearest.results[1].relevance_score
    assert len(client.rerank(ids[1], ids, name, min_score=second).results) == 2
    with pytest.raises(NotFoundError) as unknown:
        client.rerank("nobody", ids, name)
    assert (unknown.value.field, unknown.value.image_id) == ("query.id", "nobody")


@both
def test_pictures_are_registered_extracted_and_asked_with(
    url: str, name: str, kind: type[Blocking], tmp_path: Path
) -> None:
    client = kind(url)
    if client.info().extractor is None:
        pytest.skip("the service has no extractor")
    file = tmp_path / "a.png"
    file.write_bytes(picture(0))
    new: dict[str, Image | Picture | NewImage] = {
        "a": file,
        "b": NewImage(picture(1), {"url": "b.png"}),
        "c": picture(2),
    }
    assert client.register(new, name).registered == 3
    assert client.get("b", name).metadata == {"url": "b.png"}

    extracted = client.extract(file)
    assert (extracted.width, extracted.height) == (96, 96)
    assert extracted.extractor == client.info().extractor
    image, stored = descriptors_of(extracted), client.get("a", name, include_descriptors=True)
    assert image.global_ is not None
    descriptors = descriptors_of(stored)
    assert descriptors.global_ is not None
    assert_same_directions(image.global_, descriptors.global_, 0.999)
    assert image.scales[: len(descriptors.scales)].tolist() == descriptors.scales.tolist()

    asked = [client.rerank(query, ["c", "b", "a"], name) for query in (file, picture(0), image)]
    orders = [[result.id for result in answer.results] for answer in asked]
    assert orders == [orders[0]] * 3
    assert asked[0].timings_ms.extract > asked[2].timings_ms.extract == 0

    with pytest.raises(NotAnImageError) as raised:
        client.register({"fine": picture(3), "broken": b"no picture"}, name)
    assert (raised.value.image_id, raised.value.registered) == ("broken", 0)
    for call in (client.extract, lambda query: client.rerank(query, ["a"], name)):
        with pytest.raises(NotAnImageError):
            call(b"no picture")
    with pytest.raises(InvalidRequestError, match=r"gone\.png: No such file"):
        client.extract(tmp_path / "gone.png")
    with pytest.raises(InvalidRequestError) as gone:
        client.register({"gone": tmp_path / "gone.png"}, name)
    assert gone.value.image_id == "gone"
    with pytest.raises(DeadlineExceededError):
        client.extract(file, timeout=0.001)
