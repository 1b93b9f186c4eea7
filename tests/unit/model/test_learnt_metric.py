"""The metric makes little of what images of one class differ by."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.descriptors import ImageDescriptors, normalised
from model.learnt_metric import SHRINKAGE, described, learnt_metric, spread_within, whitening
from tests.factories import image, tiny_config

CONFIG = tiny_config()


def noisy_classes(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Ten classes of 30 vectors: apart in the second half of the dimensions, with ten times as
    much noise in the first half."""
    classes = np.repeat(np.arange(10), 30)
    vectors = rng.standard_normal((300, 16)) * np.repeat((1.0, 0.1), 8)
    vectors[:, 8:] += 0.5 * rng.standard_normal((10, 8))[classes]
    return vectors, classes


def nearest_is_of_its_class(vectors: NDArray[np.float64], classes: NDArray[np.int64]) -> float:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    return float(np.mean(classes[cosines.argmax(1)] == classes))


def test_classes_that_it_has_not_seen_come_apart() -> None:
    vectors, classes = noisy_classes(np.random.default_rng(0))
    seen = classes < 5
    metric = whitening(spread_within(vectors[seen], classes[seen]))
    before = nearest_is_of_its_class(vectors[~seen], classes[~seen])
    after = nearest_is_of_its_class(vectors[~seen] @ metric, classes[~seen])
    assert before < 0.7
    assert after > 0.95


def test_a_spread_is_that_within_classes_and_of_trace_1() -> None:
    vectors, classes = noisy_classes(np.random.default_rng(1))
    spread = spread_within(vectors, classes)
    moved = vectors + np.random.default_rng(2).standard_normal((10, 16))[classes]
    np.testing.assert_allclose(spread_within(moved, classes), spread, atol=1e-9)
    assert np.trace(spread) == pytest.approx(1)


def test_what_is_whitened_spreads_alike_but_for_the_shrinkage() -> None:
    vectors, classes = noisy_classes(np.random.default_rng(3))
    spread = spread_within(vectors, classes)
    metric = whitening(spread).astype(np.float64)
    shrunk = spread + SHRINKAGE / 16 * np.eye(16)
    np.testing.assert_allclose(metric.T @ shrunk @ metric, np.eye(16), atol=1e-5)


def test_an_image_is_its_global_beside_the_mean_of_its_locals() -> None:
    rng = np.random.default_rng(4)
    one, padded = image(rng, CONFIG), image(rng, CONFIG, rows=3)
    assert one.global_ is not None
    more = ImageDescriptors(
        np.vstack((padded.locals, np.zeros_like(padded.locals[:1]))),
        np.append(padded.scales, np.uint8(0)),
        padded.global_,
        np.array([False, False, False, True]),
    )
    applied_vectors = described([one, padded, more])
    mean = normalised(one.locals.mean(0), "mean")
    np.testing.assert_allclose(applied_vectors[0], np.concatenate((one.global_, mean)), atol=1e-6)
    np.testing.assert_allclose(applied_vectors[2], applied_vectors[1], atol=1e-6)


def test_every_source_of_classes_has_the_same_weight() -> None:
    rng = np.random.default_rng(5)
    images = [image(rng, CONFIG) for _ in range(12)]
    classes = np.arange(12) // 3
    once = learnt_metric([(images, classes), (images[:6], classes[:6])])
    twice = learnt_metric([(images * 2, np.tile(classes, 2)), (images[:6], classes[:6])])
    np.testing.assert_allclose(once @ once.T, twice @ twice.T, rtol=1e-3, atol=1e-2)


def test_what_teaches_nothing_is_refused() -> None:
    rng = np.random.default_rng(6)
    images = [image(rng, CONFIG) for _ in range(3)]
    with pytest.raises(ValueError, match="several images of a class"):
        learnt_metric([(images, np.arange(3))])
    with pytest.raises(ValueError, match="global descriptor"):
        learnt_metric([([image(rng, CONFIG, with_global=False)], np.zeros(1, np.int64))])
