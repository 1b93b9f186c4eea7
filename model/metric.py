"""A metric that is learnt in closed form: the directions in which images of one class differ, and
views of one image, count less.

Within-class covariance normalisation (Hatch, Kajarekar and Stolcke, Interspeech 2006), which image
retrieval knows as learnt whitening (Mikolajczyk and Matas, ICCV 2007), of an image's global
descriptor beside the mean of its locals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.descriptors import ImageDescriptors, normalised, stacked_globals

Teacher = tuple[Sequence[ImageDescriptors], NDArray[np.int64]]
"""Images and their classes."""

SHRINKAGE = 0.3
"""Of the spread's mean variance, added to every direction."""


def described(images: Sequence[ImageDescriptors]) -> NDArray[np.float64]:
    """(n, g + d): of every image its global and the mean of its locals, both of length 1. Raises
    ValueError unless all images have a global of the same size."""
    globals_ = stacked_globals(images)
    if globals_ is None:
        raise ValueError("a metric is learnt from images that all have a global descriptor")
    means = np.stack([image.without_padding().locals.mean(0) for image in images])
    whole: NDArray[np.float64] = np.hstack(
        (normalised(globals_, "globals"), normalised(means, "means of the locals"))
    ).astype(np.float64)
    return whole


def spread_within(vectors: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(v, v): the covariance of what vectors (n, v) of one class differ by, of trace 1. Raises
    ValueError where no two are of one class."""
    _, of = np.unique(classes, return_inverse=True)
    sums = np.zeros((of.max() + 1, vectors.shape[1]))
    np.add.at(sums, of, vectors)
    rest = vectors - (sums / np.bincount(of)[:, None])[of]
    spread: NDArray[np.float64] = rest.T @ rest
    total = np.trace(spread)
    if not total > 0:
        raise ValueError("a metric is learnt from several images of a class")
    found: NDArray[np.float64] = spread / total
    return found


def learnt_metric(teachers: Sequence[Teacher]) -> NDArray[np.float32]:
    """(g + d, g + d): what `described` images are multiplied with before their cosine is taken.
    Each of the teachers, photographs and views say, has the same weight. Raises ValueError."""
    spread = np.mean([spread_within(described(images), of) for images, of in teachers], axis=0)
    return whitening(spread)


def whitening(spread: NDArray[np.float64]) -> NDArray[np.float32]:
    """(v, v): vectors that spread like this spread alike in every direction once multiplied with
    it, but for the shrinkage."""
    variances, directions = np.linalg.eigh(spread)
    found: NDArray[np.float32] = (
        directions / np.sqrt(variances.clip(min=0) + SHRINKAGE * variances.mean())
    ).astype(np.float32)
    return found
