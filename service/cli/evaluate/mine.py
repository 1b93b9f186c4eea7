"""locore eval mine"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import click

from model.checkpoint import LoadedModel, load_checkpoint
from model.config import DEFAULT_CHECKPOINT
from model.evaluation.judgement import judge
from model.evaluation.judgement_table import contender_table, figures
from model.evaluation.own_descriptors import describe, own_file, seconds_for_a_thousand
from model.evaluation.own_pictures import own_labels, own_pictures
from model.evaluation.report import report
from model.evaluation.verdict import Circumstances, verdict
from model.extraction.extractor import Extractor
from model.extraction.registry import load_extractor
from model.progress import Progress
from service.cli.common import (
    any_checkpoint,
    any_path,
    console,
    device_of,
    device_option,
    existing_folder,
    extraction_run,
    say,
    tracked,
)


@click.command()
@click.argument("folder", type=existing_folder)
@click.option(
    "--labels",
    type=any_path,
    help="CSV of path (below FOLDER), label and optionally role (query or gallery).  [default: "
    "FOLDER/labels.csv if it exists, else the sub-folders are the labels]",
)
@click.option(
    "--views",
    is_flag=True,
    help="Use no labels: views of a picture are relevant to each other. This is the default "
    "without sub-folders and without a CSV.",
)
@click.option(
    "--checkpoint", type=any_checkpoint, default=DEFAULT_CHECKPOINT, help="The checkpoint to judge."
)
@click.option("--extractor", "name", default="efficientnet-lite0", show_default=True)
@click.option(
    "--descriptors",
    type=any_path,
    help="The descriptor file; it is continued if it exists.  [default: one in .locore/mine]",
)
@click.option(
    "--pictures", type=click.IntRange(2), default=3000, show_default=True, help="At most this many."
)
@click.option(
    "--queries", type=click.IntRange(2), default=500, show_default=True, help="At most this many."
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Length of the shortlist; at most a window of the checkpoint.",
)
@click.option("--report", "page", type=any_path, help="Write a page with plots and pictures here.")
@click.option("--json", "json_path", type=any_path, help="Also write the figures here.")
@device_option
def mine(
    folder: Path,
    labels: Path | None,
    views: bool,
    checkpoint: Path,
    name: str,
    descriptors: Path | None,
    pictures: int,
    queries: int,
    top: int,
    page: Path | None,
    json_path: Path | None,
    device: str,
) -> None:
    """Does re-ranking help on the pictures in FOLDER?

    Every third picture of a label is a query for the others of that label. Settings are chosen by
    cross-validation over the queries. The last line says whether re-ranking is worth it, and what
    to try next.
    """
    if views and labels is not None:
        raise click.UsageError("--views cannot be used with --labels")
    for path in (page, json_path):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise click.UsageError(f"{path}: cannot be written")
    model, extractor = load_checkpoint(checkpoint, device_of(device)), load_extractor(name)
    _check_sizes(model, extractor)
    count = model.config.descriptors_per_image
    own = own_pictures(folder, labels, views=views, max_pictures=pictures)
    for note in own.notes:
        say(note)
    file = descriptors or own_file(own, extractor, count)
    run = extraction_run()
    descriptors_of = describe(own, extractor, file, count, run)
    images = own_labels(own, descriptors_of, queries)
    seconds = seconds_for_a_thousand(own, extractor, images.ids, count, run)
    progress = partial(_progress, int(images.is_query.sum()))
    judgement = judge(images, descriptors_of, model, top=top, progress=progress)
    of = Circumstances(own, extractor.name, file, seconds)
    answer = verdict(judgement, of)
    if page is not None:
        page.write_text(report(judgement, of, answer), encoding="utf-8")
    if json_path is not None:
        json_path.write_text(json.dumps(figures(judgement, of, answer), indent=1) + "\n")
    console.print(contender_table(judgement, of))
    console.print(str(answer), soft_wrap=True, highlight=False, markup=False)


def _check_sizes(model: LoadedModel, extractor: Extractor) -> None:
    sizes, dim = model.config.sizes, extractor.descriptor_dim
    if sizes is not None and sizes.local_dim != dim:
        raise click.UsageError(
            f"{extractor.name} makes descriptors of {dim} numbers, but {model.config.name} takes "
            f"{sizes.local_dim}"
        )


def _progress(total: int, name: str) -> Progress:
    def progress(queries: Iterable[int]) -> Iterable[int]:
        return tracked(queries, name, total)

    return progress
