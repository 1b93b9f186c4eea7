"""The Grocery Store photographs (Klasson et al., WACV 2019), split by class.

Two images are relevant to each other when their class is the same. No class that a model was
trained on is evaluated; queries are the source's test split and the gallery its train and val
splits, photographed on other occasions, so that a query's own burst is not in its gallery.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.formats.labels import LabelledImages

FOLDS = 4
SPLIT_SEED = 0


def validation_classes(classes: NDArray[np.int64], fold: int) -> NDArray[np.int64]:
    """The classes held out in `fold`, 0 to FOLDS - 1, about a quarter of them."""
    if not 0 <= fold < FOLDS:
        raise ValueError(f"fold must be between 0 and {FOLDS - 1}")
    shuffled = np.random.default_rng(SPLIT_SEED).permutation(np.unique(classes))
    return np.sort(np.array_split(shuffled, FOLDS)[fold])


def split(images: LabelledImages, fold: int) -> tuple[LabelledImages, LabelledImages]:
    """(training, validation) images of a fold, with no class in common."""
    held_out = np.isin(images.classes, validation_classes(images.classes, fold))
    return images.only(~held_out), images.only(held_out)
