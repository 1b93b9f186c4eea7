"""locore train"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import click
import torch

from model.config import DEFAULT_CHECKPOINT, LongformerConfig, Mixer
from model.evaluation.grocery import FOLDS
from model.training.gldv2 import gldv2_data
from model.training.new_model import (
    DESCRIPTORS,
    Backbone,
    adapted_config,
    builder,
    check_length,
    new_config,
    starting_point,
)
from model.training.run import train as run_to_checkpoint
from model.training.sources import folders_data, images_data
from model.training.torchrun import process_group
from model.training.trainer import TrainOptions
from model.training.training_error import TrainingError
from service.cli.common import (
    any_checkpoint,
    any_path,
    descriptor_dim_option,
    device_of,
    device_option,
    existing_folder,
    extraction_run,
    naming,
    progress_bar,
    say,
    tracked,
)

_DEFAULTS = TrainOptions()
_PUBLISHED_LISTS = (100, 100)


@click.command()
@click.option(
    "--images",
    type=existing_folder,
    help="A folder of images without labels: random views of an image are to find each other. "
    "Every fifth image is held out for choosing alpha and T.",
)
@click.option(
    "--data",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Instead: labelled images, as a CSV `path,label,role`, a folder with such a labels.csv, "
    "or a folder whose sub-folders are the labels. May be repeated.",
)
@click.option(
    "--descriptors",
    multiple=True,
    type=any_path,
    help="With --data: a file from `locore extract`. May be repeated, for several folders, and for "
    "several extractors, whose locals and globals are then mixed.",
)
@click.option(
    "--views",
    multiple=True,
    type=any_path,
    help="With --data: descriptors of views of some of the images (`locore extract --views`), for "
    "lists in which views find each other. May be repeated.",
)
@click.option(
    "--from",
    "start",
    type=any_checkpoint,
    is_flag=False,
    flag_value=DEFAULT_CHECKPOINT,
    help="Adapt this checkpoint instead of training a new one; without a value, the shipped one.",
)
@click.option(
    "--gldv2",
    type=existing_folder,
    help="Instead: LOCORE's published training data, a folder with dinov2_local.hdf5, "
    "dinov2_global.pt, nn_dinov2.pkl and train_750k.txt.",
)
@click.option(
    "--descriptor-name",
    help="With --gldv2: the prefix of its files' names; default dinov2.",
)
@click.option("--without-global", is_flag=True, help="With --gldv2: use no global descriptor.")
@descriptor_dim_option
@click.option(
    "--backbone",
    type=click.Choice(get_args(Backbone)),
    help="mamba is ours, the default; elvis reads one pair at a time; longformer is LOCORE's, "
    "for --gldv2.",
)
@click.option("-o", "--output", required=True, type=any_path, help="CHECKPOINT.safetensors")
@click.option("--run", type=any_path, help="Folder for log and state; default: beside OUTPUT.")
@click.option("--resume", is_flag=True, help="Continue from the run's last state.")
@click.option(
    "--fold",
    type=click.IntRange(0, FOLDS - 1),
    help="With --data: hold out this quarter of the first folder's classes, to choose alpha and T "
    "on.",
)
@click.option("--steps", type=click.IntRange(1), default=_DEFAULTS.steps, show_default=True)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=_DEFAULTS.batch,
    show_default=True,
    help="Lists in a pass.",
)
@click.option(
    "--accumulate",
    type=click.IntRange(1),
    default=_DEFAULTS.accumulate,
    show_default=True,
    help="Passes in a step, on every process.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default=_DEFAULTS.dtype,
    show_default=True,
    help="Number type of the products in a pass; weights stay float32.",
)
@click.option(
    "--recompute",
    is_flag=True,
    help="Longformer: recompute activations for the gradients. Less memory, more time.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=_DEFAULTS.learning_rate,
    show_default=True,
)
@click.option("--seed", type=click.IntRange(0), default=_DEFAULTS.seed, show_default=True)
@click.option("--dim", type=click.IntRange(8), help="Width of the model.")
@click.option("--depth", type=click.IntRange(1), help="Number of blocks.")
@click.option("--attention-heads", type=click.IntRange(1))
@click.option(
    "--attention-window", type=click.IntRange(2), help="Longformer: tokens that a token attends to."
)
@click.option("--descriptors-per-image", type=click.IntRange(1), help=f"Default {DESCRIPTORS}.")
@click.option(
    "--ranking",
    type=click.FloatRange(0),
    help="Weight of the Smooth-AP loss, added to the cross-entropy; default 3, Longformer 0.",
)
@click.option(
    "--image-layers", type=click.IntRange(0), help="Attention layers between images, per block."
)
@click.option(
    "--matches-per-image", type=click.IntRange(1), help="Matches of an image that become tokens."
)
@click.option(
    "--mixer",
    type=click.Choice(get_args(Mixer)),
    help="What mixes the tokens of a list, for comparisons with Mamba.",
)
@click.option(
    "--list-length",
    nargs=2,
    type=click.IntRange(2),
    help="Shortest and longest list to train on. Long ones are closer to use, short ones cheaper. "
    f"Default {_DEFAULTS.shortest} {_DEFAULTS.longest}, with --gldv2 100 100.",
)
@device_option
def train(
    images: Path | None,
    data: tuple[Path, ...],
    descriptors: tuple[Path, ...],
    views: tuple[Path, ...],
    start: Path | None,
    gldv2: Path | None,
    descriptor_name: str | None,
    without_global: bool,
    descriptor_dim: int | None,
    backbone: Backbone | None,
    output: Path,
    run: Path | None,
    resume: bool,
    fold: int | None,
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
    **sizes: int | str | None,
) -> None:
    """Train a re-ranker, or adapt one to your own images. Alpha and T are chosen on images that it
    has not seen; with --gldv2 they are chosen afterwards, by `locore eval gldv2 --grid`.

    The log (`log.jsonl`, one line every few steps) and the state are in the run's folder. A run
    that was stopped continues with --resume, with the same result. Several GPUs: `torchrun
    --nproc-per-node N --no-python locore train …`; a step then has N times as many lists.
    """
    if output.suffix != ".safetensors":
        raise click.UsageError("OUTPUT must end in .safetensors")
    _check_sources(images, data, descriptors, gldv2, (views or None, fold))
    new_sizes = {name: size for name, size in sizes.items() if size is not None}
    _refuse_contradictions(
        gldv2 is not None,
        (descriptor_name, descriptor_dim, without_global or None),
        start is not None,
        (*new_sizes, backbone, descriptors_per_image),
    )
    shortest, longest = list_length or (
        (_DEFAULTS.shortest, _DEFAULTS.longest) if gldv2 is None else _PUBLISHED_LISTS
    )
    if shortest > longest:
        raise click.UsageError("--list-length: the shortest comes first")
    folder, name = run or output.with_suffix(".run"), output.stem
    with process_group(device_of(device)) as (processes, own_device):
        if processes.count > 1 and gldv2 is None:
            raise click.UsageError("several processes can only be used with --gldv2")
        with naming("--from", TrainingError):
            initial = None if start is None else starting_point(start, gldv2 is not None)
        folder.mkdir(parents=True, exist_ok=True)
        if gldv2 is not None:
            start_sizes = None if initial is None else initial.config.sizes
            dim = descriptor_dim or (None if start_sizes is None else start_sizes.local_dim)
            training = gldv2_data(
                gldv2, descriptor_name or "dinov2", dim, longest, with_global=not without_global
            )
        elif images is not None:
            training = images_data(images, folder, resume, extraction_run())
        else:
            training = folders_data(data, descriptors, views, fold, tracked)
        if initial is None:
            count = descriptors_per_image or DESCRIPTORS
            config = new_config(backbone or "mamba", name, training, count, new_sizes)
        else:
            config = adapted_config(initial.config, training, name)
        with naming("--list-length", TrainingError):
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
            max_descriptors=config.descriptors_per_image,
        )
        build = builder(
            config, initial, own_device, getattr(torch, dtype), recompute=recompute, report=say
        )
        validation = run_to_checkpoint(
            training,
            build,
            options,
            own_device,
            processes,
            folder,
            output,
            resume=resume,
            bar=progress_bar,
        )
        if processes.first:
            words = "alpha and T are the defaults: no images were held out to choose them on"
            click.echo(f"{output}: {validation or words}")


def _check_sources(
    images: Path | None,
    data: Sequence[Path],
    descriptors: Sequence[Path],
    gldv2: Path | None,
    for_data: Sequence[object],
) -> None:
    """Raises click.UsageError unless exactly one source of lists is given, and for options of
    another source."""
    sources = [images is not None, bool(data and descriptors), gldv2 is not None]
    if sum(sources) != 1 or bool(data) != bool(descriptors):
        raise click.UsageError("give either --images, or --data and --descriptors, or --gldv2")
    if not data and any(value is not None for value in for_data):
        raise click.UsageError("--views and --fold need --data")


def _refuse_contradictions(
    gldv2: bool, for_gldv2: Sequence[object], adapts: bool, of_a_new_one: Sequence[object]
) -> None:
    """Raises click.UsageError for options that would have no effect."""
    if not gldv2 and any(value is not None for value in for_gldv2):
        raise click.UsageError(
            "--descriptor-name, --descriptor-dim and --without-global need --gldv2"
        )
    if adapts and any(value is not None for value in of_a_new_one):
        raise click.UsageError("--from has its own backbone and sizes")
