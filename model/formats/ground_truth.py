"""`gnd_*.pkl`: which gallery images are right for which query.

A pickled dict with `gnd`, a list of a dict for each query, and the names `imlist` (gallery) and
`qimlist`. Revisited Oxford and Paris (Radenovic et al., CVPR 2018) have `bbx`, `easy`, `hard` and
`junk` for a query, GLDv2 has `ok`, with `junk` where there is any.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.formats.format_error import FormatError
from model.formats.pickles import load_pickle

Indices = NDArray[np.int64]
_BOX = 4


@dataclass(frozen=True, eq=False)
class QueryTruth:
    """Gallery indices. `box`: x0, y0, x1, y1 in pixels of the query's own part, where given.
    Where a benchmark knows no difficulty its positives are all `easy`, and `graded` is False."""

    easy: Indices
    hard: Indices
    junk: Indices
    graded: bool
    box: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Names are None if the file has none."""

    queries: list[QueryTruth]
    gallery_names: list[str] | None
    query_names: list[str] | None


def read_ground_truth(path: Path, gallery: int) -> GroundTruth:
    """Raises FormatError for a file of another make, for an index that is no place among `gallery`
    images, and where a query has an image twice: it cannot be both right and junk."""
    loaded = load_pickle(path)
    if not isinstance(loaded, dict) or not isinstance(loaded.get("gnd"), list | tuple):
        raise FormatError(f"{path}: not a ground truth: no list `gnd`")
    queries = [_query(path, place, of, gallery) for place, of in enumerate(loaded["gnd"])]
    names = _names(path, loaded, "qimlist")
    if not queries or (names is not None and len(names) != len(queries)):
        raise FormatError(f"{path}: {len(queries)} queries, {len(names or ())} names of queries")
    return GroundTruth(queries, _names(path, loaded, "imlist"), names)


def _query(path: Path, place: int, of: Any, gallery: int) -> QueryTruth:
    what = f"{path}: query {place}"
    if not isinstance(of, dict) or not ("ok" in of or {"easy", "hard"} <= of.keys()):
        raise FormatError(f"{what} has neither `ok` nor `easy` and `hard`")
    graded = "ok" not in of

    def indices(key: str) -> Indices:
        try:
            numbers = np.asarray(of.get(key, ())).reshape(-1)
            with np.errstate(invalid="ignore"):
                integers = numbers.astype(np.int64)
            integral = bool((integers == numbers).all())
        except (TypeError, ValueError, OverflowError, RuntimeError):
            integral = False
        if not integral:
            raise FormatError(f"{what}: `{key}` is no list of whole numbers")
        wrong = integers[(integers < 0) | (integers >= gallery)]
        if wrong.size:
            raise FormatError(
                f"{what}: `{key}` has index {wrong[0]}, but the gallery has {gallery} images"
            )
        return integers

    right = indices("easy" if graded else "ok")
    hard = indices("hard") if graded else np.empty(0, np.int64)
    junk = indices("junk")
    images, counts = np.unique(np.concatenate((right, hard, junk)), return_counts=True)
    if (counts > 1).any():
        raise FormatError(f"{what} has index {images[counts > 1][0]} twice")
    return QueryTruth(right, hard, junk, graded, _box(what, of.get("bbx")))


def _box(what: str, value: Any) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        box = tuple(float(side) for side in np.asarray(value).reshape(-1))
    except (TypeError, ValueError):
        box = ()
    if len(box) != _BOX:
        raise FormatError(f"{what}: `bbx` is not four numbers")
    return box


def _names(path: Path, loaded: dict[Any, Any], key: str) -> list[str] | None:
    values = loaded.get(key)
    if values is None:
        return None
    if not isinstance(values, list | tuple | np.ndarray):
        raise FormatError(f"{path}: `{key}` is no list of names")
    return [str(name) for name in values]
