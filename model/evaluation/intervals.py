"""Means over queries with confidence intervals, by the bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 2000
_SEED = 0
_MAX_NUMBERS = 1_000_000


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """The mean of `values` (queries,) with its confidence interval, by the percentile bootstrap
    (Efron and Tibshirani, 1993, chapter 13).

    Differences of two re-rankers on the same queries give the interval of a paired comparison.
    Every call draws the same resamples. Raises ValueError if there is no value.
    """
    if not len(values):
        raise ValueError("no value has no mean")
    rng = np.random.default_rng(_SEED)
    # Some resamples at a time: all of them would be as large as queries x resamples.
    block = max(1, _MAX_NUMBERS // len(values))
    means = [
        values[rng.integers(len(values), size=(min(block, RESAMPLES - start), len(values)))].mean(1)
        for start in range(0, RESAMPLES, block)
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), (tail, 1 - tail))
    return Interval(float(values.mean()), float(low), float(high))
