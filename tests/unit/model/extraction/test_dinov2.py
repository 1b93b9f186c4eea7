"""DINOv2 under AMES's detector, in its real architecture with small random weights, beside the
same computed step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from transformers import Dinov2WithRegistersModel

from model.descriptors import ExtractedImage
from model.extraction.batch_extraction import extract_in_batches
from model.extraction.dinov2 import DinoV2
from model.extraction.extractor import ExtractorOptions, NoDescriptorsError
from model.extraction.images import UnreadableImageError
from model.extraction.registry import load_extractor
from model.extraction.resizing import resized
from tests.dinov2 import WIDTH, detector_state, save_detector, save_network

NAME = "dinov2-vitb14-reg"


@pytest.fixture(scope="module")
def extractor(weights: Path, detector: Path) -> DinoV2:
    return load(weights, detector)


def load(weights: Path, detector: Path, *scales: float) -> DinoV2:
    loaded = load_extractor(NAME, ExtractorOptions(weights, detector, scales or None))
    assert isinstance(loaded, DinoV2)
    return loaded


def photograph(name: str = "chelsea") -> Image.Image:
    return Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def same(a: ExtractedImage | Exception, b: ExtractedImage | Exception) -> None:
    assert isinstance(a, ExtractedImage)
    assert isinstance(b, ExtractedImage)
    np.testing.assert_array_equal(a.keypoints, b.keypoints)
    np.testing.assert_array_equal(a.scales, b.scales)
    for one, other in ((a.weights, b.weights), (a.descriptors, b.descriptors)):
        np.testing.assert_allclose(one, other, atol=1e-4)
    np.testing.assert_allclose(a.global_, b.global_, atol=1e-5)


def step_by_step(
    weights: Path, pixels: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]
) -> tuple[list[list[float]], np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """Of one image's steps of the pyramid: every patch as a row of weight, scale, x, y and the
    descriptor, and the global. The network is transformers', all else is written out here."""
    network = Dinov2WithRegistersModel.from_pretrained(weights)
    state = {name: tensor.double().numpy() for name, tensor in detector_state().items()}
    patches, means = [], []
    for scale, step in enumerate(pixels):
        rows, columns = step.shape[0] // 14, step.shape[1] // 14
        x = (step / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        with torch.no_grad():
            tokens = network(torch.from_numpy(x.transpose(2, 0, 1)[None]).float())
        hidden = tokens.last_hidden_state[0, 5:].double().numpy()
        assert len(hidden) == rows * columns
        weighted = np.zeros(WIDTH)
        for place, token in enumerate(hidden):
            mixed = state["conv1.weight"][:, :, 0, 0] @ token + state["conv1.bias"]
            mixed = (mixed - state["bn.running_mean"]) / np.sqrt(state["bn.running_var"] + 1e-5)
            mixed = mixed * state["bn.weight"] + state["bn.bias"]
            descriptor = mixed / np.sqrt((mixed**2).sum())
            strength = state["conv2.weight"][0, :, 0, 0] @ np.maximum(mixed, 0)
            weight = np.log1p(np.exp(strength + state["conv2.bias"][0]))
            weighted += weight * descriptor / len(hidden)
            row, column = divmod(place, columns)
            x_y = [(14 * column + 7) / (14 * columns), (14 * row + 7) / (14 * rows)]
            patches.append([weight, scale, *x_y, *descriptor])
        means.append(weighted / np.sqrt((weighted**2).sum()))
    mean = np.mean(means, axis=0)
    return patches, mean / np.sqrt((mean**2).sum())


@pytest.mark.parametrize("scales", [(1.0,), (0.25, 0.5)])
def test_features_are_those_of_the_paper_step_by_step(
    weights: Path, detector: Path, scales: tuple[float, ...]
) -> None:
    image = photograph()
    extractor = load(weights, detector, *scales)
    features = extractor.extract(image, 60)
    # 451 x 300 pixels: the longer side becomes 770, the other 770 * 300 / 451 = 512.2.
    sizes = {1.0: (770, 518), 0.5: (392, 252), 0.25: (196, 126)}
    pixels = [resized(np.asarray(image), *sizes[scale]) for scale in scales]
    patches, global_ = step_by_step(weights, pixels)
    strongest = np.array(sorted(patches, key=lambda patch: -patch[0])[:60])
    np.testing.assert_allclose(features.weights, strongest[:, 0], rtol=1e-4)
    np.testing.assert_array_equal(features.scales, strongest[:, 1])
    np.testing.assert_allclose(features.keypoints, strongest[:, 2:4], atol=1e-6)
    np.testing.assert_allclose(features.descriptors, strongest[:, 4:], atol=1e-4)
    np.testing.assert_allclose(features.global_, global_, atol=1e-4)
    assert len(set(features.scales.tolist())) == len(scales)


@pytest.mark.parametrize("size", [(10, 10), (33, 700), (700, 33), (450, 600)])
def test_images_of_any_size(extractor: DinoV2, size: tuple[int, int]) -> None:
    features = extractor.extract(photograph("coffee").resize(size), 2000)
    ((height, width, _),) = (
        step.shape for step in extractor.prepare(Image.new("RGB", size)).pixels
    )
    assert height % 14 == width % 14 == 0
    assert max(height, width) == 770
    count = min(2000, height * width // 14**2)
    assert features.descriptors.shape == (count, extractor.descriptor_dim)
    assert features.global_.shape == (extractor.global_dim,)
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5)
    assert np.linalg.norm(features.global_) == pytest.approx(1, abs=1e-5)
    assert (np.diff(features.weights) <= 0).all()
    assert ((features.keypoints > 0) & (features.keypoints < 1)).all()


def test_a_bright_patch_is_found_where_it_is(weights: Path, tmp_path: Path) -> None:
    """A detector that looks for whatever the bright patch has and the dark ones have not."""
    pixels = np.zeros((308, 770, 3), np.uint8)
    pixels[4 * 14 : 5 * 14, 40 * 14 : 41 * 14] = 255
    network = Dinov2WithRegistersModel.from_pretrained(weights)
    x = (torch.from_numpy(pixels) / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    with torch.no_grad():
        tokens = network(x.permute(2, 0, 1)[None]).last_hidden_state[0, 5:]
    token = tokens[4 * 55 + 40]
    state = detector_state() | {
        "conv1.weight": torch.eye(WIDTH)[:, :, None, None],
        "conv1.bias": torch.full((WIDTH,), 100.0),
        "bn.weight": torch.ones(WIDTH),
        "bn.bias": torch.zeros(WIDTH),
        "bn.running_mean": torch.zeros(WIDTH),
        "bn.running_var": torch.ones(WIDTH),
        "conv2.weight": (token - tokens.mean(dim=0))[None, :, None, None],
        "conv2.bias": torch.zeros(1),
    }
    torch.save({"state": state}, tmp_path / "d.pt")
    features = load(weights, tmp_path / "d.pt").extract(Image.fromarray(pixels), 1)
    np.testing.assert_allclose(features.keypoints, [[40.5 / 55, 4.5 / 22]], atol=1e-6)


def test_a_crop_is_resized_as_the_whole_is_and_its_keypoints_are_the_wholes(
    extractor: DinoV2,
) -> None:
    image = photograph("astronaut")  # 512 x 512
    box = (100.7, 50.2, 300.9, 178.0)
    prepared = extractor.prepare(image, box)
    # 200 x 128 pixels by 770 / 512, in patches: 21.5 x 13.75.
    assert [step.shape for step in prepared.pixels] == [(14 * 14, 21 * 14, 3)]
    (features,) = extractor.extract_batch([prepared], 9999)
    assert isinstance(features, ExtractedImage)
    low, high = features.keypoints.min(axis=0) * 512, features.keypoints.max(axis=0) * 512
    np.testing.assert_allclose(low, [100 + 200 / 42, 50 + 128 / 28], atol=1e-3)
    np.testing.assert_allclose(high, [300 - 200 / 42, 178 - 128 / 28], atol=1e-3)
    part = Image.fromarray(np.asarray(image)[50:178, 100:300])
    np.testing.assert_array_equal(prepared.pixels[0], resized(np.asarray(part), 21 * 14, 14 * 14))
    with pytest.raises(NoDescriptorsError, match="no pixel of its 512 x 512"):
        extractor.prepare(image, (600, 0, 700, 90))
    assert extractor.prepare(image, (500, -9, 900, 90)).extent == (12 / 512, 90 / 512)


def test_a_batch_is_each_image_alone(extractor: DinoV2) -> None:
    photographs = [photograph(), photograph("coffee"), photograph("astronaut")]
    openers: dict[str, Callable[[], Image.Image]] = {
        f"{n}": photographs[n % 3].resize((90 + 20 * (n % 2), 60)).copy for n in range(9)
    }

    def broken() -> Image.Image:
        raise UnreadableImageError("x: damaged")

    openers["4"] = broken
    results = list(extract_in_batches(extractor, openers, 8, workers=2, batch=3))
    assert [name for name, _ in results] == list(openers)
    assert [name for name, r in results if isinstance(r, UnreadableImageError)] == ["4"]
    for name, result in results:
        if name != "4":
            same(result, extractor.extract(openers[name](), 8))


def test_more_images_than_are_looked_ahead_come_in_order(extractor: DinoV2) -> None:
    images = {f"{n}": Image.new("RGB", (770, 14), (9 * n, 0, 0)).copy for n in range(21)}
    results = list(extract_in_batches(extractor, images, 1, workers=2, batch=1))
    assert [name for name, _ in results] == list(images)
    same(results[20][1], extractor.extract(images["20"](), 1))


def test_what_makes_nan_is_reported_with_its_name(weights: Path, tmp_path: Path) -> None:
    state = detector_state()
    state["conv2.bias"][0] = torch.nan
    torch.save({"state": state}, tmp_path / "nan.pt")
    extractor = load(weights, tmp_path / "nan.pt")
    image = Image.new("RGB", (770, 14))
    with pytest.raises(NoDescriptorsError, match="NaN or infinity"):
        extractor.extract(image, 5)
    ((name, result),) = extract_in_batches(extractor, {"a": image.copy}, 5, 1, 4)
    assert isinstance(result, UnreadableImageError)
    assert (name, str(result)) == ("a", "a: the network makes NaN or infinity of it")


def test_a_descriptor_of_zeros_is_reported(weights: Path, tmp_path: Path) -> None:
    state = detector_state()
    torch.save({"state": state | {n: 0 * t for n, t in state.items() if "bn" in n}}, tmp_path / "z")
    with pytest.raises(NoDescriptorsError, match="zeros"):
        load(weights, tmp_path / "z").extract(Image.new("RGB", (770, 14)), 5)


def test_the_version_names_all_that_the_descriptors_depend_on(
    extractor: DinoV2, weights: Path, detector: Path, tmp_path: Path
) -> None:
    versions = {
        extractor.version,
        load(weights, detector, 0.7071, 1).version,
        load(save_network(tmp_path / "other", seed=5), detector).version,
        load(save_network(tmp_path / "heads", num_attention_heads=2), detector).version,
        load(weights, save_detector(tmp_path / "d.pt", seed=9)).version,
    }
    assert len(versions) == 5
    assert load(weights, detector, 1.0).version == extractor.version


def test_areas_and_lines_by_hand() -> None:
    pixels = np.array([[[0], [30], [60]]], np.uint8)
    # Two pixels of 1.5 each: 0 and half of 30; half of 30 and 60.
    np.testing.assert_array_equal(resized(pixels, 2, 1)[0, :, 0], [10, 50])
    np.testing.assert_array_equal(resized(pixels, 6, 1)[0, :, 0], [0, 8, 23, 38, 53, 60])
    np.testing.assert_array_equal(resized(pixels, 3, 2)[..., 0], [[0, 30, 60]] * 2)
