"""From logits to the score that orders a list: the ensemble with the first stage."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logistic function, without overflow at either end."""
    return np.exp(-np.logaddexp(0.0, -values))


def ensemble(
    logits: NDArray[np.float32],
    first_stage: NDArray[np.float32] | None,
    alpha: float,
    temperature: float,
) -> NDArray[np.float64]:
    """alpha * s_global + (1 - alpha) * sigmoid(temperature * logit) .

    Any shape; `first_stage` has the shape of `logits`. Without a first stage alpha counts as 0.
    """
    scores = sigmoid(temperature * logits.astype(np.float64))
    if first_stage is None:
        return scores
    return alpha * first_stage.astype(np.float64) + (1 - alpha) * scores
