"""A bend changes the cosines of a whole list, and keeps something of who is near whom."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.training.bending import add_noise, bend, spectrum
from tests.factories import unit

KINDS = 20


def crowds(count: int = 200, dim: int = 64) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors around as many centres, and whose they are."""
    rng = np.random.default_rng(0)
    kind = np.arange(count) % KINDS
    vectors = unit(rng, KINDS, dim)[kind] + 0.5 * unit(rng, count, dim)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), kind


VECTORS, KIND = crowds()
SPECTRUM = spectrum(VECTORS)


def nearest_of_a_kind(vectors: NDArray[np.float32]) -> float:
    """Share of vectors whose nearest by cosine is of their own kind."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = vectors / np.where(lengths > 0, lengths, 1)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -2)
    return float((KIND[cosines.argmax(1)] == KIND).mean())


def test_a_spectrum_is_mean_axes_and_falling_variances() -> None:
    rng = np.random.default_rng(1)
    spread = np.array([3.0, 1.0, 0.2])
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    vectors = rng.standard_normal((5000, 3)) * spread @ turn + (1, 2, 3)
    of = spectrum(vectors)
    np.testing.assert_allclose(of.mean, (1, 2, 3), atol=0.15)
    np.testing.assert_allclose(of.variances, spread**2, rtol=0.1)
    np.testing.assert_allclose(np.abs(of.axes.T @ turn.T), np.eye(3), atol=0.1)
    some = spectrum(vectors, max_vectors=500)
    np.testing.assert_allclose(some.variances, of.variances, rtol=0.3)


@settings(max_examples=60)
@given(st.integers(0, 2**31))
def test_whatever_is_bent_is_finite_and_keeps_its_rows(seed: int) -> None:
    before = VECTORS.copy()
    bent_vectors = bend(VECTORS, SPECTRUM, np.random.default_rng(seed))
    assert bent_vectors.dtype == np.float32
    assert bent_vectors.shape[0] == len(VECTORS)
    assert np.isfinite(bent_vectors).all()
    np.testing.assert_array_equal(VECTORS, before)
    again = bend(VECTORS, SPECTRUM, np.random.default_rng(seed))
    np.testing.assert_array_equal(bent_vectors, again)


def test_bends_change_the_cosines_and_mostly_keep_the_neighbours() -> None:
    shares, sizes, moved = [], set(), 0
    exact = VECTORS @ VECTORS.T
    for seed in range(60):
        bent_vectors = bend(VECTORS, SPECTRUM, np.random.default_rng(seed))
        shares.append(nearest_of_a_kind(bent_vectors))
        sizes.add(bent_vectors.shape[1])
        rows = bent_vectors / np.linalg.norm(bent_vectors, axis=1, keepdims=True).clip(min=1e-9)
        moved += np.abs(rows @ rows.T - exact).max() > 0.05
    assert nearest_of_a_kind(VECTORS) > 0.95
    assert np.mean(shares) > 0.6
    assert len(sizes) > 3
    assert moved > 40


def test_few_dimensions_are_bent_too() -> None:
    narrow = VECTORS[:, :5]
    for seed in range(20):
        bent_vectors = bend(narrow, spectrum(narrow), np.random.default_rng(seed))
        assert np.isfinite(bent_vectors).all()


def test_noise_is_as_strong_as_is_asked_for() -> None:
    for level in (0.1, 1.0, 4.0):
        rest = add_noise(VECTORS, level, np.random.default_rng(0)) - VECTORS
        np.testing.assert_allclose(rest.std(), level * VECTORS.std(), rtol=0.05)
    assert nearest_of_a_kind(add_noise(VECTORS, 0.1, np.random.default_rng(0))) > 0.95
    assert nearest_of_a_kind(add_noise(VECTORS, 30.0, np.random.default_rng(0))) < 0.2
