"""Windows in memory that two processes share.

What one process writes the other reads in place, so the numbers of a window are copied once. Only
its layout goes through a pipe.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from itertools import compress
from math import prod
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.descriptors import ImageDescriptors
from model.windows import Window

_ALIGNED_BYTES = 64


class WindowLayout(msgspec.Struct):
    """`counts`: locals of each image, the query first; `local_dim`, `global_dim`: numbers of a
    local and of a global; `with_global`, `with_padding`: which images have one."""

    counts: list[int]
    local_dim: int
    global_dim: int
    with_global: list[bool]
    with_padding: list[bool]


class _Arrays(NamedTuple):
    """Of the images of a window, one after another: those that have any."""

    locals: NDArray[np.float32]
    globals: NDArray[np.float32]
    scales: NDArray[np.uint8]
    padding: NDArray[np.bool_]


class WindowBuffer:
    """One process writes, then the other one reads. `descriptor`: of a file in memory that both
    have open; `close` closes it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory: mmap.mmap | None = None

    def write(self, windows: Sequence[Window]) -> list[WindowLayout]:
        """Raises ValueError if the images of a window have locals, or globals, of several
        lengths."""
        layouts = [_layout(window) for window in windows]
        for window, arrays in zip(windows, self._arrays(layouts), strict=True):
            images = (window.query, *window.gallery)
            np.concatenate([image.locals for image in images], out=arrays.locals)
            np.concatenate([image.scales for image in images], out=arrays.scales)
            _join([i.global_ for i in images if i.global_ is not None], arrays.globals.ravel())
            _join([i.padding for i in images if i.padding is not None], arrays.padding)
        return layouts

    def read(self, layouts: Sequence[WindowLayout]) -> list[Window]:
        """Views of the buffer, until the next `write`."""
        arrays = self._arrays(layouts)
        return [_window(layout, *parts) for layout, parts in zip(layouts, arrays, strict=True)]

    def close(self) -> None:
        self._memory = None
        os.close(self.descriptor)

    def _arrays(self, layouts: Sequence[WindowLayout]) -> Iterator[_Arrays]:
        size = sum(map(_size, layouts))
        if self._memory is None or len(self._memory) < size:
            # The reader finds it long enough.
            if os.fstat(self.descriptor).st_size < size:
                os.ftruncate(self.descriptor, size)
            self._memory = mmap.mmap(self.descriptor, 0)
        start = 0
        for layout in layouts:
            views: list[NDArray[Any]] = []
            for dtype, shape in _shapes(layout):
                view: NDArray[Any] = np.ndarray(shape, dtype, self._memory, start)
                views.append(view)
                start += _aligned(view.nbytes)
            yield _Arrays(*views)


def _layout(window: Window) -> WindowLayout:
    images = (window.query, *window.gallery)
    return WindowLayout(
        counts=[len(image.locals) for image in images],
        local_dim=window.query.sizes.local_dim,
        global_dim=max(image.sizes.global_dim or 0 for image in images),
        with_global=[image.global_ is not None for image in images],
        with_padding=[image.padding is not None for image in images],
    )


def _shapes(layout: WindowLayout) -> list[tuple[type[np.generic], tuple[int, ...]]]:
    """Of `_Arrays`, in their order in the buffer."""
    rows = sum(layout.counts)
    padded = sum(compress(layout.counts, layout.with_padding))
    return [
        (np.float32, (rows, layout.local_dim)),
        (np.float32, (sum(layout.with_global), layout.global_dim)),
        (np.uint8, (rows,)),
        (np.bool_, (padded,)),
    ]


def _size(layout: WindowLayout) -> int:
    return sum(_aligned(prod(shape) * np.dtype(d).itemsize) for d, shape in _shapes(layout))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED_BYTES) * _ALIGNED_BYTES


def _join(arrays: Sequence[NDArray[Any]], joined: NDArray[Any]) -> None:
    if arrays:
        np.concatenate(arrays, out=joined)


def _window(
    layout: WindowLayout,
    locals_: NDArray[np.float32],
    globals_: NDArray[np.float32],
    scales: NDArray[np.uint8],
    padding: NDArray[np.bool_],
) -> Window:
    images: list[ImageDescriptors] = []
    rows = padded = vectors = 0
    for count, with_global, with_padding in zip(
        layout.counts, layout.with_global, layout.with_padding, strict=True
    ):
        own = slice(rows, rows + count)
        images.append(
            ImageDescriptors(
                locals_[own],
                scales[own],
                globals_[vectors] if with_global else None,
                padding[padded : padded + count] if with_padding else None,
            )
        )
        rows += count
        padded += count * with_padding
        vectors += with_global
    return Window(images[0], images[1:])
