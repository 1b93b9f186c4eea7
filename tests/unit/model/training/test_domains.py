"""Labelled images of any domains, by any extractors, become training lists and a validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from model.config import ExtractorId
from model.descriptors import DescriptorSizes, ImageDescriptors
from model.evaluation.grocery import validation_classes
from model.formats.labels import LabelledImages
from model.training.domains import (
    VIEWS_SHARE,
    Domain,
    ImagesById,
    TrainingData,
    labelled_data,
    views_data,
)
from model.training.training_lists import ListOptions, ListShape
from tests.factories import SIZES, image, tiny_config

CONFIG = tiny_config()
EXTRACTOR = ExtractorId(name="a", version="1")
OPTIONS = ListOptions(
    bent_locals=0,
    bent_globals=0,
    mixed=0,
    mean_as_global=0,
    without_globals=0,
    some_without_global=0,
)
SHAPE = ListShape(images=10, descriptors=6)


def described(ids: list[str], sizes: DescriptorSizes = SIZES, seed: int = 0) -> ImagesById:
    rng = np.random.default_rng(seed)
    return {image_id: image(rng, CONFIG, sizes=sizes) for image_id in ids}


def domain(
    name: str, classes: int, extractors: Mapping[str, DescriptorSizes], first: int = 0
) -> Domain:
    ids = [f"{name}/{n}" for n in range(6 * classes)]
    images = LabelledImages(
        ids, first + np.arange(6 * classes) % classes, np.arange(6 * classes) // classes % 3 == 0
    )
    return Domain(images, {e: described(ids, sizes) for e, sizes in extractors.items()})


SHOES = domain("shoes", 8, {"a": SIZES, "b": DescriptorSizes(5, 3)})
COINS = domain("coins", 4, {"b": DescriptorSizes(4, 7)})


def data(
    *domains: Domain,
    views: Mapping[str, ImagesById] | None = None,
    fold: int | None = None,
    options: ListOptions = OPTIONS,
) -> TrainingData:
    return labelled_data(domains, views or {}, EXTRACTOR, fold=fold, options=options)


def sizes_drawn(of: TrainingData, count: int = 300) -> list[DescriptorSizes]:
    lists = (of.source.draw(np.random.default_rng(seed), SHAPE) for seed in range(count))
    return [one.window.query.sizes for one in lists]


def test_lists_come_from_every_domain_and_every_extractor() -> None:
    of = data(SHOES, COINS)
    list_sizes = sizes_drawn(of)
    assert set(list_sizes) == {SIZES, DescriptorSizes(5, 3), DescriptorSizes(4, 7)}
    # By the roots of the numbers of their classes, 8 and 4.
    of_coins = list_sizes.count(DescriptorSizes(4, 7)) / len(list_sizes)
    assert of_coins == pytest.approx(2 / (2 + 8**0.5), abs=0.1)
    assert (of.extractor, of.sizes) == (EXTRACTOR, SIZES)
    assert (of.validation, of.held_out_classes) == (None, ())


@pytest.mark.parametrize("fold", [0, 3])
def test_a_fold_is_kept_for_validation_and_never_trained_on(fold: int) -> None:
    of = data(SHOES, COINS, fold=fold)
    apart = validation_classes(SHOES.images.classes, fold)
    assert of.held_out_classes == tuple(apart.tolist())
    assert of.validation is not None
    is_held_out = np.isin(SHOES.images.classes, apart)
    assert len(of.validation.queries) == (is_held_out & SHOES.images.is_query).sum()
    assert len(of.validation.gallery) == (is_held_out & ~SHOES.images.is_query).sum()
    held_out = {
        own.locals[0].astype(np.float16).tobytes()
        for own in (*of.validation.queries, *of.validation.gallery)
    }
    options = replace(OPTIONS, poor_locals=0, noise_locals=0)
    source = data(SHOES, fold=fold, options=options).source
    for seed in range(50):
        window = source.draw(np.random.default_rng(seed), SHAPE).window
        rows = np.concatenate([one.locals for one in (window.query, *window.gallery)])
        assert not held_out & {row.astype(np.float16).tobytes() for row in rows}


def views_of(ids: list[str], sizes: DescriptorSizes) -> ImagesById:
    return described([f"{image_id}@{n}" for image_id in ids for n in range(3)], sizes)


def test_a_quarter_of_the_lists_asks_for_views() -> None:
    views = {"a": views_of(SHOES.images.ids[:12], DescriptorSizes(9, 2))}
    list_sizes = sizes_drawn(data(SHOES, COINS, views=views))
    share = list_sizes.count(DescriptorSizes(9, 2)) / len(list_sizes)
    assert share == pytest.approx(VIEWS_SHARE, abs=0.08)


def test_views_of_images_that_are_held_out_are_not_trained_on() -> None:
    apart = np.isin(SHOES.images.classes, validation_classes(SHOES.images.classes, 0))
    ids = [i for i, held in zip(SHOES.images.ids, apart, strict=True) if held]
    views = {"a": views_of(ids, DescriptorSizes(9, 2))}
    list_sizes = sizes_drawn(data(SHOES, views=views, fold=0), 60)
    assert DescriptorSizes(9, 2) not in list_sizes


def test_data_that_differ_have_different_fingerprints() -> None:
    renamed = replace(SHOES, images=replace(SHOES.images, ids=SHOES.images.ids))
    views = {"a": views_of(SHOES.images.ids, DescriptorSizes(9, 2))}
    assert data(SHOES).fingerprint == data(renamed).fingerprint
    different = [
        data(SHOES),
        data(COINS),
        data(SHOES, COINS),
        data(COINS, SHOES),
        data(SHOES, fold=0),
        data(SHOES, fold=1),
        data(SHOES, views=views),
        data(SHOES, options=replace(OPTIONS, sparse=0.5)),
    ]
    assert len({of.fingerprint for of in different}) == len(different)


def test_data_of_which_no_list_can_be_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match="two classes"):
        data(SHOES, domain("one", 1, {"a": SIZES}))
    bare: ImagesById = {
        image_id: replace(own, global_=None) for image_id, own in SHOES.described["a"].items()
    }
    with pytest.raises(ValueError, match="global descriptor of every image"):
        data(Domain(SHOES.images, {"a": bare}))


def test_a_fold_without_classes_is_refused() -> None:
    """Of three classes the fourth fold has none."""
    few = domain("few", 3, {"a": SIZES})
    with pytest.raises(ValueError, match="fold 3 has no query with a relevant image"):
        data(few, fold=3)


def test_views_without_labels_are_their_own_classes_and_some_are_held_out() -> None:
    views = views_of([f"{n}.jpg" for n in range(20)], SIZES)
    of = views_data(views, EXTRACTOR, held_out=5, options=OPTIONS)
    assert of.validation is not None
    # Of every fifth of 20 images the views 0 and 2 are the gallery, and 1 asks.
    assert (len(of.validation.queries), len(of.validation.gallery)) == (4, 8)
    assert of.validation.relevant.sum(1).tolist() == [2] * 4
    apart: list[ImageDescriptors] = [*of.validation.queries, *of.validation.gallery]
    assert {id(own) for own in apart} <= {id(own) for own in views.values()}
    assert of.source.draw(np.random.default_rng(0), SHAPE).relevant.any()


def test_too_few_images_without_labels_are_refused() -> None:
    views = views_of([f"{n}.jpg" for n in range(9)], SIZES)
    with pytest.raises(ValueError, match="9 readable images: at least 10 are needed"):
        views_data(views, EXTRACTOR, held_out=5, options=OPTIONS)
