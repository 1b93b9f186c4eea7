"""What `locore train` and `locore eval --table` share: data for training lists, and the loop."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import click
import numpy as np
from numpy.typing import NDArray

from model.config import ExtractorId, ModelConfig
from model.descriptors import ImageDescriptors
from model.evaluation.grocery import LabelledImages, read_labels, split
from model.evaluation.retrieval import (
    Quality,
    RetrievalTask,
    first_stage,
    labelled_task,
    quality,
)
from model.extraction.images import find_images
from model.extraction.registry import load_extractor
from model.metric import SHRINKAGE, Teacher, learnt_metric
from model.reranker import ListReranker, MambaReranker
from model.training.lists import (
    LabelledLists,
    ListOptions,
    ListSource,
    MixedLists,
    views_as_images,
)
from model.training.selection import select
from model.training.trainer import R, Trainer
from service.cli.common import progress_bar, read_images, tracked
from service.cli.extract import extract_to_file

_TOP = 100
SAVE_SECONDS = 120.0
LOG_STEPS = 25
VIEWS_SHARE = 0.4
DESCRIPTORS: int = ModelConfig.model_fields["descriptors_per_image"].default
_VIEWS_OF_AN_IMAGE = 4
_HELD_OUT = 5
_EXTRACTOR = "efficientnet-lite0"


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Lists to train on, what names them, a task of other classes to choose on, if any, and what
    teaches a metric (`model.metric`): labelled photographs, and their views."""

    source: ListSource
    validation: RetrievalTask | None
    extractor: ExtractorId
    descriptor_dim: int
    global_dim: int
    fingerprint: str
    held_out_classes: tuple[int, ...] = ()
    teachers: tuple[Teacher, ...] = ()

    @cached_property
    def metric(self) -> NDArray[np.float32] | None:
        """Raises click.UsageError where it cannot be learnt from the teachers."""
        try:
            return learnt_metric(self.teachers) if self.teachers else None
        except ValueError as error:
            raise click.UsageError(str(error)) from None


def training_data(
    images: Path | None,
    data: Path | None,
    descriptors: Path | None,
    views: Path | None,
    fold: int,
    folder: Path,
    resume: bool,
) -> TrainingData:
    """Of a folder of images, of which views are extracted into `folder`, or of the grocery
    photographs. Raises click.UsageError where neither is given whole."""
    if images is not None and data is None and descriptors is None and views is None:
        of_views = folder / "views.h5"
        found = find_images((images,))
        if not resume:
            of_views.unlink(missing_ok=True)
        extract_to_file(
            load_extractor(_EXTRACTOR),
            found,
            of_views,
            DESCRIPTORS,
            views=_VIEWS_OF_AN_IMAGE,
        )
        return views_data(of_views, list(found), _HELD_OUT)
    if images is None and data is not None and descriptors is not None:
        return grocery_data(data, descriptors, views, fold)
    raise click.UsageError("give either --images, or --data and --descriptors, or --gldv2")


def grocery_data(folder: Path, descriptors: Path, views: Path | None, fold: int) -> TrainingData:
    """The grocery photographs without a fold's classes and, where given, views of them."""
    training, validation = split(read_labels(folder), fold)
    made_by, images = read_images(descriptors, training.ids + validation.ids)
    of_views: dict[str, ImageDescriptors] = {}
    if views is not None:
        made_views, of_views = read_images(views)
        if made_views != made_by:
            raise click.UsageError(f"{views} and {descriptors} were made by different extractors")
    source: ListSource = labelled_lists(training, images, of_views)
    teachers = [_teacher(training, images)]
    if of_views:
        views_of_training = views_as_images(list(of_views), training)
        instances = labelled_lists(views_of_training, of_views)
        source = MixedLists(source, instances, VIEWS_SHARE)
        teachers.append(_teacher(views_of_training, of_views))
    return TrainingData(
        source,
        labelled_task(validation, images),
        made_by,
        *_sizes(images),
        _fingerprint(made_by, training.ids, sorted(of_views)),
        tuple(np.unique(validation.classes).tolist()),
        tuple(teachers),
    )


