"""What the commands that train share: descriptor files to training data, and the loop."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import click

from model.config import ExtractorId, ModelConfig
from model.descriptor_file import DescriptorFileError
from model.evaluation.retrieval import Quality, RetrievalTask, first_stage, quality
from model.extraction.images import find_images
from model.extraction.registry import load_extractor
from model.formats.labels import LabelledImages, labels_of_folders, read_labels
from model.reranker import ListReranker
from model.training.domains import (
    Described,
    Domain,
    TrainingData,
    labelled_data,
    views_data,
)
from model.training.lists import ListOptions, ListSource
from model.training.selection import select
from model.training.trainer import R, Trainer
from service.cli.common import progress_bar, read_images, say, tracked
from service.cli.description import extract_to_file

_TOP = 100
SAVE_SECONDS = 120.0
LOG_STEPS = 25
DESCRIPTORS: int = ModelConfig.model_fields["descriptors_per_image"].default
_VIEWS_OF_AN_IMAGE = 4
_HELD_OUT = 5
_EXTRACTOR = "efficientnet-lite0"

File = tuple[Path, ExtractorId, Described]


def images_data(images: Path, folder: Path, resume: bool) -> TrainingData:
    """Of a folder of images without labels, of which views are extracted into `folder`. Raises
    click.UsageError where they are too few."""
    file = folder / "views.h5"
    files = find_images((images,), report=lambda why: say(f"left out: {why}"))
    if not resume:
        file.unlink(missing_ok=True)
    extract_to_file(load_extractor(_EXTRACTOR), files, file, DESCRIPTORS, views=_VIEWS_OF_AN_IMAGE)
    made_by, views = read_images(file)
    # A folder that has changed since: views of images that are gone do not count.
    own = {view: image for view, image in views.items() if view.rpartition("@")[0] in files}
    try:
        return views_data(own, made_by, held_out=_HELD_OUT, options=ListOptions())
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def folders_data(
    labels: Sequence[Path], descriptors: Sequence[Path], views: Sequence[Path], fold: int | None
) -> TrainingData:
    """Of labelled folders and the descriptor files of their images, any number of each. A file
    belongs to those folders of which it has every image. Raises click.UsageError for a folder
    without a file, FormatError and DescriptorFileError for damaged ones."""
    files = [(path, *read_images(path)) for path in descriptors]
    domains = [_domain(path, files) for path in labels]
    try:
        return labelled_data(
            domains,
            _by_extractor([(path, *read_images(path)) for path in views]),
            files[0][1],
            fold=fold,
            options=ListOptions(),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def labels_of(path: Path, ids: Sequence[str]) -> LabelledImages:
    """By its CSV, or, where a folder has none, by the sub-folders in which the images `ids` lie.
    Raises FormatError."""
    if path.is_dir() and not (path / "labels.csv").exists():
        return labels_of_folders(ids, path)
    return read_labels(path)


def _domain(path: Path, files: Sequence[File]) -> Domain:
    """Where sub-folders are the labels, of the images of the first file that are all of `path`."""
    own = None if (path / "labels.csv").exists() or path.is_file() else find_images((path,)).keys()
    for _, _, described in files:
        if own is not None and not described.keys() <= own:
            continue
        images = labels_of(path, list(described))
        if described.keys() >= set(images.ids):
            fitting = [file for file in files if file[2].keys() >= set(images.ids)]
            return Domain(images, _by_extractor(fitting))
    raise click.UsageError(f"{path}: no file of --descriptors has all of its images")


def _by_extractor(files: Sequence[File]) -> dict[str, Described]:
    """The images of all files of one extractor together. Raises DescriptorFileError where two
    versions of one would mix."""
    versions: dict[str, str] = {}
    merged: dict[str, Described] = {}
    for path, made_by, images in files:
        if versions.setdefault(made_by.name, made_by.version) != made_by.version:
            raise DescriptorFileError(f"{path}: of another version of {made_by.name}")
        merged[made_by.name] = {**merged.get(made_by.name, {}), **images}
    return merged


def run_training(
    trainer: Trainer[R], source: ListSource, folder: Path, description: str, *, append: bool
) -> None:
    """To the last step, with `log.jsonl` and every two minutes `state.pt` in `folder`, which the
    first of several processes writes."""
    if not trainer.processes.first:
        for _ in trainer.run(source):
            pass
        return
    saved = started = time.monotonic()
    losses: list[float] = []
    state = folder / "state.pt"
    with (
        (folder / "log.jsonl").open("a" if append else "w") as log,
        progress_bar(description, trainer.options.steps) as advance,
    ):
        advance(trainer.step)
        try:
            for step in trainer.run(source):
                advance(1)
                losses.append(step.loss)
                if step.number % LOG_STEPS == 0 or step.number == trainer.options.steps:
                    line = {
                        "step": step.number,
                        "loss": sum(losses) / len(losses),
                        "seconds": round(time.monotonic() - started, 1),
                    }
                    print(json.dumps(line), file=log, flush=True)
                    losses.clear()
                if time.monotonic() - saved > SAVE_SECONDS:
                    trainer.save(state)
                    saved = time.monotonic()
        finally:
            # After Ctrl-C too: resuming then loses nothing.
            trainer.save(state)


def choose_on_validation(trainer: Trainer[ListReranker], task: RetrievalTask | None) -> str:
    """Gives the average its alpha and T, where there is a task to choose them on; what to say of
    it."""
    network = trainer.average.eval()
    if task is None:
        return "alpha and T are the defaults: no images were kept apart to choose them on"
    lists = first_stage(task, _TOP)
    before = quality(task, lists, lists.scores)
    chosen = select(
        network,
        task,
        lists,
        trainer.device,
        lambda queries: tracked(queries, "Validating", len(task.queries)),
    )
    settings = {"alpha": chosen.alpha, "temperature": chosen.temperature}
    rerank = network.config.rerank.model_copy(update=settings)
    network.config = network.config.model_copy(update={"rerank": rerank})
    return (
        f"R@1 {_percent(chosen.quality)} on the validation images, alpha {chosen.alpha:.2f}, "
        f"T {chosen.temperature:g}; the first stage has R@1 {_percent(before)}"
    )


def _percent(figures: Quality) -> str:
    return f"{100 * figures.recall_at_1:.1f}, mAP@R {100 * figures.map_at_r:.1f}"
