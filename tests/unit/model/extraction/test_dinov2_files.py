"""What a user can get wrong with the weights of DINOv2 and of its detector."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.extraction.detector import load_detector
from model.extraction.extractor import ExtractorError, ExtractorOptions
from model.extraction.registry import load_extractor
from tests.dinov2 import WIDTH, detector_state, save_detector, save_network


def refused(weights: Path | None, detector: Path | None) -> str:
    with pytest.raises(ExtractorError) as raised:
        load_extractor("dinov2-vitb14-reg", ExtractorOptions(weights, detector))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_wrong_detector_is_named_in_one_line(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "d.pt"
    assert "d.pt: No such file" in refused(weights, path)
    for content in (b"", b"text", b"\x80\x04N.", b"PK\x03\x04 cut off"):
        path.write_bytes(content)
        assert f"{path}: not a" in refused(weights, path)
    torch.save({"weights": {}}, path)
    assert "d.pt: not a detector, it has no `state`" in refused(weights, path)
    torch.save({"state": {n: t for n, t in detector_state().items() if n != "bn.bias"}}, path)
    assert "lacks 'bn.bias'" in refused(weights, path)
    torch.save({"state": detector_state() | {"conv3.bias": torch.zeros(1)}}, path)
    assert "has also 'conv3.bias'" in refused(weights, path)
    save_detector(path, width=WIDTH + 1)
    assert "but the network's features need" in refused(weights, path)
    torch.save({"state": detector_state() | {"conv2.bias": 3}}, path)
    assert "conv2.bias is no tensor" in refused(weights, path)
    assert "needs --detector" in refused(weights, None)


def test_a_published_detector_may_be_of_any_torch(tmp_path: Path) -> None:
    """Files before torch 1.6 are no archives."""
    torch.save({"state": detector_state()}, tmp_path / "old", _use_new_zipfile_serialization=False)
    detector_read, _ = load_detector(tmp_path / "old", WIDTH)
    torch.testing.assert_close(
        detector_read.state_dict()["conv1.bias"], detector_state()["conv1.bias"]
    )


def test_wrong_weights_are_named_in_one_line(weights: Path, detector: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    assert "has no config.json" in refused(folder, detector)
    save_network(folder, patch_size=16)
    assert "patches of 16 pixels" in refused(folder, detector)
    state = load_file(weights / "model.safetensors")
    (folder / "config.json").write_bytes((weights / "config.json").read_bytes())
    for name in ("layernorm.weight", "embeddings.register_tokens"):
        fewer = {key: tensor for key, tensor in state.items() if key != name}
        save_file(fewer, folder / "model.safetensors", {"format": "pt"})
        # transformers would go on with random numbers in its place.
        assert f"its weights differ, {name} for one" in refused(folder, detector)
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert "not the weights of a DINOv2" in refused(folder, detector)
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert "has no model.safetensors" in refused(folder, detector)


def test_without_weights_and_network_it_says_how_to_give_them(
    detector: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = refused(None, detector)
    assert message.startswith("facebook/dinov2-with-registers-base cannot be had")
    assert "--weights FOLDER" in message


def test_an_extractor_takes_its_own_options_alone(weights: Path) -> None:
    with pytest.raises(ExtractorError, match="efficientnet-lite0 takes no weights and no scales"):
        load_extractor("efficientnet-lite0", ExtractorOptions(weights, scales=(1.0,)))
