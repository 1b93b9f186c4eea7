"""Images to a given size, the way OpenCV's `resize` does it for AMES and LOCORE: a side that gets
shorter by the mean of the area that a pixel covers, one that gets longer by linear interpolation.

Pillow has neither of OpenCV's exact area means; descriptors should not depend on that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 20
"""Pixels that are summed at a time."""


def resized(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """(h, w, channels) to (height, width, channels)."""
    # Some columns at a time: sums of a whole picture would take eight times its memory.
    at_once = max(_AT_ONCE // len(pixels), 1)
    rows = np.concatenate(
        [
            _resized_first(pixels[:, left : left + at_once], height)
            for left in range(0, pixels.shape[1], at_once)
        ],
        axis=1,
    )
    columns = _resized_first(rows.swapaxes(0, 1), width).swapaxes(0, 1)
    # Half a grey level up, not to the even one, as OpenCV rounds.
    return np.asarray(np.clip(np.floor(columns + 0.5), 0, 255), dtype=np.uint8)


def _resized_first(values: NDArray[np.uint8 | np.float64], size: int) -> NDArray[np.float64]:
    """The first axis to `size`."""
    length = values.shape[0]
    if size == length:
        return values.astype(np.float64)
    if size > length:
        centres = (np.arange(size) + 0.5) * length / size - 0.5
        return _at(values, np.clip(centres, 0, length - 1))
    # The area before each place; what is between two of them is an output pixel's share.
    cumulative = np.zeros((length + 1, *values.shape[1:]))
    np.cumsum(values, axis=0, dtype=np.float64, out=cumulative[1:])
    edges = np.arange(size + 1) * length / size
    return np.asarray(np.diff(_at(cumulative, edges), axis=0) * (size / length))


def _at(values: NDArray[np.uint8 | np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """`values` along the first axis at `places` between its rows, linearly."""
    left = np.clip(places.astype(np.int64), 0, max(len(values) - 2, 0))
    right = np.minimum(left + 1, len(values) - 1)
    share = (places - left).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(values[left] * (1 - share) + values[right] * share)
