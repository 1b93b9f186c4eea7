"""The extractor on real photographs, and the files around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from model.extraction.efficientnet_lite import fit, load_lite, load_whitened
from model.extraction.extractor import Extractor, ExtractorError
from model.extraction.images import (
    UnreadableImageError,
    extract_images,
    find_images,
    image_id,
    read_image,
)
from model.extraction.registry import load_extractor
from model.extraction.whitening import fit_whitening


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return load_extractor("efficientnet-lite0")


def photograph(name: str) -> Image.Image:
    return Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def test_features_have_the_promised_shapes(extractor: Extractor) -> None:
    features = extractor.extract(photograph("chelsea"), 48)
    assert features.descriptors.shape == (48, extractor.descriptor_dim)
    assert features.global_.shape == (extractor.global_dim,)
    assert features.keypoints.shape == (48, 2)
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5)
    assert np.linalg.norm(features.global_) == pytest.approx(1, abs=1e-5)
    assert (np.diff(features.weights) <= 0).all()
    assert ((features.keypoints > 0) & (features.keypoints < 1)).all()
    assert set(features.scales.tolist()) <= {0, 1}


@pytest.mark.parametrize("size", [(10, 10), (33, 700), (700, 33), (500, 400)])
def test_images_of_any_size(extractor: Extractor, size: tuple[int, int]) -> None:
    features = extractor.extract(photograph("coffee").resize(size), 20)
    assert 1 <= len(features.descriptors) <= 20
    assert np.isfinite(features.descriptors).all()


def test_the_same_subject_is_nearer_than_another(extractor: Extractor) -> None:
    cat = photograph("chelsea")
    same, other = cat.crop((40, 30, 420, 290)), photograph("coffee")
    query, near, far = (extractor.extract(i, 48) for i in (cat, same, other))
    assert query.global_ @ near.global_ > query.global_ @ far.global_
    best = [(query.descriptors @ i.descriptors.T).max(axis=1).mean() for i in (near, far)]
    assert best[0] > best[1]


def test_an_unknown_extractor_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ExtractorError) as raised:
        load_extractor("x")
    assert str(raised.value) == (
        "no extractor 'x'; there are: dinov2-vitb14-reg, efficientnet-lite0, efficientnet-lite1, "
        "efficientnet-lite2, sift, hf:FOLDER"
    )


def test_lite0_makes_the_descriptors_that_checkpoints_were_trained_on() -> None:
    assert load_lite(0).version == "fb84f26678f4"


@pytest.mark.slow
@pytest.mark.parametrize(("size", "descriptor_dim"), [(1, 112 + 320), (2, 120 + 352)])
def test_larger_lites_describe_by_their_own_maps(size: int, descriptor_dim: int) -> None:
    extractor = load_extractor(f"efficientnet-lite{size}")
    assert (extractor.name, extractor.global_dim) == (f"efficientnet-lite{size}", 1280)
    assert extractor.version != load_lite(0).version
    cat = photograph("chelsea")
    query, near, far = (
        extractor.extract(image, 24)
        for image in (cat, cat.crop((40, 30, 420, 290)), photograph("coffee"))
    )
    assert query.descriptors.shape == (24, descriptor_dim) == (24, extractor.descriptor_dim)
    np.testing.assert_allclose(np.linalg.norm(query.descriptors, axis=1), 1, atol=1e-5)
    assert np.linalg.norm(query.global_) == pytest.approx(1, abs=1e-5)
    assert query.global_ @ near.global_ > query.global_ @ far.global_


@pytest.mark.slow
def test_a_whitening_can_be_learnt_and_loaded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = (
        photograph("coffee").crop((x, y, x + 64, y + 64))
        for x, y in rng.integers(0, 300, (20, 2)).tolist()
    )
    fit(parts, tmp_path / "w.safetensors", descriptor_dim=8, global_dim=16)
    features = load_whitened(tmp_path / "w.safetensors")
    assert features.version != load_lite(0).version
    assert (features.descriptor_dim, features.global_dim) == (8, 16)
    assert features.extract(photograph("chelsea"), 5).descriptors.shape == (5, 8)


def test_full_whitening_leaves_no_correlation() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((5000, 6)) @ rng.standard_normal((6, 6))).astype(np.float32)
    whitening = fit_whitening(vectors, 6, power=0.5)
    projected = (vectors - whitening.mean.numpy()) @ whitening.projection.numpy()
    np.testing.assert_allclose(np.cov(projected.T), np.eye(6), atol=0.01)
    with pytest.raises(ValueError, match="6 axes cannot be learnt from 6 vectors"):
        fit_whitening(vectors[:6], 6, power=0.5)


def test_images_are_found_and_named(tmp_path: Path) -> None:
    for name in ("a/x.jpg", "a/ä b.PNG", "a/deep/y.webp", "a/notes.txt", "z.gif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    features = find_images([tmp_path / "a", tmp_path / "z.gif"])
    assert list(features) == ["deep/y.webp", "x.jpg", "=C3=A4=20b.PNG", "z.gif"]
    with pytest.raises(UnreadableImageError, match="no such file or folder"):
        find_images([tmp_path / "none"])


def test_ids_keep_what_the_service_takes() -> None:
    assert image_id(Path("a/b-c_d@1+2=3.jpg")) == "a/b-c_d@1+2=3.jpg"


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff\xe0 cut off"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"x\.jpg: not a readable image"):
        read_image(path)


def test_an_image_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").size == (10, 20)


def test_several_at_a_time_come_in_order_and_errors_among_them(extractor: Extractor) -> None:
    def broken() -> Image.Image:
        raise UnreadableImageError("x: damaged")

    cat = photograph("chelsea").resize((64, 64))
    openers = {f"{n}": (broken if n == 3 else cat.copy) for n in range(12)}
    results = list(extract_images(extractor, openers, 5, workers=2))
    assert [name for name, _ in results] == list(openers)
    assert [name for name, r in results if isinstance(r, UnreadableImageError)] == ["3"]
