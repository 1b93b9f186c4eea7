"""Images that are directions of the plane, so that figures can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.descriptors import ImageDescriptors
from model.evaluation.retrieval import RetrievalTask, labelled_task
from model.formats.labels import LabelledImages


def at(angle: float) -> ImageDescriptors:
    vector = np.array([np.cos(angle), np.sin(angle)], np.float32)
    return ImageDescriptors(vector[None], np.zeros(1, np.uint8), vector)


def angles_task(query: float, gallery: Sequence[float], relevant: int = 1) -> RetrievalTask:
    """One query; the first `relevant` gallery images are of its class."""
    ids = ["q", *(str(place) for place in range(len(gallery)))]
    classes = np.array([1] + [1 if place < relevant else 2 for place in range(len(gallery))])
    images = LabelledImages(ids, classes, np.array([True] + [False] * len(gallery)))
    return labelled_task(
        images, {i: at(angle) for i, angle in zip(ids, (query, *gallery), strict=True)}
    )
