"""Global descriptors of any number of images, read in blocks: from a descriptor file (`globals`) or
from a published `*_global.pt`, a raw memory map of float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from model.closing import Closing
from model.formats.format_error import FormatError
from model.formats.globals import open_globals
from model.hdf5_check import check_readable

_BYTES = 4


class GlobalRows(Closing):
    """`len(rows)` vectors of `dim`. Raises FormatError for a file that does not hold such."""

    def __init__(self, path: Path, dim: int | None = None) -> None:
        """`dim` is only needed for a raw file, which does not have it."""
        self.path = path
        self._file: h5py.File | None = None
        if not path.is_file():
            raise FormatError(f"{path}: no such file")
        if h5py.is_hdf5(path):
            self._open_hdf5(dim)
        else:
            self._open_raw(dim)

    def _open_hdf5(self, dim: int | None) -> None:
        try:
            check_readable(self.path)
            self._file = h5py.File(self.path, "r")
            dataset = self._file.get("globals")
        except (OSError, LookupError, ValueError, RuntimeError) as error:
            raise FormatError(f"{self.path}: not a readable HDF5 file ({error})") from None
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 2 or dataset.dtype.kind != "f":
            raise FormatError(f"{self.path}: has no dataset `globals` of 2 dimensions and numbers")
        if dim is not None and dataset.shape[1] != dim:
            raise FormatError(f"{self.path}: globals of {dataset.shape[1]} numbers, not {dim}")
        self.dim = int(dataset.shape[1])
        # A writer that was killed may have left a row of globals without its id.
        ids = self._file.get("ids")
        self._length = int(dataset.shape[0] if ids is None else min(dataset.shape[0], ids.shape[0]))
        self._rows = dataset

    def _open_raw(self, dim: int | None) -> None:
        if dim is None:
            raise FormatError(
                f"{self.path}: a raw file does not have its dimensions; give them by --dim"
            )
        size = self.path.stat().st_size
        if not size or size % (dim * _BYTES):
            raise FormatError(f"{self.path}: {size} bytes are no rows of {dim} float32")
        self.dim = dim
        self._length = size // (dim * _BYTES)
        self._rows = open_globals(self.path, self._length)

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """(stop - start, dim) as they are stored, a copy."""
        try:
            return np.array(self._rows[start : min(stop, self._length)], dtype=np.float32)
        except (OSError, RuntimeError) as error:
            raise FormatError(f"{self.path}: cannot be read ({error})") from None

    def unit_blocks(self, size: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """(first row, vectors of length 1) of up to `size` rows each. Zeros stay zeros: they stand
        for an image that could not be read, which is similar to no other. Raises FormatError,
        naming the row, for NaN and infinity.
        """
        for start in range(0, self._length, size):
            rows = self.read(start, start + size)
            # In float64 a square neither overflows nor vanishes.
            lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
            wrong = np.flatnonzero(~np.isfinite(lengths))
            if wrong.size:
                raise FormatError(f"{self.path}: row {start + wrong[0]} is NaN or infinity")
            lengths[lengths == 0] = 1
            yield start, np.asarray(rows / lengths[:, None], dtype=np.float32)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def write_raw(
    rows: GlobalRows,
    path: Path,
    block: int = 65536,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> None:
    """Writes all rows as a `*_global.pt`, atomically."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        for start in progress(range(0, len(rows), block)):
            file.write(rows.read(start, start + block).tobytes())
    partial.replace(path)
