"""Retrieval metrics, from ranked relevance and from rankings of gallery indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def recall_at_1(ranked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Per query, 1 where the first image is relevant. `ranked`: (queries, images) relevance in
    ranked order, best first."""
    return recall_at(ranked, 1)


def recall_at(ranked: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Per query, 1 where a relevant image is among the first `k`; `ranked` as above."""
    return np.asarray(ranked[:, :k].any(axis=1), dtype=np.float64)


def map_at_r(ranked: NDArray[np.bool_], relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """Per query, average precision over the first R places, R its number of relevant images
    (Musgrave et al., "A Metric Learning Reality Check", ECCV 2020, section 3.1).

    `ranked` as above, `relevant` (queries,) counts the relevant images of the whole gallery.
    Raises ValueError for a query that has none.
    """
    if (relevant < 1).any():
        raise ValueError("a query without relevant images has no mAP@R")
    places = np.arange(1, ranked.shape[1] + 1)
    precision = ranked.cumsum(axis=1) / places
    within = places <= relevant[:, None]
    return np.asarray((precision * ranked * within).sum(axis=1) / relevant, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Judged:
    """Per query `average_precision` (queries,) and `precision` (queries, ks), NaN for a query that
    has no positives: it is left out of every mean."""

    average_precision: NDArray[np.float64]
    precision: NDArray[np.float64]


def revisited(
    rankings: NDArray[np.int64],
    positives: Sequence[NDArray[np.int64]],
    junk: Sequence[NDArray[np.int64]],
    ks: Sequence[int] = (1, 5, 10),
) -> Judged:
    """The protocol of Revisited Oxford and Paris (Radenović et al., CVPR 2018), as in the
    benchmark's own code.

    `rankings` (queries, places): gallery indices, best first, of the whole gallery or of its top.
    Junk is removed from a ranking. The area under the precision-recall curve consists of
    trapezoids. Precision at k uses the last positive's place if that is below k; it is 0 for a
    ranking without positives. Recall counts at most as many positives as a ranking has places.
    """
    average = np.full(len(rankings), np.nan)
    precision = np.full((len(rankings), len(ks)), np.nan)
    for query, (ranking, right, left_out) in enumerate(zip(rankings, positives, junk, strict=True)):
        if not right.size:
            continue
        hits = np.flatnonzero(np.isin(ranking, right))
        removed = np.flatnonzero(np.isin(ranking, left_out))
        places = hits - np.searchsorted(removed, hits)
        average[query] = _trapezoids(places) / min(right.size, ranking.size)
        for column, k in enumerate(ks):
            at = min(int(places.max(initial=-1)) + 1, k)
            precision[query, column] = (places < at).sum() / max(at, 1)
    return Judged(average, precision)


def _trapezoids(places: NDArray[np.int64]) -> float:
    """The sum over the positives, at `places` from 0, of the mean of the precisions before and
    after it; before the first place precision is 1."""
    before = np.arange(places.size)
    precision_before = np.where(places == 0, 1.0, before / np.maximum(places, 1))
    return float((precision_before + (before + 1) / (places + 1)).sum() / 2)


def average_precision_at(
    rankings: NDArray[np.int64], positives: Sequence[NDArray[np.int64]], k: int = 100
) -> NDArray[np.float64]:
    """Per query, average precision over the first `k` places, out of `k` positives at most: that
    of GLDv2 (Weyand et al., CVPR 2020, section 4). NaN for a query that has no positives."""
    first = rankings[:, :k]
    average = np.full(len(rankings), np.nan)
    for query, (ranking, right) in enumerate(zip(first, positives, strict=True)):
        if right.size:
            places = np.flatnonzero(np.isin(ranking, right))
            precision = np.arange(1, places.size + 1) / (places + 1)
            average[query] = precision.sum() / min(right.size, ranking.size)
    return average
