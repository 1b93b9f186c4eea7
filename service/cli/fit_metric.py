"""locore fit-metric"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from model.config import ExtractorId
from model.descriptor_file import read_images
from model.learnt_metric import SHRINKAGE, Teacher, fit_metric, save_metric
from model.metric_teachers import labelled_teacher, views_teacher
from service.cli.common import any_path, say, tracked


@click.command("fit-metric")
@click.option("--descriptors", type=any_path, help="Descriptor file of labelled images.")
@click.option(
    "--labels",
    type=any_path,
    help="CSV of path and label, or a folder with a labels.csv.  [default: the first folder of an "
    "image's id is its label]",
)
@click.option(
    "--views",
    type=any_path,
    help="Descriptor file of `locore extract --views`: how views of one image differ.",
)
@click.option("-o", "--output", type=any_path, required=True, help="The .safetensors to write.")
def fit(descriptors: Path | None, labels: Path | None, views: Path | None, output: Path) -> None:
    """Learn a metric for the descriptors of one collection: from labelled images, from views of
    images without labels, or from both, with equal weight.

    `locore serve --metric COLLECTION=OUTPUT` re-ranks the collection in it.
    """
    if descriptors is None and (views is None or labels is not None):
        raise click.UsageError("give --descriptors, --views or both; --labels needs --descriptors")
    if output.suffix != ".safetensors" or output.is_dir() or not output.parent.is_dir():
        raise click.UsageError(f"{output}: not a .safetensors file, or cannot be written")
    teachers: list[Teacher] = []
    makers: dict[Path, ExtractorId] = {}
    words = []
    if descriptors is not None:
        makers[descriptors], images = read_images(descriptors, track=tracked)
        teachers.append(labelled_teacher(images, descriptors, labels, say))
        words.append(_counted(teachers[-1], "labels"))
    if views is not None:
        makers[views], images = read_images(views, track=tracked)
        teachers.append(views_teacher(images, views))
        words.append(_counted(teachers[-1], "photographs, of which they are views"))
    if len(set(makers.values())) > 1:
        raise click.UsageError(f"{descriptors} and {views} were made by different extractors")
    learnt_from = f"{' and '.join(words)}; shrinkage {SHRINKAGE}"
    try:
        metric = fit_metric(teachers, next(iter(makers.values())), learnt_from)
    except ValueError as error:
        raise click.UsageError(f"{' and '.join(map(str, makers))}: {error}") from None
    save_metric(metric, output)
    sizes = metric.sizes
    click.echo(
        f"{output}: for descriptors of {sizes.local_dim} and {sizes.global_dim} numbers of "
        f"{metric.extractor.name}; from {learnt_from}",
        err=True,
    )


def _counted(teacher: Teacher, kinds: str) -> str:
    images, classes = teacher
    return f"{len(images):,} images of {len(np.unique(classes)):,} {kinds}"
