from __future__ import annotations

import numpy as np
import torch

from model.config import RerankDefaults
from model.evaluation.retrieval import RetrievalTask
from model.reranker import ListReranker
from model.training.trainer import Trainer, TrainOptions
from service.cli.training import choose_on_validation
from tests.factories import image, tiny_config, tiny_model


def test_choosing_alpha_and_t_leaves_the_windows_as_they_are() -> None:
    rerank = RerankDefaults(window=7, stride=3, direction="start-to-end")
    config, rng = tiny_config(rerank=rerank), np.random.default_rng(0)
    images = [image(rng, config) for _ in range(12)]
    task = RetrievalTask(images[:4], images[4:], rng.random((4, 8)) < 0.4)
    trainer = Trainer[ListReranker](lambda: tiny_model(config), TrainOptions(), torch.device("cpu"))
    choose_on_validation(trainer, task)
    chosen = trainer.average.config.rerank
    assert chosen == rerank.model_copy(
        update={"alpha": chosen.alpha, "temperature": chosen.temperature}
    )
