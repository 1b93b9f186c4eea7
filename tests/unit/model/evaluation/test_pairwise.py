"""The pairwise transformer judges one image at a time, and learns as ours does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from model.config import ExtractorId
from model.evaluation.baselines.pairwise import PairwiseConfig, PairwiseReranker
from model.reranker import score_windows
from model.training.trainer import Trainer, TrainOptions
from model.training.training_lists import ListShape, TrainingList
from model.windows import Window
from tests.factories import GLOBAL_DIM, LOCAL_DIM, image, window

CPU = torch.device("cpu")
CONFIG = PairwiseConfig(
    name="pairwise",
    extractor=ExtractorId(name="made-up", version="1"),
    descriptors_per_image=6,
    descriptor_dim=LOCAL_DIM,
    global_dim=GLOBAL_DIM,
)


class Copies:
    """One image of a list is the query, with another global."""

    def draw(self, rng: np.random.Generator, shape: ListShape) -> TrainingList:
        query = image(rng, CONFIG)
        gallery = [image(rng, CONFIG) for _ in range(shape.images)]
        gallery[0] = replace(query, global_=gallery[0].global_)
        return TrainingList(Window(query, gallery), np.arange(shape.images) == 0)


def test_other_images_and_padding_do_not_change_a_score() -> None:
    torch.manual_seed(0)
    model, rng = PairwiseReranker(CONFIG).eval(), np.random.default_rng(0)
    windows = [window(rng, CONFIG, images) for images in (2, 5)]
    together = score_windows(model, windows, CPU)
    for one, scores in zip(windows, together, strict=True):
        singly = [score_windows(model, [Window(one.query, [i])], CPU)[0][0] for i in one.gallery]
        np.testing.assert_allclose(scores, singly, atol=1e-5)
    assert np.ptp(together[1]) > 1e-3


def test_it_takes_a_step() -> None:
    options = TrainOptions(
        steps=2, batch=2, warmup=0, shortest=4, longest=4, fewest_descriptors=6, max_descriptors=6
    )
    trainer = Trainer(lambda: PairwiseReranker(CONFIG), options, CPU)
    before = trainer.model.head.weight.detach().clone()
    assert all(np.isfinite(step.loss) for step in trainer.run(Copies()))
    assert not torch.equal(trainer.model.head.weight, before)
