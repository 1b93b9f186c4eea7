"""locore convert"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click
import torch

from model.checkpoint import load_weights, write_config
from model.config import PUBLISHED, ExtractorId, Scoring
from model.published import Unwritten, longformer_config
from service.cli.common import any_path


@click.command()
@click.argument("checkpoint", type=any_path)
@click.option("--name", help="What answers call the model; default: the file's name.")
@click.option(
    "--without-global",
    is_flag=True,
    help="It was trained without the global descriptor as a token; its tensors do not always tell.",
)
@click.option(
    "--descriptors",
    type=click.IntRange(1),
    help="Locals of an image; default as published: 48, or 49 without a global.",
)
@click.option(
    "--attention-heads", type=click.IntRange(1), help="Default: as many as make heads of 64."
)
@click.option("--attention-window", type=click.IntRange(2), default=512, show_default=True)
@click.option(
    "--scoring",
    type=click.Choice(get_args(Scoring)),
    default="max-end",
    show_default=True,
    help="Its score: the sum of its tokens' logits, the first's, the last local's, the product.",
)
@click.option("--softmax", is_flag=True, help="Score by probabilities instead of raw logits.")
@click.option("--extractor", default="dinov2-vitb14-reg", show_default=True)
@click.option("--extractor-version", default=PUBLISHED, show_default=True)
@click.option("--force", is_flag=True, help="Replace a config that is there.")
def convert(
    checkpoint: Path,
    name: str | None,
    without_global: bool,
    descriptors: int | None,
    attention_heads: int | None,
    attention_window: int,
    scoring: Scoring,
    softmax: bool,
    extractor: str,
    extractor_version: str,
    force: bool,
) -> None:
    """Write a config beside CHECKPOINT, a published LOCORE .safetensors file, which stays as it is:
    then `locore serve --checkpoint CHECKPOINT` serves it.

    Sizes are read from the tensors: base, or small with fewer layers, with or without projections.
    """
    if checkpoint.suffix != ".safetensors":
        raise click.UsageError(f"{checkpoint} must end in .safetensors")
    beside = checkpoint.with_suffix(".json")
    if beside.exists() and not force:
        raise click.UsageError(f"{beside} is there already; --force replaces it")
    config = longformer_config(
        checkpoint,
        Unwritten(
            name=name or checkpoint.stem,
            extractor=ExtractorId(name=extractor, version=extractor_version),
            with_global=not without_global,
            descriptors_per_image=descriptors,
            attention_heads=attention_heads,
            attention_window=attention_window,
            scoring=scoring,
            softmax=softmax,
        ),
    )
    model = load_weights(checkpoint, config, torch.device("cpu"))
    write_config(config, checkpoint)
    weights = sum(p.numel() for p in model.reranker.parameters())
    click.echo(
        f"{beside}: {weights:,} weights, {config.depth} layers of {config.dim}, "
        f"{config.descriptors_per_image} locals of {config.descriptor_dim} and "
        f"{f'a global of {config.global_dim}' if config.global_dim else 'no global'} an image"
    )
