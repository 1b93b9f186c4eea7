"""Every method of both clients against the service at LOCORE_URL."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from both_clients import Blocking, both
from images import LOCAL_DIM, images
from locore_client import (
    InvalidDescriptorsError,
    NewImage,
    NotFoundError,
    descriptors_of,
    image_from_arrays,
)
from locore_client.contract import RegisterResponse


def assert_same_directions(
    rows: NDArray[np.floating], others: NDArray[np.floating], cosine: float = 0.999
) -> None:
    """What is stored is normalised and rounded."""
    lengths = np.linalg.norm(rows, axis=-1) * np.linalg.norm(others, axis=-1)
    assert ((rows * others).sum(-1) > cosine * lengths).all()


@both
def test_any_number_of_images_is_registered_listed_shown_and_deleted(
    url: str, kind: type[Blocking]
) -> None:
    collection = f"bulk-{kind.__name__}"
    client = kind(url)
    answer = client.register(images(600), collection)
    assert answer == RegisterResponse(registered=600, replaced=0, truncated=0)
    assert client.register(dict(images(300)), collection).replaced == 300
    ids = [image_id for image_id, _ in images(600)]
    assert client.ids(collection) == client.ids(collection, page_size=70) == ids
    page = client.page(collection, limit=2)
    assert (page.count, page.ids, page.next_cursor is None) == (600, ids[:2], False)
    assert client.register({}, collection).registered == 0

    sent = dict(images(2))["many/0001"]
    shown = client.get("many/0001", collection, include_descriptors=True)
    back = descriptors_of(shown)
    assert (shown.count, shown.dimension, shown.metadata) == (2, LOCAL_DIM, None)
    assert back.scales.tolist() == sent.scales.tolist()
    assert back.global_ is not None
    assert sent.global_ is not None
    assert_same_directions(back.locals, sent.locals)
    assert_same_directions(back.global_, sent.global_)
    with pytest.raises(ValueError, match="without its descriptors"):
        descriptors_of(client.get("many/0001", collection))

    ranked = client.rerank(sent, ids[:5], collection, top_n=2, request_id="mine")
    assert (ranked.id, len(ranked.results), ranked.usage.images) == ("mine", 2, 5)
    client.delete("many/0000", collection)
    with pytest.raises(NotFoundError):
        client.delete("many/0000", collection)
    assert client.ids(collection) == ids[1:]
    assert client.ready().status == "ok"


@both
def test_odd_ids_metadata_and_plain_arrays(url: str, kind: type[Blocking]) -> None:
    collection = f"odd-{kind.__name__}"
    client = kind(url)
    rows = np.random.default_rng(2).standard_normal((3, LOCAL_DIM))
    ids = ["../up", "a//b", "a:b@c=d+e", "/first", ".", "end/"]
    record = NewImage(image_from_arrays(rows, [1, 0, 2]), {"url": "ü"})
    client.register({"plain": rows, **dict.fromkeys(ids, record)}, collection)
    for image_id in ids:
        shown = client.get(image_id, collection)
        assert (shown.id, shown.scales, shown.metadata) == (image_id, [1, 0, 2], {"url": "ü"})
    scores = np.linspace(1, 0, len(ids), dtype=np.float32)
    answer = client.rerank(rows, ids, collection, global_scores=scores, alpha=1.0)
    assert [result.id for result in answer.results] == ids
    for image_id in ids:
        client.delete(image_id, collection)
    assert client.ids(collection) == ["plain"]


@both
def test_what_was_stored_before_an_error_is_told(url: str, kind: type[Blocking]) -> None:
    collection = f"broken-{kind.__name__}"
    client = kind(url, max_images_per_request=2)
    seven = dict(images(7))
    seven["many/0005"].locals[0] = np.nan
    with pytest.raises(InvalidDescriptorsError) as raised:
        client.register(seven, collection)
    assert (raised.value.registered, raised.value.image_id) == (4, "many/0005")
    assert raised.value.field == "images.1.descriptors"
    assert client.ids(collection) == list(seven)[:4]
