"""The model to train: a new one of given sizes, or a checkpoint that is adapted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch
from pydantic import ValidationError

from model.checkpoint import LoadedModel, load_checkpoint, new_network
from model.config import ElvisConfig, LongformerConfig, MambaConfig, ModelConfig, reason
from model.progress import Report, silent
from model.reranker import ListReranker
from model.training.domains import TrainingData
from model.training.training_error import TrainingError

if TYPE_CHECKING:
    from model.longformer import LongformerReranker

Backbone = Literal["mamba", "elvis", "longformer"]
DESCRIPTORS: int = ModelConfig.model_fields["descriptors_per_image"].default
"""Local descriptors of an image, unless a caller wants others."""


def new_config(
    backbone: Backbone,
    name: str,
    data: TrainingData,
    descriptors_per_image: int,
    sizes: Mapping[str, int | str],
) -> ModelConfig:
    """The config of a new model. Raises TrainingError for sizes that the backbone does not have, or
    that do not fit."""
    shared = {
        "name": name,
        "extractor": data.extractor,
        "descriptors_per_image": descriptors_per_image,
        "held_out_classes": data.held_out_classes,
    }
    try:
        if backbone == "mamba":
            return MambaConfig.model_validate(shared | dict(sizes))
        if backbone == "elvis":
            return ElvisConfig.model_validate(shared | dict(sizes))
        local_dim, global_dim = data.sizes.local_dim, data.sizes.global_dim or 0
        dim = sizes.get("dim", LongformerConfig.model_fields["dim"].default)
        projected = {
            "descriptor_dim": local_dim,
            "global_dim": global_dim,
            "project_locals": local_dim != dim,
            "project_global": global_dim not in (0, dim),
            "mlp_dim": 4 * dim,
        }
        return LongformerConfig.model_validate(shared | projected | dict(sizes))
    except ValidationError as error:
        raise TrainingError(f"{backbone}: {reason(error)}") from None


def starting_point(path: Path, published: bool) -> LoadedModel:
    """The checkpoint that is adapted, on the CPU. Raises CheckpointError, and TrainingError for
    one that asks for sizes unless its lists are the `published` ones: all others are bent, and
    descriptors have other sizes then."""
    model = load_checkpoint(path, torch.device("cpu"))
    if model.config.sizes is not None and not published:
        raise TrainingError(
            f"{model.config.name} asks for descriptors of its own sizes, so it can be "
            "adapted with --gldv2 alone"
        )
    return model


def adapted_config(config: ModelConfig, data: TrainingData, name: str) -> ModelConfig:
    """The config of a checkpoint that is trained further. Raises TrainingError where it does not
    fit."""
    if config.sizes is not None:
        if not config.extractor.fits(data.extractor):
            raise TrainingError(
                f"{config.name} was trained on descriptors of {config.extractor.name} "
                f"{config.extractor.version}, these are of {data.extractor.name} "
                f"{data.extractor.version}"
            )
        if config.sizes != data.sizes:
            raise TrainingError(
                f"{config.name} takes descriptors of {config.sizes}, these have {data.sizes}"
            )
    held_out = set(config.held_out_classes) & set(data.held_out_classes)
    return config.model_copy(update={"name": name, "held_out_classes": tuple(sorted(held_out))})


def check_length(config: ModelConfig, longest: int) -> None:
    """Raises TrainingError for lists that are longer than can be read."""
    if config.longest_window is not None and longest > config.longest_window:
        raise TrainingError(f"{config.name} reads {config.longest_window} images at most")


def builder(
    config: ModelConfig,
    initial: LoadedModel | None,
    device: torch.device,
    dtype: torch.dtype,
    *,
    recompute: bool,
    report: Report = silent,
) -> Callable[[], ListReranker]:
    """A function that makes the network, with the weights of `initial` where there is one. With
    `recompute` a Longformer's activations are computed again in the backward pass; raises
    TrainingError for any other network. `report` is told where the fastest kernel is not used."""
    if recompute and not isinstance(config, LongformerConfig):
        raise TrainingError("--recompute is for a Longformer")

    def build() -> ListReranker:
        network, _, note = new_network(config, device, dtype)
        if note is not None:
            report(f"A slower kernel is used: {note}")
        if recompute:
            cast("LongformerReranker", network).recompute_in_backward()
        if initial is not None:
            network.load_state_dict(initial.reranker.state_dict())
        return network

    return build
