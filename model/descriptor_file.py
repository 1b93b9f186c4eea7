"""Descriptors on disk: HDF5 in the layout that AMES and LOCORE use, plus ids and globals.

`features` (images, n, 5 + d) float32: x, y, scale, mask, weight, then the descriptor, strongest
first; a mask of 1 marks padding, 0 a valid row. `ids` (images,) strings, `globals` (images, g)
float32, `sources` (images, 2) int64, and the attributes `extractor` and `extractor_version`. x and
y are fractions of the image's width and height; a source is a picture file's size and time of
change. Rows are read as they are needed, never the whole file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.closing import Closing
from model.config import ExtractorId
from model.descriptor_layouts import MASK, SCALE, X, layout_of
from model.descriptor_writer import DescriptorWriter
from model.descriptors import (
    DescriptorSizes,
    ImageDescriptors,
    InvalidDescriptorsError,
    normalised,
    normalised_rows,
)
from model.hdf5 import (
    DescriptorFileError,
    as_descriptor_error,
    attribute,
    dataset_of,
    open_hdf5,
    read_ids,
)
from model.progress import Tracker, untracked

__all__ = [
    "DescriptorFileError",
    "DescriptorReader",
    "DescriptorWriter",
    "NoDescriptorError",
    "read_images",
]


class NoDescriptorError(DescriptorFileError):
    """An image has only padding, so there is nothing to score. `locore extract --list` writes such
    a row for an image that it cannot read."""


def read_images(
    path: Path, ids: Sequence[str] | None = None, track: Tracker = untracked
) -> tuple[ExtractorId, dict[str, ImageDescriptors]]:
    """The extractor of a descriptor file, and its images, or only those of `ids`. Raises
    DescriptorFileError, also if one of `ids` is missing.
    """
    with DescriptorReader(path) as reader:
        made_by = ExtractorId(
            name=reader.extractor or "unknown", version=reader.extractor_version or "unknown"
        )
        places = {image_id: place for place, image_id in enumerate(reader.ids)}
        names = reader.ids if ids is None else ids
        missing = [image_id for image_id in names if image_id not in places]
        if missing:
            raise DescriptorFileError(f"{path}: images are missing, {missing[0]} for one")
        tracked = track(names, f"Reading {path.name}", len(names))
        return made_by, {image_id: reader[places[image_id]] for image_id in tracked}


class DescriptorReader(Closing):
    """Images of a descriptor file by place: `len(reader)`, `reader.ids`, `reader[i]`. The file
    stays open, and nobody else can write it, until `close()` or the end of a `with` block.

    Four layouts are read: `features` with the five leading columns; `features` without them, where
    rows of zeros are padding; `features` of records (images,) with the fields `metadata` (n, 5),
    which are those columns, and `descriptor` (n, d); and these two as datasets of their own. Any of
    them may consist of several files, joined by virtual datasets or external links.
    """

    def __init__(self, path: Path, descriptor_dim: int | None = None) -> None:
        """Rows of `features` with `descriptor_dim` numbers have no leading columns. Raises
        DescriptorFileError."""
        self.path = path
        with open_hdf5(path, "r") as self._file:
            self._layout = layout_of(self._file, descriptor_dim)
            self._images = self._layout.shape[0]
            self._globals = dataset_of(self._file, "globals")
            if self._globals is not None and self._globals.ndim != 2:
                raise DescriptorFileError(f"{path}: `globals` is no dataset of 2 dimensions")
            stored = dataset_of(self._file, "ids")
            self.ids: Sequence[str] = (
                list(map(str, range(self._images))) if stored is None else read_ids(stored)
            )
            if self._globals is not None and self._globals.shape[0] < len(self):
                raise DescriptorFileError(
                    f"{path}: {self._globals.shape[0]} rows of `globals` for {len(self)} images"
                )
            self.extractor = attribute(self._file, "extractor")
            self.extractor_version = attribute(self._file, "extractor_version")

    def close(self) -> None:
        self._file.close()

    @property
    def descriptors_per_image(self) -> int:
        return self._layout.shape[1]

    @property
    def descriptor_dim(self) -> int:
        return self._layout.shape[2]

    @property
    def sizes(self) -> DescriptorSizes:
        return DescriptorSizes(
            self.descriptor_dim, None if self._globals is None else int(self._globals.shape[1])
        )

    def __len__(self) -> int:
        # A writer that was killed may have left a row of features without its id.
        return min(self._images, len(self.ids))

    def __getitem__(self, place: int) -> ImageDescriptors:
        return self.read(place)

    def read(
        self, place: int, max_rows: int | None = None, *, with_global: bool = True
    ) -> ImageDescriptors:
        """An image, or its first `max_rows` rows. Raises NoDescriptorError if none of them is
        valid, DescriptorFileError for what cannot be read or scored."""
        global_ = None
        with as_descriptor_error(self.path):
            leading, rows = self._layout.read(place, max_rows)
            if with_global and self._globals is not None:
                global_ = self._globals[place].astype(np.float32)
        what = f"{self.path}: image {self.ids[place]!r}"
        if leading.shape[1]:
            mask = leading[:, MASK]
            if not np.isfinite(leading[:, SCALE]).all() or not np.isin(mask, (0, 1)).all():
                raise DescriptorFileError(
                    f"{what}: its five leading columns are not x, y, scale, mask and weight; of "
                    "rows that are the descriptor alone the dimension must be given"
                )
            padding, scales = leading[:, MASK] != 0, np.clip(leading[:, SCALE], 0, 255)
        else:
            padding, scales = ~rows.any(axis=1), np.zeros(len(rows), np.float32)
        if padding.all():
            raise NoDescriptorError(f"{what} has no valid descriptor")
        # Padding behind the last valid row is dropped; between valid rows it keeps its place.
        count = len(padding) - int(padding[::-1].argmin())
        try:
            locals_, holes = normalised_rows(rows[:count], padding[:count], what)
            return ImageDescriptors(
                locals_,
                scales[:count].astype(np.uint8),
                None if global_ is None else normalised(global_, f"{what}, global"),
                holes,
            )
        except InvalidDescriptorsError as error:
            raise DescriptorFileError(str(error)) from None

    def keypoints(self, place: int) -> NDArray[np.float32]:
        """(n, 2): x and y of an image's rows, padding and all. Raises DescriptorFileError."""
        if not self._layout.leading:
            raise DescriptorFileError(f"{self.path}: has no keypoints")
        with as_descriptor_error(self.path):
            return self._layout.read(place)[0][:, X]

    def globals(self) -> NDArray[np.float32]:
        """(images, g), unit rows, for the first stage. Raises DescriptorFileError."""
        if self._globals is None:
            raise DescriptorFileError(f"{self.path}: has no `globals`")
        with as_descriptor_error(self.path):
            vectors = self._globals[: len(self)].astype(np.float32)
        try:
            return normalised(vectors, f"{self.path}: globals")
        except InvalidDescriptorsError as error:
            raise DescriptorFileError(str(error)) from None

    def __iter__(self) -> Iterator[tuple[str, ImageDescriptors]]:
        for place in range(len(self)):
            yield self.ids[place], self[place]
