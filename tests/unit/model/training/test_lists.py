"""Training lists are what the evaluation will ask: other occasions, shuffled, labelled right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.descriptors import ImageDescriptors
from model.formats.labels import LabelledImages
from model.training.lists import (
    LabelledLists,
    ListOptions,
    ListShape,
    MixedLists,
    TrainingList,
    views_as_images,
)
from tests.factories import image, tiny_config

CONFIG = tiny_config()
OPTIONS = ListOptions(without_global=0.3)
SHAPE = ListShape(images=20, descriptors=4)


def made_up(groups: bool = False) -> tuple[LabelledImages, list[ImageDescriptors]]:
    """Ten classes of eight images; the scales of an image tell which one it is."""
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(10), 8)
    descriptors = [
        replace(image(rng, CONFIG), scales=np.full(CONFIG.descriptors_per_image, n, np.uint8))
        for n in range(80)
    ]
    queries = np.arange(80) % 3 == 0
    ids = [str(n) for n in range(80)]
    return LabelledImages(ids, classes, queries, classes // 2 if groups else None), descriptors


def places(drawn: TrainingList) -> tuple[int, list[int]]:
    return int(drawn.window.query.scales[0]), [int(i.scales[0]) for i in drawn.window.gallery]


@settings(max_examples=50)
@given(st.integers(0, 2**31))
def test_a_list_is_labelled_right_and_of_other_occasions(seed: int) -> None:
    images, descriptors = made_up()
    drawn = LabelledLists(images, descriptors, OPTIONS).draw(np.random.default_rng(seed), SHAPE)
    query, gallery = places(drawn)
    same = images.classes[gallery] == images.classes[query]
    assert drawn.relevant.tolist() == same.tolist()
    assert same.any()
    assert not same.all()
    assert (images.is_query[gallery] != images.is_query[query]).all()
    assert len(set(gallery)) == len(gallery) <= SHAPE.images
    counts = {i.count for i in (drawn.window.query, *drawn.window.gallery)}
    assert counts == {SHAPE.descriptors}


def test_the_order_is_shuffled() -> None:
    images, descriptors = made_up()
    source = LabelledLists(images, descriptors, replace(OPTIONS, without_global=0.0))
    falling = 0
    for seed in range(30):
        window = source.draw(np.random.default_rng(seed), SHAPE).window
        assert window.query.global_ is not None
        cosines = [
            i.global_ @ window.query.global_ for i in window.gallery if i.global_ is not None
        ]
        falling += cosines == sorted(cosines, reverse=True)
    assert falling < 5


def test_the_same_seed_draws_the_same_list() -> None:
    images, descriptors = made_up()
    source = LabelledLists(images, descriptors, OPTIONS)
    first, second = (source.draw(np.random.default_rng(5), SHAPE) for _ in range(2))
    assert places(first) == places(second)


def test_a_share_of_the_lists_does_without_the_metric() -> None:
    images, descriptors = made_up()
    source = LabelledLists(images, descriptors, replace(OPTIONS, without_metric=0.3))
    drawn = [source.draw(np.random.default_rng(seed), SHAPE) for seed in range(100)]
    assert 15 < sum(not one.window.in_metric for one in drawn) < 45


@settings(max_examples=50)
@given(st.integers(0, 2**31))
def test_images_of_one_group_are_never_called_irrelevant(seed: int) -> None:
    images, descriptors = made_up(groups=True)
    assert images.groups is not None
    drawn = LabelledLists(images, descriptors, OPTIONS).draw(np.random.default_rng(seed), SHAPE)
    query, gallery = places(drawn)
    grouped = images.groups[gallery] == images.groups[query]
    assert (drawn.relevant == grouped).all()


def test_a_rotation_keeps_the_cosines() -> None:
    images, descriptors = made_up()
    plain = LabelledLists(images, descriptors, OPTIONS).draw(np.random.default_rng(1), SHAPE)
    options = replace(OPTIONS, rotated=1.0)
    turned = (
        LabelledLists(images, descriptors, options).draw(np.random.default_rng(1), SHAPE).window
    )
    assert places(plain)[0] == int(turned.query.scales[0])
    one, other = turned.gallery[0].locals, turned.query.locals
    original = descriptors[places(plain)[0]].locals[: len(other)]
    assert np.abs(other - original).max() > 0.05
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)


def test_views_of_an_image_are_a_class_and_its_class_a_group() -> None:
    known = LabelledImages(["a", "b"], np.array([7, 8]), np.array([True, False]))
    views = views_as_images(["a@0", "a@1", "b@0", "c@0"], known)
    assert views.ids == ["a@0", "a@1", "b@0"]
    assert views.classes.tolist() == [0, 0, 1]
    assert views.is_query.tolist() == [False, True, False]
    assert views.groups is not None
    assert views.groups.tolist() == [7, 7, 8]


def test_lists_that_cannot_be_drawn_are_refused() -> None:
    images, descriptors = made_up()
    for unfit in (
        replace(images, is_query=np.zeros(80, np.bool_)),
        replace(images, classes=np.zeros(80, np.int64)),
        views_as_images(["a@0", "b@0"], images),
    ):
        with pytest.raises(ValueError, match="training lists need two classes"):
            LabelledLists(unfit, descriptors[: len(unfit.ids)], OPTIONS)


def test_a_mixture_draws_from_both() -> None:
    images, descriptors = made_up()
    whole = LabelledLists(images, descriptors, replace(OPTIONS, without_global=0.0))
    bare = LabelledLists(images, descriptors, replace(OPTIONS, without_global=1.0))
    mixed = MixedLists(whole, bare, share=0.25)
    drawn = [mixed.draw(np.random.default_rng(seed), SHAPE).window for seed in range(200)]
    assert 20 < sum(window.query.global_ is None for window in drawn) < 80


def test_a_view_stands_in_for_its_image_by_chance() -> None:
    images, descriptors = made_up()
    marked = replace(descriptors[7], scales=np.full(CONFIG.descriptors_per_image, 200, np.uint8))
    source = LabelledLists(images, descriptors, replace(OPTIONS, as_view=0.5), {7: [marked]})
    seen: list[int] = []
    for seed in range(300):
        query, gallery = places(source.draw(np.random.default_rng(seed), SHAPE))
        seen += [place for place in (query, *gallery) if place in (7, 200)]
    assert 0.3 < np.mean([place == 200 for place in seen]) < 0.7


def test_views_of_unlabelled_images_are_a_class_each() -> None:
    views = views_as_images(["a@0", "a@1", "b@0"])
    assert views.classes.tolist() == [0, 0, 1]
    assert views.is_query.tolist() == [False, True, False]
    assert views.groups is None