def views_data(views: Path, names: Sequence[str], held_out: int) -> TrainingData:
    """Views of images without labels, of those named alone; every `held_out`-th image is for
    validation. Raises click.UsageError where so few are left that nothing could be chosen."""
    made_by, of_views = read_images(views)
    seen = sorted({view.rpartition("@")[0] for view in of_views} & set(names))
    if len(seen) < 2 * held_out:
        raise click.UsageError(f"{len(seen)} readable images: at least {2 * held_out} are needed")
    kept_apart = set(seen[::held_out])
    training, validation = (
        views_as_images([view for view in of_views if view.rpartition("@")[0] in part])
        for part in (set(seen) - kept_apart, kept_apart)
    )
    return TrainingData(
        labelled_lists(training, of_views),
        labelled_task(validation, of_views),
        made_by,
        *_sizes(of_views),
        _fingerprint(made_by, training.ids, []),
        teachers=(_teacher(training, of_views),),
    )


def views_task(views: Path, extractor: ExtractorId) -> RetrievalTask:
    """Odd views asked for among the even ones. Raises click.UsageError where it cannot be."""
    made_by, of_views = read_images(views)
    if made_by != extractor:
        raise click.UsageError(f"{views} was not made by {extractor.name} {extractor.version}")
    try:
        images = views_as_images(list(of_views))
    except ValueError as error:
        raise click.UsageError(f"{views}: {error}") from None
    paired = np.intersect1d(images.classes[images.is_query], images.classes[~images.is_query])
    if not len(paired):
        raise click.UsageError(f"{views}: no image has two views")
    return labelled_task(images.only(np.isin(images.classes, paired)), of_views)


def labelled_lists(
    images: LabelledImages,
    descriptors: dict[str, ImageDescriptors],
    views: Mapping[str, ImageDescriptors] = MappingProxyType({}),
) -> LabelledLists:
    places = {image_id: place for place, image_id in enumerate(images.ids)}
    of_place: dict[int, list[ImageDescriptors]] = {}
    for view, seen in views.items():
        place = places.get(view.rpartition("@")[0])
        if place is not None:
            of_place.setdefault(place, []).append(seen)
    rows = [descriptors[image_id] for image_id in images.ids]
    try:
        return LabelledLists(images, rows, ListOptions(), of_place)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _teacher(images: LabelledImages, of: Mapping[str, ImageDescriptors]) -> Teacher:
    return [of[image_id] for image_id in images.ids], images.classes


def _sizes(images: Mapping[str, ImageDescriptors]) -> tuple[int, int]:
    """Of local and global descriptors."""
    first = next(iter(images.values()))
    return int(first.locals.shape[1]), 0 if first.global_ is None else len(first.global_)


def _fingerprint(made_by: ExtractorId, ids: Sequence[str], views: Sequence[str]) -> str:
    drawn_from = (made_by, ids, views, VIEWS_SHARE, SHRINKAGE, ListOptions())
    return hashlib.sha256(repr(drawn_from).encode()).hexdigest()


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
    """Gives the average its aggregation, alpha and T, where there is a task to choose them on; what
    to say of it."""
    network = trainer.average.eval()
    if task is None or not isinstance(network, MambaReranker):
        return "alpha and T are still to be chosen: locore eval gldv2 --grid"
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
    network.config = network.config.model_copy(
        update={"rerank": rerank, "aggregation": chosen.aggregation}
    )
    return (
        f"R@1 {_percent(chosen.quality)} on the validation images with the logit of "
        f"{chosen.aggregation}, alpha {chosen.alpha:.2f}, T {chosen.temperature:g}; "
        f"the first stage has R@1 {_percent(before)}"
    )


def _percent(found: Quality) -> str:
    return f"{100 * found.recall_at_1:.1f}, mAP@R {100 * found.map_at_r:.1f}"
