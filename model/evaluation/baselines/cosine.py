"""The cosines of a shortlist, of globals that are not the first stage's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model.descriptors import ImageDescriptors, normalised
from model.evaluation.retrieval import RetrievalTask, Shortlists, unit_globals
from model.metric import described


def cosine(task: RetrievalTask, lists: Shortlists) -> NDArray[np.float32]:
    """(queries, top): of the task's own globals."""
    return list_cosines(unit_globals(task.queries), unit_globals(task.gallery), lists)


def list_cosines(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], lists: Shortlists
) -> NDArray[np.float32]:
    """(queries, top): cosines of queries of any length with unit rows of the gallery."""
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    return np.take_along_axis(unit @ gallery.T, lists.images, axis=1).astype(np.float32)


def in_metric(task: RetrievalTask, metric: NDArray[np.float32]) -> RetrievalTask:
    """The same images, the global of each what the learnt metric (`model.metric`) makes of it."""

    def changed(images: Sequence[ImageDescriptors]) -> list[ImageDescriptors]:
        vectors = normalised(described(images) @ metric, "images in the learnt metric")
        return [
            replace(image, global_=vector) for image, vector in zip(images, vectors, strict=True)
        ]

    return replace(task, queries=changed(task.queries), gallery=changed(task.gallery))
