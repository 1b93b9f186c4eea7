"""locore train"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from pydantic import ValidationError

from model.checkpoint import save_checkpoint
from model.config import ModelConfig, RerankDefaults
from model.descriptors import ImageDescriptors
from model.evaluation.grocery import FOLDS, LabelledImages, read_labels, split
from model.evaluation.retrieval import first_stage, labelled_task
from model.scan import select_kernel
from model.training.lists import (
    LabelledLists,
    ListOptions,
    ListSource,
    MixedLists,
    views_as_images,
)
from model.training.selection import select
from model.training.trainer import Trainer, TrainOptions
from service.cli.common import (
    any_path,
    device_of,
    device_option,
    existing_folder,
    progress_bar,
    read_images,
    say,
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
    """Train a re-ranker on all classes but those of a fold, and choose alpha, T and the
    aggregation on those.

    The log (`log.jsonl`, a line every few steps) and the state are in the run's folder; a run
    that was stopped goes on with --resume and comes out as if it had not been.
    """
    if output.suffix != ".safetensors":
        raise click.UsageError("OUTPUT must end in .safetensors")
    training, validation = split(read_labels(data), fold)
    made_by, images = read_images(descriptors, training.ids + validation.ids)
    task = labelled_task(validation, images)
    lists = first_stage(task, _TOP)
    source: ListSource = _lists(training, images)
    of_views: dict[str, ImageDescriptors] = {}
    if views is not None:
        made_views, of_views = read_images(views)
        if made_views != made_by:
            raise click.UsageError(f"{views} and {descriptors} were made by different extractors")
        instances = _lists(views_as_images(list(of_views), training), of_views)
        source = MixedLists(source, instances, _VIEWS_SHARE)
    any_image = task.gallery[0]
    config = _config(
        name=output.stem,
        extractor=made_by,
        descriptor_dim=any_image.locals.shape[1],
        global_dim=len(any_image.global_) if any_image.global_ is not None else 0,
        dim=dim,
        depth=depth,
        held_out_classes=np.unique(validation.classes).tolist(),
    )
    place = device_of(device)
    kernel, note = select_kernel(place, torch.float32)
    if note is not None:
        say(f"The plain scan is used: {note}")
    options = TrainOptions(steps=steps, batch=batch, learning_rate=learning_rate, seed=seed)
    drawn_from = (made_by, training.ids, sorted(of_views), _VIEWS_SHARE, ListOptions())
    fingerprint = hashlib.sha256(repr(drawn_from).encode()).hexdigest()
    trainer = Trainer(config, options, kernel.scan, place, fingerprint)
    folder = run or output.with_suffix(".run")
    state = folder / "state.pt"
    folder.mkdir(parents=True, exist_ok=True)
    if resume:
        trainer.resume(state)
    _run(trainer, source, state, folder / "log.jsonl", append=resume)

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
        f"{output}: R@1 {100 * chosen.quality.recall_at_1:.1f}, mAP@R "
        f"{100 * chosen.quality.map_at_r:.1f} on the validation classes with the logit of "
        f"{chosen.aggregation}, alpha {chosen.alpha:.2f}, T {chosen.temperature:g}"
    )


def _config(**sizes: Any) -> ModelConfig:
    try:
        return ModelConfig(**sizes)
    except ValidationError as error:
        raise click.UsageError(error.errors()[0]["msg"]) from None


def _lists(images: LabelledImages, descriptors: dict[str, ImageDescriptors]) -> LabelledLists:
    try:
        return LabelledLists(images, [descriptors[i] for i in images.ids], ListOptions())
    except ValueError as error:
        raise click.UsageError(str(error)) from None


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
        try:
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
        finally:
            # After Ctrl-C too: --resume then loses nothing.
            trainer.save(state)
