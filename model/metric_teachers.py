"""Training data of a metric: labelled images, or views of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from model.descriptors import ImageDescriptors
from model.formats.format_error import FormatError
from model.formats.labels import LabelledImages, labels_of_folders, labels_of_views, read_labels
from model.learnt_metric import Teacher
from model.progress import Report, silent


def labelled_teacher(
    images: Mapping[str, ImageDescriptors],
    descriptors: Path,
    labels: Path | None,
    report: Report = silent,
) -> Teacher:
    """`images` of the file `descriptors` with the labels of the CSV `labels`, or by the folders of
    their ids. Raises FormatError, also where no image has a label."""
    if labels is None:
        labelled = labels_of_folders(list(images), descriptors)
        return [images[image_id] for image_id in labelled.ids], labelled.classes
    labelled = read_labels(labels)
    ids = _ids_in_file(labelled, images)
    places = [place for place, image_id in enumerate(ids) if image_id in images]
    if not places:
        raise FormatError(f"{descriptors}: has none of the images of {labels}")
    if len(places) < len(ids):
        report(f"{len(ids) - len(places)} images of {labels} are not in {descriptors}: left out")
    return [images[ids[place]] for place in places], labelled.classes[places]


def _ids_in_file(labelled: LabelledImages, images: Mapping[str, ImageDescriptors]) -> list[str]:
    """The paths as they are; or, where that is what the file's ids are, below the one folder that
    they all lie in: images/cat/1.jpg is cat/1.jpg in a file of the folder `images`."""
    parts = [path.partition("/") for path in labelled.ids]
    below = [rest for _, _, rest in parts]
    one_folder = len({folder for folder, _, _ in parts}) == 1
    if one_folder and not images.keys() & set(labelled.ids) and images.keys() & set(below):
        return below
    return labelled.ids


def views_teacher(images: Mapping[str, ImageDescriptors], views: Path) -> Teacher:
    """Views of the file `views`, each picture a class. Raises FormatError for other ids."""
    try:
        labelled = labels_of_views(list(images))
    except ValueError as error:
        raise FormatError(f"{views}: {error}") from None
    return [images[view] for view in labelled.ids], labelled.classes
