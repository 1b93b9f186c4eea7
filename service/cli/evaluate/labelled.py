"""locore eval grocery, sample, views: images of one class or instance are relevant to each
other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from model.checkpoint import LoadedModel, load_checkpoint
from model.config import DEFAULT_CHECKPOINT
from model.evaluation.grocery import FOLDS
from model.evaluation.retrieval import RetrievalTask
from model.evaluation.tasks import grocery_task, sample_task, task_in_metric, views_task
from model.evaluation.trial import compare, figures_table, write_figures
from model.learnt_metric import load_metric
from service.cli.common import (
    any_checkpoint,
    any_path,
    console,
    device_of,
    device_option,
    existing_folder,
    naming,
    tracked,
)

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _checkpoint_options(function: _Function) -> _Function:
    for option in (
        device_option,
        click.option("--json", "json_path", type=any_path, help="Also write the figures here."),
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
            help="The checkpoint to evaluate: a file, or the name of a shipped one.",
        ),
    ):
        function = option(function)
    return function


@click.command()
@click.option("--data", type=existing_folder, required=True, help="The folder with labels.csv.")
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
    help="Which classes are held out; the shipped checkpoint was trained with fold 0.",
)
@click.option(
    "--metric",
    type=any_path,
    help="A file from `locore fit-metric`; the images are compared in this metric.",
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

    Compares with Chamfer, at the alpha that is best on these very queries. Seconds are means over
    the same queries, with the methods in turns.
    """
    model = load_checkpoint(checkpoint, device_of(device))
    task = grocery_task(data, descriptors, fold, model.config, tracked)
    if metric is not None:
        with naming("--metric", ValueError):
            task = task_in_metric(task, load_metric(metric))
    _show(task, model, top, json_path)


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
    """Parts of scikit-image's photographs; those of one subject are relevant to each other.

    Beside the checkpoint Chamfer, with the alpha that is best on these very queries.
    """
    model = load_checkpoint(checkpoint, device_of(device))
    _show(sample_task(data, tracked), model, top, json_path)


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
    """Views of any images: the odd views are queries, the even ones the gallery.

    Beside the checkpoint Chamfer, with the alpha that is best on these very queries.
    """
    model = load_checkpoint(checkpoint, device_of(device))
    _show(views_task(descriptors, tracked), model, top, json_path)


def _show(task: RetrievalTask, model: LoadedModel, top: int, json_path: Path | None) -> None:
    rows = compare(task, model, top, tracked)
    caption = (
        f"{len(task.queries)} queries, {len(task.gallery)} gallery images, "
        f"top {top} re-ranked, on {model.device}"
    )
    console.print(figures_table(rows, caption))
    if json_path is not None:
        write_figures(rows, json_path)
