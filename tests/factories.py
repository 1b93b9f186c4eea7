"""Small models and made-up images for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.checkpoint import LoadedModel, load_checkpoint, save_checkpoint
from model.config import ElvisConfig, ExtractorId, MambaConfig, ModelConfig
from model.descriptors import DescriptorSizes, ImageDescriptors, normalised
from model.pairs.elvis import ElvisReranker
from model.quantisation import CodeType, decode
from model.reranker import MambaReranker
from model.windows import Window

LOCAL_DIM, GLOBAL_DIM = 8, 12
SIZES = DescriptorSizes(LOCAL_DIM, GLOBAL_DIM)
"""Of the images that are made here."""


def tiny_config(**changes: object) -> MambaConfig:
    """A re-ranker of a few thousand weights."""
    sizes: dict[str, object] = {
        "name": "tiny",
        "extractor": ExtractorId(name="made-up", version="1"),
        "descriptors_per_image": 6,
        "dim": 16,
        "depth": 2,
        "image_layers": 1,
        "matches_per_image": 3,
        "attention_heads": 2,
        "scan_head_dim": 8,
        "scan_state": 4,
    }
    return MambaConfig.model_validate(sizes | changes)


def tiny_model(config: MambaConfig | None = None, seed: int = 0) -> MambaReranker:
    torch.manual_seed(seed)
    model = MambaReranker(config or tiny_config()).eval()
    # A fresh head hardly tells images apart; scores that differ make tests that can fail.
    with torch.no_grad():
        model.head.weight.mul_(20)
    return model


def save_tiny(folder: Path, config: MambaConfig | None = None) -> Path:
    path = folder / "tiny.safetensors"
    save_checkpoint(tiny_model(config), path)
    return path


def load_tiny(folder: Path) -> LoadedModel:
    return load_checkpoint(save_tiny(folder), torch.device("cpu"))


def load_sized() -> LoadedModel:
    """A re-ranker that asks for locals of LOCAL_DIM numbers."""
    extractor = ExtractorId(name="made-up", version="1")
    config = ElvisConfig(name="sized", extractor=extractor, descriptor_dim=LOCAL_DIM, dim=8)
    return LoadedModel(
        ElvisReranker(config).eval(), torch.device("cpu"), torch.float32, "torch", None
    )


def image(
    rng: np.random.Generator,
    config: ModelConfig,
    rows: int | None = None,
    with_global: bool = True,
    sizes: DescriptorSizes | None = None,
) -> ImageDescriptors:
    """Of as many locals as `config` reads, or of `rows`; of the sizes that it asks for, if any."""
    sizes = sizes or config.sizes or SIZES
    count = config.descriptors_per_image if rows is None else rows
    return ImageDescriptors(
        unit(rng, count, sizes.local_dim),
        rng.integers(0, 3, count).astype(np.uint8),
        unit(rng, 1, sizes.global_dim)[0] if with_global and sizes.global_dim else None,
    )


def decoded_codes(codes: NDArray[np.uint8], dim: int, code_type: CodeType) -> NDArray[np.float32]:
    """(n, dim) of codes (n, row_bytes)."""
    (rows,) = decode([codes.tobytes()], dim, code_type)
    return rows


def unit(rng: np.random.Generator, rows: int, dim: int) -> NDArray[np.float32]:
    return normalised(rng.standard_normal((rows, dim)).astype(np.float32), "made up")


def window(
    rng: np.random.Generator,
    config: ModelConfig,
    images: int,
    sizes: DescriptorSizes | None = None,
) -> Window:
    """Images of random numbers of locals, some without a global."""

    def one() -> ImageDescriptors:
        rows = int(rng.integers(1, config.descriptors_per_image + 1))
        return image(rng, config, rows, with_global=bool(rng.random() < 0.8), sizes=sizes)

    return Window(one(), [one() for _ in range(images)])
