"""Ragged windows become one grid, of which nothing but the images counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.descriptors import DescriptorSizes
from model.window_batch import WindowShape, collate, distinct
from model.windows import Window
from tests.factories import image, tiny_config, window

CONFIG = tiny_config()
MOST = CONFIG.descriptors_per_image


def test_every_image_is_in_its_place_and_the_rest_is_empty() -> None:
    rng = np.random.default_rng(0)
    small, large = DescriptorSizes(3, None), DescriptorSizes(8, 5)
    windows = [window(rng, CONFIG, 2, small), window(rng, CONFIG, 4, large)]
    batch = collate(windows, descriptors_per_image=MOST)
    assert batch.locals.shape[:2] == batch.image_mask.shape == (2, 5)
    assert batch.image_mask.sum(1).tolist() == [3, 5]
    assert batch.places.tolist() == [[1, 2, 0, 0], [1, 2, 3, 4]]
    assert batch.present.tolist() == [[True, True, False, False], [True] * 4]
    for w, one in enumerate(windows):
        images = (one.query, *one.gallery)
        for i, own in enumerate(images):
            rows, dim = own.locals.shape
            np.testing.assert_array_equal(batch.locals[w, i, :rows, :dim].numpy(), own.locals)
            assert batch.local_mask[w, i].sum() == rows
            assert bool(batch.has_global[w, i]) == (own.global_ is not None)
            if own.global_ is not None:
                np.testing.assert_array_equal(batch.globals[w, i].numpy(), own.global_)
    assert not batch.locals[~batch.local_mask].any()
    assert not batch.locals[0, :, :, 3:].any()
    assert not batch.globals[~batch.has_global].any()


def test_the_shape_of_every_window_is_told() -> None:
    rng = np.random.default_rng(1)
    sizes = DescriptorSizes(3, 7)
    one = Window(image(rng, CONFIG, 2, sizes=sizes), [image(rng, CONFIG, 4, sizes=sizes)])
    other = Window(image(rng, CONFIG, 9), [image(rng, CONFIG, 1)] * 3)
    batch = collate([one, other], descriptors_per_image=MOST)
    assert batch.shapes == (WindowShape(2, 4, 2, 3, 7), WindowShape(4, MOST, MOST, 8, 12))


def test_globals_are_left_out_where_they_are_not_read() -> None:
    rng = np.random.default_rng(2)
    one = Window(image(rng, CONFIG), [image(rng, CONFIG)])
    batch = collate([one], descriptors_per_image=MOST, with_globals=False)
    assert not batch.has_global.any()
    assert batch.globals.shape == (1, 2, 0)


def test_padding_is_left_out_or_keeps_its_place() -> None:
    rng = np.random.default_rng(3)
    padding = np.array([False, True, False])
    rows = image(rng, CONFIG, 3)
    holed = replace(rows, locals=rows.locals * ~padding[:, None], padding=padding)
    one = Window(image(rng, CONFIG, 3), [holed])
    without = collate([one], descriptors_per_image=MOST)
    batch = collate([one], descriptors_per_image=MOST, keep_places=True)
    assert without.local_mask[0, 1].tolist() == [True, True, False]
    assert batch.local_mask[0, 1].tolist() == [True, False, True]
    np.testing.assert_array_equal(without.locals[0, 1, 1].numpy(), batch.locals[0, 1, 2].numpy())


@pytest.mark.parametrize("odd", [DescriptorSizes(1, 12), DescriptorSizes(8, 1)])
def test_sizes_that_would_broadcast_are_refused(odd: DescriptorSizes) -> None:
    rng = np.random.default_rng(4)
    one = Window(image(rng, CONFIG), [image(rng, CONFIG, sizes=odd)])
    with pytest.raises(ValueError, match="locals of sizes"):
        collate([one], descriptors_per_image=MOST)


@given(named=st.lists(st.integers(0, 3), min_size=1, max_size=8), seed=st.integers(0, 2**31))
def test_a_distinct_window_has_every_image_once_in_an_order_of_its_own(
    named: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    images = window(rng, CONFIG, 4).gallery
    query = image(rng, CONFIG)
    once, places = distinct(Window(query, [images[place] for place in named]))
    assert once.query is query
    assert [once.gallery[place] for place in places] == [images[place] for place in named]
    assert len(once.gallery) == len(set(named))
    again, _ = distinct(Window(query, [images[place] for place in sorted(set(named))]))
    assert list(again.gallery) == list(once.gallery)


def test_images_that_differ_in_anything_that_is_read_are_no_copies() -> None:
    rng = np.random.default_rng(5)
    first = image(rng, CONFIG)
    other_local = replace(first, locals=np.vstack((first.locals[:-1], -first.locals[-1:])))
    others = [
        replace(first, global_=None),
        replace(first, global_=-np.ones(12, np.float32)),
        other_local,
        replace(first, locals=first.locals[:-1]),
    ]
    copy = replace(first, locals=first.locals.copy(), scales=first.scales + np.uint8(1))
    once, places = distinct(Window(first, [first, *others, copy]))
    assert len(once.gallery) == 5
    assert places[0] == places[-1]
