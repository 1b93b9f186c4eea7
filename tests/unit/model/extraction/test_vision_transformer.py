"""Hugging Face's vision transformers, in their real architectures with small random weights,
beside transformers' own forward pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from model.descriptors import ExtractedImage
from model.extraction.batch_extraction import extract_in_batches
from model.extraction.extractor import BatchExtractor, ExtractorError, ExtractorOptions
from model.extraction.registry import load_extractor
from tests.vision_transformers import (
    DEVIATION,
    MEAN,
    NETWORKS,
    PROJECTED,
    WIDTH,
    save_vision_transformer,
)

SIDE, PATCH = 64, 8


def photograph(name: str = "coffee") -> Image.Image:
    return Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def loaded(folder: Path) -> BatchExtractor:
    extractor = load_extractor(f"hf:{folder}")
    assert isinstance(extractor, BatchExtractor)
    return extractor


@torch.no_grad()
def direct(network: Any, kind: str, pixels: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Patch tokens (n, d), strengths (n,) and the global of one image, by the network itself."""
    x = (torch.from_numpy(pixels) / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)
    x = x.permute(2, 0, 1)[None]
    side = network.vision_model if kind in ("clip", "siglip") else network
    interpolated = {"interpolate_pos_encoding": True} if "p" in kind else {}
    output = side(pixel_values=x, **interpolated)
    tokens = output.last_hidden_state[0]
    if kind.startswith("siglip"):
        # The head written out: softmax of each head's queries with keys, and their mean.
        attention = side.head.attention
        query, key, _ = attention.in_proj_weight.chunk(3)
        query_bias, key_bias, _ = attention.in_proj_bias.chunk(3)
        queries = (side.head.probe[0] @ query.T + query_bias).view(1, 4, WIDTH // 4)
        keys = (tokens @ key.T + key_bias).view(-1, 4, WIDTH // 4)
        scores = (queries * keys).sum(dim=-1) / (WIDTH // 4) ** 0.5
        return tokens, scores.softmax(dim=0).mean(dim=1), output.pooler_output[0]
    leading = 4 if kind in ("dinov2-registers", "dinov3") else 1
    strengths = F.normalize(tokens[leading:], dim=1) @ F.normalize(tokens[0], dim=0)
    global_ = output.pooler_output[0]
    if kind == "clip":
        global_ = network.visual_projection(global_)
    return tokens[leading:], strengths, global_


@pytest.mark.parametrize("kind", NETWORKS)
def test_features_are_those_of_the_network_itself(kind: str, tmp_path: Path) -> None:
    network = save_vision_transformer(tmp_path, kind)
    extractor = loaded(tmp_path)
    assert extractor.name == f"hf:{tmp_path}"
    assert extractor.descriptor_dim == WIDTH
    assert extractor.global_dim == (PROJECTED if kind == "clip" else WIDTH)
    image = photograph()  # 600 x 400
    (pixels,) = extractor.prepare(image).pixels
    assert pixels.shape == (40, 64, 3)
    tokens, strengths, global_ = direct(network, kind, pixels)
    assert len(tokens) == 5 * 8
    features = extractor.extract(image, 12)
    order = strengths.argsort(descending=True)[:12]
    np.testing.assert_allclose(features.weights, strengths[order], atol=1e-4)
    np.testing.assert_allclose(features.descriptors, F.normalize(tokens[order], dim=1), atol=1e-4)
    np.testing.assert_allclose(features.global_, F.normalize(global_, dim=0), atol=1e-4)
    rows, columns = np.divmod(order.numpy(), 8)
    places = np.stack(((columns + 0.5) / 8, (rows + 0.5) / 5), axis=1)
    np.testing.assert_allclose(features.keypoints, places, atol=1e-6)


@pytest.mark.parametrize("size", [(10, 10), (5, 700), (700, 33)])
@pytest.mark.parametrize("kind", ["dinov3", "clip", "siglip"])
def test_images_of_any_size(kind: str, size: tuple[int, int], tmp_path: Path) -> None:
    save_vision_transformer(tmp_path, kind)
    features = loaded(tmp_path).extract(photograph().resize(size), 999)
    assert len(features.descriptors) == (8 if size != (10, 10) else 64)
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5)
    assert np.linalg.norm(features.global_) == pytest.approx(1, abs=1e-5)
    assert (np.diff(features.weights) <= 0).all()


def test_a_batch_is_each_image_alone(tmp_path: Path) -> None:
    save_vision_transformer(tmp_path, "siglip")
    extractor = loaded(tmp_path)
    images = {name: photograph(name).copy for name in ("coffee", "chelsea", "astronaut", "rocket")}
    for name, result in extract_in_batches(extractor, images, 9, workers=2, batch=3):
        assert isinstance(result, ExtractedImage)
        alone = extractor.extract(images[name](), 9)
        np.testing.assert_allclose(result.descriptors, alone.descriptors, atol=1e-4)
        np.testing.assert_allclose(result.global_, alone.global_, atol=1e-5)


def test_the_version_tells_weights_and_colours_apart(tmp_path: Path) -> None:
    versions = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_vision_transformer(tmp_path / name, "dinov2", seed)
        versions.append(loaded(tmp_path / name).version)
    assert versions[0] == versions[1] != versions[2]
    colours = tmp_path / "b" / "preprocessor_config.json"
    colours.write_text(json.dumps({"do_normalize": False}))
    assert loaded(tmp_path / "b").version != versions[0]


def test_colours_that_are_not_normalised_stay_as_they_are(tmp_path: Path) -> None:
    save_vision_transformer(tmp_path, "dinov2")
    path = tmp_path / "preprocessor_config.json"
    image, same = photograph(), {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}
    globals_ = []
    for content in ({"do_normalize": False}, same, {"image_mean": MEAN, "image_std": DEVIATION}):
        path.write_text(json.dumps(content))
        globals_.append(loaded(tmp_path).extract(image, 1).global_)
    np.testing.assert_array_equal(globals_[0], globals_[1])
    assert np.abs(globals_[1] - globals_[2]).max() > 1e-3


def refused(folder: Path) -> str:
    with pytest.raises(ExtractorError) as raised:
        load_extractor(f"hf:{folder}")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_folder_that_is_no_such_model_is_named_in_one_line(tmp_path: Path) -> None:
    assert "has no config.json" in refused(tmp_path / "none")
    folder = tmp_path / "folder"
    save_vision_transformer(folder, "dinov2")
    config = (folder / "config.json").read_text()
    for content, message in (
        ("{", "not a readable JSON file"),
        ("[]", "not a JSON object"),
        ("{}", "model_type is None, not one of clip,"),
        ('{"model_type": "bert"}', "model_type is 'bert'"),
        ('{"model_type": ["clip"]}', "model_type is ['clip']"),
        (config.replace('"hidden_size": 32', '"hidden_size": 40'), "not the weights of a dinov2"),
        (config.replace('"patch_size": 8', '"patch_size": "x"'), "not the weights of a dinov2"),
        (config.replace('"image_size": 64', '"image_size": [64, 64]'), "must be whole numbers"),
    ):
        (folder / "config.json").write_text(content)
        assert message in refused(folder)
    (folder / "config.json").write_text(config)
    colours = folder / "preprocessor_config.json"
    for content in ("{}", '{"image_mean": 1, "image_std": 2}', '{"image_mean": [0, 1]}'):
        colours.write_text(content)
        assert "must be numbers" in refused(folder)
    colours.unlink()
    assert "has no preprocessor_config.json" in refused(folder)


def test_weights_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    for kind in ("dinov2", "clip"):
        folder = tmp_path / kind
        save_vision_transformer(folder, kind)
        weights = folder / "model.safetensors"
        state = load_file(weights)
        missing = next(name for name in state if "1" in name and name.endswith("bias"))
        if kind == "clip":
            missing = "vision_model.post_layernorm.weight"
        fewer = {name: tensor for name, tensor in state.items() if name != missing}
        save_file(fewer, weights, {"format": "pt"})
        # transformers would go on with random numbers in its place.
        assert f"not a whole {kind}, it lacks" in refused(folder)
        weights.write_bytes(b"damaged")
        assert "not" in refused(folder)
        weights.unlink()
        torch.save(state, folder / "pytorch_model.bin")
        assert "has no model.safetensors; other formats are not read" in refused(folder)


def test_options_of_other_extractors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExtractorError, match="takes no scales"):
        load_extractor(f"hf:{tmp_path}", ExtractorOptions(scales=(1.0,)))
