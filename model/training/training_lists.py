"""Training lists: a query, its nearest images in random order, and which are relevant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.descriptors import ImageDescriptors
from model.formats.labels import LabelledImages
from model.training.bending import Spectrum, add_noise, bend, spectrum
from model.windows import Window


@dataclass(frozen=True, eq=False)
class TrainingList:
    """`relevant` (gallery,): which gallery images of the window are relevant to its query."""

    window: Window
    relevant: NDArray[np.bool_]


@dataclass(frozen=True)
class ListShape:
    """The largest numbers of gallery images in a list and of descriptors in an image."""

    images: int
    descriptors: int


class ListSource(Protocol):
    """Where training lists come from. The same generator state gives the same list."""

    def draw(self, rng: np.random.Generator, shape: ListShape) -> TrainingList: ...


@dataclass(frozen=True)
class ListOptions:
    """How lists vary: probabilities, except `fewest_classes`.

    `every_class`: the gallery has all classes; else a random share of them, at least
    `fewest_classes`. `sparse`: only one to three relevant images. `bent_locals`, `bent_globals`:
    see `model.training.bending`. `poor_locals`: much noise is added. `noise_locals`,
    `noise_globals`: nothing but noise. `foreign_locals`: some images have the locals of others, so
    that locals agree with each other and mislead. `mixed`: locals of one extractor with globals of
    another. `mean_as_global`: the global is the mean of the locals. `without_globals`: no image has
    a global. `some_without_global`: a random share of the images has none.
    """

    fewest_classes: float = 0.05
    every_class: float = 0.5
    sparse: float = 0.1
    bent_locals: float = 0.4
    bent_globals: float = 0.3
    poor_locals: float = 0.06
    noise_locals: float = 0.05
    foreign_locals: float = 0.06
    noise_globals: float = 0.04
    mixed: float = 0.35
    mean_as_global: float = 0.05
    without_globals: float = 0.05
    some_without_global: float = 0.08


@dataclass(frozen=True, eq=False)
class DomainLocals:
    """Locals of a domain's images by one extractor: rows (images, n, d), counts (images,)."""

    rows: NDArray[np.float16]
    counts: NDArray[np.int64]
    spectrum: Spectrum


@dataclass(frozen=True, eq=False)
class DomainGlobals:
    """Globals (images, e) of a domain's images by one extractor, of length 1."""

    rows: NDArray[np.float32]
    spectrum: Spectrum


def locals_of(images: Sequence[ImageDescriptors], max_locals: int) -> DomainLocals:
    """The strongest `max_locals` of each image. Raises ValueError if locals differ in length."""
    strongest = [image.without_padding().strongest(max_locals).locals for image in images]
    if len({rows.shape[1] for rows in strongest}) > 1:
        raise ValueError("locals of several lengths in one set of descriptors")
    counts = np.array([len(rows) for rows in strongest])
    rows = np.zeros((len(images), int(counts.max()), strongest[0].shape[1]), np.float16)
    for place, locals_ in enumerate(strongest):
        rows[place, : len(locals_)] = locals_
    return DomainLocals(
        rows, counts, spectrum(np.concatenate([locals_[::4] for locals_ in strongest]))
    )


def globals_of(rows: NDArray[np.float32]) -> DomainGlobals:
    return DomainGlobals(_unit(rows), spectrum(rows))


