"""Small vision transformers with random weights, as their owners' folders are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

WIDTH, PROJECTED = 32, 24
MEAN, DEVIATION = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)

_SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 8,
    "image_size": 64,
}
_TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 50,
}

NETWORKS: dict[str, Callable[[], Any]] = {
    "dinov2": lambda: Dinov2Model(Dinov2Config(**_SIZES)),
    "dinov2-registers": lambda: Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(**_SIZES, num_register_tokens=3)
    ),
    "dinov3": lambda: DINOv3ViTModel(DINOv3ViTConfig(**_SIZES, num_register_tokens=3)),
    "clip": lambda: CLIPModel(
        CLIPConfig(text_config=_TEXT, vision_config=_SIZES, projection_dim=PROJECTED)
    ),
    "clip-vision": lambda: CLIPVisionModel(CLIPVisionConfig(**_SIZES)),
    "siglip": lambda: SiglipModel(SiglipConfig(text_config=_TEXT, vision_config=_SIZES)),
    "siglip-vision": lambda: SiglipVisionModel(SiglipVisionConfig(**_SIZES)),
}


def save_vision_transformer(folder: Path, kind: str, seed: int = 0) -> Any:
    """Writes one of NETWORKS and what it is told of colours; the network itself."""
    torch.manual_seed(seed)
    network = NETWORKS[kind]().eval()
    # Fresh weights hardly tell patches apart.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    network.save_pretrained(folder)
    colours = {"image_mean": MEAN, "image_std": DEVIATION, "rescale_factor": 1 / 255}
    (folder / "preprocessor_config.json").write_text(json.dumps(colours))
    return network
