"""Descriptors on disk: HDF5 in the layout that AMES and LOCORE use, plus ids and globals.

`features` (images, n, 5 + d) float32: x, y, scale, mask, weight, then the descriptor, strongest
first; a mask of 1 marks padding, 0 a valid row. `ids` (images,) strings, `globals` (images, g)
float32, and the attributes `extractor` and `extractor_version`. x and y are fractions of the
image's width and height. Rows are read as they are needed, never the whole file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from model.closing import Closing
from model.descriptors import (
    DescriptorSizes,
    ImageDescriptors,
    InvalidDescriptorsError,
    normalised,
    normalised_rows,
)
from model.extraction.extractor import ExtractedImage

LEADING_COLUMNS = 5
_X, _SCALE, _MASK, _WEIGHT = slice(0, 2), 2, 3, 4


class DescriptorFileError(ValueError):
    """A file that cannot be read as descriptors; the message names it and says why."""


class NoDescriptorError(DescriptorFileError):
    """An image whose row is all padding, as `locore extract --list` writes one that it could not
    read: there is nothing to score."""


class DescriptorWriter(Closing):
    """Writes a descriptor file image by image; what was appended is kept if the work breaks off.

    An existing file of the same extractor and sizes is continued: `ids` says what it has.
    """

    def __init__(
        self,
        path: Path,
        *,
        extractor: str,
        extractor_version: str,
        descriptors_per_image: int,
        descriptor_dim: int,
        global_dim: int,
    ) -> None:
        self._width = descriptors_per_image
        shape = (descriptors_per_image, LEADING_COLUMNS + descriptor_dim)
        attributes = {"extractor": extractor, "extractor_version": extractor_version}
        with _opened(path, "a") as self._file:
            if "features" not in self._file:
                self._file.create_dataset(
                    "features", (0, *shape), "f4", maxshape=(None, *shape), chunks=(1, *shape)
                )
                self._file.create_dataset(
                    "globals", (0, global_dim), "f4", maxshape=(None, global_dim)
                )
                self._file.create_dataset("ids", (0,), h5py.string_dtype(), maxshape=(None,))
                self._file.attrs.update(attributes)
                self._file.flush()
            found = {name: self._file.attrs.get(name) for name in attributes}
            sizes = self._file["features"].shape[1:], self._file["globals"].shape[1:]
            if found != attributes or sizes != (shape, (global_dim,)):
                raise DescriptorFileError(f"{path}: holds descriptors of another extractor or size")
            ids = self._file["ids"]
            _check_claimed(path, ids)
            self.ids: set[str] = set(ids.asstr()[:])

    def append(self, image_id: str, image: ExtractedImage) -> None:
        rows = np.zeros(self._file["features"].shape[1:], np.float32)
        rows[:, _MASK] = 1
        count = min(len(image.descriptors), self._width)
        rows[:count, _X] = image.keypoints[:count]
        rows[:count, _SCALE] = image.scales[:count]
        rows[:count, _MASK] = 0
        rows[:count, _WEIGHT] = image.weights[:count]
        rows[:count, LEADING_COLUMNS:] = image.descriptors[:count]
        # `ids` last: an image counts as written once its id is there.
        for name, value in (("features", rows), ("globals", image.global_), ("ids", image_id)):
            dataset = self._file[name]
            at = self._file["ids"].shape[0]
            dataset.resize(at + 1, axis=0)
            dataset[at] = value
        # HDF5 keeps its indexes in memory: without this a killed writer leaves no readable file.
        self._file.flush()
        self.ids.add(image_id)

    def close(self) -> None:
        self._file.close()


class DescriptorReader(Closing):
    """Images of a descriptor file by place: `len(reader)`, `reader.ids`, `reader[i]`. The file
    is open, and cannot be written by others, until `close()` or the end of a `with` block.

    Three layouts are read: `features` with the five leading columns; `features` without them,
    where rows of zeros are padding; and `descriptor` (images, n, d) beside `metadata`
    (images, n, 5) of those columns.
    """

    def __init__(self, path: Path, descriptor_dim: int | None = None) -> None:
        """Rows of `features` that are `descriptor_dim` long have no leading columns."""
        self.path = path
        with _opened(path, "r") as self._file:
            name = "descriptor" if "descriptor" in self._file else "features"
            self._metadata = self._dataset("metadata") if name == "descriptor" else None
            self._features = self._dataset(name)
            bare = self._metadata is not None or self._features.shape[2] == descriptor_dim
            self._leading = 0 if bare else LEADING_COLUMNS
            if self._metadata is not None and self._metadata.shape != (
                *self._features.shape[:2],
                LEADING_COLUMNS,
            ):
                raise DescriptorFileError(
                    f"{path}: `metadata` is {self._metadata.shape}, `descriptor` "
                    f"{self._features.shape}"
                )
            if self._features.shape[2] <= self._leading:
                raise DescriptorFileError(f"{path}: rows of `{name}` have no descriptor")
            self._globals = self._optional("globals", ndim=2)
            stored = self._optional("ids", ndim=1)
            if stored is not None:
                _check_claimed(path, stored)
            numbered = map(str, range(self._features.shape[0]))
            self.ids: Sequence[str] = list(numbered if stored is None else stored.asstr()[:])
            if self._globals is not None and self._globals.shape[0] < len(self):
                raise DescriptorFileError(
                    f"{path}: {self._globals.shape[0]} rows of `globals` for {len(self)} images"
                )
            self.extractor: str | None = self._file.attrs.get("extractor")
            self.extractor_version: str | None = self._file.attrs.get("extractor_version")

    def _dataset(self, name: str) -> h5py.Dataset:
        found = self._file.get(name)
        if not isinstance(found, h5py.Dataset) or found.ndim != 3 or found.dtype.kind not in "fiu":
            raise DescriptorFileError(
                f"{self.path}: has no dataset `{name}` of 3 dimensions and numbers"
            )
        return found

    def _optional(self, name: str, ndim: int) -> h5py.Dataset | None:
        found = self._file.get(name)
        if found is not None and (not isinstance(found, h5py.Dataset) or found.ndim != ndim):
            raise DescriptorFileError(f"{self.path}: `{name}` is no dataset of {ndim} dimensions")
        return found

    def close(self) -> None:
        self._file.close()

    @property
    def descriptors_per_image(self) -> int:
        return int(self._features.shape[1])

    @property
    def descriptor_dim(self) -> int:
        return int(self._features.shape[2]) - self._leading

    @property
    def sizes(self) -> DescriptorSizes:
        return DescriptorSizes(
            self.descriptor_dim, None if self._globals is None else int(self._globals.shape[1])
        )

    def __len__(self) -> int:
        # A writer that was killed may have left a row of features without its id.
        return min(int(self._features.shape[0]), len(self.ids))

    def __getitem__(self, place: int) -> ImageDescriptors:
        return self.read(place)

    def read(
        self, place: int, most: int | None = None, *, with_global: bool = True
    ) -> ImageDescriptors:
        """An image, or its first `most` rows. Raises NoDescriptorError where none of them is
        valid, DescriptorFileError for what cannot be read or scored."""
        global_ = None
        with _as_descriptor_error(self.path):
            rows = self._features[place, :most].astype(np.float32)
            if with_global and self._globals is not None:
                global_ = self._globals[place].astype(np.float32)
            if self._metadata is not None:
                leading = self._metadata[place, :most].astype(np.float32)
            else:
                leading, rows = rows[:, : self._leading], rows[:, self._leading :]
        what = f"{self.path}: image {self.ids[place]!r}"
        if leading.shape[1]:
            mask = leading[:, _MASK]
            if not np.isfinite(leading[:, _SCALE]).all() or not np.isin(mask, (0, 1)).all():
                raise DescriptorFileError(
                    f"{what}: its five leading columns are not x, y, scale, mask and weight; of "
                    "rows that are the descriptor alone the dimension must be given"
                )
            padding, scales = leading[:, _MASK] != 0, np.clip(leading[:, _SCALE], 0, 255)
        else:
            padding, scales = ~rows.any(axis=1), np.zeros(len(rows))
        if padding.all():
            raise NoDescriptorError(f"{what} has no valid descriptor")
        # Padding behind the last valid row says nothing; between valid ones it keeps its place.
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
        leading = self._features if self._metadata is None else self._metadata
        if self._metadata is None and not self._leading:
            raise DescriptorFileError(f"{self.path}: has no keypoints")
        with _as_descriptor_error(self.path):
            return np.asarray(leading[place, :, _X], np.float32)

    def globals(self) -> NDArray[np.float32]:
        """(images, g), unit rows, for the first stage. Raises DescriptorFileError."""
        if self._globals is None:
            raise DescriptorFileError(f"{self.path}: has no `globals`")
        with _as_descriptor_error(self.path):
            vectors = self._globals[: len(self)].astype(np.float32)
        try:
            return normalised(vectors, f"{self.path}: globals")
        except InvalidDescriptorsError as error:
            raise DescriptorFileError(str(error)) from None

    def __iter__(self) -> Iterator[tuple[str, ImageDescriptors]]:
        for place in range(len(self)):
            yield self.ids[place], self[place]


def _check_claimed(path: Path, ids: h5py.Dataset) -> None:
    """A damaged size would have memory asked for that no machine has."""
    if ids.shape[0] > path.stat().st_size:
        raise DescriptorFileError(f"{path}: claims {ids.shape[0]} ids, more than it has bytes")


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[h5py.File]:
    """Stays open, unless what is done with it here fails: a file that was left open would be found
    again, as it was, by whoever opens that path next."""
    with _as_descriptor_error(path), ExitStack() as unless_whole:
        yield unless_whole.enter_context(h5py.File(path, mode))
        unless_whole.pop_all()


@contextmanager
def _as_descriptor_error(path: Path) -> Iterator[None]:
    """What h5py raises for a missing or damaged file, by trial."""
    try:
        yield
    except FileNotFoundError:
        raise DescriptorFileError(f"{path}: no such file") from None
    except DescriptorFileError:
        raise
    except (OSError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise DescriptorFileError(f"{path}: not a readable HDF5 file ({error})") from None
