"""The comparison: domains x descriptor types x contenders, one setting for each contender.

Methods without training have the best setting in every cell, by that cell's own mAP@R. Trained
models have the setting of their checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import LoadedModel
from model.config import ModelConfig
from model.descriptor_file import DescriptorFileError, read_images
from model.descriptors import ImageDescriptors
from model.evaluation.baselines import UNTRAINED
from model.evaluation.descriptor_types import DESCRIPTOR_TYPES, EXTRACTORS
from model.evaluation.grocery import split
from model.evaluation.measures import map_at_r, recall_at_1
from model.evaluation.retrieval import (
    ALPHAS,
    RetrievalTask,
    Shortlists,
    first_stage,
    labelled_task,
    reranking_scorer,
    score_shortlists,
    served_options,
)
from model.formats.format_error import FormatError
from model.formats.labels import read_labels
from model.progress import Progress, Tracker, untracked

FIRST_STAGE = "first stage"
WITHOUT_LEARNING = ("Chamfer", "k-reciprocal", "sum of relations")
TOP = 100


@dataclass(frozen=True, eq=False)
class Cell:
    """A domain with one type of descriptors, as a task with its first stage."""

    domain: str
    descriptors: str
    task: RetrievalTask
    lists: Shortlists

    def fits(self, config: ModelConfig) -> bool:
        """Whether a checkpoint reads locals of this length."""
        return config.sizes is None or config.sizes.local_dim == self.local_dim

    @property
    def local_dim(self) -> int:
        return self.task.gallery[0].sizes.local_dim


@dataclass(frozen=True, eq=False)
class Figures:
    """The figures of one contender in one cell. recall and average_precision (queries,): R@1 and
    mAP@R of every query, between 0 and 1; seconds of a list, 0 for the first stage; the setting, in
    words."""

    domain: str
    descriptors: str
    contender: str
    recall: NDArray[np.float64]
    average_precision: NDArray[np.float64]
    seconds: float
    setting: str


@dataclass(frozen=True)
class DomainFiles:
    """`folder` has the labels; `files` the descriptors of its images, by extractor."""

    folder: Path
    files: Mapping[str, Path]

    @property
    def name(self) -> str:
        return self.folder.name


def descriptor_files(folder: Path, domain: str) -> dict[str, Path]:
    """The descriptor files of a domain, by extractor."""
    paths = {name: folder / f"{domain}-{name}.h5" for name in EXTRACTORS}
    return {name: path for name, path in paths.items() if path.exists()}


def images_with_globals(
    path: Path, ids: Sequence[str], track: Tracker = untracked
) -> dict[str, ImageDescriptors]:
    """Reads the images of `ids`. Raises DescriptorFileError if one, or a global, is missing."""
    images = read_images(path, ids, track=track)[1]
    bare = [image_id for image_id, image in images.items() if image.global_ is None]
    if bare:
        raise DescriptorFileError(f"{path}: images have no global descriptor, {bare[0]} for one")
    return images


ReadImages = Callable[[Path, Sequence[str]], Mapping[str, ImageDescriptors]]


def cells(
    domains: Sequence[DomainFiles],
    read_descriptors: ReadImages,
    *,
    held_out: Mapping[str, int],
    every: int = 1,
    types: Sequence[str] = tuple(DESCRIPTOR_TYPES),
) -> Iterator[Cell]:
    """Yields, for each domain, a cell of each descriptor type for which it has the files.
    `held_out`: by domain, the fold of the classes that were not trained on. One query in `every` is
    used. Raises FormatError for labels that cannot be read, or where no query has a relevant image.
    """
    for domain in domains:
        images = read_labels(domain.folder)
        if domain.name in held_out:
            _, images = split(images, held_out[domain.name])
        extracted = {
            name: list(read_descriptors(path, images.ids).values())
            for name, path in domain.files.items()
        }
        for name in types:
            extractors, transform = DESCRIPTOR_TYPES[name]
            if set(extractors) <= extracted.keys():
                described = dict(zip(images.ids, transform(extracted), strict=True))
                task = _answerable(labelled_task(images, described), every)
                if not task.queries:
                    raise FormatError(f"{domain.folder}: no query has a relevant image")
                yield Cell(domain.name, name, task, first_stage(task, TOP))


def _answerable(task: RetrievalTask, every: int) -> RetrievalTask:
    rows = np.flatnonzero(task.relevant.any(1))[::every]
    return RetrievalTask([task.queries[q] for q in rows], task.gallery, task.relevant[rows])


def untrained_figures(cell: Cell) -> list[Figures]:
    """The first stage and all methods without training, each with its best setting in this cell."""
    rows = [_figures(cell, FIRST_STAGE, cell.lists.scores, 0.0, "")]
    for name in WITHOUT_LEARNING:
        candidates = []
        for setting, method in UNTRAINED[name].items():
            started = time.perf_counter()
            scores = method(cell.task, cell.lists)
            seconds = (time.perf_counter() - started) / len(cell.task.queries)
            for alpha in ALPHAS:
                blended = alpha * cell.lists.scores + (1 - alpha) * scores
                words = f"{setting} alpha={alpha:g}".strip()
                candidates.append(_figures(cell, name, blended, seconds, words))
        rows.append(max(candidates, key=lambda row: row.average_precision.mean()))
    return rows


def model_figures(cell: Cell, model: LoadedModel, progress: Progress = iter) -> Figures:
    """Re-ranks as the service does, with the checkpoint's own settings."""
    rerank = model.config.rerank
    scorer = reranking_scorer(model.reranker, model.device, served_options(model.config))
    started = time.perf_counter()
    scores = score_shortlists(scorer, cell.task, cell.lists, progress)
    seconds = (time.perf_counter() - started) / len(cell.task.queries)
    setting = f"alpha={rerank.alpha:g} T={rerank.temperature:g}"
    return _figures(cell, model.config.name, scores, seconds, setting)


