"""The Grocery Store photographs (Klasson et al., WACV 2019), split by class.

Two images are relevant to each other when their class is the same. No class that a model was
trained on is evaluated; queries are the source's test split and the gallery its train and val
splits, photographed on other occasions, so that a query's own burst is not in its gallery.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDS = 4
SPLIT_SEED = 0


class DatasetError(ValueError):
    """A data set that is not as it should be; the message names the file."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Ids (paths below the image folder), classes (n,) and whether each may be a query (n,).

    `groups` (n,), where given: images of one group and two classes may well show the same thing,
    so they are neither relevant to each other nor irrelevant.
    """

    ids: list[str]
    classes: NDArray[np.int64]
    is_query: NDArray[np.bool_]
    groups: NDArray[np.int64] | None = None

    def only(self, keep: NDArray[np.bool_]) -> LabelledImages:
        ids = [image_id for image_id, kept in zip(self.ids, keep, strict=True) if kept]
        groups = None if self.groups is None else self.groups[keep]
        return LabelledImages(ids, self.classes[keep], self.is_query[keep], groups)


def read_labels(folder: Path) -> LabelledImages:
    """`labels.csv` of a folder. Raises DatasetError."""
    path = folder / "labels.csv"
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return LabelledImages(
            [row["path"] for row in rows],
            np.array([int(row["class_id"]) for row in rows]),
            np.array([row["source_split"] == "test" for row in rows]),
        )
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except (KeyError, ValueError) as error:
        raise DatasetError(f"{path}: not the labels of the grocery photographs ({error})") from None


def validation_classes(classes: NDArray[np.int64], fold: int) -> NDArray[np.int64]:
    """The classes held out in `fold`, 0 to FOLDS - 1: 14, 14, 13 and 13 of 54."""
    if not 0 <= fold < FOLDS:
        raise ValueError(f"fold must be between 0 and {FOLDS - 1}")
    shuffled = np.random.default_rng(SPLIT_SEED).permutation(np.unique(classes))
    return np.sort(np.array_split(shuffled, FOLDS)[fold])


def split(images: LabelledImages, fold: int) -> tuple[LabelledImages, LabelledImages]:
    """(training, validation) images of a fold, with no class in common."""
    held_out = np.isin(images.classes, validation_classes(images.classes, fold))
    return images.only(~held_out), images.only(held_out)
