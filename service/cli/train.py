"""locore train"""

from __future__ import annotations

import json
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from model.checkpoint import save_checkpoint
from model.config import ExtractorId, ModelConfig
from model.descriptor_file import DescriptorReader
from model.descriptors import ImageDescriptors
from model.evaluation.grocery import FOLDS, LabelledImages, read_labels, split
from model.evaluation.retrieval import (
    best_ensemble,
    first_stage,
    labelled_task,
    model_scorer,
    score_shortlists,
)
from model.scan import select_kernel
from model.training.lists import (
    LabelledLists,
    ListOptions,
    ListSource,
    MixedLists,
    views_as_images,
)
from model.training.trainer import Trainer, TrainOptions
from service.cli.common import (
    any_path,
    device_of,
    device_option,
    existing_folder,
    progress_bar,
    tracked,
)

_SAVE_SECONDS = 120.0
_LOG_STEPS = 25
_DEFAULTS = {field.name: field.default for field in fields(TrainOptions)}
_TOP = 100
_VIEWS_SHARE = 0.4


@click.command()
@click.option(
    "--data",
    required=True,
    type=existing_folder,
    help="The grocery photographs: the folder that has labels.csv.",
)
@click.option(
    "--descriptors",
    required=True,
    type=any_path,
    help="Their descriptors, made by `locore extract DATA/images -o FILE.h5`.",
)
@click.option(
    "--views",
    type=any_path,
    help="Descriptors of views of the photographs (`locore extract --views`): lists in which an "
    "image is to be found by its own views are then drawn too.",
)
@click.option("-o", "--output", required=True, type=any_path, help="CHECKPOINT.safetensors")
@click.option("--run", type=any_path, help="Folder of log and state; default: beside OUTPUT.")
@click.option("--resume", is_flag=True, help="Go on from the run's last state.")
@click.option("--fold", type=click.IntRange(0, FOLDS - 1), default=0, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=_DEFAULTS["steps"], show_default=True)
@click.option("--batch", type=click.IntRange(1), default=_DEFAULTS["batch"], show_default=True)
@click.option("--learning-rate", type=float, default=_DEFAULTS["learning_rate"], show_default=True)
@click.option("--seed", type=int, default=_DEFAULTS["seed"], show_default=True)
@click.option("--dim", type=int, default=96, show_default=True, help="Width of the model.")
@click.option("--depth", type=int, default=3, show_default=True, help="Its blocks.")
@device_option
def train(
    data: Path,
    descriptors: Path,
    views: Path | None,
    output: Path,
    run: Path | None,
    resume: bool,
    fold: int,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    dim: int,
    depth: int,
    device: str,
) -> None:
    """Train a re-ranker on the classes of a fold, and choose alpha and T on the others.

    The log (`log.jsonl`, a line every few steps) and the state are in the run's folder; a run
    that was stopped goes on with --resume and comes out as if it had not been.
    """
    if output.suffix != ".safetensors":
        raise click.UsageError("OUTPUT must end in .safetensors")
    reader = DescriptorReader(descriptors)
    training, validation = split(read_labels(data), fold)
    known = set(reader.ids)
    absent = [i for i in training.ids + validation.ids if i not in known]
    if absent:
        raise click.UsageError(
            f"{descriptors}: {len(absent)} images are missing, first {absent[0]}"
        )
    images = dict(tracked(reader, "Reading descriptors", len(reader)))
    any_image = images[training.ids[0]]
    if any_image.global_ is None:
        raise click.UsageError(f"{descriptors}: has no globals")
    config = _config(
        name=output.stem,
        extractor=ExtractorId(
            name=reader.extractor or "unknown", version=reader.extractor_version or "unknown"
        ),
        descriptor_dim=any_image.locals.shape[1],
        global_dim=len(any_image.global_),
        descriptors_per_image=reader.descriptors_per_image,
        dim=dim,
        depth=depth,
    )
    place = device_of(device)
    kernel, _ = select_kernel(place)
    options = TrainOptions(steps=steps, batch=batch, learning_rate=learning_rate, seed=seed)
    trainer = Trainer(config, options, kernel.scan, place)
    folder = run or output.with_suffix(".run")
    state = folder / "state.pt"
    folder.mkdir(parents=True, exist_ok=True)
    if resume:
        trainer.resume(state)
    source: ListSource = _lists(training, images)
    if views is not None:
        of_views = DescriptorReader(views)
        read = dict(tracked(of_views, "Reading views", len(of_views)))
        instances = _lists(views_as_images(of_views.ids, training), read)
        source = MixedLists(source, instances, _VIEWS_SHARE)
    _run(trainer, source, state, folder / "log.jsonl", append=resume)

    task = labelled_task(validation, images)
    lists = first_stage(task, _TOP)
    scorer = model_scorer(trainer.average.eval(), place)
    logits = score_shortlists(
        scorer, task, lists, lambda queries: tracked(queries, "Validating", len(task.queries))
    )
    alpha, temperature, found = best_ensemble(task, lists, logits)
    chosen = config.rerank.model_copy(update={"alpha": alpha, "temperature": temperature})
    trainer.average.config = config.model_copy(update={"rerank": chosen})
    output.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(trainer.average, output)
    click.echo(
        f"{output}: R@1 {100 * found.recall_at_1:.1f}, mAP@R {100 * found.map_at_r:.1f} on the "
        f"validation classes, alpha {alpha}, T {temperature}"
    )


def _config(**sizes: Any) -> ModelConfig:
    try:
        return ModelConfig(**sizes)
    except ValidationError as error:
        raise click.UsageError(error.errors()[0]["msg"]) from None


def _lists(images: LabelledImages, descriptors: dict[str, ImageDescriptors]) -> LabelledLists:
    return LabelledLists(images, [descriptors[i] for i in images.ids], ListOptions())


def _run(
    trainer: Trainer, source: ListSource, state: Path, log_path: Path, *, append: bool
) -> None:
    saved = started = time.monotonic()
    losses: list[float] = []
    with (
        log_path.open("a" if append else "w") as log,
        progress_bar("Training", trainer.options.steps) as advance,
    ):
        advance(trainer.step)
        for step in trainer.run(source):
            advance(1)
            losses.append(step.loss)
            if step.number % _LOG_STEPS == 0 or step.number == trainer.options.steps:
                line = {
                    "step": step.number,
                    "loss": sum(losses) / len(losses),
                    "seconds": round(time.monotonic() - started, 1),
                }
                print(json.dumps(line), file=log, flush=True)
                losses.clear()
            if time.monotonic() - saved > _SAVE_SECONDS:
                trainer.save(state)
                saved = time.monotonic()
    trainer.save(state)
