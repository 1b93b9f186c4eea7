from __future__ import annotations

import numpy as np
import pytest

from model.evaluation.metrics import map_at_r, recall_at_1

RANKED = np.array([[1, 0, 1, 0, 1], [0, 1, 0, 0, 0]], dtype=bool)
RELEVANT = np.array([3, 2])


def test_recall_at_1_is_whether_the_first_is_relevant() -> None:
    assert recall_at_1(RANKED).tolist() == [1, 0]


def test_map_at_r_by_hand() -> None:
    # R = 3: relevant at places 1 and 3 of the first three. R = 2: at place 2 of the first two.
    assert map_at_r(RANKED, RELEVANT).tolist() == pytest.approx([(1 + 2 / 3) / 3, (1 / 2) / 2])


def test_a_perfect_order_has_map_at_r_of_one() -> None:
    assert map_at_r(np.array([[True, True, False]]), np.array([2])).tolist() == [1]


def test_a_query_without_relevant_images_is_refused() -> None:
    with pytest.raises(ValueError, match="no mAP@R"):
        map_at_r(RANKED, np.array([3, 0]))
