"""`nn_*.pkl`: the first stage, every query's nearest gallery images by the globals.

A pickled array or tensor (2, queries, k), best first: similarities, then gallery indices, which
are floating-point numbers as well. float32 holds whole numbers exactly up to 2**24.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.formats.format_error import FormatError
from model.formats.pickles import as_array, load_pickle

_EXACT_IN_FLOAT32 = 2**24


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Per query, best first: `similarities` and gallery indices `images`, both (queries, k)."""

    similarities: NDArray[np.float32]
    images: NDArray[np.int64]


def read_neighbours(
    path: Path, queries: int, gallery: int, max_neighbours: int | None = None
) -> Neighbours:
    """The lists of `queries` queries among `gallery` images, or their first
    `max_neighbours`. The whole file is in memory while it is read.

    Raises FormatError for another shape or number of queries, NaN, an index that is no place
    of the gallery, and one that is in a list twice.
    """
    loaded = load_pickle(path)
    stacked = as_array(loaded)
    if stacked is None:
        raise FormatError(f"{path}: not an array of numbers")
    if stacked.ndim != 3 or stacked.shape[0] != 2 or not stacked.shape[2]:
        raise FormatError(f"{path}: shape {stacked.shape}, but (2, queries, k) is expected")
    if stacked.shape[1] != queries:
        raise FormatError(f"{path}: lists of {stacked.shape[1]} queries, but there are {queries}")
    with np.errstate(over="ignore"):
        # A copy: a view would keep the whole file in memory.
        similarities = np.array(stacked[0, :, :max_neighbours], np.float32)
    indices = stacked[1, :, :max_neighbours]
    # One query at a time: temporary arrays would take several times the file.
    images = np.empty(indices.shape, np.int64)
    for query, row in enumerate(indices):
        if not np.isfinite(similarities[query]).all() or not np.isfinite(row).all():
            raise FormatError(f"{path}: NaN or infinity in the list of query {query}")
        with np.errstate(invalid="ignore"):
            images[query] = row
        if (images[query] != row).any():
            raise FormatError(f"{path}: query {query} has an index that is not a whole number")
        if len(np.unique(images[query])) < len(row):
            raise FormatError(f"{path}: query {query} has an image twice in its list")
        if images[query].min() < 0 or images[query].max() >= gallery:
            wrong = images[query][(images[query] < 0) | (images[query] >= gallery)][0]
            raise FormatError(
                f"{path}: query {query} has index {wrong}, but the gallery has {gallery} images"
            )
    return Neighbours(similarities, images)


def write_neighbours(path: Path, neighbours: Neighbours) -> None:
    """A plain pickle of a numpy array, whole or not at all: float32, or float64 where an index
    is too large for that."""
    images = neighbours.images
    exact = not images.size or int(images.max()) <= _EXACT_IN_FLOAT32
    stacked = np.stack(
        (neighbours.similarities, images),
        dtype=np.float32 if exact else np.float64,
        casting="unsafe",
    )
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        # Protocol 4: what reads numpy 1's arrays reads these as well.
        pickle.dump(stacked, file, protocol=4)
    partial.replace(path)
