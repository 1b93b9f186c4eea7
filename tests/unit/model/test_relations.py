"""Relations tell how the images of a window compare, whatever their descriptors are."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.descriptors import DescriptorSizes, ImageDescriptors
from model.relations import (
    CONTEXT_FEATURES,
    IMAGE_FEATURES,
    MATCH_FEATURES,
    RELATIONS,
    TO_QUERY,
    Relations,
    window_relations,
)
from model.standardisation import standardised, standardised_pairs
from model.windows import Window
from tests.factories import image, tiny_config, tiny_model, window

CONFIG = tiny_config()
MODEL = tiny_model()
MATCHES = 3


def relations_of(one: Window) -> Relations:
    """Of one window, with the gallery in its order."""
    batch = MODEL.collate([one])
    places = torch.cat((torch.zeros(1, dtype=torch.long), batch.places[0]))
    of_all = window_relations(
        batch.locals[:, places],
        batch.local_mask[:, places],
        batch.globals[:, places],
        batch.has_global[:, places],
        one.query.count,
        MATCHES,
    )
    return Relations(*(getattr(of_all, field.name)[0] for field in fields(Relations)))


def to_query(of: Relations, name: str) -> torch.Tensor:
    """(g,)"""
    return of.image[1:, TO_QUERY.index(name)]


@settings(max_examples=30)
@given(
    images=st.integers(1, 12),
    sizes=st.builds(DescriptorSizes, st.integers(1, 20), st.none() | st.integers(1, 20)),
    seed=st.integers(0, 2**31),
)
def test_all_numbers_are_finite_bounded_and_of_the_shapes_that_are_told(
    images: int, sizes: DescriptorSizes, seed: int
) -> None:
    one = window(np.random.default_rng(seed), CONFIG, images, sizes)
    relations = relations_of(one)
    assert relations.pairs.shape == (len(RELATIONS), images + 1, images + 1)
    assert relations.image.shape == (images + 1, IMAGE_FEATURES)
    assert relations.matches.shape == (images, min(MATCHES, one.query.count), MATCH_FEATURES)
    assert relations.context.shape == (CONTEXT_FEATURES,)
    for values in (relations.pairs, relations.image, relations.matches, relations.context):
        assert values.isfinite().all()
        assert values.abs().max() <= 8


def test_relations_of_pairs_are_standardised_and_mutual() -> None:
    rng = np.random.default_rng(0)
    relations = relations_of(Window(image(rng, CONFIG), [image(rng, CONFIG) for _ in range(30)]))
    apart = relations.pairs[:, ~torch.eye(31, dtype=torch.bool)]
    torch.testing.assert_close(relations.pairs, relations.pairs.mT, atol=1e-4, rtol=0)
    by_cosine = [RELATIONS.index(name) for name in ("locals", "globals 10", "trusted 20")]
    torch.testing.assert_close(apart[by_cosine].mean(1), torch.zeros(3), atol=1e-4, rtol=0)
    # Numbers beyond the bound are cut off.
    assert (apart.std(1) > 0.5).all()
    assert (apart.std(1) < 1.01).all()


def test_what_relates_to_the_query_is_standardised_over_the_gallery() -> None:
    rng = np.random.default_rng(1)
    relations = relations_of(Window(image(rng, CONFIG), [image(rng, CONFIG) for _ in range(20)]))
    columns = relations.image[1:, : len(TO_QUERY)]
    torch.testing.assert_close(columns.mean(0), torch.zeros(len(TO_QUERY)), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        columns.std(0, unbiased=False), torch.ones(len(TO_QUERY)), atol=1e-3, rtol=0
    )


def test_every_relation_to_the_query_tells_the_image_that_is_it() -> None:
    rng = np.random.default_rng(2)
    query = image(rng, CONFIG)
    strangers = [image(rng, CONFIG) for _ in range(20)]
    crowd = [
        replace(
            query,
            locals=query.locals + np.float32(0.1) * image(rng, CONFIG).locals,
            global_=query.global_,
        )
        for _ in range(3)
    ]
    relations = relations_of(Window(query, [*strangers, *crowd]))
    for name in TO_QUERY:
        values = to_query(relations, name)
        assert values[20:].min() > values[:20].mean(), name
    for name in ("globals", "locals", "query to image", "image to query", "mutual matches"):
        values = to_query(relations, name)
        assert values[20:].min() > values[:20].max(), name


def test_an_image_without_a_global_is_judged_by_its_locals_and_says_so() -> None:
    rng = np.random.default_rng(3)
    query, first, second = (image(rng, CONFIG) for _ in range(3))
    bare = image(rng, CONFIG, with_global=False)
    relations = relations_of(Window(query, [first, bare, second]))
    assert relations.image[:, -1].tolist() == [1, 1, 0, 1]
    by_globals, by_locals = (
        relations.pairs[RELATIONS.index(name)] for name in ("globals", "locals")
    )
    torch.testing.assert_close(by_globals[2], by_locals[2])
    assert abs(float(by_globals[0, 1] - by_locals[0, 1])) > 1e-3


def test_others_without_a_global_do_not_change_how_two_globals_compare() -> None:
    """Up to scale and offset: similarities are standardised over what the window has."""
    rng = np.random.default_rng(4)
    images_with_globals = [image(rng, CONFIG) for _ in range(7)]
    for bare in ([], [4], [4, 5]):
        images: list[ImageDescriptors] = [
            replace(one, global_=None) if place in bare else one
            for place, one in enumerate(images_with_globals)
        ]
        relations = relations_of(Window(images[0], images[1:]))
        own = relations.pairs[RELATIONS.index("globals"), 0, 1:4]
        vectors = np.stack([one.global_ for one in images_with_globals if one.global_ is not None])
        cosines = torch.from_numpy(vectors[1:4] @ vectors[0])
        gaps, expected = own.diff(), cosines.diff()
        torch.testing.assert_close(gaps / gaps[0], expected / expected[0], atol=1e-3, rtol=1e-3)


def test_a_match_that_is_mutual_has_no_gap() -> None:
    rng = np.random.default_rng(5)
    query = image(rng, CONFIG)
    relations = relations_of(Window(query, [image(rng, CONFIG), query]))
    gap, mutual = relations.matches[1, :, 4], relations.matches[1, :, 5]
    assert gap.tolist() == [0.0] * MATCHES
    assert mutual.tolist() == [1.0] * MATCHES


@pytest.mark.parametrize("images", [1, 2, 9])
def test_pairs_are_standardised_but_for_those_of_an_image_with_itself(images: int) -> None:
    values = torch.rand(3, images, images, generator=torch.Generator().manual_seed(images))
    others = ~torch.eye(images, dtype=torch.bool)
    expected = standardised(values, (1, 2), others.expand_as(values))
    torch.testing.assert_close(standardised_pairs(values.clone()), expected)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1000.0])
def test_standardising(offset: float) -> None:
    values = torch.tensor([[1.0, 3.0, 99.0], [5.0, 7.0, 99.0]]) + offset
    mask = torch.tensor([[True, True, False], [True, True, False]])
    standard = standardised(values, (0, 1), mask)
    expected = torch.tensor([[-3.0, -1.0, 0.0], [1.0, 3.0, 0.0]]) / 5**0.5
    torch.testing.assert_close(standard, expected, atol=1e-4, rtol=0)


def test_a_spread_within_rounding_is_none() -> None:
    values = torch.full((20,), 0.7) + torch.finfo(torch.float32).eps * torch.arange(20).remainder(2)
    everywhere = torch.ones(20, dtype=torch.bool)
    assert standardised(values, (0,)).tolist() == [0.0] * 20
    assert standardised(values[:1], (0,), everywhere[:1]).tolist() == [0.0]
    assert standardised(values, (0,), ~everywhere).tolist() == [0.0] * 20


def test_what_stands_out_is_bounded() -> None:
    values = torch.zeros(1000)
    values[0] = 1.0
    assert standardised(values, (0,)).max() == 8
