"""Every descriptor type is of the same images, and says what its name says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.descriptors import DescriptorSizes
from model.evaluation.descriptor_types import DESCRIPTOR_TYPES, EXTRACTORS, Images
from tests.factories import image, tiny_config

CONFIG = tiny_config()
SIZES = {
    "lite0": DescriptorSizes(16, 24),
    "sift": DescriptorSizes(12, 10),
    "lite2": DescriptorSizes(20, 30),
    "xfeat": DescriptorSizes(6, 9),
}


def made(extractor: str) -> Images:
    """Images of one to five locals."""
    rng = np.random.default_rng(len(extractor))
    return [image(rng, CONFIG, rows, sizes=SIZES[extractor]) for rows in (1, 5, 3, 2)]


EXTRACTED = {name: made(name) for name in SIZES}


def of(name: str) -> Images:
    needed, maker = DESCRIPTOR_TYPES[name]
    return maker({extractor: EXTRACTED[extractor] for extractor in needed})


@pytest.mark.parametrize("name", DESCRIPTOR_TYPES)
def test_needs_no_more_than_it_says_and_gives_every_image(name: str) -> None:
    images = of(name)
    rows = [own.count for own in EXTRACTED[DESCRIPTOR_TYPES[name][0][0]]]
    assert [own.count for own in images] == rows
    for own in images:
        assert own.global_ is not None
        np.testing.assert_allclose(np.linalg.norm(own.locals, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(own.global_), 1, atol=1e-5)
    assert len({own.sizes for own in images}) == 1
    again = of(name)
    np.testing.assert_array_equal(images[1].locals, again[1].locals)


def test_the_extractors_are_those_that_some_type_needs() -> None:
    assert sorted(EXTRACTORS) == sorted(SIZES)


@pytest.mark.parametrize("name", ["RootSIFT, Lite0's global", "XFeat, Lite0's global"])
def test_locals_of_one_beside_globals_of_another(name: str) -> None:
    locals_, globals_ = DESCRIPTOR_TYPES[name][0]
    for own, left, right in zip(of(name), EXTRACTED[locals_], EXTRACTED[globals_], strict=True):
        assert own.locals is left.locals
        assert own.global_ is right.global_


def test_one_projection_for_all_images() -> None:
    images = of("Lite0, 64 directions")
    assert images[0].sizes == DescriptorSizes(64, 64)
    twice = replace(EXTRACTED["lite0"][0])
    projected = DESCRIPTOR_TYPES["Lite0, 64 directions"][1](
        {"lite0": [EXTRACTED["lite0"][1], EXTRACTED["lite0"][0], twice]}
    )
    np.testing.assert_allclose(projected[1].locals, projected[2].locals)
    np.testing.assert_allclose(projected[1].locals, images[0].locals, atol=1e-6)


def test_signs_alone() -> None:
    for own, exact in zip(of("Lite0 as ±1"), EXTRACTED["lite0"], strict=True):
        np.testing.assert_array_equal(np.sign(own.locals), np.sign(exact.locals))
        np.testing.assert_allclose(np.abs(own.locals), 1 / 4, atol=1e-6)


def test_noise_replaces_one_cue_and_leaves_the_other() -> None:
    exact = EXTRACTED["lite0"]
    for own, other in zip(of("noise, Lite0's global"), exact, strict=True):
        assert own.global_ is not None
        assert other.global_ is not None
        np.testing.assert_allclose(own.global_, other.global_, atol=1e-6)
        assert np.abs(own.locals - other.locals).max() > 0.1
    for own, other in zip(of("Lite0, noise as global"), exact, strict=True):
        assert own.global_ is not None
        assert other.global_ is not None
        np.testing.assert_allclose(own.locals, other.locals, atol=1e-6)
        assert np.abs(own.global_ - other.global_).max() > 0.1


def test_an_image_without_a_global_is_refused() -> None:
    bare = [replace(own, global_=None) for own in EXTRACTED["lite0"]]
    with pytest.raises(ValueError, match="need a global of every image"):
        DESCRIPTOR_TYPES["Lite0 as ±1"][1]({"lite0": bare})
