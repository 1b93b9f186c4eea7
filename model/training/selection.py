"""What is chosen on validation data once the weights are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from model.batch import Window
from model.config import Aggregation
from model.evaluation.retrieval import (
    Progress,
    Quality,
    RetrievalTask,
    Shortlists,
    best_ensemble,
    quality,
)
from model.reranker import MambaReranker, aggregate
from model.scoring import ensemble

AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)


@dataclass(frozen=True)
class Selection:
    """`alpha` and `temperature` of the ensemble, `quality` on the data they were chosen on."""

    aggregation: Aggregation
    alpha: float
    temperature: float
    quality: Quality


@torch.inference_mode()
def select(
    reranker: MambaReranker,
    task: RetrievalTask,
    lists: Shortlists,
    device: torch.device,
    progress: Progress = iter,
) -> Selection:
    """The aggregation, alpha and temperature with the highest mAP@R, by one pass over the lists.

    Among equals the model's own are kept: of a folder's few, easy images often every setting is
    perfect, and then these images have no say.
    """
    logits: dict[Aggregation, NDArray[np.float32]] = {
        how: np.empty_like(lists.scores) for how in AGGREGATIONS
    }
    for q in progress(range(len(task.queries))):
        window = Window(task.queries[q], [task.gallery[i] for i in lists.images[q]])
        tokens, mask = reranker(reranker.collate([window]).to(device))
        for how, scores in logits.items():
            scores[q] = aggregate(tokens, mask, how)[0].float().cpu().numpy()
    config = reranker.config
    how, alpha, t = config.aggregation, config.rerank.alpha, config.rerank.temperature
    by_own = quality(task, lists, ensemble(logits[how], lists.scores, alpha, t))
    found = (Selection(how, *best_ensemble(task, lists, logits[how])) for how in AGGREGATIONS)
    # The first of equals is taken.
    return max(
        (Selection(how, alpha, t, by_own), *found),
        key=lambda selection: selection.quality.map_at_r,
    )
