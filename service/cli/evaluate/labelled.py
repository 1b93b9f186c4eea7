"""locore eval grocery, sample, views: images of a class, or of an instance, find each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from model.checkpoint import LoadedModel, load_checkpoint
from model.config import DEFAULT_CHECKPOINT, ModelConfig
from model.descriptor_file import read_images
from model.evaluation.grocery import FOLDS, split
from model.evaluation.retrieval import RetrievalTask, labelled_task
from model.formats.labels import LabelledImages, labels_of_views, read_labels
from model.metric import load_metric
from service.cli.common import (
    any_checkpoint,
    any_path,
    console,
    device_of,
    device_option,
    existing_folder,
    tracked,
)
from service.cli.evaluate.checkpoint import compare, figures_table, write_figures

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _checkpoint_options(function: _Function) -> _Function:
    for option in (
        device_option,
        click.option("--json", "json_path", type=any_path, help="Write the figures here too."),
        click.option(
            "--top",
            type=click.IntRange(1),
            default=100,
            show_default=True,
            help="Length of the shortlist; one longer than a window is re-ranked by the sliding "
            "window.",
        ),
        click.option(
            "--checkpoint",
            type=any_checkpoint,
            default=DEFAULT_CHECKPOINT,
            help="What to evaluate: a file, or the name of a shipped one.",
        ),
    ):
        function = option(function)
    return function


@click.command()
@click.option("--data", type=existing_folder, required=True, help="The folder that has labels.csv.")
@click.option(
    "--descriptors",
    type=any_path,
    required=True,
    help="Made by `locore extract DATA/images -o FILE.h5`.",
)
@click.option(
    "--fold",
    type=click.IntRange(0, FOLDS - 1),
    default=0,
    show_default=True,
    help="Which classes are held out; the shipped checkpoint was trained on fold 0.",
)
@click.option(
    "--metric", type=any_path, help="Made by `locore fit-metric`; the images are compared in it."
)
@_checkpoint_options
def grocery(
    data: Path,
    descriptors: Path,
    fold: int,
    metric: Path | None,
    checkpoint: Path,
    top: int,
    json_path: Path | None,
    device: str,
) -> None:
    """Classes of groceries that the checkpoint was not trained on.

    Beside it Chamfer, with the alpha that is best on these very queries. Seconds are means over
    the same queries, the methods taking turns.
    """
    model = load_checkpoint(checkpoint, device_of(device))
    task = _grocery_task(data, descriptors, fold, model.config)
    _show(task if metric is None else _in_metric(task, metric), model, top, json_path)


@click.command()
@click.option(
    "--data",
    type=existing_folder,
    default=Path(".locore/sample"),
    show_default=True,
    help="Made by `locore serve --sample`.",
)
@_checkpoint_options
def sample(data: Path, checkpoint: Path, top: int, json_path: Path | None, device: str) -> None:
    """Parts of scikit-image's photographs, those of one subject relevant to each other.

    Beside the checkpoint Chamfer, with the alpha that is best on these very queries.
    """
    model = load_checkpoint(checkpoint, device_of(device))
    _show(_sample_task(data), model, top, json_path)


@click.command()
@click.option(
    "--descriptors",
    type=any_path,
    required=True,
    help="Of any images, made by `locore extract --views`.",
)
@_checkpoint_options
def views(
    descriptors: Path, checkpoint: Path, top: int, json_path: Path | None, device: str
) -> None:
    """Views of any images, the odd ones asked for among the even ones.

    Beside the checkpoint Chamfer, with the alpha that is best on these very queries.
    """
    model = load_checkpoint(checkpoint, device_of(device))
    _show(_views_task(descriptors), model, top, json_path)


def _show(task: RetrievalTask, model: LoadedModel, top: int, json_path: Path | None) -> None:
    sizes, wanted = task.gallery[0].sizes, model.config.sizes
    if wanted is not None and wanted.local_dim != sizes.local_dim:
        raise click.UsageError(
            f"descriptors of {sizes.local_dim} dimensions, where {model.config.name} takes "
            f"{wanted.local_dim}"
        )
    rows = compare(task, model, top)
    caption = (
        f"{len(task.queries)} queries, {len(task.gallery)} gallery images, "
        f"top {top} re-ranked, on {model.device}"
    )
    console.print(figures_table(rows, caption))
    if json_path is not None:
        write_figures(rows, json_path)


def _grocery_task(data: Path, descriptors: Path, fold: int, config: ModelConfig) -> RetrievalTask:
    _, validation = split(read_labels(data), fold)
    classes = set(validation.classes.tolist())
    if not classes <= set(config.held_out_classes):
        raise click.UsageError(
            f"{config.name} was trained on classes of fold {fold}; --fold says which to evaluate"
        )
    made_by, images = read_images(descriptors, validation.ids, track=tracked)
    if config.sizes is not None and made_by != config.extractor:
        raise click.UsageError(f"{descriptors} was not made by the extractor of {config.name}")
    return labelled_task(validation, images)


def _in_metric(task: RetrievalTask, path: Path) -> RetrievalTask:
    try:
        metric = load_metric(path)
        return replace(
            task,
            queries=[metric.apply(image) for image in task.queries],
            gallery=[metric.apply(image) for image in task.gallery],
        )
    except ValueError as error:
        raise click.UsageError(f"--metric: {error}") from None


def _views_task(views: Path) -> RetrievalTask:
    """Odd views asked for among the even ones. Raises click.UsageError where it cannot be."""
    _, described = read_images(views, track=tracked)
    try:
        images = labels_of_views(list(described))
    except ValueError as error:
        raise click.UsageError(f"{views}: {error}") from None
    paired = np.intersect1d(images.classes[images.is_query], images.classes[~images.is_query])
    if not len(paired):
        raise click.UsageError(f"{views}: no image has two views")
    return labelled_task(images.only(np.isin(images.classes, paired)), described)


def _sample_task(folder: Path) -> RetrievalTask:
    """Every query view against all gallery views: relevant are those of its own subject."""
    _, gallery = read_images(folder / "gallery.h5", track=tracked)
    _, queries = read_images(folder / "queries.h5", track=tracked)
    ids = [*queries, *gallery]
    subjects = [name.removesuffix(".jpg").split("/")[0] for name in ids]
    numbers = {subject: number for number, subject in enumerate(sorted(set(subjects)))}
    images = LabelledImages(
        ids,
        np.array([numbers[subject] for subject in subjects]),
        np.arange(len(ids)) < len(queries),
    )
    return labelled_task(images, queries | gallery)
