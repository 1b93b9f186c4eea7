"""A small DINOv2 and its detector, with random weights, as their owners' files are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

WIDTH = 32


def save_network(folder: Path, seed: int = 0, **changes: int) -> Path:
    """Two layers, four registers."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "patch_size": 14,
        "image_size": 70,
        "num_register_tokens": 4,
    }
    network = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes | changes))
    # Fresh weights hardly tell patches apart, and leave the biases and the registers at zero.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    network.save_pretrained(folder)
    return folder


def detector_state(seed: int = 1, width: int = WIDTH) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "conv1.weight": torch.randn(width, width, 1, 1),
        "conv1.bias": torch.randn(width),
        "bn.weight": torch.rand(width) + 0.5,
        "bn.bias": torch.randn(width),
        "bn.running_mean": torch.randn(width),
        "bn.running_var": torch.rand(width) + 0.5,
        "bn.num_batches_tracked": torch.tensor(7),
        "conv2.weight": torch.randn(1, width, 1, 1),
        "conv2.bias": torch.randn(1),
    }


def save_detector(path: Path, seed: int = 1, width: int = WIDTH) -> Path:
    torch.save({"state": detector_state(seed, width), "epoch": 3}, path)
    return path
