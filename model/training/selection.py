"""Chooses alpha and temperature on validation data, after training."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.evaluation.retrieval import (
    Quality,
    RetrievalTask,
    Shortlists,
    best_ensemble,
    first_stage,
    quality,
    window_logits,
)
from model.progress import Progress
from model.reranker import ListReranker
from model.scoring import ensemble
from model.training.trainer import Trainer

_TOP = 100
"""Length of the validation shortlists."""


@dataclass(frozen=True)
class Selection:
    """`alpha` and `temperature` of the ensemble, and their `quality` on the validation data."""

    alpha: float
    temperature: float
    quality: Quality


def select(
    reranker: ListReranker,
    task: RetrievalTask,
    lists: Shortlists,
    device: torch.device,
    progress: Progress = iter,
) -> Selection:
    """The alpha and temperature with the highest mAP@R, found in one pass over the lists.

    If several are equally good, the model's own are kept: on few, easy images every setting is
    often perfect, and such images should decide nothing.
    """
    logits = window_logits(reranker, task, lists, device, progress)
    alpha, t = reranker.config.rerank.alpha, reranker.config.rerank.temperature
    own = quality(task, lists, ensemble(logits, lists.scores, alpha, t))
    best = Selection(*best_ensemble(task, lists, logits))
    # max() returns the first of equals: the model's own.
    return max((Selection(alpha, t, own), best), key=lambda selection: selection.quality.map_at_r)


@dataclass(frozen=True)
class Validation:
    """The `selection`, and the quality of the first stage alone on the same lists."""

    selection: Selection
    first_stage: Quality

    def __str__(self) -> str:
        """The result in words, figures in percent."""
        of = self.selection
        return (
            f"R@1 {_percent(of.quality)} on the validation images, alpha {of.alpha:.2f}, "
            f"T {of.temperature:g}; the first stage has R@1 {_percent(self.first_stage)}"
        )


def _percent(quality: Quality) -> str:
    return f"{100 * quality.recall_at_1:.1f}, mAP@R {100 * quality.map_at_r:.1f}"


def select_on_validation(
    trainer: Trainer[ListReranker], task: RetrievalTask, progress: Progress = iter
) -> Validation:
    """Selects alpha and temperature and sets them in the trainer's average."""
    network = trainer.average.eval()
    lists = first_stage(task, _TOP)
    baseline = quality(task, lists, lists.scores)
    selection = select(network, task, lists, trainer.device, progress)
    settings = {"alpha": selection.alpha, "temperature": selection.temperature}
    rerank = network.config.rerank.model_copy(update=settings)
    network.config = network.config.model_copy(update={"rerank": rerank})
    return Validation(selection, baseline)
