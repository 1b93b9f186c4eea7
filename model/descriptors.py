"""The descriptors of an image: its locals and, if there is one, a global."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_ROWS_AT_ONCE = 64


class InvalidDescriptorsError(ValueError):
    """Descriptors cannot be scored: wrong shape, NaN, infinity or a row of zeros."""


@dataclass(frozen=True)
class DescriptorSizes:
    """Lengths of a local and of a global descriptor; `global_dim` is None if there is none."""

    local_dim: int
    global_dim: int | None


@dataclass(frozen=True, eq=False)
class ImageDescriptors:
    """One image. `locals`: (n, d), strongest first, rows of length 1; `scales`: (n,), at which
    step of the image pyramid each row was found; `global_`: (e,), length 1, or None; `padding`:
    (n,), rows of zeros that are not read but keep their place, None if there are none."""

    locals: NDArray[np.floating]
    scales: NDArray[np.uint8]
    global_: NDArray[np.floating] | None = None
    padding: NDArray[np.bool_] | None = None

    @property
    def count(self) -> int:
        return int(self.locals.shape[0])

    @cached_property
    def sizes(self) -> DescriptorSizes:
        return DescriptorSizes(
            int(self.locals.shape[1]), None if self.global_ is None else len(self.global_)
        )

    @property
    def nbytes(self) -> int:
        """Bytes that the descriptors take in memory."""
        return self.locals.nbytes + (0 if self.global_ is None else self.global_.nbytes)

    def strongest(self, count: int) -> ImageDescriptors:
        """The first `count` rows, which are in order of strength."""
        if self.count <= count:
            return self
        padding = None if self.padding is None else self.padding[:count]
        return ImageDescriptors(self.locals[:count], self.scales[:count], self.global_, padding)

    def without_padding(self) -> ImageDescriptors:
        if self.padding is None:
            return self
        valid = ~self.padding
        return ImageDescriptors(self.locals[valid], self.scales[valid], self.global_)


@dataclass(frozen=True, eq=False)
class ExtractedImage:
    """One image's features, strongest first; rows of unit length, float32.

    keypoints (n, 2): x and y of each local as fractions of the image's width and height;
    scales (n,): step of the image pyramid, in the extractor's own order; weights (n,): detection
    strength; descriptors (n, d); global_ (e,).
    """

    keypoints: NDArray[np.float32]
    scales: NDArray[np.uint8]
    weights: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    global_: NDArray[np.float32]

    def for_reranking(self) -> ImageDescriptors:
        return ImageDescriptors(self.descriptors, self.scales, self.global_)


def normalised(vectors: NDArray[np.floating], what: str) -> NDArray[np.float32]:
    """Normalises rows to length 1, as float32. Raises InvalidDescriptorsError with the name
    `what`."""
    all_rows = np.atleast_2d(vectors)
    unit = np.empty(all_rows.shape, np.float32)
    # A few rows at a time: in float64 all of them would take the memory of four copies.
    for start in range(0, len(unit), _ROWS_AT_ONCE):
        rows = all_rows[start : start + _ROWS_AT_ONCE].astype(np.float64)
        if not np.isfinite(rows).all():
            raise InvalidDescriptorsError(f"{what}: NaN or infinity")
        lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
        zero = np.flatnonzero(lengths == 0)
        if zero.size:
            raise InvalidDescriptorsError(f"{what}: row {start + zero[0]} is all zeros")
        unit[start : start + _ROWS_AT_ONCE] = rows / lengths
    return unit.reshape(vectors.shape)


def normalised_rows(
    rows: NDArray[np.floating], padding: NDArray[np.bool_], what: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Valid rows of length 1, padding as zeros, and `padding` itself, or None if there is none.
    Raises InvalidDescriptorsError naming `what`, also where no row is valid."""
    if not padding.any():
        return normalised(rows, what), None
    if padding.all():
        raise InvalidDescriptorsError(f"{what}: no valid row")
    unit_rows = np.zeros(rows.shape, np.float32)
    unit_rows[~padding] = normalised(rows[~padding], what)
    return unit_rows, padding


def stacked_globals(images: Sequence[ImageDescriptors]) -> NDArray[np.float32] | None:
    """The images' globals (images, e); None unless all have one of the same size."""
    vectors = [image.global_ for image in images if image.global_ is not None]
    if len(vectors) < len(images) or len({vector.shape for vector in vectors}) > 1:
        return None
    return np.stack(vectors).astype(np.float32)


def first_stage_scores(
    query: ImageDescriptors, gallery: Sequence[ImageDescriptors]
) -> NDArray[np.float32] | None:
    """Cosines of the query's global with each image's, shape (len(gallery),); None unless all
    have one of the same size."""
    stacked = stacked_globals((query, *gallery))
    if stacked is None:
        return None
    stacked /= np.linalg.norm(stacked, axis=1, keepdims=True)
    cosines: NDArray[np.float32] = stacked[1:] @ stacked[0]
    return cosines
