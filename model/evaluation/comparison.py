"""The comparison of re-rankers: what a trial records, and the table that trials make.

A trial is one contender trained without the classes of one fold and run on that fold's queries.
A fold's aggregation, alpha and T, and the settings of what learns nothing, are those that are best
on the other folds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau

from model.batch import Window
from model.config import Aggregation
from model.evaluation.baselines import Method
from model.evaluation.retrieval import (
    ALPHAS,
    TEMPERATURES,
    Progress,
    Quality,
    RetrievalTask,
    Shortlists,
    quality,
)
from model.reranker import ListReranker, aggregate
from model.scoring import ensemble
from model.training.selection import AGGREGATIONS

Setting = TypeVar("Setting")
Logits = Mapping[Aggregation, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Fold:
    """A fold's validation classes as a task, and its first stage."""

    task: RetrievalTask
    lists: Shortlists


@dataclass(frozen=True)
class Choice:
    """How a learnt re-ranker's logits become an order."""

    aggregation: Aggregation
    alpha: float
    temperature: float


CHOICES = tuple(
    Choice(how, alpha, temperature)
    for how in AGGREGATIONS
    for alpha in ALPHAS
    for temperature in TEMPERATURES
)


@dataclass(frozen=True)
class Sensitivity:
    """What changes when the gallery is put into another random order: mean absolute change of a
    query's mAP@R, change of the mean, and mean Kendall tau of the two results."""

    per_query: float
    of_mean: float
    kendall_tau: float


@torch.inference_mode()
def list_logits(
    reranker: ListReranker,
    fold: Fold,
    device: torch.device,
    rng: np.random.Generator | None = None,
    progress: Progress = iter,
) -> Logits:
    """(queries, top) of every aggregation. The lists are read in the first stage's order, or each
    in a random one where an `rng` is given."""
    logits: dict[Aggregation, NDArray[np.float32]] = {
        how: np.empty_like(fold.lists.scores) for how in AGGREGATIONS
    }
    for q in progress(range(len(fold.task.queries))):
        images = fold.lists.images[q]
        places = np.arange(len(images)) if rng is None else rng.permutation(len(images))
        window = Window(fold.task.queries[q], [fold.task.gallery[i] for i in images[places]])
        tokens, mask = reranker(reranker.collate([window]).to(device))
        for how, scores in logits.items():
            scores[q, places] = aggregate(tokens, mask, how)[0].float().cpu().numpy()
    return logits


def choice_qualities(fold: Fold, logits: Logits) -> dict[Choice, Quality]:
    return {
        choice: quality(
            fold.task,
            fold.lists,
            ensemble(
                logits[choice.aggregation], fold.lists.scores, choice.alpha, choice.temperature
            ),
        )
        for choice in CHOICES
    }


def blend_qualities(fold: Fold, scores: NDArray[np.float32]) -> dict[float, Quality]:
    """Of scores blended with the first stage's, by alpha."""
    return {
        alpha: quality(fold.task, fold.lists, alpha * fold.lists.scores + (1 - alpha) * scores)
        for alpha in ALPHAS
    }


def cross_fitted(
    folds: Sequence[Mapping[Setting, Quality]],
) -> list[tuple[Setting, Quality]]:
    """Of every fold, its quality under the setting that has the highest mean mAP@R on the others,
    and that setting. A single fold has no others: there it is the best on the fold itself."""
    found = []
    for place, own in enumerate(folds):
        others = [fold for other, fold in enumerate(folds) if other != place] or [own]
        best = max(own, key=lambda s: float(np.mean([fold[s].map_at_r for fold in others])))
        found.append((best, own[best]))
    return found


def sensitivity(fold: Fold, first: Logits, second: Logits, choice: Choice) -> Sensitivity:
    """Of two results of the same lists in two orders."""
    scores = [
        ensemble(logits[choice.aggregation], fold.lists.scores, choice.alpha, choice.temperature)
        for logits in (first, second)
    ]
    change = np.subtract(*(_maps(fold, s) for s in scores))
    taus = [kendalltau(a, b).statistic for a, b in zip(*scores, strict=True)]
    return Sensitivity(
        float(np.abs(change).mean()), float(abs(change.mean())), float(np.mean(taus))
    )


@dataclass(frozen=True)
class TrialFacts:
    """`training_seconds`: processor time of the training loop; the device's name is with it."""

    contender: str
    fold: int
    seed: int
    parameters: int
    steps: int
    training_seconds: float
    device: str


