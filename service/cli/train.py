"""locore train"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click
import torch

from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import DEFAULT_CHECKPOINT, LongformerConfig
from model.evaluation.grocery import FOLDS
from model.training.processes import joined
from model.training.trainer import Trainer, TrainOptions
from service.cli.common import (
    any_path,
    descriptor_dim_option,
    device_of,
    device_option,
    existing_folder,
)
from service.cli.gldv2 import gldv2_data
from service.cli.new_model import (
    Backbone,
    adapted_config,
    builder,
    check_length,
    new_config,
)
from service.cli.training import (
    DESCRIPTORS,
    choose_on_validation,
    run_training,
    training_data,
)

_DEFAULTS = TrainOptions()
_PUBLISHED_LISTS = (100, 100)


@click.command()
@click.option(
    "--images",
    type=existing_folder,
    help="Any folder of images, without labels: an image is to be found by random views of itself. "
    "Those of every fifth image are kept apart for choosing alpha and T.",
)
@click.option(
    "--data",
    type=existing_folder,
    help="Instead: the grocery photographs, the folder that has labels.csv.",
)
@click.option(
    "--descriptors",
    type=any_path,
    help="With --data: made by `locore extract DATA/images -o FILE.h5`.",
)
@click.option(
    "--views",
    type=any_path,
    help="With --data: descriptors of views of the photographs (`locore extract --views`), which "
    "then stand in for some of them, and are to be found by each other in some lists.",
)
@click.option(
    "--from",
    "start",
    type=any_path,
    is_flag=False,
    flag_value=DEFAULT_CHECKPOINT,
    help="Adapt this checkpoint instead of starting from nothing; without a value the shipped one.",
)
@click.option(
    "--gldv2",
    type=existing_folder,
    help="Instead: LOCORE's published training data, the folder that has dinov2_local.hdf5, "
    "dinov2_global.pt, nn_dinov2.pkl and train_750k.txt.",
)
@click.option(
    "--descriptor-name",
    help="With --gldv2: what its files' names begin with; default dinov2.",
)
@click.option(
    "--without-global", is_flag=True, help="With --gldv2: no global descriptor as a token."
)
@descriptor_dim_option
@click.option(
    "--backbone",
    type=click.Choice(["mamba", "longformer"]),
    help="With --gldv2: ours, the default, or LOCORE's.",
)
@click.option("-o", "--output", required=True, type=any_path, help="CHECKPOINT.safetensors")
@click.option("--run", type=any_path, help="Folder of log and state; default: beside OUTPUT.")
@click.option("--resume", is_flag=True, help="Go on from the run's last state.")
@click.option("--fold", type=click.IntRange(0, FOLDS - 1), default=0, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=_DEFAULTS.steps, show_default=True)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=_DEFAULTS.batch,
    show_default=True,
    help="Lists of a pass.",
)
@click.option(
    "--accumulate",
    type=click.IntRange(1),
    default=_DEFAULTS.accumulate,
    show_default=True,
    help="Passes of a step, on every process.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default=_DEFAULTS.dtype,
    show_default=True,
    help="Of the products in a pass; weights stay float32.",
)
@click.option(
    "--recompute",
    is_flag=True,
    help="Longformer: less memory, more time: activations are computed again for the gradients.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=_DEFAULTS.learning_rate,
    show_default=True,
)
@click.option("--seed", type=click.IntRange(0), default=_DEFAULTS.seed, show_default=True)
@click.option("--dim", type=click.IntRange(8), help="Width of the model.")
@click.option("--depth", type=click.IntRange(1), help="Its blocks.")
@click.option("--attention-heads", type=click.IntRange(1))
@click.option("--attention-window", type=click.IntRange(2), help="Longformer: tokens, both sides.")
@click.option(
    "--descriptors-per-image",
    type=click.IntRange(1),
    help=f"Default {DESCRIPTORS}.",
)
@click.option(
    "--ranking",
    type=click.FloatRange(0),
    help="Weight of Smooth-AP beside the cross-entropy; default 3, for a Longformer 0.",
)
@click.option("--image-layers", type=click.IntRange(0), help="Layers between images in each block.")
@click.option(
    "--tokens-per-image", type=click.IntRange(1), help="Locals of an image that become tokens."
)
@click.option(
    "--list-length",
    nargs=2,
    type=click.IntRange(2),
    help="Shortest and longest list to train on: long ones are nearer to use, short ones cheaper. "
    f"Default {_DEFAULTS.shortest} {_DEFAULTS.longest}, with --gldv2 100 100.",
)
@device_option
def train(
    images: Path | None,
    data: Path | None,
    descriptors: Path | None,
    views: Path | None,
    start: Path | None,
    gldv2: Path | None,
    descriptor_name: str | None,
    without_global: bool,
    descriptor_dim: int | None,
    backbone: Backbone | None,
    output: Path,
    run: Path | None,
    resume: bool,
    fold: int,
    steps: int,
    batch: int,
    accumulate: int,
    dtype: Literal["float32", "bfloat16"],
    recompute: bool,
    learning_rate: float,
    seed: int,
    descriptors_per_image: int | None,
    ranking: float | None,
    list_length: tuple[int, int] | None,
    device: str,
    **sizes: int | None,
) -> None:
    """Train a re-ranker, or adapt one to your own images, and choose alpha, T and the aggregation
    on images that it has not seen. (With --gldv2 they are chosen afterwards, by
    `locore eval gldv2 --grid`.)

    The log (`log.jsonl`, a line every few steps) and the state are in the run's folder; a run
    that was stopped goes on with --resume and comes out as if it had not been. Several GPUs:
    `torchrun --nproc-per-node N --no-python locore train …`; a step then takes N times the lists.
    """
    if output.suffix != ".safetensors":
        raise click.UsageError("OUTPUT must end in .safetensors")
    given = {name: size for name, size in sizes.items() if size is not None}
    _refuse_contradictions(
        gldv2 is not None,
        (descriptor_name, backbone, descriptor_dim, without_global or None),
        start is not None,
        (*given, backbone, descriptors_per_image),
    )
    shortest, longest = list_length or (
        (_DEFAULTS.shortest, _DEFAULTS.longest) if gldv2 is None else _PUBLISHED_LISTS
    )
    if shortest > longest:
        raise click.UsageError("--list-length: the shortest comes first")
    folder = run or output.with_suffix(".run")
    with joined(device_of(device)) as (processes, on):
        if processes.count > 1 and gldv2 is None:
            raise click.UsageError("several processes are for --gldv2")
        folder.mkdir(parents=True, exist_ok=True)
        initial = None if start is None else load_checkpoint(start, torch.device("cpu"))
        if gldv2 is not None and images is data is descriptors is views is None:
            dim = descriptor_dim or (None if initial is None else initial.config.descriptor_dim)
            found = gldv2_data(
                gldv2, descriptor_name or "dinov2", dim, longest, with_global=not without_global
            )
        else:
            found = training_data(images, data, descriptors, views, fold, folder, resume)
        config = (
            new_config(
                backbone or "mamba",
                output.stem,
                found,
                descriptors_per_image or DESCRIPTORS,
                given,
            )
            if initial is None
            else adapted_config(initial.config, found, output.stem)
        )
        check_length(config, longest)
        if ranking is None:
            ranking = 0.0 if isinstance(config, LongformerConfig) else _DEFAULTS.ranking
        fewest = _DEFAULTS.fewest_descriptors if gldv2 is None else config.descriptors_per_image
        options = TrainOptions(
            steps=steps,
            batch=batch,
            accumulate=accumulate,
            dtype=dtype,
            learning_rate=learning_rate,
            ranking=ranking,
            seed=seed,
            shortest=shortest,
            longest=longest,
            fewest_descriptors=min(fewest, config.descriptors_per_image),
            most_descriptors=config.descriptors_per_image,
        )
        build = builder(config, found, initial, on, getattr(torch, dtype), recompute=recompute)
        trainer = Trainer(build, options, on, found.fingerprint, processes)
        if resume:
            trainer.resume(folder / "state.pt")
        run_training(trainer, found.source, folder, "Training", append=resume)
        if processes.first:
            output.parent.mkdir(parents=True, exist_ok=True)
            click.echo(f"{output}: {choose_on_validation(trainer, found.validation)}")
            save_checkpoint(trainer.average, output)


def _refuse_contradictions(
    gldv2: bool, for_gldv2: Sequence[object], adapts: bool, of_a_new_one: Sequence[object]
) -> None:
    """An option that would not count is refused instead of passed over."""
    if not gldv2 and any(value is not None for value in for_gldv2):
        raise click.UsageError(
            "--descriptor-name, --descriptor-dim, --without-global and --backbone are for --gldv2"
        )
    if adapts and any(value is not None for value in of_a_new_one):
        raise click.UsageError("--from has its own backbone and sizes")
