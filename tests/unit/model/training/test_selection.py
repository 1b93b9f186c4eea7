"""Alpha and T are the best on the validation images; among equals the model's own are kept."""

from __future__ import annotations

import numpy as np
import torch

from model.config import RerankDefaults
from model.evaluation.retrieval import (
    ALPHAS,
    TEMPERATURES,
    Quality,
    RetrievalTask,
    first_stage,
    quality,
)
from model.reranker import ListReranker, score_windows
from model.scoring import ensemble
from model.training.selection import Selection, select, select_on_validation
from model.training.trainer import Trainer, TrainOptions
from model.windows import Window
from tests.factories import image, tiny_config, tiny_model

CPU = torch.device("cpu")


def task(queries: int, gallery: int) -> RetrievalTask:
    config, rng = tiny_config(), np.random.default_rng(0)
    relevant = rng.random((queries, gallery)) < 0.4
    relevant[:, 0] = True
    images = [image(rng, config) for _ in range(queries + gallery)]
    return RetrievalTask(images[:queries], images[queries:], relevant)


def test_no_other_alpha_and_temperature_are_better() -> None:
    easy_task = task(4, 12)
    lists, model = first_stage(easy_task, top=8), tiny_model()
    windows = [
        Window(query, [easy_task.gallery[place] for place in places])
        for query, places in zip(easy_task.queries, lists.images, strict=True)
    ]
    logits = np.stack([score_windows(model, [window], CPU)[0] for window in windows])
    selection = select(model, easy_task, lists, CPU)

    def by(alpha: float, temperature: float) -> Quality:
        return quality(easy_task, lists, ensemble(logits, lists.scores, alpha, temperature))

    assert by(selection.alpha, selection.temperature) == selection.quality
    every = [by(alpha, t).map_at_r for alpha in ALPHAS for t in TEMPERATURES]
    assert min(every) < max(every) == selection.quality.map_at_r


def test_among_equals_the_models_own_settings_are_kept() -> None:
    config = tiny_config(rerank=RerankDefaults(alpha=0.37, temperature=0.66))
    rng = np.random.default_rng(0)
    images = [image(rng, config) for _ in range(6)]
    easy = RetrievalTask(images[:2], images[2:], np.ones((2, 4), np.bool_))
    selection = select(tiny_model(config), easy, first_stage(easy, top=4), CPU)
    assert selection == Selection(0.37, 0.66, Quality(1.0, 1.0))


def test_choosing_alpha_and_t_leaves_the_windows_as_they_are() -> None:
    rerank = RerankDefaults(window=7, stride=3, direction="start-to-end")
    config, rng = tiny_config(rerank=rerank), np.random.default_rng(0)
    images = [image(rng, config) for _ in range(12)]
    validation_task = RetrievalTask(images[:4], images[4:], rng.random((4, 8)) < 0.4)
    trainer = Trainer[ListReranker](lambda: tiny_model(config), TrainOptions(), CPU)
    validation = select_on_validation(trainer, validation_task)
    selection = trainer.average.config.rerank
    assert selection == rerank.model_copy(
        update={"alpha": selection.alpha, "temperature": selection.temperature}
    )
    assert f"alpha {selection.alpha:.2f}, T {selection.temperature:g}" in str(validation)
