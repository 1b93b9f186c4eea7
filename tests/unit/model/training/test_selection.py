from __future__ import annotations

import numpy as np
import torch

from model.batch import Window
from model.config import RerankDefaults
from model.evaluation.retrieval import Quality, RetrievalTask, best_ensemble, first_stage
from model.reranker import score_windows
from model.training.selection import AGGREGATIONS, Selection, select
from tests.factories import image, tiny_config, tiny_model

CPU = torch.device("cpu")


def test_the_best_of_all_aggregations_is_chosen() -> None:
    config, rng = tiny_config(), np.random.default_rng(0)
    relevant = rng.random((4, 12)) < 0.4
    relevant[:, 0] = True
    task = RetrievalTask(
        [image(rng, config) for _ in range(4)], [image(rng, config) for _ in range(12)], relevant
    )
    lists = first_stage(task, top=8)
    by_hand = {}
    for how in AGGREGATIONS:
        model = tiny_model(tiny_config(aggregation=how))
        windows = [
            Window(task.queries[q], [task.gallery[i] for i in lists.images[q]]) for q in range(4)
        ]
        logits = np.stack(score_windows(model, windows, CPU))
        by_hand[how] = best_ensemble(task, lists, logits)[2].map_at_r
    chosen = select(tiny_model(), task, lists, CPU)
    assert chosen.quality.map_at_r == max(by_hand.values())
    assert by_hand[chosen.aggregation] == chosen.quality.map_at_r


def test_among_equals_the_models_own_settings_are_kept() -> None:
    config = tiny_config(aggregation="first", rerank=RerankDefaults(alpha=0.35, temperature=0.6))
    rng = np.random.default_rng(0)
    images = [image(rng, config) for _ in range(6)]
    task = RetrievalTask(images[:2], images[2:], np.ones((2, 4), np.bool_))
    chosen = select(tiny_model(config), task, first_stage(task, top=4), CPU)
    assert chosen == Selection("first", 0.35, 0.6, Quality(1.0, 1.0))
