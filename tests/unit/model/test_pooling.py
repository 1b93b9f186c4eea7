"""Locals that are nearly the same become one; the others stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.descriptors import ImageDescriptors
from model.pooling import pooled
from tests.factories import unit


def test_near_duplicates_become_their_mean_in_the_place_of_the_strongest() -> None:
    rng = np.random.default_rng(0)
    rows = unit(rng, 4, 64)
    near = rows[1] + 0.01 * rng.standard_normal((2, 64)).astype(np.float32)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    image = ImageDescriptors(
        np.stack([rows[0], near[0], rows[2], near[1], rows[3]]),
        np.array([4, 1, 2, 9, 3], np.uint8),
        unit(rng, 1, 12)[0],
    )
    fewer = pooled(image, 4)
    mean = near.sum(0) / np.linalg.norm(near.sum(0))
    np.testing.assert_allclose(fewer.locals, np.stack([rows[0], mean, rows[2], rows[3]]), atol=1e-6)
    assert fewer.scales.tolist() == [4, 1, 2, 3]
    assert fewer.global_ is image.global_


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**31))
def test_there_are_at_most_so_many_of_length_1(rows: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = ImageDescriptors(unit(rng, rows, 6), rng.integers(0, 9, rows).astype(np.uint8))
    fewer = pooled(image, count)
    assert fewer.count == min(rows, count)
    np.testing.assert_allclose(np.linalg.norm(fewer.locals, axis=1), 1, atol=1e-5)
    assert len(fewer.scales) == fewer.count
    if rows <= count:
        assert fewer is image


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_copies_of_one_local_are_one(count: int) -> None:
    row = unit(np.random.default_rng(0), 1, 8)
    image = ImageDescriptors(np.repeat(row, 6, axis=0), np.zeros(6, np.uint8))
    fewer = pooled(image, count)
    assert 1 <= fewer.count <= count
    np.testing.assert_allclose(fewer.locals, np.repeat(row, fewer.count, axis=0), atol=1e-6)


def test_padding_is_not_pooled() -> None:
    rng = np.random.default_rng(0)
    rows = unit(rng, 6, 8)
    padding = np.array([False, True, False, False, True, False])
    rows[padding] = 0
    image = ImageDescriptors(rows, np.arange(6, dtype=np.uint8), None, padding)
    assert pooled(image, 4) is image
    fewer = pooled(image, 3)
    assert (fewer.count, fewer.padding) == (3, None)
    assert set(fewer.scales.tolist()) < {0, 2, 3, 5}
