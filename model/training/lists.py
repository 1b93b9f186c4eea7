"""Training lists: a query, its nearest images in shuffled order, and which are relevant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.batch import Window
from model.descriptors import ImageDescriptors, stacked_globals
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
    cheaper and no two alike; without its global an image must be known by its locals; in a rotated
    space of descriptors only their relations count, not what they looked like in training."""

    longest: int = 64
    shortest: int = 32
    most_descriptors: int = 32
    fewest_descriptors: int = 12
    fewest_classes: float = 0.3
    without_global: float = 0.1
    rotated: float = 0.3


def views_as_images(ids: Sequence[str], known: LabelledImages) -> LabelledImages:
    """Views (`IMAGE@NUMBER`) of labelled images: each image is a class of its own, and images of
    one class a group. Views of other images are left out; odd numbers are queries."""
    places = {image_id: place for place, image_id in enumerate(known.ids)}
    split = [view.rpartition("@") for view in ids]
    kept = [(f"{i}@{n}", places[i], int(n)) for i, _, n in split if i in places]
    images = np.array([place for _, place, _ in kept], dtype=np.int64)
    return LabelledImages(
        [view for view, _, _ in kept],
        images,
        np.array([number % 2 == 1 for _, _, number in kept], dtype=np.bool_),
        known.classes[images],
    )


class MixedLists:
    """Draws from the first source, or by a share of the draws from the second."""

    def __init__(self, first: ListSource, second: ListSource, share: float) -> None:
        self._sources = first, second
        self._share = share

    def draw(self, rng: np.random.Generator) -> TrainingList:
        return self._sources[rng.random() < self._share].draw(rng)


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
        both = set(images.classes[images.is_query].tolist()) & set(
            images.classes[~images.is_query].tolist()
        )
        if not both or len(self._classes) < 2:
            raise ValueError("training lists need two classes, and images of one on both occasions")
        vectors = stacked_globals(descriptors)
        if vectors is None:
            raise ValueError("training lists need a global descriptor of every image")
        self._cosines = vectors @ vectors.T

    def draw(self, rng: np.random.Generator) -> TrainingList:
        options, images = self._options, self._images
        while True:
            query = int(rng.integers(len(self._descriptors)))
            share = rng.uniform(options.fewest_classes, 1.0)
            kept = self._classes[rng.random(len(self._classes)) < share]
            own = images.classes == images.classes[query]
            eligible = own | np.isin(images.classes, kept)
            if images.groups is not None:
                eligible &= own | (images.groups != images.groups[query])
            gallery = np.flatnonzero(eligible & (images.is_query != images.is_query[query]))
            length = int(rng.integers(options.shortest, options.longest + 1))
            nearest = gallery[np.argsort(-self._cosines[query, gallery])[:length]]
            relevant = images.classes[nearest] == images.classes[query]
            if relevant.any() and not relevant.all():
                break
        order = rng.permutation(len(nearest))
        count = int(rng.integers(options.fewest_descriptors, options.most_descriptors + 1))
        bare = rng.random() < options.without_global

        rotation = None
        if rng.random() < options.rotated:
            dim = self._descriptors[query].locals.shape[1]
            rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)

        def seen(place: int) -> ImageDescriptors:
            image = self._descriptors[place].strongest(count)
            locals_ = image.locals if rotation is None else image.locals @ rotation
            return ImageDescriptors(locals_, image.scales, None if bare else image.global_)

        window = Window(seen(query), [seen(int(place)) for place in nearest[order]])
        return TrainingList(window, relevant[order])
