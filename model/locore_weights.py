"""Reads the sizes of a published LOCORE checkpoint from its tensors, and makes its config."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from model.config import ExtractorId, LongformerConfig, RerankDefaults, Scoring, reason
from model.config_file import CheckpointError

_HEAD_DIM = 64
_LOCALS_WITH_GLOBAL, _LOCALS_ALONE = 48, 49
_LONGEST_WINDOW = 100
_LONGFORMER = "language_model.longformer."
_LAYER = re.compile(re.escape(_LONGFORMER) + r"encoder\.layer\.(\d+)\.")


@dataclass(frozen=True)
class Unwritten:
    """What the tensors do not contain. If `attention_heads` or `descriptors_per_image` is None, it
    is as published: heads of 64, 48 locals with a global and 49 without."""

    name: str
    extractor: ExtractorId
    with_global: bool = True
    descriptors_per_image: int | None = None
    attention_heads: int | None = None
    attention_window: int = 512
    scoring: Scoring = "max-end"
    softmax: bool = False


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensor shapes of a safetensors file; its numbers are not read. Raises CheckpointError."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from None


def longformer_config(path: Path, unwritten: Unwritten) -> LongformerConfig:
    """The config of the published checkpoint in `path`; alpha, T, window and stride are those of
    the published evaluation. Raises CheckpointError if it is none."""
    shapes = read_shapes(path)

    def matrix(name: str) -> tuple[int, int]:
        shape = shapes.get(name)
        if shape is None:
            raise CheckpointError(f"{path}: no checkpoint of LOCORE's: it has no {name}")
        if len(shape) != 2:
            raise CheckpointError(f"{path}: {name} is no matrix but {shape}")
        return shape[0], shape[1]

    positions, dim = matrix(f"{_LONGFORMER}embeddings.position_embeddings.weight")
    mlp_dim, _ = matrix(f"{_LONGFORMER}encoder.layer.0.intermediate.dense.weight")
    if any(name.startswith(("local_to_lm.0.", "global_to_lm.0.")) for name in shapes):
        raise CheckpointError(f"{path}: projections with a bottleneck are not supported")
    local, global_ = (
        matrix(name) if name in shapes else None
        for name in ("local_to_lm.weight", "global_to_lm.weight")
    )
    layers = {int(match[1]) for name in shapes if (match := _LAYER.match(name))}
    if layers != set(range(len(layers))):
        raise CheckpointError(f"{path}: it has layer {max(layers)}, but only {len(layers)} layers")
    with_global = unwritten.with_global
    descriptors = unwritten.descriptors_per_image or (
        _LOCALS_WITH_GLOBAL if with_global else _LOCALS_ALONE
    )
    longest = (positions - 2) // (descriptors + 1 + with_global) - 1
    window = max(1, min(_LONGEST_WINDOW, longest))
    try:
        return LongformerConfig(
            name=unwritten.name,
            extractor=unwritten.extractor,
            descriptor_dim=dim if local is None else local[1],
            global_dim=(dim if global_ is None else global_[1]) if with_global else 0,
            descriptors_per_image=descriptors,
            scale_levels=matrix("scale_encoder.weight")[0],
            dim=dim,
            depth=len(layers),
            attention_heads=unwritten.attention_heads or max(1, dim // _HEAD_DIM),
            attention_window=unwritten.attention_window,
            mlp_dim=mlp_dim,
            positions=positions,
            project_locals=local is not None,
            project_global=global_ is not None,
            scoring=unwritten.scoring,
            softmax=unwritten.softmax,
            rerank=RerankDefaults(
                alpha=0.5, temperature=0.1, window=window, stride=max(1, window // 2)
            ),
        )
    except ValidationError as error:
        raise CheckpointError(f"{path}: {reason(error)}") from None