def _figures(
    cell: Cell, contender: str, scores: NDArray[np.floating], seconds: float, setting: str
) -> Figures:
    lists, task = cell.lists, cell.task
    order = np.take_along_axis(lists.images, np.argsort(-scores, axis=1, kind="stable"), axis=1)
    ranked = np.take_along_axis(task.relevant, np.hstack((order, lists.rest)), axis=1)
    return Figures(
        cell.domain,
        cell.descriptors,
        contender,
        recall_at_1(ranked),
        map_at_r(ranked, task.relevant.sum(axis=1)),
        seconds,
        setting,
    )


@dataclass(frozen=True)
class Gain:
    """The mean over cells of a difference in points, its standard error, and the worst cell."""

    mean: float
    error: float
    worst: float
    worst_cell: str


@dataclass(frozen=True)
class Summary:
    """One contender over the cells. recall and average_precision: means in percent. `over_best`:
    R@1 and mAP@R over the best of first stage, Chamfer and k-reciprocal in each cell; `over_first`,
    `over_chamfer`: over these."""

    contender: str
    cells: int
    recall: float
    average_precision: float
    milliseconds: float
    over_best: tuple[Gain, Gain]
    over_first: tuple[Gain, Gain]
    over_chamfer: tuple[Gain, Gain]


def summary(figures: Sequence[Figures], contender: str) -> Summary:
    """The summary over the cells in which the contender was evaluated."""
    by_cell: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for row in figures:
        of = by_cell.setdefault((row.domain, row.descriptors), {})
        of[row.contender] = (100 * row.recall.mean(), 100 * row.average_precision.mean())
    own = {cell: of for cell, of in by_cell.items() if contender in of}
    names = [f"{domain}, {descriptors}" for domain, descriptors in own]
    values = np.array([of[contender] for of in own.values()])

    def over(others: Sequence[str]) -> tuple[Gain, Gain]:
        base = np.array([np.max([of[name] for name in others], axis=0) for of in own.values()])
        return _gain(values[:, 0] - base[:, 0], names), _gain(values[:, 1] - base[:, 1], names)

    return Summary(
        contender,
        len(own),
        float(values[:, 0].mean()),
        float(values[:, 1].mean()),
        1000 * float(np.mean([row.seconds for row in figures if row.contender == contender])),
        over((FIRST_STAGE, "Chamfer", "k-reciprocal")),
        over((FIRST_STAGE,)),
        over(("Chamfer",)),
    )


def _gain(differences: NDArray[np.float64], names: Sequence[str]) -> Gain:
    count = len(differences)
    error = float(differences.std(ddof=1) / count**0.5) if count > 1 else 0.0
    worst = int(differences.argmin())
    return Gain(float(differences.mean()), error, float(differences[worst]), names[worst])
