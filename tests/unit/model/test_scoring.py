from __future__ import annotations

import numpy as np
import pytest

from model.scoring import ensemble, sigmoid


def test_is_the_weighted_sum_of_similarity_and_probability() -> None:
    scores = ensemble(np.array([2.0], np.float32), np.array([0.6], np.float32), 0.25, 0.5)
    assert scores[0] == pytest.approx(0.25 * 0.6 + 0.75 / (1 + np.exp(-1.0)))


def test_without_a_first_stage_alpha_counts_as_zero() -> None:
    logits = np.array([0.3, -2.0], np.float32)
    assert (ensemble(logits, None, 0.9, 1.0) == ensemble(logits, None, 0.0, 1.0)).all()


def test_extreme_logits_do_not_overflow() -> None:
    with np.errstate(all="raise"):
        assert sigmoid(np.array([-700.0, 700.0])) == pytest.approx([0, 1])
