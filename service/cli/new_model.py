"""The model that `locore train` is to train: a new one of given sizes, or one that is adapted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import click
import torch
from pydantic import ValidationError

from model.checkpoint import LoadedModel
from model.config import LongformerConfig, MambaConfig, ModelConfig
from model.reranker import ListReranker, MambaReranker
from model.scan import select_kernel
from service.cli.common import say
from service.cli.training import TrainingData

Backbone = Literal["mamba", "longformer"]


def new_config(
    backbone: Backbone,
    name: str,
    data: TrainingData,
    descriptors_per_image: int,
    sizes: Mapping[str, int],
) -> ModelConfig:
    """Raises click.UsageError for sizes that the backbone does not have, or that do not fit."""
    shared = {
        "name": name,
        "extractor": data.extractor,
        "descriptor_dim": data.descriptor_dim,
        "global_dim": data.global_dim,
        "descriptors_per_image": descriptors_per_image,
        "held_out_classes": data.held_out_classes,
    }
    try:
        if backbone == "mamba":
            return MambaConfig.model_validate(shared | dict(sizes))
        dim = sizes.get("dim", LongformerConfig.model_fields["dim"].default)
        projected = {
            "project_locals": data.descriptor_dim != dim,
            "project_global": data.global_dim not in (0, dim),
            "mlp_dim": 4 * dim,
        }
        return LongformerConfig.model_validate(shared | projected | dict(sizes))
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(str(part).replace("_", "-") for part in first["loc"])
        raise click.UsageError(f"{where}: {first['msg']}" if where else first["msg"]) from None


def adapted_config(
    config: ModelConfig, data: TrainingData, name: str, sizes: Mapping[str, int]
) -> ModelConfig:
    """Of a checkpoint that is trained further. Raises click.UsageError where it does not fit."""
    if sizes:
        raise click.UsageError("--from has its own sizes")
    if not config.extractor.fits(data.extractor):
        raise click.UsageError(
            f"{config.name} was trained on descriptors of {config.extractor.name} "
            f"{config.extractor.version}, these are of {data.extractor.name} "
            f"{data.extractor.version}"
        )
    found = (data.descriptor_dim, data.global_dim)
    if found != (config.descriptor_dim, config.global_dim):
        raise click.UsageError(
            f"{config.name} takes descriptors of {config.descriptor_dim} and "
            f"{config.global_dim} dimensions, these have {found[0]} and {found[1]}"
        )
    held_out = set(config.held_out_classes) & set(data.held_out_classes)
    return config.model_copy(update={"name": name, "held_out_classes": tuple(sorted(held_out))})


def builder(
    config: ModelConfig,
    initial: LoadedModel | None,
    device: torch.device,
    dtype: torch.dtype,
    *,
    recompute: bool,
) -> Callable[[], ListReranker]:
    """What makes the network, with the weights of `initial` where there is one. With `recompute`
    a Longformer's activations are computed again in the backward pass instead of kept."""
    kernel, note = select_kernel(device, dtype)
    if note is not None and isinstance(config, MambaConfig):
        say(f"The plain scan is used: {note}")

    def build() -> ListReranker:
        network: ListReranker
        if isinstance(config, LongformerConfig):
            from model.longformer import LongformerReranker

            longformer = LongformerReranker(config)
            if recompute:
                longformer.recompute_in_backward()
            network = longformer
        elif isinstance(config, MambaConfig):
            network = MambaReranker(config, kernel.scan)
        else:
            raise TypeError(f"no backbone for {type(config).__name__}")
        if initial is not None:
            network.load_state_dict(initial.reranker.state_dict())
        return network

    return build
