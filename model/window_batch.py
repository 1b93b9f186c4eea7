"""Windows of ragged images as one padded grid of tensors: (windows, images, locals)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from model.descriptors import ImageDescriptors
from model.windows import Window


@dataclass(frozen=True)
class WindowShape:
    """What a window takes of the grid: its images with the query, the largest number of locals of
    an image, the number of the query's, and the lengths of a local and of a global."""

    images: int
    locals: int
    query_locals: int
    local_dim: int
    global_dim: int


@dataclass(frozen=True, eq=False)
class WindowBatch:
    """Image 0 of a window is its query. Padding is 0 and False.

    locals (w, i, n, d) float32, local_mask (w, i, n) bool, scales (w, i, n) int64,
    globals (w, i, e) float32, has_global (w, i) bool, image_mask (w, i) bool. places (w, g) int64:
    the image of the grid for each gallery image, in the order of its list; 0 for padding. shapes:
    of every window, on the host.
    """

    locals: Tensor
    local_mask: Tensor
    scales: Tensor
    globals: Tensor
    has_global: Tensor
    image_mask: Tensor
    places: Tensor
    shapes: tuple[WindowShape, ...]

    def to(self, device: torch.device) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {n: t.to(device, non_blocking=True) for n, t in tensors.items()}
        return replace(self, **moved)

    @property
    def present(self) -> Tensor:
        """(w, g): which gallery images are real."""
        return self.places > 0


def collate(
    windows: Sequence[Window],
    *,
    descriptors_per_image: int,
    keep_places: bool = False,
    with_globals: bool = True,
) -> WindowBatch:
    """Drops the padding of an image, or masks it if `keep_places`. Only the first
    `descriptors_per_image` rows of an image count, and globals only if `with_globals`. Raises
    ValueError if the images of one window have locals, or globals, of several lengths."""
    images = [
        [i if keep_places else i.without_padding() for i in (window.query, *window.gallery)]
        for window in windows
    ]
    shapes = tuple(_shape(row, descriptors_per_image, with_globals) for row in images)
    grid = (len(images), max(shape.images for shape in shapes))
    max_locals = max(shape.locals for shape in shapes)
    locals_ = np.zeros((*grid, max_locals, max(shape.local_dim for shape in shapes)), np.float32)
    local_mask = np.zeros((*grid, max_locals), np.bool_)
    scales = np.zeros((*grid, max_locals), np.int64)
    globals_ = np.zeros((*grid, max(shape.global_dim for shape in shapes)), np.float32)
    has_global = np.zeros(grid, np.bool_)
    image_mask = np.zeros(grid, np.bool_)
    places = np.zeros((grid[0], grid[1] - 1), np.int64)
    for w, (row, shape) in enumerate(zip(images, shapes, strict=True)):
        image_mask[w, : len(row)] = True
        places[w, : len(row) - 1] = np.arange(1, len(row))
        for i, image in enumerate(row):
            rows = min(image.count, descriptors_per_image)
            locals_[w, i, :rows, : shape.local_dim] = image.locals[:rows]
            local_mask[w, i, :rows] = True if image.padding is None else ~image.padding[:rows]
            scales[w, i, :rows] = image.scales[:rows]
            if with_globals and image.global_ is not None:
                globals_[w, i, : shape.global_dim] = image.global_
                has_global[w, i] = True
    return WindowBatch(
        torch.from_numpy(locals_),
        torch.from_numpy(local_mask),
        torch.from_numpy(scales),
        torch.from_numpy(globals_),
        torch.from_numpy(has_global),
        torch.from_numpy(image_mask),
        torch.from_numpy(places),
        shapes,
    )


def _shape(row: Sequence[ImageDescriptors], max_locals: int, with_globals: bool) -> WindowShape:
    local_dims = {image.locals.shape[1] for image in row}
    global_dims = {len(i.global_) for i in row if with_globals and i.global_ is not None}
    if len(local_dims) > 1 or len(global_dims) > 1:
        raise ValueError(f"locals of sizes {local_dims}, globals of sizes {global_dims}")
    return WindowShape(
        len(row),
        max(min(image.count, max_locals) for image in row),
        min(row[0].count, max_locals),
        local_dims.pop(),
        max(global_dims, default=0),
    )


def distinct(window: Window) -> tuple[Window, list[int]]:
    """The window with every gallery image once, sorted by content, and for each image of the list
    its place in that gallery.

    So copies of an image get one score, and no bit of a score depends on the order of the list.
    """
    keys = [_content(image, 1) for image in window.gallery]
    if len(set(keys)) < len(keys):
        keys = [_content(image, image.count) for image in window.gallery]
    by_key = dict(zip(keys, window.gallery, strict=True))
    order = {key: place for place, key in enumerate(sorted(by_key))}
    return Window(window.query, [by_key[key] for key in order]), [order[key] for key in keys]


def collate_distinct(windows: Sequence[Window], *, descriptors_per_image: int) -> WindowBatch:
    """As `collate`, of `distinct` images, compared by the rows that count."""
    shortened = [
        Window(
            window.query.without_padding(),
            [i.without_padding().strongest(descriptors_per_image) for i in window.gallery],
        )
        for window in windows
    ]
    deduplicated = [distinct(window) for window in shortened]
    batch = collate(
        [window for window, _ in deduplicated], descriptors_per_image=descriptors_per_image
    )
    places = torch.zeros(len(windows), max(len(p) for _, p in deduplicated), dtype=torch.long)
    for row, (_, indices) in zip(places, deduplicated, strict=True):
        row[: len(indices)] = torch.tensor(indices) + 1
    return replace(batch, places=places)


def _content(image: ImageDescriptors, rows: int) -> tuple[bytes, bytes]:
    global_ = None if rows == 1 else image.global_
    return (
        np.asarray(image.locals[:rows], np.float32).tobytes(),
        b"" if global_ is None else np.asarray(global_, np.float32).tobytes(),
    )
