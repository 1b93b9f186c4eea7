"""Means over queries with confidence intervals, by the bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """Of `values` (queries,): the percentile bootstrap (Efron and Tibshirani, 1993, chapter 13).

    Differences of two re-rankers on the same queries give the interval of a paired comparison.
    Every call draws the same resamples. Raises ValueError where there is no value.
    """
    if not len(values):
        raise ValueError("no value has no mean")
    rng = np.random.default_rng(_SEED)
    # One resample at a time: all of them together would be as large as queries x resamples.
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(values.mean()), float(low), float(high))
