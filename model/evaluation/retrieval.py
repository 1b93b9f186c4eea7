"""A retrieval task, its first stage, and re-ranking of its shortlists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from model.config import ModelConfig
from model.descriptors import ImageDescriptors, first_stage_scores, stacked_globals
from model.evaluation.measures import map_at_r, recall_at_1
from model.formats.labels import LabelledImages
from model.progress import Progress
from model.reranker import Reranker, score_windows
from model.scoring import ensemble
from model.windows import Reranking, RerankOptions, Window


@dataclass(frozen=True, eq=False)
class RetrievalTask:
    """`relevant`: (queries, gallery). Every image has a global descriptor."""

    queries: Sequence[ImageDescriptors]
    gallery: Sequence[ImageDescriptors]
    relevant: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Shortlists:
    """The first stage: every query's nearest gallery images, best first, and their cosines.
    `images` and `scores`: (queries, top); `rest`: (queries, gallery - top) orders the others."""

    images: NDArray[np.int64]
    scores: NDArray[np.float32]
    rest: NDArray[np.int64]


@dataclass(frozen=True)
class Quality:
    """Means over the queries, between 0 and 1."""

    recall_at_1: float
    map_at_r: float


class Scorer(Protocol):
    """Re-scores one query's shortlist: (images,) scores or logits, in the order of `gallery`."""

    def __call__(
        self, query: ImageDescriptors, gallery: Sequence[ImageDescriptors]
    ) -> NDArray[np.float32]: ...


def labelled_task(
    images: LabelledImages, descriptors: dict[str, ImageDescriptors]
) -> RetrievalTask:
    """Images of one class are relevant to each other. Raises ValueError if one is missing."""
    missing = [image_id for image_id in images.ids if image_id not in descriptors]
    if missing:
        raise ValueError(f"{len(missing)} images have no descriptors, {missing[0]!r} first")
    rows = [descriptors[image_id] for image_id in images.ids]
    queries, gallery = np.flatnonzero(images.is_query), np.flatnonzero(~images.is_query)
    relevant = images.classes[queries][:, None] == images.classes[gallery][None, :]
    return RetrievalTask([rows[i] for i in queries], [rows[i] for i in gallery], relevant)


def first_stage(task: RetrievalTask, top: int) -> Shortlists:
    """Exact search by the cosine of the globals."""
    cosines = unit_globals(task.queries) @ unit_globals(task.gallery).T
    order = np.argsort(-cosines, axis=1, kind="stable")
    images = order[:, :top]
    return Shortlists(images, np.take_along_axis(cosines, images, axis=1), order[:, top:])


def first_stage_order(query: ImageDescriptors, gallery: NDArray[np.float32]) -> NDArray[np.int64]:
    """Places of `gallery` (images, e), unit rows, by their cosine with the query, best first.

    Raises ValueError if the query has no global descriptor.
    """
    if query.global_ is None:
        raise ValueError("the first stage needs a global descriptor of the query")
    return np.argsort(-(gallery @ query.global_), kind="stable")


def score_shortlists(
    scorer: Scorer, task: RetrievalTask, lists: Shortlists, progress: Progress = iter
) -> NDArray[np.float32]:
    """(queries, top): what `scorer` says of every shortlist."""
    scores = np.empty_like(lists.scores)
    for q in progress(range(len(task.queries))):
        scores[q] = scorer(task.queries[q], [task.gallery[i] for i in lists.images[q]])
    return scores


def window_logits(
    reranker: Reranker,
    task: RetrievalTask,
    lists: Shortlists,
    device: torch.device,
    progress: Progress = iter,
) -> NDArray[np.float32]:
    """(queries, top): each shortlist scored as one window."""

    def score(query: ImageDescriptors, gallery: Sequence[ImageDescriptors]) -> NDArray[np.float32]:
        return score_windows(reranker, [Window(query, gallery)], device)[0]

    return score_shortlists(score, task, lists, progress)


def served_options(config: ModelConfig) -> RerankOptions:
    """The service's options for a list if the request has none."""
    return RerankOptions(**config.rerank.model_dump(), listwise=config.listwise)


def reranking_scorer(reranker: Reranker, device: torch.device, options: RerankOptions) -> Scorer:
    """A scorer that gives the service's order, including windows, as scores that fall from the
    first image to the last."""

    def score(query: ImageDescriptors, gallery: Sequence[ImageDescriptors]) -> NDArray[np.float32]:
        order, _ = rerank_list(reranker, device, query, gallery, options)
        scores = np.empty(len(gallery), np.float32)
        scores[order] = np.arange(len(gallery), 0, -1)
        return scores

    return score


def rerank_list(
    reranker: Reranker,
    device: torch.device,
    query: ImageDescriptors,
    gallery: Sequence[ImageDescriptors],
    options: RerankOptions,
    first_stage: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(order, relevance) of one list, as `model.windows.Reranking.result`. Where no `first_stage`
    is given it is the cosine of the globals."""
    if first_stage is None:
        first_stage = first_stage_scores(query, gallery)
    reranking = Reranking(len(gallery), first_stage, options)
    while (places := reranking.next_window()) is not None:
        window = Window(query, [gallery[place] for place in places])
        reranking.accept(score_windows(reranker, [window], device)[0])
    return reranking.result()


def quality(task: RetrievalTask, lists: Shortlists, scores: NDArray[np.floating]) -> Quality:
    """The quality of the whole gallery's order: the shortlist by `scores`, then the rest."""
    order = np.take_along_axis(lists.images, np.argsort(-scores, axis=1, kind="stable"), axis=1)
    ranked = np.take_along_axis(task.relevant, np.hstack((order, lists.rest)), axis=1)
    relevant = task.relevant.sum(axis=1)
    return Quality(float(recall_at_1(ranked).mean()), float(map_at_r(ranked, relevant).mean()))


ALPHAS = tuple(step / 20 for step in range(21))
TEMPERATURES = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
NEGLIGIBLE = 0.005
"""A gain in mAP@R that is too small to mix in the first stage, or to saturate the sigmoid."""


def best_alpha(
    task: RetrievalTask, lists: Shortlists, scores: NDArray[np.float32]
) -> tuple[float, Quality]:
    """The alpha of `alpha * s_global + (1 - alpha) * scores` that has the highest mAP@R."""
    qualities = (
        (alpha, quality(task, lists, alpha * lists.scores + (1 - alpha) * scores))
        for alpha in ALPHAS
    )
    return max(qualities, key=lambda pair: pair[1].map_at_r)


def best_ensemble(
    task: RetrievalTask, lists: Shortlists, logits: NDArray[np.float32]
) -> tuple[float, float, Quality]:
    """(alpha, temperature, quality) of `model.scoring.ensemble`: the lowest temperature, and then
    the lowest alpha, whose mAP@R is at most negligibly below the highest."""
    settings = [
        (alpha, t, quality(task, lists, ensemble(logits, lists.scores, alpha, t)))
        for t in TEMPERATURES
        for alpha in ALPHAS
    ]
    best = max(of.map_at_r for _, _, of in settings)
    return next(setting for setting in settings if setting[2].map_at_r >= best - NEGLIGIBLE)


def unit_globals(images: Sequence[ImageDescriptors]) -> NDArray[np.float32]:
    """(images, d), each of length 1. Raises ValueError if an image has no global."""
    stacked = stacked_globals(images)
    if stacked is None:
        raise ValueError("the first stage needs a global descriptor of every image")
    return np.asarray(stacked / np.linalg.norm(stacked, axis=1, keepdims=True))
