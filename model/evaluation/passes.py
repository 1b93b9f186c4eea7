"""Re-ranks the lists of a benchmark, and searches for alpha and T."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import LoadedModel
from model.descriptor_file import NoDescriptorError
from model.descriptors import ImageDescriptors
from model.evaluation.benchmark_data import BenchmarkData, Lists
from model.evaluation.protocols import Figures, Protocol, Ranking, selection_protocols
from model.evaluation.retrieval import rerank_list
from model.progress import Progress
from model.reranker import score_windows
from model.scoring import ensemble
from model.windows import RerankOptions, Window

GRID = tuple(step / 10 for step in range(11))
"""The grid of alpha and of T, as published."""


@dataclass(frozen=True, eq=False)
class Pass:
    """Protocols that share their lists. `queries`: places of the queries that any of them
    counts."""

    protocols: Sequence[Protocol]
    lists: Lists

    @property
    def queries(self) -> NDArray[np.int64]:
        return np.flatnonzero(np.any([protocol.counted for protocol in self.protocols], axis=0))

    def judge(self, ranking: Ranking) -> dict[str, Figures]:
        """Figures by protocol."""
        return {protocol.name: protocol.judge(ranking) for protocol in self.protocols}


def passes(benchmark: BenchmarkData) -> list[Pass]:
    """One pass for each different list."""
    by_list: dict[str, list[Protocol]] = {}
    for protocol in benchmark.protocols:
        by_list.setdefault(protocol.list_name, []).append(protocol)
    return [Pass(sharing, benchmark.lists(sharing[0])) for sharing in by_list.values()]


def reranked(
    benchmark: BenchmarkData,
    lists: Lists,
    queries: Sequence[int] | NDArray[np.int64],
    model: LoadedModel,
    options: RerankOptions,
    top: int,
    progress: Progress = iter,
) -> Ranking:
    """(queries, k): the first `top` images of a list by `model`, by windows, the rest in the first
    stage's order. The first stage's similarity is the list's own. Queries that are not in `queries`
    keep their list."""
    ranking = lists.images.copy()
    for query in progress(int(place) for place in queries):
        count = min(top, int(lists.lengths[query]))
        images, similarities = lists.images[query, :count], lists.similarities[query, :count]
        query_image, places, gallery = _images(benchmark, query, images)
        if query_image is None or not gallery:
            continue
        order, _ = rerank_list(
            model.reranker, model.device, query_image, gallery, options, similarities[places]
        )
        # Images without scores follow the others, in the first stage's order.
        unscored = np.delete(np.arange(count), places)
        ranking[query, :count] = images[[*places[order], *unscored]]
    return ranking


def _images(
    benchmark: BenchmarkData, query: int, images: NDArray[np.int64]
) -> tuple[ImageDescriptors | None, NDArray[np.int64], list[ImageDescriptors]]:
    """The query, and those of a list's `images` that have descriptors, with their places in it."""
    by_place: dict[int, ImageDescriptors] = {}
    for place, image in enumerate(images.tolist()):
        with suppress(NoDescriptorError):
            by_place[place] = benchmark.gallery[image]
    query_image = None
    with suppress(NoDescriptorError):
        query_image = benchmark.queries[query]
    return query_image, np.array(list(by_place), np.int64), list(by_place.values())


def window_logits(
    benchmark: BenchmarkData,
    lists: Lists,
    queries: Sequence[int] | NDArray[np.int64],
    model: LoadedModel,
    window: int,
    progress: Progress = iter,
) -> NDArray[np.float32]:
    """(queries, window): of the first images of the lists of `queries`; NaN elsewhere."""
    width = min(window, lists.images.shape[1])
    logits = np.full((len(lists.images), width), np.nan, np.float32)
    for query in progress(int(place) for place in queries):
        count = min(width, int(lists.lengths[query]))
        query_image, places, gallery = _images(benchmark, query, lists.images[query, :count])
        if query_image is not None and gallery:
            window_scores = score_windows(
                model.reranker, [Window(query_image, gallery)], model.device
            )
            logits[query, places] = window_scores[0]
    return logits


def ensembled(
    lists: Lists, logits: NDArray[np.float32], alpha: float, temperature: float
) -> Ranking:
    """(queries, k): the images with `logits` in the ensemble's order, then the rest unchanged."""
    width = logits.shape[1]
    finite = np.nan_to_num(logits)
    scores = ensemble(finite, lists.similarities[:, :width], alpha, temperature)
    scores[np.isnan(logits)] = -np.inf  # and in the first stage's order: the sort is stable
    order = np.argsort(-scores, axis=1, kind="stable")
    ranking = lists.images.copy()
    ranking[:, :width] = np.take_along_axis(ranking[:, :width], order, axis=1)
    return ranking


@dataclass(frozen=True)
class Choice:
    """The best of the grid, by the mean of the chief figures of `searched_on`, between 0 and 1."""

    alpha: float
    temperature: float
    value: float
    searched_on: tuple[str, ...]


def best_of_grid(
    scored_passes: Sequence[tuple[Pass, NDArray[np.float32]]], progress: Progress = iter
) -> Choice:
    """Searches the grid, given every pass with its `window_logits`. Of ties the first wins, alpha
    before T."""
    every = [protocol for one, _ in scored_passes for protocol in one.protocols]
    chief_figures = {protocol.name: protocol.chief for protocol in selection_protocols(every)}
    cells = list(product(GRID, GRID))
    choices = []
    for cell in progress(range(len(cells))):
        alpha, temperature = cells[cell]
        values = [
            protocol.judge(ensembled(one.lists, logits, alpha, temperature))[protocol.chief]
            for one, logits in scored_passes
            for protocol in one.protocols
            if protocol.name in chief_figures
        ]
        choices.append(Choice(alpha, temperature, float(np.mean(values)), tuple(chief_figures)))
    return max(choices, key=lambda choice: choice.value)
