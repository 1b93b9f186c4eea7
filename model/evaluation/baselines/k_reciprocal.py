"""k-reciprocal encoding (Zhong et al., "Re-ranking Person Re-identification with k-reciprocal
Encoding", CVPR 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.evaluation.retrieval import RetrievalTask, Shortlists, unit_globals


def k_reciprocal(
    task: RetrievalTask, lists: Shortlists, *, k1: int, k2: int
) -> NDArray[np.float32]:
    """One minus the Jaccard distance (eq. 10) of a query's and an image's encodings, within the
    query and its shortlist; the blend with the original distance (eq. 12) is the caller's, as
    for every method."""
    queries, gallery = unit_globals(task.queries), unit_globals(task.gallery)
    scores = np.empty_like(lists.scores)
    for q, images in enumerate(lists.images):
        everyone = np.vstack((queries[q], gallery[images]))
        scores[q] = jaccard(encodings(2 - 2 * everyone @ everyone.T, k1, k2))
    return scores


def encodings(distances: NDArray[np.float32], k1: int, k2: int) -> NDArray[np.float64]:
    """(images, images): row i is V_i of eq. 7, averaged over the k2 nearest of i (eq. 11).
    `distances`: (images, images) squared Euclidean distances."""
    count = len(distances)
    order = np.argsort(distances, axis=1, kind="stable")
    member = _reciprocal(order, k1)
    half = _reciprocal(order, max(1, round(k1 / 2)))
    expanded = member.copy()
    for i in range(count):
        for j in np.flatnonzero(member[i]):
            # Eq. 4: take over the neighbours' own neighbours where most of them are ours too.
            if (half[j] & member[i]).sum() >= 2 / 3 * half[j].sum():
                expanded[i] |= half[j]
    encoded = np.where(expanded, np.exp(-distances.astype(np.float64)), 0.0)
    encoded /= encoded.sum(axis=1, keepdims=True)
    return np.asarray(encoded[order[:, :k2]].mean(axis=1))


def jaccard(encoded: NDArray[np.float64]) -> NDArray[np.float64]:
    """(images - 1,): how far the first row overlaps with each of the others (eq. 10)."""
    minima = np.minimum(encoded[0], encoded[1:]).sum(axis=1)
    maxima = np.maximum(encoded[0], encoded[1:]).sum(axis=1)
    return np.asarray(minima / maxima)


def _reciprocal(order: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """(i, j): each is among the other's k nearest, itself counted apart (eq. 2)."""
    among = np.zeros(order.shape, dtype=np.bool_)
    np.put_along_axis(among, order[:, : k + 1], True, axis=1)
    return among & among.T
