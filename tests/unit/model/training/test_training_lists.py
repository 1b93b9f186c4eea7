"""Training lists are what the evaluation will ask: other occasions, shuffled, labelled right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.descriptors import ImageDescriptors
from model.formats.labels import LabelledImages, labels_of_views
from model.training.training_lists import (
    DomainGlobals,
    DomainLists,
    DomainLocals,
    ListOptions,
    ListShape,
    MixedLists,
    TrainingList,
    globals_of,
    locals_of,
)
from model.windows import Window
from tests.factories import image, tiny_config, unit

CONFIG = tiny_config()
SHAPE = ListShape(images=20, descriptors=4)
CLASSES, OF_A_CLASS = 10, 8
COUNT = CLASSES * OF_A_CLASS
PLAIN = ListOptions(
    bent_locals=0,
    bent_globals=0,
    poor_locals=0,
    noise_locals=0,
    noise_globals=0,
    mixed=0,
    mean_as_global=0,
    without_globals=0,
    some_without_global=0,
)
"""Globals come through as they are, so that they tell which image is which."""
GLOBALS = globals_of(unit(np.random.default_rng(1), COUNT, 16))
DESCRIPTORS = [image(np.random.default_rng(n), CONFIG) for n in range(COUNT)]
LOCALS = locals_of(DESCRIPTORS, 6)


def labels(groups: bool = False) -> LabelledImages:
    classes = np.repeat(np.arange(CLASSES), OF_A_CLASS)
    ids = [str(n) for n in range(COUNT)]
    queries = np.arange(COUNT) % 3 == 0
    return LabelledImages(ids, classes, queries, classes // 2 if groups else None)


def lists(options: ListOptions = PLAIN, images: LabelledImages | None = None) -> DomainLists:
    return DomainLists(images or labels(), {"made-up": LOCALS}, {"made-up": GLOBALS}, options)


def drawn(
    options: ListOptions = PLAIN, count: int = 100, shape: ListShape = SHAPE
) -> Iterator[TrainingList]:
    source = lists(options)
    return (source.draw(np.random.default_rng(seed), shape) for seed in range(count))


def place(of: ImageDescriptors) -> int:
    assert of.global_ is not None
    return int((GLOBALS.rows @ of.global_).argmax())


def images_of(window: Window) -> list[ImageDescriptors]:
    return [window.query, *window.gallery]


@settings(max_examples=50)
@given(st.integers(0, 2**31))
def test_a_list_is_labelled_right_and_of_other_occasions(seed: int) -> None:
    images = labels()
    one = lists().draw(np.random.default_rng(seed), SHAPE)
    query, *gallery = map(place, images_of(one.window))
    same = images.classes[gallery] == images.classes[query]
    assert one.relevant.tolist() == same.tolist()
    assert same.any()
    assert not same.all()
    assert (images.is_query[gallery] != images.is_query[query]).all()
    assert len(set(gallery)) == len(gallery) <= SHAPE.images
    assert all(1 <= own.count <= SHAPE.descriptors for own in images_of(one.window))


@settings(max_examples=50)
@given(st.integers(0, 2**31))
def test_whatever_is_bent_all_descriptors_have_length_one_and_one_size(seed: int) -> None:
    one = lists(ListOptions()).draw(np.random.default_rng(seed), SHAPE)
    images = images_of(one.window)
    assert len({own.locals.shape[1] for own in images}) == 1
    assert len({len(own.global_) for own in images if own.global_ is not None}) <= 1
    rows = np.concatenate([own.locals for own in images])
    lengths = np.linalg.norm(rows, axis=1)
    assert rows.dtype == np.float32
    # What is bent to nothing, such as the positive part of negative numbers, stays nothing.
    assert (np.isclose(lengths, 1, atol=1e-4) | (lengths == 0)).all()
    assert (lengths > 0).mean() > 0.9


def test_the_same_generator_state_gives_the_same_list() -> None:
    first, second = (lists(ListOptions()).draw(np.random.default_rng(7), SHAPE) for _ in range(2))
    assert first.relevant.tolist() == second.relevant.tolist()
    for one, other in zip(images_of(first.window), images_of(second.window), strict=True):
        np.testing.assert_array_equal(one.locals, other.locals)


def test_the_gallery_is_the_nearest_shuffled() -> None:
    images, falling = labels(), 0
    options = replace(PLAIN, sparse=0, fewest_classes=1)
    for one in drawn(options, count=30):
        query, *gallery = map(place, images_of(one.window))
        others = np.flatnonzero(images.is_query != images.is_query[query])
        cosines = GLOBALS.rows[others] @ GLOBALS.rows[query]
        nearest = others[np.argsort(-cosines)[: SHAPE.images]]
        assert sorted(gallery) == sorted(nearest.tolist())
        falling += gallery == nearest.tolist()
    assert falling < 3


def test_some_lists_have_few_relevant_images() -> None:
    relevant = [int(one.relevant.sum()) for one in drawn(replace(PLAIN, sparse=1.0))]
    assert set(relevant) == {1, 2, 3}
    shape = ListShape(images=COUNT, descriptors=4)
    relevant = [int(o.relevant.sum()) for o in drawn(replace(PLAIN, sparse=0.0), shape=shape)]
    assert min(relevant) >= OF_A_CLASS // 3


def share(values: list[bool]) -> float:
    return sum(values) / len(values)


def test_globals_are_left_out_by_chance() -> None:
    bare = [
        [own.global_ is None for own in images_of(one.window)]
        for one in drawn(replace(PLAIN, without_globals=0.3, some_without_global=0.3), count=200)
    ]
    assert 0.2 < share([all(own) for own in bare]) < 0.4
    assert 0.2 < share([any(own) and not all(own) for own in bare]) < 0.4


def test_noise_tells_nothing_of_the_image() -> None:
    """Locals of an image are no nearer to those it was made from than to others."""
    for noise, expected in ((0.0, True), (1.0, False)):
        matched = []
        for one in drawn(replace(PLAIN, noise_locals=noise), count=60):
            own = DESCRIPTORS[place(one.window.query)].locals
            cosines = one.window.query.locals @ own.T
            matched.append(bool(np.median(cosines.max(1)) > 0.99))
        # Clutter hides the image in some lists.
        assert share(matched) > 0.8 if expected else share(matched) < 0.1


def test_noise_as_a_global_does_not_choose_the_gallery() -> None:
    """The first stage's search is by the globals before the noise."""
    options = replace(PLAIN, noise_globals=1.0)
    for one, plain in zip(drawn(options, 10), drawn(count=10), strict=True):
        assert len(one.relevant) == len(plain.relevant)
        assert one.window.query.global_ is not None
        assert (GLOBALS.rows @ one.window.query.global_).max() < 0.99


