"""A registration in parts."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import image
from locore_client import (
    ClientError,
    Image,
    ImageArrays,
    InvalidDescriptorsError,
    NewImage,
    Picture,
)
from locore_client.bodies import to_json
from locore_client.contract import RegisterResponse
from locore_client.splitting import Registration, parts

QUERY = image(np.random.default_rng(0))


@given(
    rows=st.lists(st.integers(1, 6), max_size=40),
    max_images=st.integers(1, 10),
    max_bytes=st.integers(150, 3_000),
)
def test_a_split_registration_has_every_image_once_and_keeps_the_limits(
    rows: list[int], max_images: int, max_bytes: int
) -> None:
    rng = np.random.default_rng(0)
    images = [(f"image-{n}", image(rng, count)) for n, count in enumerate(rows)]
    made = list(parts(images, "shop", 60, max_images, max_bytes))
    sent = [json.loads(part.body) for part in made]
    assert [one["id"] for request in sent for one in request["images"]] == [i for i, _ in images]
    assert [i for part in made for i in part.ids] == [i for i, _ in images]
    for part, request in zip(made, sent, strict=True):
        assert (request["collection"], request["ttl_seconds"]) == ("shop", 60)
        assert len(request["images"]) <= max_images
        assert len(part.body) <= max_bytes or len(part.ids) == 1
    # No more requests than are needed: what follows would not have gone into the one before.
    for part, following in pairwise(made):
        first = json.loads(following.body)["images"][0]
        longer = len(part.body) + 1 + len(to_json(first))
        assert len(part.ids) == max_images or longer > max_bytes


def test_a_request_has_32_pictures_at_most() -> None:
    images: dict[str, Image | Picture | NewImage] = {str(n): b"picture" for n in range(70)}
    images["5"] = QUERY
    images["6"] = NewImage(b"picture", {"url": "6"})
    made = list(parts(images, "default", None, 256, 1 << 20))
    assert [len(part.ids) for part in made] == [33, 32, 5]
    first = json.loads(made[0].body)["images"]
    assert "descriptors" in first[5]
    assert base64.b64decode(first[6]["image"]["data"]) == b"picture"


def test_images_are_taken_as_they_are_sent() -> None:
    count = 0

    def lazily() -> Iterator[tuple[str, ImageArrays]]:
        nonlocal count
        for n in range(1_000):
            count += 1
            yield str(n), QUERY

    split = parts(lazily(), "default", None, 10, 1 << 20)
    assert next(split).ids == [str(n) for n in range(10)]
    assert count == 11


def test_metadata_goes_with_an_image() -> None:
    with_metadata = NewImage(QUERY, {"url": "https://example.org/ü.jpg"})
    images: dict[str, Image | NewImage] = {"a": with_metadata, "b": QUERY}
    (part,) = parts(images, "default", None, 10, 1 << 20)
    first, second = json.loads(part.body)["images"]
    assert (first["metadata"], second.get("metadata")) == (with_metadata.metadata, None)


def test_an_error_says_what_is_stored_and_which_image_it_is_about() -> None:
    split = Registration(parts({str(n): QUERY for n in range(5)}, "default", None, 2, 1 << 20))

    def fail_in_the_second(field: str) -> None:
        with split.counting():
            for part in split:
                if part.ids[0] == "2":
                    raise ClientError("validation_error", "no", 422, details={"field": field})
                split.add(RegisterResponse(registered=2, replaced=1, truncated=0))

    with pytest.raises(ClientError) as raised:
        fail_in_the_second("images.1.global")
    assert (raised.value.registered, raised.value.image_id) == (2, "3")
    assert split.answer == RegisterResponse(registered=2, replaced=1, truncated=0)


def test_an_image_that_cannot_be_packed_is_named() -> None:
    images: dict[str, Image | NewImage] = {"fine": QUERY, "flat": np.ones(3)}
    with pytest.raises(InvalidDescriptorsError, match="locals_: shape") as raised:
        list(parts(images, "default", None, 10, 1 << 20))
    assert (raised.value.image_id, raised.value.status) == ("flat", None)
