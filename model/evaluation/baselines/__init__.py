"""Re-rankers to compare with. Those without training are `Method`s, all in one table here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.evaluation.baselines.chamfer import chamfer
from model.evaluation.baselines.diffusion import diffusion
from model.evaluation.baselines.expansion import database_augmentation, query_expansion
from model.evaluation.baselines.k_reciprocal import k_reciprocal
from model.evaluation.baselines.relation_sum import relation_sum
from model.evaluation.retrieval import RetrievalTask, Shortlists, score_shortlists


class Method(Protocol):
    """(queries, top): a score for every image of every shortlist, higher is better."""

    def __call__(self, task: RetrievalTask, lists: Shortlists) -> NDArray[np.float32]: ...


def by_chamfer(task: RetrievalTask, lists: Shortlists) -> NDArray[np.float32]:
    return score_shortlists(chamfer, task, lists)


def by_relation_sum(task: RetrievalTask, lists: Shortlists) -> NDArray[np.float32]:
    return score_shortlists(relation_sum, task, lists)


UNTRAINED: Mapping[str, Mapping[str, Method]] = {
    "average query expansion": {
        f"k={k}": partial(query_expansion, k=k, power=0.0) for k in (1, 2, 3, 5, 8)
    },
    "alpha-weighted query expansion": {
        f"k={k}, power={power:g}": partial(query_expansion, k=k, power=power)
        for k in (3, 5, 10, 20)
        for power in (1.0, 3.0, 6.0)
    },
    "database augmentation": {
        f"k={k}, power={power:g}": partial(database_augmentation, k=k, power=power)
        for k in (2, 4, 8, 15)
        for power in (0.0, 3.0)
    },
    "k-reciprocal": {
        f"k1={k1}, k2={k2}": partial(k_reciprocal, k1=k1, k2=k2)
        for k1, k2 in ((10, 3), (20, 6), (30, 6))
    },
    "diffusion": {
        f"k={k}, weight={weight:g}": partial(diffusion, k=k, weight=weight)
        for k in (5, 10, 20)
        for weight in (0.8, 0.9, 0.98)
    },
    "Chamfer": {"": by_chamfer},
    "sum of relations": {"": by_relation_sum},
}
"""Every re-ranker without training, by name, with the settings to try."""