def test_the_mean_of_the_locals_stands_in_for_a_global() -> None:
    for one in drawn(replace(PLAIN, mean_as_global=1.0), count=10):
        for own in images_of(one.window):
            assert own.global_ is not None
            mean = own.locals.mean(0)
            np.testing.assert_allclose(own.global_, mean / np.linalg.norm(mean), atol=1e-5)


def test_locals_of_one_extractor_beside_globals_of_another() -> None:
    rng = np.random.default_rng(3)
    wide = locals_of([replace(one, locals=unit(rng, one.count, 20)) for one in DESCRIPTORS], 6)
    of_wide = globals_of(unit(rng, COUNT, 5))

    def sizes(mixed: float) -> set[tuple[int, int]]:
        options = replace(PLAIN, mixed=mixed)
        source = DomainLists(
            labels(), {"a": LOCALS, "b": wide}, {"a": GLOBALS, "b": of_wide}, options
        )
        queries = (source.draw(np.random.default_rng(n), SHAPE).window.query for n in range(40))
        return {(q.locals.shape[1], len(q.global_)) for q in queries if q.global_ is not None}

    assert sizes(0.0) == {(8, 16), (20, 5)}
    assert sizes(0.5) == {(8, 16), (20, 5), (8, 5), (20, 16)}


def test_an_extractor_without_globals_takes_those_of_another() -> None:
    source = DomainLists(labels(), {"bare": LOCALS}, {"other": GLOBALS}, PLAIN)
    one = source.draw(np.random.default_rng(0), SHAPE)
    assert one.window.query.sizes.global_dim == 16


@settings(max_examples=50)
@given(st.integers(0, 2**31))
def test_images_of_one_group_are_never_called_irrelevant(seed: int) -> None:
    images = labels(groups=True)
    assert images.groups is not None
    one = lists(images=images).draw(np.random.default_rng(seed), SHAPE)
    query, *gallery = map(place, images_of(one.window))
    grouped = images.groups[gallery] == images.groups[query]
    assert (one.relevant == grouped).all()


def test_lists_that_cannot_be_drawn_are_refused() -> None:
    images = labels()
    for unfit in (
        replace(images, is_query=np.zeros(COUNT, np.bool_)),
        replace(images, classes=np.zeros(COUNT, np.int64)),
        labels_of_views(["a@0", "b@0"], images),
    ):
        with pytest.raises(ValueError, match="training lists need two classes"):
            lists(images=unfit)
    with pytest.raises(ValueError, match="need a global descriptor of every image"):
        DomainLists(images, {"bare": LOCALS}, {}, PLAIN)


def test_the_strongest_locals_of_images_of_any_number() -> None:
    rng = np.random.default_rng(0)
    images = [image(rng, CONFIG, rows) for rows in (1, 5, 3)]
    of: DomainLocals = locals_of(images, max_locals=4)
    assert of.counts.tolist() == [1, 4, 3]
    for own, rows, count in zip(images, of.rows, of.counts, strict=True):
        np.testing.assert_allclose(rows[:count], own.locals[:count], atol=1e-3)
        assert not rows[count:].any()
    odd = replace(images[0], locals=unit(rng, 2, 9))
    with pytest.raises(ValueError, match="several lengths"):
        locals_of([*images, odd], max_locals=4)


def test_globals_have_length_one() -> None:
    rows: NDArray[np.float32] = 3 * unit(np.random.default_rng(0), 5, 4)
    of: DomainGlobals = globals_of(rows)
    np.testing.assert_allclose(of.rows, rows / 3, atol=1e-6)


def test_a_mixture_draws_from_its_sources_by_their_weights() -> None:
    bare = lists(replace(PLAIN, without_globals=1.0))
    mixed = MixedLists([lists(), bare], [6.0, 2.0])
    windows = [mixed.draw(np.random.default_rng(seed), SHAPE).window for seed in range(200)]
    assert 0.15 < share([window.query.global_ is None for window in windows]) < 0.35
