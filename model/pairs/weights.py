"""Published weights of ELViS and AMES: their `.pt` files, and what the tensors say of sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from model.checkpoint import check_shapes, new_network
from model.config import (
    PUBLISHED,
    AmesConfig,
    ElvisConfig,
    ExtractorId,
    ModelConfig,
    RerankDefaults,
    reason,
)
from model.config_file import CheckpointError
from model.formats.pickles import load_pickle
from model.reranker import ListReranker

Shapes = Mapping[str, tuple[int, ...]]

DINOV2 = "dinov2-vitb14-reg"
HEADS = 2
"""Of AMES, in every published file."""
_EXTRACTORS = {"dinov2": DINOV2, "dinov3": "dinov3", "siglip2": "siglip2", "cvnet": "cvnet"}
"""By how the names of published files begin."""

_AMES_DEFAULTS = {
    ("dinov2", False): (0.55, 0.3),
    ("dinov2", True): (0.35, 0.1),
    ("cvnet", False): (0.85, 0.8),
    ("cvnet", True): (0.65, 0.2),
}
"""alpha and T by descriptors and whether they are binarised, from the table in AMES's README."""
_ELVIS_DEFAULTS = 0.5, 0.5
"""alpha and T of the published evaluation (ELViS's conf/dataset/test_dataset.yaml)."""

_WINDOW = 100
_LAYER = re.compile(r"decoder\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Unwritten:
    """What the tensors do not tell. `published_name` is the file's, without its suffix; where
    `extractor` or `descriptors_per_image` is None it is as published: by that name, and 600."""

    name: str
    published_name: str
    extractor: str | None = None
    extractor_version: str = PUBLISHED
    descriptors_per_image: int | None = None
    attention_heads: int = HEADS


def is_pairs(shapes: Shapes) -> bool:
    return "dust_bin" in shapes or "mtc_token" in shapes


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a published file, which has them as its `state`. No code of the file is run.
    Raises FormatError for what is no such pickle, CheckpointError for one of something else."""
    content = load_pickle(path)
    state = content.get("state") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path}: no published weights: it has no `state`")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: no published weights: {name!r} is no tensor")
        if not tensor.is_floating_point():
            raise CheckpointError(f"{path}: {name} is of {tensor.dtype}")
    return state


def shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def pair_config(path: Path, shapes: Shapes, unwritten: Unwritten) -> ElvisConfig | AmesConfig:
    """The config of the weights that `path` has, which are known by their names; alpha and T are
    those of the published evaluation. Raises CheckpointError if they are of neither."""

    def shape(name: str, ndim: int) -> tuple[int, ...]:
        dims = shapes.get(name)
        if dims is None or len(dims) != ndim:
            is_there = "absent" if dims is None else str(dims)
            raise CheckpointError(f"{path}: {name} is {is_there}, not of {ndim} dimensions")
        return dims

    if not is_pairs(shapes):
        raise CheckpointError(
            f"{path}: no weights of ELViS or AMES: it has neither dust_bin nor mtc_token"
        )
    bits = None
    if "remap_local.0.W" in shapes:
        descriptor_dim, bits = shape("remap_local.0.W", 2)
        dim, _ = shape("remap_local.1.weight", 2)
    else:
        dim, descriptor_dim = shape("remap_local.0.weight", 2)
    family = unwritten.published_name.partition("_")[0]
    extractor = unwritten.extractor or _EXTRACTORS.get(family, DINOV2)
    shared = {
        "name": unwritten.name,
        "extractor": ExtractorId(name=extractor, version=unwritten.extractor_version),
        "descriptor_dim": descriptor_dim,
        "dim": dim,
        "bits": bits,
    }
    if unwritten.descriptors_per_image is not None:
        shared["descriptors_per_image"] = unwritten.descriptors_per_image
    try:
        if "dust_bin" in shapes:
            return ElvisConfig.model_validate(
                shared
                | {
                    "vote_dim": shape("f.0.weight", 2)[0],
                    "logit_dim": shape("g.0.weight", 2)[0],
                    "dust_bin_dim": shape("dust_bin_mlp.0.weight", 2)[0],
                    "rerank": _defaults(*_ELVIS_DEFAULTS),
                }
            )
        layers = {int(match[1]) for name in shapes if (match := _LAYER.match(name))}
        kind = "cvnet" if family == "cvnet" else "dinov2"
        return AmesConfig.model_validate(
            shared
            | {
                "depth": len(layers),
                "attention_heads": unwritten.attention_heads,
                "mlp_dim": shape("decoder.layers.0.linear1.weight", 2)[0],
                "rerank": _defaults(*_AMES_DEFAULTS[kind, bits is not None]),
            }
        )
    except ValidationError as error:
        raise CheckpointError(f"{path}: {reason(error)}") from None


def pair_reranker(path: Path, config: ModelConfig, state: Mapping[str, Tensor]) -> ListReranker:
    """A re-ranker with the weights of `state`, which come from `path`. Raises CheckpointError if
    they do not fit the config."""
    reranker, _, _ = new_network(config, torch.device("cpu"), torch.float32, empty=True)
    expected = {name: tensor.shape for name, tensor in reranker.state_dict().items()}
    check_shapes(path, expected, {name: tensor.shape for name, tensor in state.items()})
    # Copies: tensors of a published file may share their memory.
    reranker.load_state_dict({name: t.clone() for name, t in state.items()}, assign=True)
    return reranker.eval()


def _defaults(alpha: float, temperature: float) -> RerankDefaults:
    return RerankDefaults(alpha=alpha, temperature=temperature, window=_WINDOW, stride=_WINDOW)
