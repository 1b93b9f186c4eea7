"""k-reciprocal encoding on a line of points, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from model.evaluation.baselines.k_reciprocal import encodings, jaccard, k_reciprocal
from model.evaluation.retrieval import first_stage
from tests.unit.model.evaluation.plane import angles_task


def squared(points: list[float]) -> np.ndarray:
    line = np.array(points, np.float32)
    return (line[:, None] - line[None, :]) ** 2


def test_an_encoding_has_the_mutual_neighbours_by_nearness() -> None:
    # 0 and 1 are each other's nearest; 2's nearest is 1, but 1's is 0.
    encoded = encodings(squared([0.0, 1.0, 2.5]), k1=1, k2=1)
    near = np.exp(-1.0)
    total = 1 + near
    assert encoded[0].tolist() == pytest.approx([1 / total, near / total, 0])
    assert encoded[2].tolist() == pytest.approx([0, 0, 1])


def test_local_query_expansion_is_a_mean_over_the_nearest() -> None:
    plain = encodings(squared([0.0, 1.0, 2.5]), k1=1, k2=1)
    meant = encodings(squared([0.0, 1.0, 2.5]), k1=1, k2=2)
    assert meant[2].tolist() == pytest.approx(((plain[2] + plain[1]) / 2).tolist())


def test_jaccard_of_encodings() -> None:
    encoded = np.array([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [0.0, 0.0, 1.0]])
    assert jaccard(encoded).tolist() == pytest.approx([0.5 / 1.5, 0.0])


def test_neighbours_in_common_count() -> None:
    # The second and the fourth are about as near, but the first leads to the second.
    task = angles_task(0.0, [0.25, 0.5, 0.8, -0.51])
    lists = first_stage(task, top=4)
    scores = k_reciprocal(task, lists, k1=2, k2=1)
    by_image = dict(zip(lists.images[0].tolist(), scores[0].tolist(), strict=True))
    assert lists.images[0].tolist() == [0, 1, 3, 2]
    assert by_image[1] > by_image[3]
