"""`*_global.pt`: global descriptors as a raw memory map of float32, rows x dim, no header.

The name's ending notwithstanding this is no file of torch.save: the published extraction writes
it by torch.FloatStorage.from_file, the published evaluation reads it by np.memmap.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.descriptors import InvalidDescriptorsError, normalised
from model.formats.format_error import FormatError, opening

_BYTES = 4


class GlobalFile:
    """Unit global descriptors by place: `file[i]`. Rows are read as they are needed."""

    def __init__(self, path: Path, rows: int) -> None:
        self.path = path
        self._rows = open_globals(path, rows)

    @property
    def dim(self) -> int:
        return int(self._rows.shape[1])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> NDArray[np.float32]:
        """(dim,), of length 1. Raises FormatError for NaN and for zeros."""
        try:
            return normalised(self._rows[place], f"{self.path}: row {place}")
        except InvalidDescriptorsError as error:
            raise FormatError(str(error)) from None


def open_globals(path: Path, rows: int) -> np.memmap[tuple[int, int], np.dtype[np.float32]]:
    """(rows, dim), read-only, dim by the file's size. Raises FormatError if that is no whole
    number of float32 for each of `rows` rows, and for a missing file."""
    with opening(path):
        size = path.stat().st_size
        if not size or not rows or size % (rows * _BYTES):
            raise FormatError(f"{path}: {size} bytes are no {rows} rows of float32")
        return np.memmap(path, np.float32, "r", shape=(rows, size // (rows * _BYTES)))
