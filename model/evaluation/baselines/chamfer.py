"""Chamfer re-ranking: how well a gallery image explains the query's local descriptors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.descriptors import ImageDescriptors


def chamfer(query: ImageDescriptors, gallery: Sequence[ImageDescriptors]) -> NDArray[np.float32]:
    """(len(gallery),): the mean over the query's locals of the best cosine in each image."""
    query_locals, *rows = (image.without_padding().locals for image in (query, *gallery))
    starts = np.cumsum([0, *(len(locals_) for locals_ in rows[:-1])])
    stacked = np.concatenate(rows).astype(np.float32)
    best = np.maximum.reduceat(query_locals.astype(np.float32) @ stacked.T, starts, axis=1)
    return np.asarray(best.mean(axis=0), dtype=np.float32)