class DomainLists:
    """Lists from the labelled images of one domain, described by any number of extractors. As in
    the evaluation, a query and its gallery have different roles, either way round. The gallery is
    the query's nearest images by the list's own globals, *shuffled*: otherwise the model copies the
    first stage's order (LOCORE)."""

    def __init__(
        self,
        images: LabelledImages,
        locals_: Mapping[str, DomainLocals],
        globals_: Mapping[str, DomainGlobals],
        options: ListOptions,
    ) -> None:
        """`locals_` and `globals_`: of all images, by extractor. Raises ValueError if no list can
        be drawn."""
        self._images = images
        self._locals = dict(locals_)
        self._globals = dict(globals_)
        self._options = options
        self._classes = np.unique(images.classes)
        both = set(images.classes[images.is_query].tolist()) & set(
            images.classes[~images.is_query].tolist()
        )
        if not both or len(self._classes) < 2:
            raise ValueError("training lists need two classes, and images of one in both roles")
        if not globals_:
            raise ValueError("training lists need a global descriptor of every image")

    def draw(self, rng: np.random.Generator, shape: ListShape) -> TrainingList:
        options = self._options
        names = list(self._locals)
        of_locals = names[int(rng.integers(len(names)))]
        of_globals = of_locals
        others = [name for name in self._globals if name != of_locals]
        if of_locals not in self._globals or (others and rng.random() < options.mixed):
            of_globals = others[int(rng.integers(len(others)))]
        locals_, vectors = self._locals[of_locals], self._globals[of_globals]
        # The first stage searches by the list's own globals, bent or not.
        globals_ = vectors.rows
        if rng.random() < options.bent_globals:
            globals_ = _unit(bend(globals_, vectors.spectrum, rng))
        query, gallery, relevant = self._shortlist(globals_, rng, shape.images)
        places = np.concatenate(([query], gallery))
        images = _draw_locals(locals_, self._sources(places, rng), shape.descriptors, options, rng)
        cues = _global_cues(globals_[places], images, options, rng)
        described = [
            ImageDescriptors(rows, np.zeros(len(rows), np.uint8), cue)
            for rows, cue in zip(images, cues, strict=True)
        ]
        return TrainingList(Window(described[0], described[1:]), relevant)

    def _sources(self, places: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """The images whose locals stand for those of `places`."""
        if rng.random() >= self._options.foreign_locals:
            return places
        foreign = rng.random(len(places)) < rng.uniform(0.3, 1.0)
        others = rng.integers(len(self._images.classes), size=len(places))
        return np.where(foreign, others, places)

    def _shortlist(
        self, globals_: NDArray[np.float32], rng: np.random.Generator, count: int
    ) -> tuple[int, NDArray[np.int64], NDArray[np.bool_]]:
        """Draws a query. Returns it, its nearest images in random order, and which are relevant:
        some, but not all."""
        images, options = self._images, self._options
        for _ in range(200):
            query = int(rng.integers(len(images.classes)))
            positives = images.classes == images.classes[query]
            eligible = np.ones_like(positives)
            if rng.random() >= options.every_class:
                # Uniform on a logarithmic scale, so that the density of relevant images varies as
                # much.
                share = options.fewest_classes ** rng.random()
                classes = self._classes[rng.random(len(self._classes)) < share]
                eligible = positives | np.isin(images.classes, classes)
            if images.groups is not None:
                eligible &= positives | (images.groups != images.groups[query])
            gallery = np.flatnonzero(eligible & (images.is_query != images.is_query[query]))
            if rng.random() < options.sparse:
                gallery = _thin_out(gallery, positives, rng)
            cosines = globals_[gallery] @ globals_[query]
            nearest = gallery[np.argsort(-cosines)[:count]]
            relevant = positives[nearest]
            if relevant.any() and not relevant.all():
                order = rng.permutation(len(nearest))
                return query, nearest[order], relevant[order]
        raise ValueError("none of 200 queries has both relevant and other images in its list")


class MixedLists:
    """Draws each list from one of several sources, by their weights."""

    def __init__(self, sources: Sequence[ListSource], weights: Sequence[float]) -> None:
        self._sources = sources
        self._weights = np.array(weights) / np.sum(weights)

    def draw(self, rng: np.random.Generator, shape: ListShape) -> TrainingList:
        return self._sources[int(rng.choice(len(self._sources), p=self._weights))].draw(rng, shape)


def _thin_out(
    gallery: NDArray[np.int64], positives: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.int64]:
    """The gallery with only one to three of its relevant images."""
    relevant = gallery[positives[gallery]]
    count = min(int(rng.integers(1, 4)), len(relevant))
    return np.concatenate((gallery[~positives[gallery]], rng.permutation(relevant)[:count]))


def _draw_locals(
    of: DomainLocals,
    places: NDArray[np.int64],
    max_locals: int,
    options: ListOptions,
    rng: np.random.Generator,
) -> list[NDArray[np.float32]]:
    """Draws the locals of each image, as some other extractor and detector might have made them."""
    counts = np.minimum(of.counts[places], max_locals)
    valid = np.arange(of.rows.shape[1]) < counts[:, None]
    rows = of.rows[places][valid].astype(np.float32)
    chance = rng.random()
    if chance < options.noise_locals:
        rows = rng.standard_normal(rows.shape, np.float32)
    elif chance < options.noise_locals + options.poor_locals:
        rows = add_noise(rows, float(rng.uniform(1.0, 4.0)), rng)
    elif rng.random() < options.bent_locals:
        rows = bend(rows, of.spectrum, rng)
    rows = _unit(rows)
    images = all_locals = np.split(rows, np.cumsum(counts)[:-1])
    if rng.random() < 0.3:
        images = [locals_[rng.permutation(len(locals_))] for locals_ in images]
    if rng.random() < 0.25:
        images = [
            locals_[rng.random(len(locals_)) < rng.uniform(0.2, 1.0)]
            if len(locals_) > 4
            else locals_
            for locals_ in images
        ]
        images = [
            locals_ if len(locals_) else complete[:1]
            for locals_, complete in zip(images, all_locals, strict=True)
        ]
    if rng.random() < 0.15:
        images = [_add_clutter(locals_, rows, rng) for locals_ in images]
    return images


def _add_clutter(
    locals_: NDArray[np.float32], everyone: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Replaces some locals by locals of other images of the list."""
    replaced = rng.random(len(locals_)) < rng.uniform(0.0, 0.6)
    foreign = everyone[rng.integers(len(everyone), size=len(locals_))]
    return np.where(replaced[:, None], foreign, locals_)


def _global_cues(
    globals_: NDArray[np.float32],
    images: Sequence[NDArray[np.float32]],
    options: ListOptions,
    rng: np.random.Generator,
) -> list[NDArray[np.float32] | None]:
    chance = rng.random()
    if chance < options.without_globals:
        return [None] * len(globals_)
    if rng.random() < options.noise_globals:
        globals_ = _unit(rng.standard_normal(globals_.shape, np.float32))
    elif rng.random() < options.mean_as_global:
        globals_ = _unit(np.stack([locals_.mean(0) for locals_ in images]))
    if chance < options.without_globals + options.some_without_global:
        missing = rng.random(len(globals_)) < rng.uniform(0.05, 0.7)
        return [None if absent else row for row, absent in zip(globals_, missing, strict=True)]
    return list(globals_)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)
