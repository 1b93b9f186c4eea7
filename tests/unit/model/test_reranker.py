"""Scores depend on a window's images and on nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.checkpoint import load_checkpoint
from model.config import DEFAULT_CHECKPOINT, MambaConfig
from model.descriptors import DescriptorSizes, ImageDescriptors, normalised
from model.random_images import random_image
from model.reranker import MambaReranker, score_windows
from model.windows import Window
from tests.factories import LOCAL_DIM, image, tiny_config, tiny_model, unit, window

CPU = torch.device("cpu")
CONFIG = tiny_config()
MODEL = tiny_model()
SIZES = st.builds(DescriptorSizes, st.integers(2, 20), st.none() | st.integers(2, 20))
SEEDS = st.integers(0, 2**31)


def scores_of(one: Window, model: MambaReranker = MODEL) -> NDArray[np.float32]:
    return score_windows(model, [one], CPU)[0]


def changed(
    one: Window,
    locals_: Callable[[NDArray[np.floating]], NDArray[np.floating]] = lambda rows: rows,
    global_: Callable[[NDArray[np.floating]], NDArray[np.floating]] = lambda row: row,
) -> Window:
    """The window with every descriptor changed in the same way."""

    def of(image: ImageDescriptors) -> ImageDescriptors:
        own = None if image.global_ is None else global_(image.global_)
        return replace(image, locals=locals_(image.locals), global_=own)

    return Window(of(one.query), [of(other) for other in one.gallery])


@settings(max_examples=40)
@given(of=st.lists(st.tuples(st.integers(1, 9), SIZES), min_size=2, max_size=5), seed=SEEDS)
def test_padding_and_company_do_not_change_a_score(
    of: list[tuple[int, DescriptorSizes]], seed: int
) -> None:
    """The windows of one batch may even have descriptors of different sizes."""
    rng = np.random.default_rng(seed)
    windows = [window(rng, CONFIG, images, sizes) for images, sizes in of]
    together = score_windows(MODEL, windows, CPU)
    for one, scores in zip(windows, together, strict=True):
        assert scores.shape == (len(one.gallery),)
        np.testing.assert_allclose(scores, scores_of(one), atol=1e-4)


@settings(max_examples=30)
@given(images=st.integers(1, 12), seed=SEEDS)
def test_the_callers_order_does_not_change_a_score(images: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = window(rng, CONFIG, images)
    order = rng.permutation(images)
    moved = Window(one.query, [one.gallery[place] for place in order])
    np.testing.assert_array_equal(scores_of(moved), scores_of(one)[order])


@settings(max_examples=30)
@given(named=st.lists(st.integers(0, 4), min_size=1, max_size=15), seed=SEEDS)
def test_copies_have_one_score_however_often_and_in_which_order_they_are_named(
    named: list[int], seed: int
) -> None:
    different = window(np.random.default_rng(seed), CONFIG, 5)
    places = sorted(set(named))
    once = scores_of(Window(different.query, [different.gallery[place] for place in places]))
    copies = [different.gallery[place] for place in named]
    expected = [once[places.index(place)] for place in named]
    np.testing.assert_array_equal(scores_of(Window(different.query, copies)), expected)


def test_images_that_share_only_their_strongest_local_are_no_copies() -> None:
    rng = np.random.default_rng(0)
    one = window(rng, CONFIG, 4)
    first, second = (image(rng, CONFIG) for _ in range(2))
    second.locals[0] = first.locals[0]
    scores = scores_of(Window(one.query, [first, second, first, *one.gallery]))
    assert scores[0] == scores[2] != scores[1]


@settings(max_examples=20)
@given(rows=st.lists(st.integers(1, 6), min_size=2, max_size=7), seed=SEEDS)
def test_an_image_may_have_any_number_of_locals(rows: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [image(rng, CONFIG, count) for count in rows]
    assert np.isfinite(scores_of(Window(images[0], images[1:]))).all()


@pytest.mark.parametrize("with_global", ["all", "none", "some", "all but the query", "only one"])
def test_images_with_and_without_a_global_are_scored(with_global: str) -> None:
    rng = np.random.default_rng(1)
    images_with_globals = [image(rng, CONFIG) for _ in range(7)]
    has = {
        "all": [True] * 7,
        "none": [False] * 7,
        "some": [True, True, False, True, False, True, True],
        "all but the query": [False] + [True] * 6,
        "only one": [False] * 3 + [True] + [False] * 3,
    }[with_global]
    images = [
        one if has_global else replace(one, global_=None)
        for one, has_global in zip(images_with_globals, has, strict=True)
    ]
    scores = scores_of(Window(images[0], images[1:]))
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) == 6
    if has[0] and has[1]:
        # A global says something.
        others = [replace(images_with_globals[1], global_=unit(rng, 1, 12)[0]), *images[2:]]
        assert scores_of(Window(images[0], others))[0] != scores[0]


def with_constant(share: float) -> Callable[[NDArray[np.floating]], NDArray[np.floating]]:
    """Vectors of length 1 with one more number, the same for all: every cosine c between two of
    them becomes (c + share²) / (1 + share²)."""

    def longer(rows: NDArray[np.floating]) -> NDArray[np.floating]:
        constant = np.full((*rows.shape[:-1], 1), share, np.float32)
        return normalised(np.concatenate((rows, constant), axis=-1), "made up")

    return longer


@settings(max_examples=20)
@given(images=st.integers(3, 12), share=st.floats(0.2, 2), seed=SEEDS)
def test_scale_and_offset_of_similarities_do_not_change_a_score(
    images: int, share: float, seed: int
) -> None:
    one = window(np.random.default_rng(seed), CONFIG, images)
    shifted = changed(one, with_constant(share), with_constant(share / 2))
    # A square root multiplies rounding at the edge of a neighbourhood: 0.031 has been seen.
    np.testing.assert_allclose(scores_of(shifted), scores_of(one), atol=5e-2)


@settings(max_examples=20)
@given(images=st.integers(3, 12), seed=SEEDS)
def test_a_rotation_of_all_descriptors_does_not_change_a_score(images: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = window(rng, CONFIG, images)
    of_locals, of_globals = (
        np.linalg.qr(rng.standard_normal((size, size)))[0].astype(np.float32) for size in (8, 12)
    )
    turned = changed(one, lambda rows: rows @ of_locals, lambda row: row @ of_globals)
    np.testing.assert_allclose(scores_of(turned), scores_of(one), atol=5e-2)


def test_the_length_of_a_descriptor_does_not_change_a_score() -> None:
    one = window(np.random.default_rng(3), CONFIG, 6)
    longer = changed(one, lambda rows: rows * 3, lambda row: row * 5)
    np.testing.assert_allclose(scores_of(longer), scores_of(one), atol=1e-4)


@settings(max_examples=20)
@given(seed=SEEDS)
def test_images_of_a_list_inform_each_other(seed: int) -> None:
    complete = window(np.random.default_rng(seed), CONFIG, 6)
    fewer = scores_of(Window(complete.query, complete.gallery[:-1]))
    assert np.abs(scores_of(complete)[:-1] - fewer).max() > 1e-4


def test_the_query_in_its_own_gallery_scores_the_same_in_any_company() -> None:
    """All its locals match perfectly there, so rounding must not choose among them."""
    rng = np.random.default_rng(9)
    query = image(rng, CONFIG)
    one = Window(query, [query, image(rng, CONFIG), image(rng, CONFIG)])
    alone = scores_of(one)
    for images in (1, 7, 30):
        together = score_windows(MODEL, [window(rng, CONFIG, images), one], CPU)
        np.testing.assert_allclose(together[1], alone, atol=1e-4)


@pytest.mark.parametrize("images", [2, 5, 20])
def test_near_duplicates_score_the_same_in_any_company(images: int) -> None:
    """What hardly differs is standardised over the list, and rounding with it."""
    shipped = load_checkpoint(DEFAULT_CHECKPOINT, CPU)
    rng = np.random.default_rng(images)
    centre = random_image(rng, shipped.config)
    assert centre.global_ is not None
    global_, locals_ = centre.global_, centre.locals

    def near() -> ImageDescriptors:
        moved = (v + 0.01 * rng.standard_normal(v.shape) for v in (locals_, global_))
        rows, whole = (v.astype(np.float32) for v in moved)
        return ImageDescriptors(rows, centre.scales, whole)

    crowd = Window(near(), [near() for _ in range(images)])
    other = Window(centre, [random_image(rng, shipped.config) for _ in range(37)])
    (alone,) = score_windows(shipped.reranker, [crowd], CPU)
    together = score_windows(shipped.reranker, [other, crowd], CPU)
    np.testing.assert_allclose(together[1], alone, atol=1e-4)


def test_rows_beyond_the_checkpoints_number_do_not_count() -> None:
    rng = np.random.default_rng(0)
    most = CONFIG.descriptors_per_image
    query, *gallery = (image(rng, CONFIG, rows=most + extra) for extra in (3, 5, 0, 1))
    cut = [other.strongest(most) for other in gallery]
    expected = scores_of(Window(query.strongest(most), cut))
    np.testing.assert_array_equal(scores_of(Window(query, gallery)), expected)


def test_padding_among_the_locals_is_left_out() -> None:
    """An image with holes is the image without them: places mean nothing here."""
    rng = np.random.default_rng(5)
    complete = window(rng, CONFIG, 4)
    padding = np.array([False, True, False, True, False])
    rows = image(rng, CONFIG, 5)
    holed = replace(rows, locals=rows.locals * ~padding[:, None], padding=padding)
    assert holed.without_padding().count == 3
    expected = scores_of(Window(holed.without_padding(), [*complete.gallery, complete.query]))
    padded = Window(holed, [*complete.gallery, complete.query])
    np.testing.assert_array_equal(scores_of(padded), expected)
    among = scores_of(Window(complete.query, [*complete.gallery, holed]))
    expected = scores_of(Window(complete.query, [*complete.gallery, holed.without_padding()]))
    np.testing.assert_array_equal(among, expected)


def test_locals_of_several_sizes_in_one_window_are_refused() -> None:
    rng = np.random.default_rng(7)
    for odd in (DescriptorSizes(1, 12), DescriptorSizes(LOCAL_DIM, 1)):
        gallery = [image(rng, CONFIG), image(rng, CONFIG, sizes=odd)]
        with pytest.raises(ValueError, match=r"locals of sizes .*, globals of sizes"):
            scores_of(Window(image(rng, CONFIG), gallery))


def test_bfloat16_scores_are_about_the_same() -> None:
    one = window(np.random.default_rng(4), CONFIG, 9)
    exact, rough = scores_of(one), scores_of(one, tiny_model().to(torch.bfloat16))
    assert np.abs(rough - exact).max() < 0.1 * np.abs(exact).max() + 0.1


@pytest.mark.parametrize("with_global", [True, False])
@pytest.mark.parametrize("sizes", [DescriptorSizes(8, 12), DescriptorSizes(100, 3)])
def test_an_untrained_model_orders_by_similarity(with_global: bool, sizes: DescriptorSizes) -> None:
    rng = np.random.default_rng(6)

    def made() -> ImageDescriptors:
        return image(rng, CONFIG, with_global=with_global, sizes=sizes)

    query = made()

    def near(noise: float) -> ImageDescriptors:
        other = made()
        global_ = query.global_
        if global_ is not None and other.global_ is not None:
            global_ = global_ + noise * other.global_
        return replace(other, locals=query.locals + noise * other.locals, global_=global_)

    gallery = [made(), near(0.6), made(), near(0.1), made()]
    scores = scores_of(Window(query, gallery), MambaReranker(CONFIG).eval())
    assert scores.argsort()[::-1][:2].tolist() == [3, 1]


MIXERS = ("mamba", "windowed-attention", "none")


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_mixer_is_blind_to_padding_and_company(mixer: str) -> None:
    """The long window is longer than windowed attention sees at once; few matches are padded."""
    config: MambaConfig = tiny_config(mixer=mixer, matches_per_image=5)
    model, rng = tiny_model(config), np.random.default_rng(2)
    long = Window(image(rng, config, 2), [image(rng, config) for _ in range(95)])
    short = Window(image(rng, config, 6), [image(rng, config) for _ in range(4)])
    together = score_windows(model, [short, long], CPU)
    for one, scores in zip((short, long), together, strict=True):
        np.testing.assert_allclose(scores, scores_of(one, model), atol=1e-3)


def test_mixers_differ_in_what_they_give() -> None:
    one = window(np.random.default_rng(8), CONFIG, 9)
    scores = [scores_of(one, tiny_model(tiny_config(mixer=mixer))) for mixer in MIXERS]
    assert np.abs(scores[0] - scores[1]).max() > 1e-3
    assert np.abs(scores[0] - scores[2]).max() > 1e-3
