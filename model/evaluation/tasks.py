"""Retrieval tasks from descriptor files: groceries, the sample gallery, views of pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from model.config import ModelConfig
from model.descriptor_file import read_images
from model.evaluation.grocery import split
from model.evaluation.retrieval import RetrievalTask, labelled_task
from model.formats.format_error import FormatError
from model.formats.labels import LabelledImages, labels_of_views, read_labels
from model.learnt_metric import Metric
from model.progress import Tracker, untracked


def grocery_task(
    data: Path, descriptors: Path, fold: int, config: ModelConfig, track: Tracker = untracked
) -> RetrievalTask:
    """A task of the classes of `fold`. Raises FormatError and DescriptorFileError, also where the
    checkpoint of `config` was trained on these classes or by another extractor."""
    _, validation = split(read_labels(data), fold)
    classes = set(validation.classes.tolist())
    if not classes <= set(config.held_out_classes):
        raise FormatError(
            f"{config.name} was trained on classes of fold {fold}; --fold says which to evaluate"
        )
    made_by, images = read_images(descriptors, validation.ids, track=track)
    if config.sizes is not None and made_by != config.extractor:
        raise FormatError(f"{descriptors} was not made by the extractor of {config.name}")
    return labelled_task(validation, images)


def task_in_metric(task: RetrievalTask, metric: Metric) -> RetrievalTask:
    """Raises ValueError for descriptors of other sizes."""
    return replace(
        task,
        queries=[metric.apply(image) for image in task.queries],
        gallery=[metric.apply(image) for image in task.gallery],
    )


def views_task(views: Path, track: Tracker = untracked) -> RetrievalTask:
    """The odd views are queries, the even ones the gallery. Raises FormatError if no image has
    both."""
    _, described = read_images(views, track=track)
    try:
        images = labels_of_views(list(described))
    except ValueError as error:
        raise FormatError(f"{views}: {error}") from None
    paired = np.intersect1d(images.classes[images.is_query], images.classes[~images.is_query])
    if not len(paired):
        raise FormatError(f"{views}: no image has two views")
    return labelled_task(images.only(np.isin(images.classes, paired)), described)


def sample_task(folder: Path, track: Tracker = untracked) -> RetrievalTask:
    """Every query view against all gallery views: relevant are those of its own subject."""
    _, gallery = read_images(folder / "gallery.h5", track=track)
    _, queries = read_images(folder / "queries.h5", track=track)
    ids = [*queries, *gallery]
    subjects = [name.removesuffix(".jpg").split("/")[0] for name in ids]
    numbers = {subject: number for number, subject in enumerate(sorted(set(subjects)))}
    images = LabelledImages(
        ids,
        np.array([numbers[subject] for subject in subjects]),
        np.arange(len(ids)) < len(queries),
    )
    return labelled_task(images, queries | gallery)
