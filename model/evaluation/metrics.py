"""Retrieval metrics from ranked relevance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def recall_at_1(ranked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Per query, 1 where the first image is relevant. `ranked`: (queries, images) relevance in
    ranked order, best first."""
    return ranked[:, 0].astype(np.float64)


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
