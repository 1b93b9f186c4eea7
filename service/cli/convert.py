"""locore convert"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click
import torch
from click.core import ParameterSource

from model.checkpoint import load_weights, save_checkpoint
from model.config import (
    PUBLISHED,
    AmesConfig,
    ElvisConfig,
    ExtractorId,
    LongformerConfig,
    Scoring,
)
from model.config_file import write_config
from model.locore_weights import Unwritten, longformer_config, read_shapes
from model.pairs import weights as pairs
from model.reranker import ListReranker
from service.cli.common import any_path

_LOCORE_ONLY = ("without_global", "attention_window", "scoring", "softmax")


@click.command()
@click.argument("checkpoint", type=any_path)
@click.option(
    "-o",
    "--output",
    type=any_path,
    help="Where to write the weights of a .pt file; default: beside it, as .safetensors.",
)
@click.option("--name", help="The model's name in answers; default: the file's name.")
@click.option(
    "--without-global",
    is_flag=True,
    help="LOCORE: the checkpoint was trained without a global descriptor, which its tensors do not "
    "always show.",
)
@click.option(
    "--descriptors",
    type=click.IntRange(1),
    help="Locals of an image; default as published: 48, or 49 without a global; for ELViS and AMES "
    "600, and they accept fewer.",
)
@click.option(
    "--attention-heads",
    type=click.IntRange(1),
    help="Default: heads of 64 numbers; for AMES 2 heads.",
)
@click.option(
    "--attention-window",
    type=click.IntRange(2),
    default=512,
    show_default=True,
    help="LOCORE: the number of tokens that a token attends to.",
)
@click.option(
    "--scoring",
    type=click.Choice(get_args(Scoring)),
    default="max-end",
    show_default=True,
    help="LOCORE's score of an image: the sum of its tokens' logits, the first one, that of the "
    "last local, or their product.",
)
@click.option("--softmax", is_flag=True, help="LOCORE: score by probabilities, not raw logits.")
@click.option(
    "--extractor",
    help="The extractor of the descriptors; default: by the file's name, else dinov2-vitb14-reg.",
)
@click.option("--extractor-version", default=PUBLISHED, show_default=True)
@click.option("--force", is_flag=True, help="Replace existing files.")
@click.pass_context
def convert(
    context: click.Context,
    checkpoint: Path,
    output: Path | None,
    name: str | None,
    without_global: bool,
    descriptors: int | None,
    attention_heads: int | None,
    attention_window: int,
    scoring: Scoring,
    softmax: bool,
    extractor: str | None,
    extractor_version: str,
    force: bool,
) -> None:
    """Convert a published CHECKPOINT for `locore serve --checkpoint`. A .safetensors file stays
    unchanged and gets a config beside it. The tensors of a .pt file are written to a .safetensors
    file first.

    Reads checkpoints of LOCORE (.safetensors: base, or small with fewer layers, with or without
    projections), ELViS and AMES (.pt, binarised or not). The type of the model and its sizes are
    read from the tensors.
    """
    pickled = checkpoint.suffix != ".safetensors"
    if output is not None and not pickled:
        raise click.UsageError(f"--output is only for a .pt file: {checkpoint} is not copied")
    output = output or checkpoint.with_suffix(".safetensors")
    _check_output(output, pickled=pickled, force=force)
    state = pairs.read_state(checkpoint) if pickled else None
    shapes = read_shapes(checkpoint) if state is None else pairs.shapes_of(state)
    config: LongformerConfig | ElvisConfig | AmesConfig
    if state is None and not pairs.is_pairs(shapes):
        config = longformer_config(
            checkpoint,
            Unwritten(
                name=name or output.stem,
                extractor=ExtractorId(name=extractor or pairs.DINOV2, version=extractor_version),
                with_global=not without_global,
                descriptors_per_image=descriptors,
                attention_heads=attention_heads,
                attention_window=attention_window,
                scoring=scoring,
                softmax=softmax,
            ),
        )
    else:
        for option in _LOCORE_ONLY:
            if context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
                flag = option.replace("_", "-")
                raise click.UsageError(f"--{flag} is for LOCORE's checkpoints")
        config = pairs.pair_config(
            checkpoint,
            shapes,
            pairs.Unwritten(
                name=name or output.stem,
                published_name=checkpoint.stem,
                extractor=extractor,
                extractor_version=extractor_version,
                descriptors_per_image=descriptors,
                attention_heads=attention_heads or pairs.HEADS,
            ),
        )
    if state is None:
        reranker = load_weights(checkpoint, config, torch.device("cpu")).reranker
        write_config(config, checkpoint)
    else:
        reranker = pairs.pair_reranker(checkpoint, config, state)
        save_checkpoint(reranker, output)
    click.echo(f"{output.with_suffix('.json')}: {_summary(reranker, config)}")


def _check_output(output: Path, *, pickled: bool, force: bool) -> None:
    """Raises click.UsageError if a file cannot or must not be written."""
    if output.suffix != ".safetensors":
        raise click.UsageError(f"{output} must end in .safetensors")
    if not output.parent.is_dir():
        raise click.UsageError(f"{output.parent}: no such folder")
    outputs = [output.with_suffix(".json"), *([output] if pickled else [])]
    existing = next((path for path in outputs if path.exists()), None)
    if existing is not None and not force:
        raise click.UsageError(f"{existing} exists already; --force replaces it")


def _summary(reranker: ListReranker, config: LongformerConfig | ElvisConfig | AmesConfig) -> str:
    weights = sum(p.numel() for p in reranker.parameters())
    layers = "" if isinstance(config, ElvisConfig) else f"{config.depth} layers of {config.dim}, "
    amount = f"{config.descriptors_per_image} locals of {config.descriptor_dim}"
    if not isinstance(config, LongformerConfig):
        amount = f"up to {amount}"
        if config.bits:
            amount += f" as {config.bits} bits"
    global_dim = config.global_dim if isinstance(config, LongformerConfig) else 0
    global_ = f"a global of {global_dim}" if global_dim else "no global"
    return f"{config.backbone}, {weights:,} weights, {layers}{amount} and {global_} an image"
