"""locore eval"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from model.checkpoint import LoadedModel, load_checkpoint
from model.config import DEFAULT_CHECKPOINT, ModelConfig
from model.evaluation.baselines.chamfer import chamfer
from model.evaluation.grocery import FOLDS, LabelledImages, read_labels, split
from model.evaluation.retrieval import (
    Quality,
    RetrievalTask,
    Scorer,
    best_alpha,
    first_stage,
    labelled_task,
    quality,
    reranking_scorer,
    score_shortlists,
)
from model.windows import RerankOptions
from service.cli.common import (
    any_path,
    console,
    device_of,
    device_option,
    existing_folder,
    read_images,
    tracked,
)
from service.cli.training import TrainingData, grocery_data, views_task

_TIMED_QUERIES = 20


@dataclass(frozen=True)
class Row:
    """`alpha` is the weight of the first stage; seconds are for 100 images."""

    method: str
    recall_at_1: float
    map_at_r: float
    alpha: float | None
    temperature: float | None
    seconds: float


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


@click.command("eval")
@click.argument("benchmark", type=click.Choice(["grocery", "sample", "views"]))
@click.option(
    "--data",
    type=existing_folder,
    help="grocery: the folder that has labels.csv; sample: `.locore/sample`, made by "
    "`locore serve --sample`.",
)
@click.option(
    "--descriptors",
    type=any_path,
    help="grocery: made by `locore extract DATA/images -o FILE.h5`; views: of any images, made by "
    "`locore extract --views`.",
)
@click.option("--checkpoint", type=any_path, default=DEFAULT_CHECKPOINT, help="What to evaluate.")
@click.option(
    "--fold",
    type=click.IntRange(0, FOLDS - 1),
    default=0,
    show_default=True,
    help="grocery: which classes are held out; the shipped checkpoint was trained on fold 0.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Length of the shortlist; one longer than a window is re-ranked by the sliding window.",
)
@click.option(
    "--table",
    is_flag=True,
    help="grocery: compare all re-rankers instead, those that learn trained anew on every fold.",
)
@click.option(
    "--views", type=any_path, help="--table: descriptors of views, as for `locore train`."
)
@click.option(
    "--runs",
    type=any_path,
    default=Path("runs/comparison"),
    show_default=True,
    help="--table: where trials are kept. What is there is taken as it is: after a change of code "
    "or data, name another folder.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=4.0,
    show_default=True,
    help="--table: processor time of each training.",
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
@click.option("--json", "json_path", type=any_path, help="Write the figures here too.")
@device_option
def evaluate(
    benchmark: str,
    data: Path | None,
    descriptors: Path | None,
    checkpoint: Path,
    fold: int,
    top: int,
    table: bool,
    views: Path | None,
    runs: Path,
    minutes: float,
    folds: tuple[int, ...],
    seeds: tuple[int, ...],
    only: tuple[str, ...],
    plot_path: Path | None,
    json_path: Path | None,
    device: str,
) -> None:
    """Measure the first stage, Chamfer re-ranking and a checkpoint: on held-out classes
    (grocery), on the sample gallery, or on views of any images, the odd ones asked for among the
    even ones (views).

    The checkpoint is used as the service uses it, windows and all, with its own alpha and T.
    Chamfer gets the alpha that is best on these very queries. (The shipped checkpoint's alpha and
    T were chosen on the queries of fold 0.) Seconds are means over the same queries, the methods
    taking turns.
    """
    if table:
        if benchmark != "grocery" or data is None or descriptors is None:
            raise click.UsageError("--table is for grocery, with --data and --descriptors")
        _compare_all(
            lambda number: grocery_data(data, descriptors, views, number),
            folds,
            seeds,
            minutes,
            runs,
            device_of(device),
            only,
            json_path,
            plot_path,
        )
        return
    model = load_checkpoint(checkpoint, device_of(device))
    if benchmark == "grocery":
        if data is None or descriptors is None:
            raise click.UsageError("grocery needs --data and --descriptors")
        task = _grocery_task(data, descriptors, fold, model.config)
    elif benchmark == "views":
        if descriptors is None:
            raise click.UsageError("views needs --descriptors")
        task = views_task(descriptors, model.config.extractor)
    else:
        task = _sample_task(data or Path(".locore/sample"))
    width = task.gallery[0].locals.shape[1]
    if width != model.config.descriptor_dim:
        raise click.UsageError(
            f"descriptors of {width} dimensions, where {checkpoint} takes "
            f"{model.config.descriptor_dim}"
        )
    rows = compare(task, model, top)
    caption = (
        f"{len(task.queries)} queries, {len(task.gallery)} gallery images, "
        f"top {top} re-ranked, on {model.device}"
    )
    console.print(_table(rows, caption))
    if json_path is not None:
        json_path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def _compare_all(
    data: Callable[[int], TrainingData],
    folds: Sequence[int],
    seeds: Sequence[int],
    minutes: float,
    runs: Path,
    device: torch.device,
    only: Sequence[str],
    json_path: Path | None,
    plot_path: Path | None,
) -> None:
    for path, suffix in ((json_path, ".json"), (plot_path, ".svg")):
        if path is not None and (path.suffix != suffix or not path.parent.is_dir()):
            raise click.UsageError(f"{path} must end in {suffix}, in a folder that exists")
    try:
        from service.cli.comparison import compared, show_comparison
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"--table needs {error.name}: pip install 'locore[compare]'"
        ) from None
    rows = compared(data, folds, seeds, minutes, runs, device, only)
    show_comparison(rows, json_path, plot_path)


def compare(task: RetrievalTask, model: LoadedModel, top: int) -> list[Row]:
    """First stage, Chamfer with its best alpha, and a re-ranker as its checkpoint has it."""
    config = model.config
    lists = first_stage(task, top)
    options = RerankOptions(**config.rerank.model_dump())
    reranker = reranking_scorer(model.reranker, model.device, options)

    def scores_of(scorer: Scorer, name: str) -> NDArray[np.float32]:
        return score_shortlists(
            scorer, task, lists, lambda queries: tracked(queries, name, len(task.queries))
        )

    by_chamfer = scores_of(chamfer, "Chamfer")
    reranked = scores_of(reranker, config.name)
    alpha, chamfer_quality = best_alpha(task, lists, by_chamfer)
    chosen = config.rerank
    seconds = _seconds(task, lists.images, {"chamfer": chamfer, "model": reranker})
    return [
        _row("first stage", quality(task, lists, lists.scores), None, None, 0.0),
        _row("Chamfer", chamfer_quality, alpha, None, seconds["chamfer"]),
        _row(
            config.name,
            quality(task, lists, reranked),
            chosen.alpha,
            chosen.temperature,
            seconds["model"],
        ),
    ]


def _row(
    method: str, found: Quality, alpha: float | None, temperature: float | None, seconds: float
) -> Row:
    return Row(method, found.recall_at_1, found.map_at_r, alpha, temperature, seconds)


def _seconds(
    task: RetrievalTask, images: NDArray[np.int64], scorers: dict[str, Scorer]
) -> dict[str, float]:
    """Per 100 images, the scorers taking turns query by query; the first query is not counted."""
    spent: dict[str, list[float]] = {name: [] for name in scorers}
    for q in range(min(_TIMED_QUERIES + 1, len(task.queries))):
        gallery = [task.gallery[i] for i in images[q]]
        for name, scorer in scorers.items():
            started = time.perf_counter()
            scorer(task.queries[q], gallery)
            spent[name].append((time.perf_counter() - started) * 100 / len(gallery))
    return {name: float(np.mean(times[1:] or times)) for name, times in spent.items()}


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


def _table(rows: list[Row], caption: str) -> Table:
    table = Table(caption=caption, caption_justify="left")
    table.add_column("method")
    for title in ("R@1", "mAP@R", "alpha", "T", "s per 100 images"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            row.method,
            f"{100 * row.recall_at_1:.1f}",
            f"{100 * row.map_at_r:.1f}",
            "" if row.alpha is None else f"{row.alpha:.2f}",
            "" if row.temperature is None else f"{row.temperature:g}",
            "" if not row.seconds else f"{row.seconds:.4f}",
        )
    return table