@dataclass(frozen=True, eq=False)
class Trial:
    """`logits` of the fold's judged queries; `shuffled` of the first few in two random orders."""

    facts: TrialFacts
    logits: Logits
    shuffled: tuple[Logits, Logits]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over folds and seeds (0 where there is one)."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Row:
    """A line of the comparison. The gains are over the first stage of the same fold; `seconds`
    are for a list; `chosen` says what was set how in each fold."""

    name: str
    recall_at_1: Spread
    map_at_r: Spread
    recall_gain: Spread
    map_gain: Spread
    seconds: float | None = None
    parameters: int | None = None
    steps: float | None = None
    order_change: float | None = None
    kendall_tau: float | None = None
    chosen: tuple[str, ...] = ()


def first_stage_row(folds: Sequence[Fold]) -> Row:
    own = [quality(fold.task, fold.lists, fold.lists.scores) for fold in folds]
    return _row("first stage", own, own)


def method_row(name: str, settings: Mapping[str, Method], folds: Sequence[Fold]) -> Row:
    seconds: list[float] = []
    found: list[dict[tuple[str, float], Quality]] = []
    for fold in folds:
        of_fold: dict[tuple[str, float], Quality] = {}
        for setting, method in settings.items():
            started = time.perf_counter()
            scores = method(fold.task, fold.lists)
            seconds.append((time.perf_counter() - started) / len(fold.task.queries))
            of_fold |= {(setting, a): q for a, q in blend_qualities(fold, scores).items()}
        found.append(of_fold)
    fitted = cross_fitted(found)
    first = [quality(fold.task, fold.lists, fold.lists.scores) for fold in folds]
    return replace(
        _row(name, [q for _, q in fitted], first),
        seconds=float(np.median(seconds)),
        chosen=tuple(f"{setting} alpha={alpha:g}".strip() for (setting, alpha), _ in fitted),
    )


def contender_row(
    name: str, folds: Sequence[Fold], trials: Sequence[Sequence[Trial]], seconds: float
) -> Row:
    """`trials`: for every seed, one a fold."""
    own: list[Quality] = []
    first: list[Quality] = []
    moved: list[Sensitivity] = []
    chosen: list[str] = []
    for of_seed in trials:
        found = [
            choice_qualities(fold, trial.logits) for fold, trial in zip(folds, of_seed, strict=True)
        ]
        for fold, trial, (choice, fitted) in zip(folds, of_seed, cross_fitted(found), strict=True):
            own.append(fitted)
            first.append(quality(fold.task, fold.lists, fold.lists.scores))
            few = subset(fold, range(len(next(iter(trial.shuffled[0].values())))))
            moved.append(sensitivity(few, *trial.shuffled, choice))
            chosen.append(f"{choice.aggregation} alpha={choice.alpha:g} T={choice.temperature:g}")
    facts = [trial.facts for of_seed in trials for trial in of_seed]
    return replace(
        _row(name, own, first),
        seconds=seconds,
        parameters=facts[0].parameters,
        steps=float(np.mean([fact.steps for fact in facts])),
        order_change=float(np.mean([m.of_mean for m in moved])),
        kendall_tau=float(np.mean([m.kendall_tau for m in moved])),
        chosen=tuple(chosen),
    )


def _row(name: str, own: Sequence[Quality], first: Sequence[Quality]) -> Row:
    recalls = np.array([q.recall_at_1 for q in own])
    maps = np.array([q.map_at_r for q in own])
    return Row(
        name,
        _spread(recalls),
        _spread(maps),
        _spread(recalls - [q.recall_at_1 for q in first]),
        _spread(maps - [q.map_at_r for q in first]),
    )


def _spread(values: NDArray[np.float64]) -> Spread:
    return Spread(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0)


def _maps(fold: Fold, scores: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.array(
        [quality(*_single(fold, q), scores[q : q + 1]).map_at_r for q in range(len(scores))]
    )


def _single(fold: Fold, q: int) -> tuple[RetrievalTask, Shortlists]:
    part = subset(fold, [q])
    return part.task, part.lists


def subset(fold: Fold, queries: Iterable[int]) -> Fold:
    rows = list(queries)
    task = RetrievalTask(
        [fold.task.queries[q] for q in rows], fold.task.gallery, fold.task.relevant[rows]
    )
    lists = fold.lists
    return Fold(task, Shortlists(lists.images[rows], lists.scores[rows], lists.rest[rows]))
