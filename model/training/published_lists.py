"""Training lists from LOCORE's published data: a query's nearest images, shuffled."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.batch import Window
from model.descriptors import ImageDescriptors
from model.training.lists import ListShape, TrainingList


class Images(Protocol):
    """Images by place, read as they are asked for."""

    def __getitem__(self, place: int) -> ImageDescriptors: ...


class NeighbourLists:
    """Every image asks for those of its label among its nearest neighbours, which come shuffled:
    otherwise the model copies the first stage's order (Xiao et al., CVPR 2025). As published a
    list may be without a relevant image."""

    def __init__(
        self, images: Images, neighbours: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> None:
        """`neighbours` (images, k), nearest first, with or without the image itself; `labels`
        (images,)."""
        self._images = images
        self._neighbours = neighbours
        self._labels = labels

    def draw(self, rng: np.random.Generator, shape: ListShape) -> TrainingList:
        query = int(rng.integers(len(self._neighbours)))
        others = self._neighbours[query]
        nearest = rng.permutation(others[others != query][: shape.images])
        asked, *gallery = (
            self._images[int(place)].strongest(shape.descriptors) for place in (query, *nearest)
        )
        return TrainingList(Window(asked, gallery), self._labels[nearest] == self._labels[query])
