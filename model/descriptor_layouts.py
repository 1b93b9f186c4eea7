"""The layouts of an image's rows in files that AMES and LOCORE have published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from model.hdf5 import DescriptorFileError, dataset_of

LEADING_COLUMNS = 5
X, SCALE, MASK, WEIGHT = slice(0, 2), 2, 3, 4
"""x and y are fractions of the image's width and height; a mask of 1 marks padding."""

_Floats = NDArray[np.float32]


class Layout(Protocol):
    """`shape`: images, rows of an image, numbers of a descriptor; `leading`: its metadata."""

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def leading(self) -> int: ...

    def read(self, place: int, max_rows: int | None = None) -> tuple[_Floats, _Floats]:
        """The metadata (n, leading) and descriptors (n, d) of an image's first `max_rows` rows."""
        ...


@dataclass(frozen=True)
class Columns:
    """One dataset (images, n, leading + d)."""

    rows: h5py.Dataset
    leading: int

    @property
    def shape(self) -> tuple[int, int, int]:
        images, rows, columns = self.rows.shape
        return images, rows, columns - self.leading

    def read(self, place: int, max_rows: int | None = None) -> tuple[_Floats, _Floats]:
        rows = self.rows[place, :max_rows].astype(np.float32)
        return rows[:, : self.leading], rows[:, self.leading :]


@dataclass(frozen=True)
class TwoDatasets:
    """`metadata` (images, n, 5) and `descriptor` (images, n, d)."""

    metadata: h5py.Dataset
    descriptor: h5py.Dataset
    leading: int = LEADING_COLUMNS

    @property
    def shape(self) -> tuple[int, int, int]:
        images, rows, columns = self.descriptor.shape
        return images, rows, columns

    def read(self, place: int, max_rows: int | None = None) -> tuple[_Floats, _Floats]:
        parts = (
            part[place, :max_rows].astype(np.float32) for part in (self.metadata, self.descriptor)
        )
        metadata, descriptors = parts
        return metadata, descriptors


@dataclass(frozen=True)
class Records:
    """One dataset (images,) of the fields `metadata` (n, 5) and `descriptor` (n, d)."""

    records: h5py.Dataset
    leading: int = LEADING_COLUMNS

    @property
    def shape(self) -> tuple[int, int, int]:
        rows, columns = self.records.dtype["descriptor"].shape
        return self.records.shape[0], rows, columns

    def read(self, place: int, max_rows: int | None = None) -> tuple[_Floats, _Floats]:
        record = self.records[place]
        metadata, descriptors = (record[name][:max_rows].astype(np.float32) for name in _FIELDS)
        return metadata, descriptors


_FIELDS = ("metadata", "descriptor")


def layout_of(file: h5py.File, descriptor_dim: int | None) -> Layout:
    """Finds the layout of a file. Rows of `features` with `descriptor_dim` numbers have no leading
    columns. Raises DescriptorFileError."""
    features = dataset_of(file, "features")
    if features is not None and features.dtype.names is not None:
        layout: Layout = _records(file, features)
    elif "descriptor" in file:
        metadata, descriptor = (_rows(file, name) for name in _FIELDS)
        if metadata.shape != (*descriptor.shape[:2], LEADING_COLUMNS):
            raise DescriptorFileError(
                f"{file.filename}: `metadata` is {metadata.shape}, `descriptor` {descriptor.shape}"
            )
        layout = TwoDatasets(metadata, descriptor)
    else:
        rows = _rows(file, "features")
        layout = Columns(rows, 0 if rows.shape[2] == descriptor_dim else LEADING_COLUMNS)
    if layout.shape[2] <= 0:
        raise DescriptorFileError(f"{file.filename}: its rows have no descriptor")
    return layout


def _rows(file: h5py.File, name: str) -> h5py.Dataset:
    dataset = dataset_of(file, name)
    if dataset is None or dataset.ndim != 3 or dataset.dtype.kind not in "fiu":
        raise DescriptorFileError(
            f"{file.filename}: has no dataset `{name}` of 3 dimensions and numbers"
        )
    return dataset


def _records(file: h5py.File, features: h5py.Dataset) -> Records:
    shapes = [
        features.dtype[name].shape
        for name in _FIELDS
        if name in features.dtype.names and features.dtype[name].base.kind in "fiu"
    ]
    match shapes:
        case [(rows, 5), (same, _)] if rows == same and features.ndim == 1:
            return Records(features)
    raise DescriptorFileError(
        f"{file.filename}: the records of `features` are not `metadata` (n, 5) and `descriptor` "
        "(n, d)"
    )
