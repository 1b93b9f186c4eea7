"""Writes descriptor files image by image; a kill or a full disk loses no image that was written."""

from __future__ import annotations

import os
from collections.abc import KeysView
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from model.closing import Closing
from model.descriptor_layouts import LEADING_COLUMNS, MASK, SCALE, WEIGHT, X
from model.descriptors import ExtractedImage
from model.hdf5 import (
    DescriptorFileError,
    as_descriptor_error,
    attribute,
    check_plain,
    dataset_of,
    open_hdf5,
    read_ids,
)

_GROWTH = 1 << 16
"""Bytes by which HDF5's own indexes may grow per image."""


class Source(NamedTuple):
    """Identifies the state of a picture file: its bytes, and its time of change in nanoseconds
    since 1970."""

    size: int
    changed: int


_UNKNOWN, _BEGUN, _FORGOTTEN = Source(0, 0), Source(-1, -1), Source(-2, -2)


def source_of(path: Path) -> Source:
    """The present state of a file; unknown if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return _UNKNOWN
    return Source(status.st_size, status.st_mtime_ns)


class DescriptorWriter(Closing):
    """Writes a descriptor file image by image; appended images are kept if the work is interrupted.
    An existing file of the same extractor and sizes is continued: `ids` are its images.
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
        """Raises DescriptorFileError."""
        self._path = path
        self._width = descriptors_per_image
        shape = (descriptors_per_image, LEADING_COLUMNS + descriptor_dim)
        attributes = {"extractor": extractor, "extractor_version": extractor_version}
        check_plain(path)
        if not path.exists() or not path.stat().st_size:
            self._begin(shape, global_dim, attributes)
        with open_hdf5(path, "r+") as self._file:
            # Kept open, since an error while h5py closes a dataset cannot be caught.
            features, globals_, ids = (self._own(name) for name in ("features", "globals", "ids"))
            stored_attributes = {name: attribute(self._file, name) for name in attributes}
            if stored_attributes != attributes or (features.shape[1:], globals_.shape[1:]) != (
                shape,
                (global_dim,),
            ):
                raise DescriptorFileError(f"{path}: holds descriptors of another extractor or size")
            self._features, self._globals, self._ids = features, globals_, ids
            self._places = {image_id: place for place, image_id in enumerate(read_ids(ids))}
            self._reserve(_GROWTH)
            # Files of former versions have none.
            if "sources" not in self._file:
                _create(self._file, "sources", (2,), np.int64)
                self._file.flush()
            self._sources = self._own("sources")
            self._image_bytes = _GROWTH + sum(
                _bytes_of_a_row(d) for d in (features, globals_, ids, self._sources)
            )

    def _begin(self, shape: tuple[int, int], global_dim: int, attributes: dict[str, str]) -> None:
        """Creates a file without images, atomically."""
        with h5py.File(self._path.name, "w", driver="core", backing_store=False) as file:
            _create(file, "features", shape, np.float32, chunks=(1, *shape))
            _create(file, "globals", (global_dim,), np.float32)
            _create(file, "ids", (), h5py.string_dtype())
            _create(file, "sources", (2,), np.int64)
            file.attrs.update(attributes)
            file.flush()
            image = file.id.get_file_image()
        partial = self._path.with_name(self._path.name + ".partial")
        try:
            partial.write_bytes(image)
            partial.replace(self._path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise DescriptorFileError(f"{self._path}: {error.strerror}") from None

    def _own(self, name: str) -> h5py.Dataset:
        dataset = dataset_of(self._file, name)
        if dataset is None or not dataset.ndim:
            raise DescriptorFileError(f"{self._path}: has no dataset `{name}`, so is not continued")
        if dataset.is_virtual or dataset.file != self._file or dataset.chunks is None:
            raise DescriptorFileError(
                f"{self._path}: `{name}` is joined of other files or cannot grow, so the file is "
                "not continued"
            )
        return dataset

    @property
    def ids(self) -> KeysView[str]:
        return self._places.keys()

    def has(self, image_id: str, source: Source = _UNKNOWN) -> bool:
        """Whether the file has the image in the state `source`, as far as either state is known."""
        place = self._places.get(image_id)
        if place is None:
            return False
        stored = Source(*self._sources[place]) if place < len(self._sources) else _UNKNOWN
        return stored == source or _UNKNOWN in (stored, source)

    def remembered(self) -> list[str]:
        """The ids in file order, except those that were forgotten."""
        sources = self._sources[:]
        return [
            image_id
            for image_id, place in self._places.items()
            if place >= len(sources) or tuple(sources[place]) != _FORGOTTEN
        ]

    def forget(self, image_id: str) -> None:
        """Forgets an image of the file: its row stays, and is overwritten when it is appended
        again."""
        with as_descriptor_error(self._path):
            _put(self._sources, self._places[image_id], _FORGOTTEN)
            self._file.flush()

    def append(self, image_id: str, image: ExtractedImage, source: Source = _UNKNOWN) -> None:
        """Writes an image; one with the same id is replaced. Raises DescriptorFileError if there is
        no room; earlier images stay.
        """
        self._reserve(self._image_bytes)
        rows = np.zeros(self._features.shape[1:], np.float32)
        rows[:, MASK] = 1
        count = min(len(image.descriptors), self._width)
        rows[:count, X] = image.keypoints[:count]
        rows[:count, SCALE] = image.scales[:count]
        rows[:count, MASK] = 0
        rows[:count, WEIGHT] = image.weights[:count]
        rows[:count, LEADING_COLUMNS:] = image.descriptors[:count]
        at = self._places.get(image_id, len(self._places))
        with as_descriptor_error(self._path):
            if at < len(self._places):
                # If the writer is killed here, the image is written again the next time.
                _put(self._sources, at, _BEGUN)
                self._file.flush()
            _put(self._features, at, rows)
            _put(self._globals, at, image.global_)
            _put(self._sources, at, source)
            # Last: an image counts as written once its id is there.
            _put(self._ids, at, image_id)
            # HDF5 keeps its indexes in memory; without a flush a killed writer leaves no readable
            # file.
            self._file.flush()
        self._places[image_id] = at

    def _reserve(self, size: int) -> None:
        """On a full disk HDF5 damages the file and the process, so room is reserved for all that it
        may write. The rest is released when the file closes."""
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(self._file.id.get_vfd_handle(), self._file.id.get_filesize(), size)
        except OSError as error:
            raise DescriptorFileError(f"{self._path}: {error.strerror}") from None

    def close(self) -> None:
        self._file.close()


def _create(
    file: h5py.File, name: str, row: tuple[int, ...], dtype: object, chunks: object = True
) -> None:
    file.create_dataset(name, (0, *row), dtype, maxshape=(None, *row), chunks=chunks)


def _put(dataset: h5py.Dataset, at: int, value: object) -> None:
    if at >= dataset.shape[0]:
        dataset.resize(at + 1, axis=0)
    dataset[at] = value


def _bytes_of_a_row(dataset: h5py.Dataset) -> int:
    """The most bytes of all chunks that contain a row."""
    sides = [-(-side // of) * of for side, of in zip(dataset.shape, dataset.chunks, strict=True)]
    return int(np.prod([dataset.chunks[0], *sides[1:]])) * int(dataset.dtype.itemsize)
