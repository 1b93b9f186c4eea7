"""Query expansion and database-side augmentation: a descriptor is averaged with its neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.evaluation.retrieval import RetrievalTask, Shortlists, unit_globals


def query_expansion(
    task: RetrievalTask, lists: Shortlists, *, k: int, power: float
) -> NDArray[np.float32]:
    """The query's global plus those of its `k` nearest, each weighted by its cosine to the power
    of `power`: 0 is average query expansion (Chum et al., ICCV 2007), 3 the usual alpha of
    Radenović et al. (TPAMI 2019, section 3.4). The shortlist is scored by the new query."""
    queries, gallery = unit_globals(task.queries), unit_globals(task.gallery)
    nearest = lists.images[:, :k]
    weights = np.clip(lists.scores[:, :k], 0.0, None) ** power
    expanded = queries + np.einsum("qk,qkd->qd", weights, gallery[nearest])
    return list_cosines(expanded, gallery, lists)


def database_augmentation(
    task: RetrievalTask, lists: Shortlists, *, k: int, power: float
) -> NDArray[np.float32]:
    """Every gallery image's global is replaced, once and offline, by the mean over its `k`
    nearest in the gallery and itself, weighted as above (Turcot & Lowe, ICCV Workshops 2009;
    Arandjelović & Zisserman, CVPR 2012)."""
    gallery = unit_globals(task.gallery)
    cosines = gallery @ gallery.T
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : k + 1]
    weights = np.clip(np.take_along_axis(cosines, nearest, axis=1), 0.0, None) ** power
    augmented = np.einsum("gk,gkd->gd", weights, gallery[nearest])
    augmented /= np.linalg.norm(augmented, axis=1, keepdims=True)
    return list_cosines(unit_globals(task.queries), augmented, lists)


def list_cosines(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], lists: Shortlists
) -> NDArray[np.float32]:
    """(queries, top): cosines of queries of any length with unit rows of the gallery."""
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    return np.take_along_axis(unit @ gallery.T, lists.images, axis=1).astype(np.float32)
