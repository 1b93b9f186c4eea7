"""A checkpoint comes back as it was, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint import load_checkpoint
from model.config import DEFAULT_CHECKPOINT, MambaConfig
from model.config_file import CheckpointError, read_config
from model.kernel import ScanKernel, select_kernel
from model.random_images import random_window
from model.reranker import score_windows
from tests.factories import save_tiny, tiny_config, tiny_model

CPU = torch.device("cpu")


def test_scores_survive_the_round_trip(tmp_path: Path) -> None:
    loaded = load_checkpoint(save_tiny(tmp_path), CPU)
    assert loaded.config == tiny_config()
    windows = [random_window(tiny_config(), 5)]
    (scores,) = score_windows(loaded.reranker, windows, CPU)
    (expected,) = score_windows(tiny_model(), windows, CPU)
    np.testing.assert_array_equal(scores, expected)


def test_the_shipped_checkpoint_loads_and_is_small() -> None:
    assert load_checkpoint(DEFAULT_CHECKPOINT, CPU).config.descriptors_per_image == 48
    assert DEFAULT_CHECKPOINT.stat().st_size < 10_000_000


@pytest.mark.parametrize("name", ["weights.pt", "weights.pkl", "weights.bin"])
def test_pickles_are_refused_unread(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=r"not a \.safetensors file"):
        load_checkpoint(tmp_path / name, CPU)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.json: no such file"):
        load_checkpoint(tmp_path / "none.safetensors", CPU)
    path = save_tiny(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors: no such file"):
        load_checkpoint(path, CPU)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = save_tiny(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_checkpoint(path, CPU)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    path = save_tiny(tmp_path)
    tensors = load_file(path)
    tensors["head.weight"] = torch.zeros(1, 17)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"head\.weight is \(1, 17\) in the file, \(1, 16\)"):
        load_checkpoint(path, CPU)


@pytest.mark.parametrize("change", ["missing", "superfluous"])
def test_missing_and_superfluous_tensors_are_named(tmp_path: Path, change: str) -> None:
    path = save_tiny(tmp_path)
    tensors = load_file(path)
    if change == "missing":
        del tensors["head.bias"]
    else:
        tensors["odd"] = torch.zeros(1)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="absent"):
        load_checkpoint(path, CPU)


@pytest.mark.parametrize(
    ("field", "value"),
    [("dim", "wide"), ("conv_width", 4), ("unknown", 1), ("dim", 30), ("backbone", "rwkv")],
)
def test_a_bad_config_is_refused_in_words(tmp_path: Path, field: str, value: object) -> None:
    path = save_tiny(tmp_path)
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {field: value}))
    with pytest.raises(CheckpointError, match=r"tiny\.json: "):
        read_config(path)


def test_a_kernel_is_tried_out_on_real_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are not filled before those of the file come; what selects a kernel, on CUDA by a
    trial, is."""
    tried: list[bool] = []

    def select(
        config: MambaConfig, device: torch.device, dtype: torch.dtype
    ) -> tuple[ScanKernel, str | None]:
        tried.append(bool(torch.zeros(9).normal_().all()))
        return select_kernel(config, device, dtype)

    monkeypatch.setattr("model.checkpoint.select_kernel", select)
    load_checkpoint(save_tiny(tmp_path), CPU)
    assert tried == [True]
