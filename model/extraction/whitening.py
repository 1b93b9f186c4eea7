"""PCA-whitening (Jégou & Chum, "Negative evidences and co-occurrences", ECCV 2012)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Whitening:
    """mean (d,), projection (d, k): x becomes the unit vector along (x - mean) @ projection."""

    mean: Tensor
    projection: Tensor

    def __call__(self, vectors: Tensor) -> Tensor:
        """(…, d) to unit vectors (…, k)."""
        return F.normalize((vectors - self.mean) @ self.projection, dim=-1)


def fit_whitening(vectors: NDArray[np.float32], size: int, power: float) -> Whitening:
    """The `size` strongest principal axes of vectors (n, d), each divided by its eigenvalue to
    `power`: 0 is plain PCA, 0.5 whitens fully. Raises ValueError if n <= size."""
    if len(vectors) <= size:
        raise ValueError(f"{size} axes cannot be learnt from {len(vectors)} vectors")
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors.astype(np.float64) - mean
    values, axes = np.linalg.eigh(centred.T @ centred / len(vectors))
    strongest = np.argsort(values)[::-1][:size]
    projection = axes[:, strongest] / np.maximum(values[strongest], 1e-12) ** power
    return Whitening(torch.from_numpy(mean).float(), torch.from_numpy(projection.copy()).float())
