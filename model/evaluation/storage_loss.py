"""The loss of quality if a gallery is stored in fewer bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.checkpoint import LoadedModel
from model.descriptors import ImageDescriptors
from model.evaluation.cells import Cell, model_figures
from model.evaluation.retrieval import RetrievalTask
from model.progress import Progress
from model.quantisation import StoreDtype

Quality = tuple[float, float]
"""R@1 and mAP@R in percent."""


@dataclass(frozen=True)
class Storage:
    """A way to store images, in words: `dtype`, and at most `locals` of an image, `pooled` or the
    strongest ones. `size`: bytes of an image."""

    dtype: StoreDtype
    locals: int
    pooled: bool
    size: int

    @property
    def name(self) -> str:
        return f"{self.dtype}, {self.locals} locals{', pooled' if self.pooled else ''}"


@dataclass(frozen=True)
class Loss:
    """Points that R@1 loses in the mean over cells, and mAP@R in the mean and in the worst cell."""

    recall: float
    precision: float
    worst: float
    worst_cell: str


def stored_quality(
    cell: Cell,
    gallery: Sequence[ImageDescriptors],
    model: LoadedModel,
    progress: Progress = iter,
) -> Quality:
    """Re-ranks the cell's shortlists with the `gallery` as read from a store. The lists come from
    unquantised globals, since the first stage is not part of the store."""
    task = RetrievalTask(cell.task.queries, gallery, cell.task.relevant)
    figures = model_figures(replace(cell, task=task), model, progress)
    return 100 * float(figures.recall.mean()), 100 * float(figures.average_precision.mean())


def loss(quality: Mapping[str, Quality], reference: Mapping[str, Quality]) -> Loss:
    """The loss of `quality` against `reference`, over the same cells."""
    names = list(reference)
    differences = np.array([np.subtract(reference[name], quality[name]) for name in names])
    worst = int(differences[:, 1].argmax())
    recall, precision = differences.mean(axis=0)
    return Loss(float(recall), float(precision), float(differences[worst, 1]), names[worst])


def smallest(losses: Mapping[Storage, Loss], mean: float, worst: float = np.inf) -> Storage | None:
    """The form with the fewest bytes whose mAP@R loss is at most `mean` in the mean and `worst` in
    the worst cell; None if there is none."""
    within = [
        storage for storage, of in losses.items() if of.precision <= mean and of.worst <= worst
    ]
    return min(within, key=lambda storage: storage.size, default=None)
