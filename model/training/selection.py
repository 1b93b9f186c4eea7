"""What is chosen on validation data once the weights are trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.evaluation.retrieval import (
    Progress,
    Quality,
    RetrievalTask,
    Shortlists,
    best_ensemble,
    quality,
    window_logits,
)
from model.reranker import ListReranker
from model.scoring import ensemble


@dataclass(frozen=True)
class Selection:
    """`alpha` and `temperature` of the ensemble, `quality` on the data they were chosen on."""

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
    """The alpha and temperature with the highest mAP@R, by one pass over the lists.

    Among equals the model's own are kept: of a folder's few, easy images often every setting is
    perfect, and then these images have no say.
    """
    logits = window_logits(reranker, task, lists, device, progress)
    alpha, t = reranker.config.rerank.alpha, reranker.config.rerank.temperature
    own = quality(task, lists, ensemble(logits, lists.scores, alpha, t))
    best = Selection(*best_ensemble(task, lists, logits))
    # The first of equals is chosen.
    return max((Selection(alpha, t, own), best), key=lambda selection: selection.quality.map_at_r)
