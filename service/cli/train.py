"""locore train"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch
from pydantic import ValidationError

from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import DEFAULT_CHECKPOINT, MambaConfig, ModelConfig, RerankDefaults
from model.evaluation.grocery import FOLDS
from model.evaluation.retrieval import Quality, first_stage, quality
from model.extraction.extractor import load_extractor
from model.extraction.images import find_images
from model.reranker import MambaReranker
from model.scan import select_kernel
from model.training.selection import select
from model.training.trainer import Trainer, TrainOptions
from service.cli.common import (
    any_path,
    device_of,
    device_option,
    existing_folder,
    say,
    tracked,
)
from service.cli.extract import extract_to_file
from service.cli.training import TrainingData, grocery_data, run_training, views_data

_DEFAULTS = TrainOptions()
_TOP = 100
_VIEWS_OF_AN_IMAGE = 4
_HELD_OUT = 5
_EXTRACTOR = "efficientnet-lite0"


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
@click.option("-o", "--output", required=True, type=any_path, help="CHECKPOINT.safetensors")
@click.option("--run", type=any_path, help="Folder of log and state; default: beside OUTPUT.")
@click.option("--resume", is_flag=True, help="Go on from the run's last state.")
@click.option("--fold", type=click.IntRange(0, FOLDS - 1), default=0, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=_DEFAULTS.steps, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=_DEFAULTS.batch, show_default=True)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=_DEFAULTS.learning_rate,
    show_default=True,
)
@click.option("--seed", type=click.IntRange(0), default=_DEFAULTS.seed, show_default=True)
@click.option("--dim", type=click.IntRange(8), help="Width of the model.")
@click.option("--depth", type=click.IntRange(1), help="Its blocks.")
@click.option("--image-layers", type=click.IntRange(0), help="Layers between images in each block.")
@click.option(
    "--tokens-per-image", type=click.IntRange(1), help="Locals of an image that become tokens."
)
@click.option(
    "--list-length",
    nargs=2,
    type=click.IntRange(2),
    default=(_DEFAULTS.shortest, _DEFAULTS.longest),
    show_default=True,
    help="Shortest and longest list to train on: long ones are nearer to use, short ones cheaper.",
)
@device_option
def train(
    images: Path | None,
    data: Path | None,
    descriptors: Path | None,
    views: Path | None,
    start: Path | None,
    output: Path,
    run: Path | None,
    resume: bool,
    fold: int,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    list_length: tuple[int, int],
    device: str,
    **sizes: int | None,
) -> None:
    """Train a re-ranker, or adapt one to your own images, and choose alpha, T and the aggregation
    on images that it has not seen.

    The log (`log.jsonl`, a line every few steps) and the state are in the run's folder; a run
    that was stopped goes on with --resume and comes out as if it had not been.
    """
    if output.suffix != ".safetensors":
        raise click.UsageError("OUTPUT must end in .safetensors")
    folder = run or output.with_suffix(".run")
    folder.mkdir(parents=True, exist_ok=True)
    found = _data(images, data, descriptors, views, fold, folder, resume)
    place = device_of(device)
    given = {name: size for name, size in sizes.items() if size is not None}
    initial = None if start is None else load_checkpoint(start, place)
    if initial is not None:
        config = _adapted(initial.config, found, output.stem, given)
    else:
        config = _config(
            name=output.stem,
            extractor=found.extractor,
            descriptor_dim=found.descriptor_dim,
            global_dim=found.global_dim,
            held_out_classes=found.held_out_classes,
            **given,
        )
    kernel, note = select_kernel(place, torch.float32)
    if note is not None:
        say(f"The plain scan is used: {note}")

    def build() -> MambaReranker:
        reranker = MambaReranker(config, kernel.scan)
        if initial is not None:
            reranker.load_state_dict(initial.reranker.state_dict())
        return reranker

    shortest, longest = list_length
    if shortest > longest:
        raise click.UsageError("--list-length: the shortest comes first")
    options = TrainOptions(
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        shortest=shortest,
        longest=longest,
    )
    trainer = Trainer(build, options, place, found.fingerprint)
    if resume:
        trainer.resume(folder / "state.pt")
    run_training(trainer, found.source, folder, "Training", append=resume)

    task = found.validation
    lists = first_stage(task, _TOP)
    before = quality(task, lists, lists.scores)
    chosen = select(
        trainer.average.eval(),
        task,
        lists,
        place,
        lambda queries: tracked(queries, "Validating", len(task.queries)),
    )
    rerank = RerankDefaults(alpha=chosen.alpha, temperature=chosen.temperature)
    trainer.average.config = config.model_copy(
        update={"rerank": rerank, "aggregation": chosen.aggregation}
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(trainer.average, output)
    click.echo(
        f"{output}: R@1 {_percent(chosen.quality)} on the validation images with the logit of "
        f"{chosen.aggregation}, alpha {chosen.alpha:.2f}, T {chosen.temperature:g}; "
        f"the first stage has R@1 {_percent(before)}"
    )


def _percent(found: Quality) -> str:
    return f"{100 * found.recall_at_1:.1f}, mAP@R {100 * found.map_at_r:.1f}"


def _data(
    images: Path | None,
    data: Path | None,
    descriptors: Path | None,
    views: Path | None,
    fold: int,
    folder: Path,
    resume: bool,
) -> TrainingData:
    if images is not None and data is None and descriptors is None and views is None:
        of_views = folder / "views.h5"
        found = find_images((images,))
        if not resume:
            of_views.unlink(missing_ok=True)
        extract_to_file(
            load_extractor(_EXTRACTOR),
            found,
            of_views,
            MambaConfig.model_fields["descriptors_per_image"].default,
            views=_VIEWS_OF_AN_IMAGE,
        )
        return views_data(of_views, list(found), _HELD_OUT)
    if images is None and data is not None and descriptors is not None:
        return grocery_data(data, descriptors, views, fold)
    raise click.UsageError("give either --images, or --data and --descriptors")


def _config(**sizes: Any) -> MambaConfig:
    try:
        return MambaConfig(**sizes)
    except ValidationError as error:
        raise click.UsageError(error.errors()[0]["msg"]) from None


def _adapted(
    config: ModelConfig, found: TrainingData, name: str, given: dict[str, int]
) -> MambaConfig:
    if not isinstance(config, MambaConfig):
        raise click.UsageError(f"--from: {config.name} is no Mamba re-ranker")
    if given:
        raise click.UsageError("--from has its own sizes")
    if config.extractor != found.extractor:
        raise click.UsageError(
            f"{config.name} was trained on descriptors of {config.extractor.name} "
            f"{config.extractor.version}, these are of {found.extractor.name} "
            f"{found.extractor.version}"
        )
    held_out = set(config.held_out_classes) & set(found.held_out_classes)
    return config.model_copy(update={"name": name, "held_out_classes": tuple(sorted(held_out))})
