"""Training data: labelled images of any domains, described by any extractors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from model.config import ExtractorId
from model.descriptors import DescriptorSizes, ImageDescriptors
from model.evaluation.grocery import split
from model.evaluation.retrieval import RetrievalTask, labelled_task
from model.formats.labels import LabelledImages, labels_of_views
from model.training.training_lists import (
    DomainLists,
    ListOptions,
    ListSource,
    MixedLists,
    globals_of,
    locals_of,
)

VIEWS_SHARE = 0.15
"""The share of lists in which the query and the relevant images are views of one image, if there
are views."""
MAX_LOCALS = 48

ImagesById = Mapping[str, ImageDescriptors]
"""Images by id, as one extractor describes them."""


@dataclass(frozen=True, eq=False)
class Domain:
    """Labelled images, and their descriptors by extractor."""

    images: LabelledImages
    described: Mapping[str, ImagesById]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """`source`: the lists to train on. `validation`: a task of other classes, to choose alpha and T
    on, if any. `extractor` and `sizes`: of the first descriptors. `fingerprint`: identifies the
    data."""

    source: ListSource
    validation: RetrievalTask | None
    extractor: ExtractorId
    sizes: DescriptorSizes
    fingerprint: str
    held_out_classes: tuple[int, ...] = ()


def labelled_data(
    domains: Sequence[Domain],
    views: Mapping[str, ImagesById],
    extractor: ExtractorId,
    *,
    fold: int | None,
    options: ListOptions,
) -> TrainingData:
    """Makes lists from all domains, more from larger ones; one in seven comes from `views` of the
    training images, if there are any. With a `fold`, its classes of the first domain are kept for
    validation. Raises ValueError if no list can be drawn."""
    first = domains[0]
    validation, held_out = None, ()
    training = list(domains)
    if fold is not None:
        trained, held_out_images = split(first.images, fold)
        training[0] = Domain(trained, first.described)
        validation = labelled_task(held_out_images, dict(next(iter(first.described.values()))))
        held_out = tuple(np.unique(held_out_images.classes).tolist())
        if not validation.relevant.any():
            raise ValueError(f"fold {fold} has no query with a relevant image to choose on")
    sources: list[ListSource] = [domain_lists(domain, options) for domain in training]
    weights = [_weight(domain.images) for domain in training]
    of_views = [_views_of(domain.images, views) for domain in training] if views else []
    of_views = [domain for domain in of_views if domain.images.ids]
    if of_views:
        share = VIEWS_SHARE / (1 - VIEWS_SHARE) * sum(weights) / len(of_views)
        sources += [domain_lists(domain, options) for domain in of_views]
        weights += [share] * len(of_views)
    return TrainingData(
        MixedLists(sources, weights),
        validation,
        extractor,
        _sizes(first),
        fingerprint(extractor, [*training, *of_views], options),
        held_out,
    )


def views_data(
    views: ImagesById, extractor: ExtractorId, *, held_out: int, options: ListOptions
) -> TrainingData:
    """Makes lists from views of images without labels. Every `held_out`-th image is for validation.
    Raises ValueError if there are too few images for that."""
    pictures = sorted({view.rpartition("@")[0] for view in views})
    if len(pictures) < 2 * held_out:
        raise ValueError(f"{len(pictures)} readable images: at least {2 * held_out} are needed")
    apart = set(pictures[::held_out])
    training, validation = (
        labels_of_views([view for view in views if view.rpartition("@")[0] in part])
        for part in (set(pictures) - apart, apart)
    )
    domain = Domain(training, {extractor.name: views})
    return TrainingData(
        domain_lists(domain, options),
        labelled_task(validation, dict(views)),
        extractor,
        _sizes(domain),
        fingerprint(extractor, [domain], options),
    )


def domain_lists(domain: Domain, options: ListOptions) -> DomainLists:
    """Raises ValueError if no list can be drawn."""
    described = {
        name: [images[image_id] for image_id in domain.images.ids]
        for name, images in domain.described.items()
    }
    locals_ = {name: locals_of(images, MAX_LOCALS) for name, images in described.items()}
    globals_ = {}
    for name, images in described.items():
        vectors = [image.global_ for image in images if image.global_ is not None]
        if len(vectors) == len(images):
            globals_[name] = globals_of(np.stack(vectors).astype(np.float32))
    return DomainLists(domain.images, locals_, globals_, options)


def fingerprint(extractor: ExtractorId, domains: Sequence[Domain], options: ListOptions) -> str:
    """Identifies the data of a training: a run is resumed on the same data only."""
    digest = hashlib.sha256(repr((extractor, options, VIEWS_SHARE)).encode())
    for domain in domains:
        digest.update(repr((domain.images.ids, sorted(domain.described))).encode())
        digest.update(domain.images.classes.tobytes())
    return digest.hexdigest()


def _weight(images: LabelledImages) -> float:
    """How often a list comes from this domain: the geometric mean of its numbers of images and
    classes."""
    return float(np.sqrt(len(images.ids) * len(np.unique(images.classes))))


def _views_of(images: LabelledImages, views: Mapping[str, ImagesById]) -> Domain:
    """The views of these images that every extractor has described."""
    shared = set.intersection(*(set(of) for of in views.values()))
    ids = [view for view in next(iter(views.values())) if view in shared]
    return Domain(labels_of_views(ids, images), views)


def _sizes(domain: Domain) -> DescriptorSizes:
    every = chain.from_iterable(images.values() for images in domain.described.values())
    return next(iter(every)).sizes
