"""Neighbourhoods overlap where images form crowds, and noise is known for what it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from model.neighbours import GRAPHS, NEIGHBOURHOODS, coherence, neighbourhood_overlaps
from model.standardisation import standardised
from tests.factories import unit

IMAGES = 41


def apart(images: int) -> Tensor:
    return ~torch.eye(images, dtype=torch.bool)


def similarity(vectors: np.ndarray) -> Tensor:
    """Standardised, of unit vectors (i, d)."""
    cosines = torch.from_numpy(vectors @ vectors.T)
    return standardised(cosines, (0, 1), apart(len(vectors)))


def crowds(rng: np.random.Generator, images: int = IMAGES, noise: float = 0.5) -> np.ndarray:
    """Images of four kinds, by turns."""
    centres = unit(rng, 4, 32)
    vectors = centres[np.arange(images) % 4] + noise * unit(rng, images, 32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def noise(rng: np.random.Generator, images: int = IMAGES) -> Tensor:
    """Similarities that are no vectors' cosines."""
    values = torch.from_numpy(rng.standard_normal((images, images)).astype(np.float32))
    return standardised(values + values.mT, (0, 1), apart(images))


def trust(similarity: Tensor) -> float:
    """Coherence of one graph (i, i)."""
    return float(coherence(similarity[None, None], apart(len(similarity))))


@pytest.mark.parametrize("seed", range(5))
def test_structure_is_coherent_and_noise_is_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    of_noise = trust(noise(rng))
    of_crowds = trust(similarity(crowds(rng)))
    assert abs(of_noise) < 0.15
    assert 0.5 < of_crowds <= 1


def test_coherence_falls_with_noise_and_has_no_scale() -> None:
    rng = np.random.default_rng(0)
    values = [trust(similarity(crowds(rng, noise=level))) for level in (0.3, 1.0, 3.0)]
    assert values == sorted(values, reverse=True)
    one = similarity(crowds(rng))
    assert trust(3 * one + 2) == pytest.approx(trust(one), abs=1e-4)


def overlaps(by_globals: Tensor, by_locals: Tensor) -> Tensor:
    """(graphs, k, i, i)"""
    others = apart(len(by_globals))
    windows = by_globals.unsqueeze(0), by_locals.unsqueeze(0)
    of_both = coherence(torch.stack(windows, dim=1), others)
    flat = neighbourhood_overlaps(*windows, of_both, others)
    overlap: Tensor = flat[0].unflatten(0, (len(GRAPHS), len(NEIGHBOURHOODS)))
    return overlap


def within_and_between(values: Tensor) -> tuple[float, float]:
    """Means over pairs of one crowd and over the others."""
    kind = torch.arange(len(values)) % 4
    same = kind.unsqueeze(1) == kind
    return float(values[same & apart(len(values))].mean()), float(values[~same].mean())


@pytest.mark.parametrize("k", [5, 10])
def test_images_of_one_crowd_share_their_neighbourhood(k: int) -> None:
    rng = np.random.default_rng(1)
    overlap = overlaps(similarity(crowds(rng)), similarity(crowds(rng)))
    for graph in range(len(GRAPHS)):
        within, between = within_and_between(overlap[graph, NEIGHBOURHOODS.index(k)])
        assert within > 2 * between


def test_an_overlap_is_a_share_and_one_with_oneself() -> None:
    rng = np.random.default_rng(2)
    overlap = overlaps(similarity(crowds(rng)), noise(rng))
    assert overlap.min() >= 0
    assert overlap.max() <= 1 + 1e-5
    own = overlap.diagonal(dim1=2, dim2=3)
    torch.testing.assert_close(own, torch.ones_like(own), atol=1e-4, rtol=0)
    torch.testing.assert_close(overlap, overlap.mT, atol=1e-5, rtol=0)


def test_what_is_trusted_follows_the_cue_that_is_coherent() -> None:
    rng = np.random.default_rng(3)
    good, bad = similarity(crowds(rng)), noise(rng)
    for graphs in ((good, bad), (bad, good)):
        overlap = overlaps(*graphs)[GRAPHS.index("trusted"), NEIGHBOURHOODS.index(10)]
        within, between = within_and_between(overlap)
        assert within > 2 * between
    within, between = within_and_between(overlaps(good, bad)[1, NEIGHBOURHOODS.index(10)])
    assert within < 1.5 * between


@pytest.mark.parametrize("images", [1, 2, 3])
def test_small_windows_are_finite(images: int) -> None:
    rng = np.random.default_rng(images)
    one, other = (similarity(unit(rng, images, 8)) for _ in range(2))
    overlap = overlaps(one, other)
    assert overlap.shape == (len(GRAPHS), len(NEIGHBOURHOODS), images, images)
    assert overlap.isfinite().all()
    if images > 1:
        assert np.isfinite(trust(one))


def test_images_that_are_all_alike_are_finite() -> None:
    same = torch.zeros(6, 6)
    assert trust(same) == 0
    assert overlaps(same, same).isfinite().all()
