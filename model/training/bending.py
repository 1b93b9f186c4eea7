"""Random bends of descriptors: a network then learns how lists look, not one extractor's numbers.

Each list draws one bend for all its images. Their cosines change as they would with another
extractor. A rotation changes no cosine, so it is not a bend.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

_SIZES = (16, 24, 32, 48, 64, 96, 128)
_PROJECTED = (64, 128, 256)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The spectrum of vectors (n, d): mean (d,), axes (d, d) and variances (d,), largest first."""

    mean: Rows
    axes: Rows
    variances: Rows


def spectrum(vectors: NDArray[np.floating], max_vectors: int = 20_000) -> Spectrum:
    """The spectrum of about `max_vectors` of the vectors, evenly spaced."""
    sample = vectors[:: max(1, len(vectors) // max_vectors)].astype(np.float64)
    mean = sample.mean(0)
    variances, axes = np.linalg.eigh((sample - mean).T @ (sample - mean) / len(sample))
    return Spectrum(
        mean.astype(np.float32),
        axes[:, ::-1].astype(np.float32),
        variances[::-1].clip(min=1e-9).astype(np.float32),
    )


def bend(vectors: Rows, of: Spectrum, rng: np.random.Generator) -> Rows:
    """Transforms vectors (n, d) to (n, k) by a random chain of bends: fewer axes, another spectrum,
    another mean, noise, signs only, or the positive part of a random projection."""
    vectors = vectors - of.mean * np.float32(rng.choice((0.0, 0.0, 0.5, 1.0)))
    if rng.random() < 0.6:
        size = min(int(rng.choice(_SIZES)), vectors.shape[1])
        power = np.float32(rng.choice((0.0, 0.0, 0.15, 0.3, 0.5)))
        vectors = vectors @ (of.axes[:, :size] / of.variances[:size] ** power)
    kind = rng.random()
    if kind < 0.12:
        vectors = np.sign(vectors @ _projection(rng, vectors.shape[1]))
    elif kind < 0.27:
        vectors = np.maximum(vectors @ _projection(rng, vectors.shape[1]), 0)
    elif kind < 0.45:
        vectors = add_noise(vectors, float(rng.uniform(0.1, 1.0)), rng)
    if rng.random() < 0.15:
        offset = rng.standard_normal(vectors.shape[1], np.float32) * vectors.std()
        vectors = vectors + offset * np.float32(rng.uniform(0.5, 4.0))
    return np.asarray(vectors, np.float32)


def add_noise(vectors: Rows, level: float, rng: np.random.Generator) -> Rows:
    """Adds normal noise with `level` times the standard deviation of the vectors."""
    noise = rng.standard_normal(vectors.shape, np.float32)
    return np.asarray(vectors + noise * (np.float32(level) * vectors.std()), np.float32)


def _projection(rng: np.random.Generator, size: int) -> Rows:
    return rng.standard_normal((size, int(rng.choice(_PROJECTED))), np.float32)
