"""Training lists: a query, its nearest images in shuffled order, and which are relevant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from model.batch import Window
from model.descriptors import ImageDescriptors, stacked_globals
from model.evaluation.grocery import LabelledImages


@dataclass(frozen=True, eq=False)
class TrainingList:
    """`relevant` (gallery,): which of the window's gallery images answer its query."""

    window: Window
    relevant: NDArray[np.bool_]


@dataclass(frozen=True)
class ListShape:
    """Gallery images of a list, and descriptors of an image, at most."""

    images: int
    descriptors: int


class ListSource(Protocol):
    """Where training lists come from. The same generator state gives the same list."""

    def draw(self, rng: np.random.Generator, shape: ListShape) -> TrainingList: ...


@dataclass(frozen=True)
class ListOptions:
    """How lists vary. Fewer classes than there are make no two lists alike; without its global an
    image must be known by its locals; in a rotated space of descriptors only their relations
    count, not what they looked like in training; and where the metric is left out the network
    learns what a list looks like for which it does not hold."""

    fewest_classes: float = 0.3
    without_global: float = 0.1
    rotated: float = 0.3
    as_view: float = 0.4
    without_metric: float = 0.3


def views_as_images(ids: Sequence[str], known: LabelledImages | None = None) -> LabelledImages:
    """Views (`IMAGE@NUMBER`): each image is a class of its own, its odd numbers are queries.
    Where labelled images are known, views of others are left out, and images of one class are a
    group. Raises ValueError for an id of another form."""
    split = [view.rpartition("@") for view in ids]
    unnumbered = [view for view, (_, _, n) in zip(ids, split, strict=True) if not n.isdigit()]
    if unnumbered:
        raise ValueError(f"{unnumbered[0]!r} is not a view: IMAGE@NUMBER")
    names = known.ids if known is not None else sorted({image for image, _, _ in split})
    places = {image_id: place for place, image_id in enumerate(names)}
    kept = [(f"{i}@{n}", places[i], int(n)) for i, _, n in split if i in places]
    images = np.array([place for _, place, _ in kept], dtype=np.int64)
    return LabelledImages(
        [view for view, _, _ in kept],
        images,
        np.array([number % 2 == 1 for _, _, number in kept], dtype=np.bool_),
        None if known is None else known.classes[images],
    )


class MixedLists:
    """Draws from the first source, or by a share of the draws from the second."""

    def __init__(self, first: ListSource, second: ListSource, share: float) -> None:
        self._sources = first, second
        self._share = share

    def draw(self, rng: np.random.Generator, shape: ListShape) -> TrainingList:
        return self._sources[rng.random() < self._share].draw(rng, shape)


class LabelledLists:
    """Lists from images with classes. As in the evaluation a query and its gallery come from
    different occasions, either way round. The gallery is the query's nearest by global
    descriptor, *shuffled*: otherwise the model copies the first stage's order (LOCORE)."""

    def __init__(
        self,
        images: LabelledImages,
        descriptors: Sequence[ImageDescriptors],
        options: ListOptions,
        views: Mapping[int, Sequence[ImageDescriptors]] | None = None,
    ) -> None:
        """`views`, by an image's place: by chance one of them is drawn instead of the image."""
        self._images = images
        self._descriptors = descriptors
        self._options = options
        self._views = views or {}
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

    def draw(self, rng: np.random.Generator, shape: ListShape) -> TrainingList:
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
            nearest = gallery[np.argsort(-self._cosines[query, gallery])[: shape.images]]
            relevant = images.classes[nearest] == images.classes[query]
            if relevant.any() and not relevant.all():
                break
        order = rng.permutation(len(nearest))
        bare = rng.random() < options.without_global

        drawn = [
            self._seen(int(place), rng).strongest(shape.descriptors)
            for place in (query, *nearest[order])
        ]
        locals_ = [image.locals for image in drawn]
        if rng.random() < options.rotated:
            locals_ = _rotated(locals_, rng)
        query_image, *gallery_images = (
            ImageDescriptors(rows, image.scales, None if bare else image.global_, image.padding)
            for rows, image in zip(locals_, drawn, strict=True)
        )
        in_metric = rng.random() >= options.without_metric
        return TrainingList(Window(query_image, gallery_images, in_metric), relevant[order])

    def _seen(self, place: int, rng: np.random.Generator) -> ImageDescriptors:
        views = self._views.get(place)
        if views and rng.random() < self._options.as_view:
            return views[int(rng.integers(len(views)))]
        return self._descriptors[place]


def _rotated(
    locals_: list[NDArray[np.floating]], rng: np.random.Generator
) -> list[NDArray[np.floating]]:
    """All by one random rotation. In torch: numpy's threads wait by spinning, which slows down
    the training that it is drawn for."""
    dim = locals_[0].shape[1]
    rotation, _ = torch.linalg.qr(torch.from_numpy(rng.standard_normal((dim, dim))))
    rotated = torch.from_numpy(np.concatenate(locals_)).float() @ rotation.float()
    counts = [len(rows) for rows in locals_]
    return [part.numpy() for part in rotated.split(counts)]
