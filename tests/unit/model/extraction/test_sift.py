"""RootSIFT on real photographs, and on pictures in which there is hardly anything to see."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.descriptors import ExtractedImage
from model.extraction.extractor import Extractor
from model.extraction.registry import load_extractor
from model.extraction.sift import Codebook, fit, load_sift


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return load_extractor("sift")


def photograph(name: str) -> Image.Image:
    return Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def check(extractor: Extractor, features: ExtractedImage, count: int) -> None:
    """What holds of every image."""
    n = len(features.descriptors)
    assert 1 <= n <= count
    assert features.descriptors.shape == (n, extractor.descriptor_dim)
    assert features.global_.shape == (extractor.global_dim,)
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5)
    assert np.linalg.norm(features.global_) == pytest.approx(1, abs=1e-5)
    assert ((features.keypoints > 0) & (features.keypoints < 1)).all()
    assert (np.diff(features.weights) <= 0).all()
    assert features.scales.max() < 8


def test_locals_are_the_strongest_keypoints_as_root_sift(extractor: Extractor) -> None:
    image = photograph("astronaut")  # 512 x 512, which is not resized
    features = extractor.extract(image, 40)
    check(extractor, features, 40)
    keypoints, histograms = cv2.SIFT.create(contrastThreshold=0.01).detectAndCompute(
        np.asarray(image.convert("L")), None
    )
    strongest = sorted(range(len(keypoints)), key=lambda i: -keypoints[i].response)[:40]
    responses = [keypoints[i].response for i in strongest]
    np.testing.assert_allclose(features.weights, responses, rtol=1e-6)
    for place, weight, root in zip(
        features.keypoints, features.weights, features.descriptors, strict=True
    ):
        # Keypoints of two orientations have one place and one response.
        same = [
            i
            for i in strongest
            if np.isclose(keypoints[i].response, weight)
            and np.allclose((np.array(keypoints[i].pt) + 0.5) / 512, place)
        ]
        shares = [np.asarray(histograms[i]) / np.asarray(histograms[i]).sum() for i in same]
        assert any(np.allclose(np.sqrt(share), root, atol=1e-5) for share in shares)


def test_the_same_subject_is_nearer_than_another(extractor: Extractor) -> None:
    cat = photograph("chelsea")
    query, near, far = (
        extractor.extract(image, 48)
        for image in (cat, cat.crop((40, 30, 420, 290)), photograph("coffee"))
    )
    assert query.global_ @ near.global_ > query.global_ @ far.global_
    best = [(query.descriptors @ i.descriptors.T).max(axis=1).mean() for i in (near, far)]
    assert best[0] > best[1]


def test_the_global_does_not_depend_on_the_count(extractor: Extractor) -> None:
    image = photograph("coffee")
    few, many = extractor.extract(image, 5), extractor.extract(image, 900)
    assert len(many.descriptors) == 900
    np.testing.assert_allclose(few.global_, many.global_, atol=1e-6)
    np.testing.assert_array_equal(few.descriptors, many.descriptors[:5])


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (300, 200), "white"),
        Image.new("RGB", (1, 1)),
        Image.new("L", (640, 8), 90),
        Image.linear_gradient("L"),
        Image.radial_gradient("L").resize((900, 300)),
    ],
    ids=["white", "pixel", "strip", "slope", "spot"],
)
def test_a_picture_without_keypoints_is_described_on_a_grid(
    extractor: Extractor, image: Image.Image
) -> None:
    check(extractor, extractor.extract(image, 48), 48)


@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 700), height=st.integers(1, 700), seed=st.integers(0, 5))
def test_every_picture_is_described(width: int, height: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 2 + 50 * seed, (height, width, 3), dtype=np.uint8)
    extractor = load_extractor("sift")
    check(extractor, extractor.extract(Image.fromarray(noise), 48), 48)


def test_vlad_by_hand() -> None:
    axes = np.eye(128, 2, dtype=np.float32)
    centres = np.array([[0, 0], [10, 0]], np.float32)
    codebook = Codebook(np.zeros(128, np.float32), axes, centres)
    descriptors = np.zeros((3, 128), np.float32)
    descriptors[:, :2] = [[1, 0], [3, -1], [9, 4]]
    # Sums of what leads from the nearest centre: (4, -1) and (-1, 4); their roots, of length 1.
    roots = np.array([2, -1, -1, 2])
    np.testing.assert_allclose(codebook.vlad(descriptors), roots / np.sqrt(10), rtol=1e-6)


def test_a_codebook_can_be_learnt_and_loaded(tmp_path: Path) -> None:
    images = [photograph(name).resize((200, 200)) for name in ("coffee", "chelsea", "rocket")]
    for name in ("a", "b"):
        fit(images, tmp_path / name, centres=4, components=3)
    learnt = load_sift(tmp_path / "a")
    assert learnt.version == load_sift(tmp_path / "b").version != load_sift().version
    assert learnt.global_dim == 12
    check(learnt, learnt.extract(images[0], 9), 9)
    with pytest.raises(ValueError, match="axes cannot be learnt"):
        fit(images[:1], tmp_path / "c", components=30, per_image=20)
