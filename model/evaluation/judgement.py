"""Compares re-rankers on one task, query by query, so that differences have confidence intervals.

Settings are chosen by cross-validation over the queries, and a metric is learnt from other classes
than those it is evaluated on. So no figure is too good because of its own data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import LoadedModel
from model.descriptors import ImageDescriptors
from model.evaluation.baselines import UNTRAINED
from model.evaluation.cross_validation import cross_validated
from model.evaluation.intervals import Interval, mean_interval
from model.evaluation.measures import map_at_r, recall_at
from model.evaluation.retrieval import (
    ALPHAS,
    TEMPERATURES,
    RetrievalTask,
    Shortlists,
    first_stage,
    labelled_task,
    unit_globals,
    window_logits,
)
from model.formats.labels import LabelledImages
from model.learnt_metric import fit_metric
from model.progress import Progress
from model.scoring import ensemble

FIGURES = ("R@1", "R@5", "mAP@R")
R_AT_1, R_AT_5, MAP_AT_R = range(3)
WITHOUT_LEARNING = ("Chamfer", "k-reciprocal")
_MAX_RECALL = 5
_FEWEST_CLASSES = 4
"""The fewest classes for a metric that is learnt from one half of them and evaluated on the
other."""

Figures = NDArray[np.float64]
"""(3, queries): FIGURES of every query, between 0 and 1."""


@dataclass(frozen=True, eq=False)
class Contender:
    """A re-ranker on the task. `setting`: in words; if it was chosen, the best over all queries.
    `seconds`: the time to score a thousand images, None if there is none."""

    name: str
    setting: str
    figures: Figures
    seconds: float | None

    def means(self) -> list[Interval]:
        return [mean_interval(values) for values in self.figures]

    def gains(self, over: Contender) -> list[Interval]:
        """The gains over another contender, query by query."""
        return [mean_interval(values) for values in self.figures - over.figures]


@dataclass(frozen=True, eq=False)
class Judgement:
    """All contenders on one task.

    `queries`, `gallery`: ids; `relevant` (queries, gallery). `before` and `after` (queries, top):
    places in the gallery, best first, by the first stage and as served. `tuned`: the checkpoint
    with an alpha and a temperature chosen here, of which `alpha` and `temperature` are best over
    all queries. `in_metric`: as served, in a metric learnt from the other half of the classes;
    None if that cannot be.
    """

    queries: Sequence[str]
    gallery: Sequence[str]
    relevant: NDArray[np.bool_]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    first: Contender
    untrained: tuple[Contender, ...]
    served: Contender
    tuned: Contender
    in_metric: Contender | None
    alpha: float
    temperature: float

    @property
    def contenders(self) -> tuple[Contender, ...]:
        of_metric = () if self.in_metric is None else (self.in_metric,)
        return (self.first, *self.untrained, self.served, self.tuned, *of_metric)

    @property
    def coverage(self) -> float:
        """The share of a query's relevant images that its shortlist has, of those that fit in: an
        upper limit for re-ranking. Mean over the queries."""
        listed_relevant = np.take_along_axis(self.relevant, self.before, axis=1).sum(axis=1)
        fitting = np.minimum(self.relevant.sum(axis=1), self.before.shape[1])
        return float((listed_relevant / fitting).mean())


class _Figures:
    """Figures of scores of the same shortlists."""

    def __init__(self, task: RetrievalTask, lists: Shortlists) -> None:
        self._relevant = task.relevant.sum(axis=1)
        # No figure depends on places after R, or after 5.
        self._places = max(int(self._relevant.max()), _MAX_RECALL)
        self._shortlists = np.take_along_axis(task.relevant, lists.images, axis=1)
        rest = lists.rest[:, : self._places]
        self._rest = np.take_along_axis(task.relevant, rest, axis=1)

    def __call__(self, scores: NDArray[np.floating]) -> Figures:
        order = np.argsort(-scores, axis=1, kind="stable")
        shortlist = np.take_along_axis(self._shortlists, order, axis=1)
        ranked = np.hstack((shortlist, self._rest))[:, : self._places]
        recalls = [recall_at(ranked, k) for k in (1, _MAX_RECALL)]
        return np.stack((*recalls, map_at_r(ranked, self._relevant)))


def judge(
    images: LabelledImages,
    described: Mapping[str, ImageDescriptors],
    model: LoadedModel,
    *,
    top: int,
    progress: Callable[[str], Progress] = lambda _: iter,
) -> Judgement:
    """Every query needs a relevant image. Shortlists have `top` images, at most one window of the
    checkpoint. `progress` gets the contender's name.

    Raises ValueError for fewer than two queries, and for images without a global.
    """
    task = labelled_task(images, dict(described))
    lists = first_stage(task, min(top, model.config.rerank.window))
    figures = _Figures(task, lists)
    thousands = lists.images.size / 1000
    name, defaults = model.config.name, model.config.rerank
    settings = [
        (defaults.alpha, defaults.temperature),
        *((alpha, t) for t in TEMPERATURES for alpha in ALPHAS),
    ]
    started = time.perf_counter()
    logits = window_logits(model.reranker, task, lists, model.device, progress(name))
    seconds = (time.perf_counter() - started) / thousands
    grid = np.stack([figures(ensemble(logits, lists.scores, *setting)) for setting in settings])
    alpha, temperature = settings[int(grid[:, MAP_AT_R].mean(axis=1).argmax())]
    served = Contender(name, _words(defaults.alpha, defaults.temperature), grid[0], seconds)
    scores = ensemble(logits, lists.scores, defaults.alpha, defaults.temperature)
    return Judgement(
        [image_id for image_id, asks in zip(images.ids, images.is_query, strict=True) if asks],
        [image_id for image_id, asks in zip(images.ids, images.is_query, strict=True) if not asks],
        task.relevant,
        lists.images,
        np.take_along_axis(lists.images, np.argsort(-scores, axis=1, kind="stable"), axis=1),
        Contender("first stage", "", figures(lists.scores), None),
        tuple(_untrained(name, task, lists, figures, thousands) for name in WITHOUT_LEARNING),
        served,
        Contender(f"{name}, tuned", _words(alpha, temperature), _cross_validated(grid), seconds),
        _in_metric(images, described, task, lists, model, served, figures, progress),
        alpha,
        temperature,
    )


def _words(alpha: float, temperature: float) -> str:
    return f"alpha={alpha:g} T={temperature:g}"


def _cross_validated(grid: NDArray[np.float64]) -> Figures:
    """Figures with settings chosen by cross-validation of the mAP@R; `grid`: (settings, 3,
    queries)."""
    choice = cross_validated(grid[:, MAP_AT_R])
    return grid[choice, :, np.arange(len(choice))].T


def _untrained(
    name: str, task: RetrievalTask, lists: Shortlists, figures: _Figures, thousands: float
) -> Contender:
    settings, grid = [], []
    started = time.perf_counter()
    by_setting = {words: method(task, lists) for words, method in UNTRAINED[name].items()}
    seconds = (time.perf_counter() - started) / len(by_setting) / thousands
    for words, scores in by_setting.items():
        for alpha in ALPHAS:
            settings.append(f"{words} alpha={alpha:g}".strip())
            grid.append(figures(alpha * lists.scores + (1 - alpha) * scores))
    values = np.stack(grid)
    best = int(values[:, MAP_AT_R].mean(axis=1).argmax())
    return Contender(name, settings[best], _cross_validated(values), seconds)


def _in_metric(
    images: LabelledImages,
    described: Mapping[str, ImageDescriptors],
    task: RetrievalTask,
    lists: Shortlists,
    model: LoadedModel,
    served: Contender,
    figures: _Figures,
    progress: Callable[[str], Progress],
) -> Contender | None:
    """Re-ranks the same shortlists, each in a metric that was not learnt from its query's half of
    the classes."""
    classes = np.unique(images.classes)
    if len(classes) < _FEWEST_CLASSES or model.config.sizes is not None:
        return None
    name = f"{served.name}, in a metric"
    defaults, half = model.config.rerank, np.isin(images.classes, classes[::2])
    scores = np.empty(lists.scores.shape, np.float64)
    for tested in (half, ~half):
        rows = np.flatnonzero(tested[images.is_query])
        teachers = images.only(~tested)
        try:
            teacher = [described[image_id] for image_id in teachers.ids], teachers.classes
            metric = fit_metric([teacher], model.config.extractor, "the other half")
        except ValueError:
            return None
        gallery = [metric.apply(image) for image in task.gallery]
        queries = [metric.apply(task.queries[q]) for q in rows.tolist()]
        part = RetrievalTask(queries, gallery, task.relevant[rows])
        cosines = unit_globals(queries) @ unit_globals(gallery).T
        shortlisted = np.take_along_axis(cosines, lists.images[rows], axis=1)
        within = replace(lists, images=lists.images[rows], scores=shortlisted)
        logits = window_logits(model.reranker, part, within, model.device, progress(name))
        scores[rows] = ensemble(logits, shortlisted, defaults.alpha, defaults.temperature)
    return Contender(name, served.setting, figures(scores), served.seconds)
