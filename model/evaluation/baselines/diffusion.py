"""Diffusion on the graph of a query and its shortlist (Zhou et al., "Ranking on Data Manifolds",
NIPS 2003), with the affinities of Iscen et al. ("Efficient Diffusion on Region Manifolds", CVPR
2017), who keep the query out of the graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.evaluation.retrieval import RetrievalTask, Shortlists, unit_globals

_POWER = 3.0


def diffusion(
    task: RetrievalTask, lists: Shortlists, *, k: int, weight: float
) -> NDArray[np.float32]:
    """Where a walk from the query ends that goes on with probability `weight`, on the graph of
    the query and its shortlist, each joined with those of its `k` nearest that have it among
    theirs."""
    queries, gallery = unit_globals(task.queries), unit_globals(task.gallery)
    scores = np.empty_like(lists.scores)
    for q, images in enumerate(lists.images):
        everyone = np.vstack((queries[q], gallery[images]))
        reached = diffused(affinities(everyone @ everyone.T, k), weight)
        # A query that is no image's neighbour reaches nothing.
        scores[q] = reached / max(reached.max(), np.finfo(np.float32).tiny)
    return scores


def affinities(cosines: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    """(images, images): the cosine to the third power of mutual `k` nearest, 0 elsewhere and on
    the diagonal (Iscen et al., section 3.1)."""
    strength = np.clip(cosines.astype(np.float64), 0.0, None) ** _POWER
    np.fill_diagonal(strength, 0.0)
    nearest = np.argsort(-strength, axis=1, kind="stable")[:, :k]
    among = np.zeros(strength.shape, dtype=np.bool_)
    np.put_along_axis(among, nearest, True, axis=1)
    return np.where(among & among.T, strength, 0.0)


def diffused(affinity: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """(images - 1,): the solution f of (I - weight S) f = e_0, S the symmetrically normalised
    affinities, without the first image, which is the query."""
    degree = affinity.sum(axis=1)
    scale = 1 / np.sqrt(np.where(degree > 0, degree, 1.0))
    transition = scale[:, None] * affinity * scale
    start = np.zeros(len(affinity))
    start[0] = 1.0
    return np.asarray(np.linalg.solve(np.eye(len(affinity)) - weight * transition, start)[1:])
