"""locore eval grocery, sample, views: images of a class, or of an instance, find each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from model.checkpoint import LoadedModel, load_checkpoint
from model.config import DEFAULT_CHECKPOINT, ModelConfig
from model.evaluation.grocery import FOLDS, LabelledImages, read_labels, split
from model.evaluation.retrieval import RetrievalTask, labelled_task
from service.cli.common import (
    any_path,
    console,
    device_of,
    device_option,
    existing_folder,
    read_images,
)
from service.cli.evaluate.checkpoint import compare, figures_table, write_figures
from service.cli.training import grocery_data, views_task

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _numbers(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        found = [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter("numbers with commas between them") from None
    if min(found) < 0 or len(set(found)) < len(found):
        raise click.BadParameter("none below 0, none twice")
    return tuple(found)


def _folds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    found = _numbers(context, parameter, value)
    if not set(found) <= set(range(FOLDS)):
        raise click.BadParameter(f"folds are 0 to {FOLDS - 1}")
    return found


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
            "--checkpoint", type=any_path, default=DEFAULT_CHECKPOINT, help="What to evaluate."
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
@_checkpoint_options
@click.option(
    "--table",
    is_flag=True,
    help="Compare all re-rankers instead, those that learn trained anew on every fold.",
)
@click.option(
    "--views", type=any_path, help="--table: descriptors of views, as for `locore train`."
)
@click.option(
    "--runs",
    type=any_path,
    default=Path("runs/comparison"),
    show_default=True,
    help="--table: where trials are kept, each by its data, sizes, options and budget. One that "
    "is there is taken as it is: after a change of code name another folder.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=4.0,
    show_default=True,
    help="--table: processor time of each training.",
)
@click.option(
    "--steps", type=click.IntRange(1), help="--table: steps of each training, instead of a time."
)
@click.option(
    "--folds",
    callback=_folds,
    default=",".join(map(str, range(FOLDS))),
    show_default=True,
    help="--table: the folds.",
)
@click.option(
    "--seeds", callback=_numbers, default="0", show_default=True, help="--table: the seeds."
)
@click.option(
    "--only",
    multiple=True,
    help="--table: these of the trained re-rankers, or of their ablations; may be repeated.",
)
@click.option("--plot", "plot_path", type=any_path, help="--table: quality by time, as an SVG.")
def grocery(
    data: Path,
    descriptors: Path,
    fold: int,
    checkpoint: Path,
    top: int,
    json_path: Path | None,
    device: str,
    table: bool,
    views: Path | None,
    runs: Path,
    minutes: float,
    steps: int | None,
    folds: tuple[int, ...],
    seeds: tuple[int, ...],
    only: tuple[str, ...],
    plot_path: Path | None,
) -> None:
    """Classes of groceries that the checkpoint was not trained on.

    Beside it Chamfer, with the alpha that is best on these very queries. (The shipped
    checkpoint's alpha and T were chosen on the queries of fold 0.) Seconds are means over the
    same queries, the methods taking turns.
    """
    place = device_of(device)
    if not table:
        model = load_checkpoint(checkpoint, place)
        _show(_grocery_task(data, descriptors, fold, model.config), model, top, json_path)
        return
    for path, suffix in ((json_path, ".json"), (plot_path, ".svg")):
        if path is not None and (path.suffix != suffix or not path.parent.is_dir()):
            raise click.UsageError(f"{path} must end in {suffix}, in a folder that exists")
    try:
        from service.cli.evaluate.table import Plan, compared, show_comparison
        from service.cli.evaluate.trials import Budget
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"--table needs {error.name}: pip install 'locore[compare]'"
        ) from None
    plan = Plan(folds, seeds, only, Budget(minutes, steps), runs, place)
    rows = compared(lambda number: grocery_data(data, descriptors, views, number), plan)
    show_comparison(rows, json_path, plot_path)


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
    _show(views_task(descriptors, model.config.extractor), model, top, json_path)


def _show(task: RetrievalTask, model: LoadedModel, top: int, json_path: Path | None) -> None:
    width = task.gallery[0].locals.shape[1]
    if width != model.config.descriptor_dim:
        raise click.UsageError(
            f"descriptors of {width} dimensions, where {model.config.name} takes "
            f"{model.config.descriptor_dim}"
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
    made_by, images = read_images(descriptors, validation.ids)
    if made_by != config.extractor:
        raise click.UsageError(f"{descriptors} was not made by the extractor of {config.name}")
    return labelled_task(validation, images)


def _sample_task(folder: Path) -> RetrievalTask:
    """Every query view against all gallery views: relevant are those of its own subject."""
    _, gallery = read_images(folder / "gallery.h5")
    _, queries = read_images(folder / "queries.h5")
    ids = [*queries, *gallery]
    subjects = [name.removesuffix(".jpg").split("/")[0] for name in ids]
    numbers = {subject: number for number, subject in enumerate(sorted(set(subjects)))}
    images = LabelledImages(
        ids,
        np.array([numbers[subject] for subject in subjects]),
        np.arange(len(ids)) < len(queries),
    )
    return labelled_task(images, queries | gallery)
