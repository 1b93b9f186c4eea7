"""Training lists from LOCORE's published data: a query's nearest images, shuffled."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.descriptor_file import NoDescriptorError
from model.descriptors import ImageDescriptors
from model.training.training_lists import ListShape, TrainingList
from model.windows import Window

_TRIES = 100


class Images(Protocol):
    """Images by place, read on demand."""

    def __getitem__(self, place: int) -> ImageDescriptors: ...


class NeighbourLists:
    """A query's nearest neighbours; those with its label are relevant. They are shuffled, since
    otherwise the model copies the first stage's order (Xiao et al., CVPR 2025). As published, a
    list may have no relevant image. Images without descriptors are skipped, as queries and in
    lists."""

    def __init__(
        self, images: Images, neighbours: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> None:
        """`neighbours` (images, k), nearest first, with or without the image itself; `labels`
        (images,)."""
        self._images = images
        self._neighbours = neighbours
        self._labels = labels

    def draw(self, rng: np.random.Generator, shape: ListShape) -> TrainingList:
        for _ in range(_TRIES):
            query = int(rng.integers(len(self._neighbours)))
            others = self._neighbours[query]
            query_image = self._image(query, shape)
            nearest = rng.permutation(others[others != query][: shape.images]).tolist()
            images = {place: image for place in nearest if (image := self._image(place, shape))}
            if query_image is not None and len(images) > 1:
                relevant = self._labels[list(images)] == self._labels[query]
                return TrainingList(Window(query_image, list(images.values())), relevant)
        raise NoDescriptorError(f"none of {_TRIES} images that were drawn can be used for training")

    def _image(self, place: int, shape: ListShape) -> ImageDescriptors | None:
        try:
            return self._images[place].strongest(shape.descriptors)
        except NoDescriptorError:
            return None
