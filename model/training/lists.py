"""Training lists: a query, its nearest images in shuffled order, and which are relevant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.batch import Window
from model.descriptors import ImageDescriptors
from model.evaluation.grocery import LabelledImages


@dataclass(frozen=True, eq=False)
class TrainingList:
    """`relevant` (gallery,): which of the window's gallery images answer its query."""

    window: Window
    relevant: NDArray[np.bool_]


class ListSource(Protocol):
    """Where training lists come from. The same generator state gives the same list."""

    def draw(self, rng: np.random.Generator) -> TrainingList: ...


@dataclass(frozen=True)
class ListOptions:
    """How lists vary. Shorter lists, fewer descriptors and fewer classes than in use make a list
    cheaper and no two alike; without its global an image must be known by its locals."""

    longest: int = 64
    shortest: int = 32
    most_descriptors: int = 32
    fewest_descriptors: int = 12
    fewest_classes: float = 0.3
    without_global: float = 0.1


class LabelledLists:
    """Lists from images with classes. As in the evaluation a query and its gallery come from
    different occasions, either way round. The gallery is the query's nearest by global
    descriptor, *shuffled*: otherwise the model copies the first stage's order (LOCORE)."""

    def __init__(
        self,
        images: LabelledImages,
        descriptors: Sequence[ImageDescriptors],
        options: ListOptions,
    ) -> None:
        self._images = images
        self._descriptors = descriptors
        self._options = options
        self._classes = np.unique(images.classes)
        vectors = np.stack([d.global_ for d in descriptors if d.global_ is not None])
        if len(vectors) != len(descriptors):
            raise ValueError("training lists need a global descriptor of every image")
        self._cosines = vectors @ vectors.T

    def draw(self, rng: np.random.Generator) -> TrainingList:
        options, images = self._options, self._images
        while True:
            query = int(rng.integers(len(self._descriptors)))
            share = rng.uniform(options.fewest_classes, 1.0)
            kept = self._classes[rng.random(len(self._classes)) < share]
            gallery = np.flatnonzero(
                (images.is_query != images.is_query[query])
                & (np.isin(images.classes, kept) | (images.classes == images.classes[query]))
            )
            length = int(rng.integers(options.shortest, options.longest + 1))
            nearest = gallery[np.argsort(-self._cosines[query, gallery])[:length]]
            relevant = images.classes[nearest] == images.classes[query]
            if relevant.any() and not relevant.all():
                break
        order = rng.permutation(len(nearest))
        count = int(rng.integers(options.fewest_descriptors, options.most_descriptors + 1))
        bare = rng.random() < options.without_global

        def seen(place: int) -> ImageDescriptors:
            image = self._descriptors[place].strongest(count)
            return ImageDescriptors(image.locals, image.scales) if bare else image

        window = Window(seen(query), [seen(int(place)) for place in nearest[order]])
        return TrainingList(window, relevant[order])
