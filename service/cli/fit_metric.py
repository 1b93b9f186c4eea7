"""locore fit-metric"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np

from model.config import ExtractorId
from model.descriptor_file import read_images
from model.descriptors import ImageDescriptors
from model.formats.labels import LabelledImages, labels_of_folders, labels_of_views, read_labels
from model.metric import SHRINKAGE, Teacher, fit_metric, save_metric
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
    help="Descriptor file of `locore extract --views`: what views of one image differ by.",
)
@click.option("-o", "--output", type=any_path, required=True, help="The .safetensors to write.")
def fit(descriptors: Path | None, labels: Path | None, views: Path | None, output: Path) -> None:
    """Learn a metric for one collection's descriptors: from labelled images, from views of images
    without labels, or from both, which then have the same weight.

    `locore serve --metric COLLECTION=OUTPUT` re-ranks a collection in it.
    """
    if descriptors is None and (views is None or labels is not None):
        raise click.UsageError("give --descriptors, --views or both; --labels are of --descriptors")
    if output.suffix != ".safetensors" or output.is_dir() or not output.parent.is_dir():
        raise click.UsageError(f"{output}: no .safetensors file that can be written")
    teachers: list[Teacher] = []
    makers: dict[Path, ExtractorId] = {}
    said = []
    if descriptors is not None:
        makers[descriptors], images = read_images(descriptors, track=tracked)
        teachers.append(_labelled(images, descriptors, labels))
        said.append(_counted(teachers[-1], "labels"))
    if views is not None:
        makers[views], images = read_images(views, track=tracked)
        teachers.append(_views(images, views))
        said.append(_counted(teachers[-1], "photographs, of which they are views"))
    if len(set(makers.values())) > 1:
        raise click.UsageError(f"{descriptors} and {views} were made by different extractors")
    learnt_from = f"{' and '.join(said)}; shrinkage {SHRINKAGE}"
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


def _labelled(
    images: Mapping[str, ImageDescriptors], descriptors: Path, labels: Path | None
) -> Teacher:
    if labels is None:
        named = labels_of_folders(list(images), descriptors)
        return [images[image_id] for image_id in named.ids], named.classes
    named = read_labels(labels)
    ids = _ids_in_file(named, images)
    kept = [place for place, image_id in enumerate(ids) if image_id in images]
    if not kept:
        raise click.UsageError(f"{descriptors}: has none of the images of {labels}")
    if len(kept) < len(ids):
        say(f"{len(ids) - len(kept)} images of {labels} are not in {descriptors}: left out")
    return [images[ids[place]] for place in kept], named.classes[kept]


def _ids_in_file(named: LabelledImages, images: Mapping[str, ImageDescriptors]) -> list[str]:
    """The paths as they are; or, where that is what the file's ids are, below the one folder that
    they all lie in: images/cat/1.jpg is cat/1.jpg in a file of the folder `images`."""
    parts = [path.partition("/") for path in named.ids]
    below = [rest for _, _, rest in parts]
    one_folder = len({folder for folder, _, _ in parts}) == 1
    if one_folder and not images.keys() & set(named.ids) and images.keys() & set(below):
        return below
    return named.ids


def _views(images: Mapping[str, ImageDescriptors], views: Path) -> Teacher:
    try:
        named = labels_of_views(list(images))
    except ValueError as error:
        raise click.UsageError(f"{views}: {error}") from None
    return [images[view] for view in named.ids], named.classes


def _counted(teacher: Teacher, kinds: str) -> str:
    images, classes = teacher
    return f"{len(images):,} images of {len(np.unique(classes)):,} {kinds}"
