"""The comparison chooses on other folds, and says what it claims to say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.evaluation.comparison import (
    Choice,
    Fold,
    cross_fitted,
    list_logits,
    sensitivity,
    subset,
)
from model.evaluation.retrieval import Quality, RetrievalTask, first_stage
from model.training.selection import AGGREGATIONS
from tests.factories import image, tiny_config, tiny_model

CONFIG = tiny_config()
CPU = torch.device("cpu")


def fold(queries: int = 3, gallery: int = 9) -> Fold:
    rng = np.random.default_rng(0)
    images = [image(rng, CONFIG) for _ in range(queries + gallery)]
    relevant = np.arange(gallery)[None, :] % queries == np.arange(queries)[:, None]
    task = RetrievalTask(images[:queries], images[queries:], relevant)
    return Fold(task, first_stage(task, 6))


def test_a_folds_setting_is_the_best_of_the_others() -> None:
    folds = [
        {"a": Quality(0.1, 0.9), "b": Quality(0.2, 0.5)},
        {"a": Quality(0.3, 0.4), "b": Quality(0.4, 0.6)},
        {"a": Quality(0.5, 0.3), "b": Quality(0.6, 0.7)},
    ]
    fitted = cross_fitted(folds)
    assert [setting for setting, _ in fitted] == ["b", "a", "a"]
    assert [found.recall_at_1 for _, found in fitted] == [0.2, 0.3, 0.5]


def test_a_single_fold_is_fitted_on_itself() -> None:
    assert cross_fitted([{"a": Quality(0, 0.1), "b": Quality(0, 0.2)}])[0][0] == "b"


def test_logits_stand_at_their_images_whatever_the_order() -> None:
    one = fold()
    model = tiny_model()
    plain = list_logits(model, one, CPU)
    shuffled = list_logits(model, one, CPU, np.random.default_rng(1))
    for how in AGGREGATIONS:
        assert plain[how].shape == (3, 6)
        np.testing.assert_allclose(shuffled[how], plain[how], atol=1e-4)


def test_sensitivity_of_equal_and_of_opposite_orders() -> None:
    one = fold()
    rising = dict.fromkeys(AGGREGATIONS, np.tile(np.arange(6, dtype=np.float32), (3, 1)))
    falling = {how: -scores for how, scores in rising.items()}
    choice = Choice("mean", 0.0, 1.0)
    same = sensitivity(one, rising, rising, choice)
    assert (same.per_query, same.of_mean) == (0.0, 0.0)
    assert same.kendall_tau == pytest.approx(1)
    opposite = sensitivity(one, rising, falling, choice)
    assert opposite.kendall_tau == pytest.approx(-1)
    assert opposite.per_query > 0


def test_a_subset_keeps_its_queries_rows() -> None:
    one = fold()
    part = subset(one, [2, 0])
    assert part.task.queries == [one.task.queries[2], one.task.queries[0]]
    np.testing.assert_array_equal(part.task.relevant, one.task.relevant[[2, 0]])
    np.testing.assert_array_equal(part.lists.images, one.lists.images[[2, 0]])
