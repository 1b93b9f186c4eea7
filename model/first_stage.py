"""The first stage: every query's nearest gallery images by the cosine of their globals, exactly.

faiss searches the gallery block by block in float32, whose last digits depend on the blocks. So
faiss returns more candidates than needed; these are scored again in float64, rounded to float32,
and ordered by score and then by index: the lists do not depend on the blocks. If an image that
faiss left out might still belong to a list, that query is searched again entirely in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from model.formats.nn_file import Neighbours
from model.global_rows import GlobalRows

_SPARE = 64
"""Additional candidates that faiss returns."""
_PAIRS, _ROWS, _QUERIES = 8192, 4096, 512
"""Pairs, gallery rows and queries in memory at a time, in float64."""

_Scores = NDArray[np.float32]
_Images = NDArray[np.int64]


@dataclass(frozen=True)
class Search:
    """`max_length`: the most images of a list; `without_self`: query i is image i of the gallery
    and is left out of its own list; `block` and `query_block` in rows."""

    max_length: int
    without_self: bool = False
    block: int = 65536
    query_block: int = 8192

    def length(self, gallery: int) -> int:
        return min(self.max_length, gallery - self.without_self)

    def steps(self, queries: int, gallery: int) -> int:
        """How many times a search calls `advance`."""
        return -(-queries // self.query_block) * -(-gallery // self.block)


def nearest(
    queries: GlobalRows,
    gallery: GlobalRows,
    search: Search,
    advance: Callable[[int], None] = lambda _: None,
) -> Neighbours:
    """Lists (queries, length), best first, equal similarities by the lower index.

    Vectors are normalised as they are read. Raises FormatError, naming file and row, for NaN,
    infinity and zeros, and ValueError where a list would be empty or the dimensions differ.
    """
    length = max(0, search.length(len(gallery)))
    similarities = np.empty((len(queries), length), np.float32)
    images = np.empty((len(queries), length), np.int64)
    for start, lists in nearest_in_blocks(queries, gallery, search, advance):
        places = slice(start, start + len(lists.images))
        similarities[places], images[places] = lists.similarities, lists.images
    return Neighbours(similarities, images)


def nearest_in_blocks(
    queries: GlobalRows,
    gallery: GlobalRows,
    search: Search,
    advance: Callable[[int], None] = lambda _: None,
    first: int = 0,
) -> Iterator[tuple[int, Neighbours]]:
    """Like `nearest`, but yields (index of the first query, lists) block by block, and skips blocks
    that end before query `first`."""
    length = search.length(len(gallery))
    if length < 1:
        raise ValueError(f"{gallery.path}: {len(gallery)} images leave no neighbour")
    if queries.dim != gallery.dim:
        raise ValueError(f"{queries.path}: {queries.dim} dimensions, {gallery.path}: {gallery.dim}")
    for start, block in queries.unit_blocks(search.query_block):
        if start + len(block) <= first:
            continue
        self_places = np.arange(start, start + len(block)) if search.without_self else None
        yield start, Neighbours(*_lists(block, self_places, gallery, length, search, advance))


def _lists(
    queries: _Scores,
    self_places: _Images | None,
    gallery: GlobalRows,
    length: int,
    search: Search,
    advance: Callable[[int], None],
) -> tuple[_Scores, _Images]:
    """Lists for one block of queries; `self_places` are their places in the gallery."""
    candidates = min(length + search.without_self + _SPARE, len(gallery))
    heap = faiss.ResultHeap(len(queries), candidates, keep_max=True)
    for start, block in gallery.unit_blocks(search.block):
        cosines, places = faiss.knn(
            queries, block, min(candidates, len(block)), faiss.METRIC_INNER_PRODUCT
        )
        heap.add_result(cosines, places + start)
        advance(1)
    heap.finalize()
    scores, images = _best(
        _exact_cosines(queries, heap.I, gallery, search.block), heap.I, self_places, length
    )
    if candidates < len(gallery):
        # What faiss left out scored no more than its last, give or take the rounding of a sum of
        # `dim` products of unit vectors in float32 (Higham, 2002, section 3.1).
        rounding = (gallery.dim + 4) * np.finfo(np.float32).eps
        unsure = np.flatnonzero(scores[:, -1] <= heap.D[:, -1] + rounding)
        for part in np.split(unsure, range(_QUERIES, len(unsure), _QUERIES)):
            if part.size:
                of = None if self_places is None else self_places[part]
                scores[part], images[part] = _exact_lists(
                    queries[part], of, gallery, length, search.block
                )
    return scores, images


def _exact_cosines(queries: _Scores, images: _Images, gallery: GlobalRows, block: int) -> _Scores:
    """Cosines (queries, candidates) of each query with its own candidates."""
    scores = np.empty(images.shape, np.float32)
    for start, rows in gallery.unit_blocks(block):
        of, at = np.nonzero((images >= start) & (images < start + len(rows)))
        for first in range(0, len(of), _PAIRS):
            q, c = of[first : first + _PAIRS], at[first : first + _PAIRS]
            pairs = queries[q].astype(np.float64), rows[images[q, c] - start].astype(np.float64)
            scores[q, c] = np.vecdot(*pairs)
    return scores


def _exact_lists(
    queries: _Scores, self_places: _Images | None, gallery: GlobalRows, length: int, block: int
) -> tuple[_Scores, _Images]:
    """Like `_lists`, entirely in float64."""
    scores = np.empty((len(queries), 0), np.float32)
    images = np.empty((len(queries), 0), np.int64)
    for start, rows in _pieces(gallery, block):
        cosines = (queries.astype(np.float64) @ rows.astype(np.float64).T).astype(np.float32)
        places = np.broadcast_to(np.arange(start, start + len(rows)), cosines.shape)
        scores, images = _best(
            np.hstack((scores, cosines)), np.hstack((images, places)), self_places, length
        )
    return scores, images


def _pieces(gallery: GlobalRows, block: int) -> Iterator[tuple[int, _Scores]]:
    for start, rows in gallery.unit_blocks(block):
        for first in range(0, len(rows), _ROWS):
            yield start + first, rows[first : first + _ROWS]


def _best(
    scores: _Scores, images: _Images, self_places: _Images | None, length: int
) -> tuple[_Scores, _Images]:
    """The best `length` of each row, without the query itself."""
    if self_places is not None:
        scores = np.where(images == self_places[:, None], np.float32(-np.inf), scores)
    order = np.lexsort((images, -scores), axis=-1)[:, :length]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(images, order, axis=1)
