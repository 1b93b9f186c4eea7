from __future__ import annotations

import numpy as np
import pytest

from model.descriptors import ImageDescriptors
from model.evaluation.baselines.chamfer import chamfer


def image(*rows: tuple[float, float]) -> ImageDescriptors:
    return ImageDescriptors(np.array(rows, np.float32), np.zeros(len(rows), np.uint8))


def test_is_the_mean_over_the_query_of_the_best_cosine() -> None:
    query = image((1, 0), (0, 1))
    both, one, neither = image((0, 1), (1, 0)), image((1, 0)), image((-1, 0), (0.6, 0.8))
    assert chamfer(query, [both, one, neither]).tolist() == pytest.approx([1.0, 0.5, 0.7])
