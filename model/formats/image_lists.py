"""`test_query.txt`, `test_gallery.txt`, `train_750k.txt`: an image a line, in the order in which
its descriptors are stored.

Every line of a file has the same fields: `path`, `path,label`, `path,width,height` or
`path,label,width,height`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.formats.format_error import FormatError
from model.formats.text import lines_of, text_of

_LABELLED = (2, 4)
"""Numbers of fields of which the second is the label."""
_SIZED = (3, 4)
"""Numbers of fields of which the last two are width and height."""


@dataclass(frozen=True, eq=False)
class ImageList:
    """`names`: paths; `labels` (n,) and `sizes` (n, 2), width and height in pixels, where given."""

    names: list[str]
    labels: NDArray[np.int64] | None
    sizes: NDArray[np.int64] | None


def read_image_list(path: Path) -> ImageList:
    """Raises FormatError, naming the line, for a line of other fields than the first's, a number
    that is none and an empty file."""
    names: list[str] = []
    numbers: list[list[int]] = []
    fields = 0
    lines = lines_of(path)
    while lines and not lines[-1].strip():
        lines.pop()
    for at, line in enumerate(lines, start=1):
        parts = line.strip().split(",")
        fields = fields or len(parts)
        if len(parts) != fields:
            raise FormatError(f"{path}: line {at} has {len(parts)} fields, the first line {fields}")
        if not parts[0] or fields > max(_SIZED):
            raise FormatError(f"{path}: line {at} is not `path` or `path,label,width,height`")
        try:
            numbers.append([int(part) for part in parts[1:]])
        except ValueError:
            raise FormatError(f"{path}: line {at}: label or size is no number") from None
        names.append(parts[0])
    if not names:
        raise FormatError(f"{path}: names no image")
    try:
        columns = np.array(numbers, dtype=np.int64)
    except OverflowError:
        raise FormatError(f"{path}: a label or size is too large") from None
    return ImageList(
        names,
        columns[:, 0] if fields in _LABELLED else None,
        columns[:, -2:] if fields in _SIZED else None,
    )


def count_images(path: Path) -> int:
    """Lines of a list up to its last name, without keeping them. Raises FormatError."""
    with text_of(path) as file:
        return max((at for at, line in enumerate(file, start=1) if line.strip()), default=0)
