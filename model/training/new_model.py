"""The model to train: a new one of given sizes, or a checkpoint to adapt."""

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
"""Local descriptors of an image by default."""


def new_config(
    backbone: Backbone,
    name: str,
    data: TrainingData,
    descriptors_per_image: int,
    sizes: Mapping[str, int | str],
) -> ModelConfig:
    """The config of a new model. Raises TrainingError for sizes that the backbone does not have, or
    that do not fit each other."""
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
    """Loads the checkpoint to adapt, on the CPU. Raises CheckpointError. Raises TrainingError for a
    checkpoint that needs certain sizes, unless the lists are the `published` ones: all others are
    bent, which changes the sizes of descriptors."""
    model = load_checkpoint(path, torch.device("cpu"))
    if model.config.sizes is not None and not published:
        raise TrainingError(
            f"{model.config.name} needs descriptors of its own sizes, so it can be "
            "adapted only with --gldv2"
        )
    return model


def adapted_config(config: ModelConfig, data: TrainingData, name: str) -> ModelConfig:
    """The config of an adapted checkpoint. Raises TrainingError if the data do not fit it."""
    if config.sizes is not None:
        if not config.extractor.fits(data.extractor):
            raise TrainingError(
                f"{config.name} was trained on descriptors of {config.extractor.name} "
                f"{config.extractor.version}, but these are of {data.extractor.name} "
                f"{data.extractor.version}"
            )
        if config.sizes != data.sizes:
            raise TrainingError(
                f"{config.name} takes descriptors of {config.sizes}, but these have {data.sizes}"
            )
    held_out = set(config.held_out_classes) & set(data.held_out_classes)
    return config.model_copy(update={"name": name, "held_out_classes": tuple(sorted(held_out))})


def check_length(config: ModelConfig, longest: int) -> None:
    """Raises TrainingError if the model cannot read lists of `longest` images."""
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
    """Returns a function that builds the network, with the weights of `initial` if it is not None.
    With `recompute` a Longformer's activations are computed again in the backward pass; raises
    TrainingError for any other network. `report` gets a line if the fastest kernel is not used."""
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
