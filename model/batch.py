"""Windows of ragged images as one padded grid of tensors: (windows, images, descriptors)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from model.descriptors import ImageDescriptors


@dataclass(frozen=True, eq=False)
class Window:
    """A query and the gallery images that are scored together, in list order; `in_metric`:
    whether they are compared in the learnt metric too, which some lists of a training are not."""

    query: ImageDescriptors
    gallery: Sequence[ImageDescriptors]
    in_metric: bool = True


@dataclass(frozen=True, eq=False)
class WindowBatch:
    """Image 0 of a window is its query. Padding is zero and False everywhere, but in
    `in_metric`.

    locals (w, i, n, d) float32, local_mask (w, i, n) bool, scales (w, i, n) int64,
    globals (w, i, g) float32, has_global (w, i) bool, image_mask (w, i) bool,
    in_metric (w, i) bool, the same for all images of a window.
    """

    locals: Tensor
    local_mask: Tensor
    scales: Tensor
    globals: Tensor
    has_global: Tensor
    image_mask: Tensor
    in_metric: Tensor

    def to(self, device: torch.device) -> WindowBatch:
        return WindowBatch(
            **{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        )

    def reordered(self, places: Tensor) -> WindowBatch:
        """`places` (w, i): for every window a permutation of its images."""
        rows = torch.arange(len(places), device=places.device).unsqueeze(1)
        return WindowBatch(**{f.name: getattr(self, f.name)[rows, places] for f in fields(self)})


def collate(
    windows: Sequence[Window],
    *,
    descriptors_per_image: int,
    global_dim: int,
    scale_levels: int,
    keep_places: bool,
) -> WindowBatch:
    """An image's padding is left out, or masked where locals are to `keep_places`. Only the first
    `descriptors_per_image` rows of an image are read, and no global where `global_dim` is 0. A
    global of another size raises ValueError; so do locals of differing sizes."""
    images = [
        [i if keep_places else i.without_padding() for i in (window.query, *window.gallery)]
        for window in windows
    ]
    sizes = {image.locals.shape[1] for row in images for image in row}
    sizes_of_globals = {len(i.global_) for row in images for i in row if i.global_ is not None}
    if len(sizes) > 1 or (global_dim and not sizes_of_globals <= {global_dim}):
        raise ValueError(f"locals of sizes {sizes}, globals of sizes {sizes_of_globals}")
    width = max(len(row) for row in images)
    deepest = max(min(i.count, descriptors_per_image) for row in images for i in row)
    dim = images[0][0].locals.shape[1]
    grid = (len(images), width)
    locals_ = np.zeros((*grid, deepest, dim), np.float32)
    local_mask = np.zeros((*grid, deepest), np.bool_)
    scales = np.zeros((*grid, deepest), np.int64)
    globals_ = np.zeros((*grid, global_dim), np.float32)
    has_global = np.zeros(grid, np.bool_)
    image_mask = np.zeros(grid, np.bool_)
    in_metric = np.zeros(grid, np.bool_)
    for w, row in enumerate(images):
        image_mask[w, : len(row)] = True
        in_metric[w] = windows[w].in_metric
        for i, image in enumerate(row):
            rows = min(image.count, descriptors_per_image)
            locals_[w, i, :rows] = image.locals[:rows]
            local_mask[w, i, :rows] = True if image.padding is None else ~image.padding[:rows]
            scales[w, i, :rows] = image.scales[:rows]
            if global_dim and image.global_ is not None:
                globals_[w, i] = image.global_
                has_global[w, i] = True
    np.minimum(scales, scale_levels - 1, out=scales)
    arrays = (locals_, local_mask, scales, globals_, has_global, image_mask, in_metric)
    return WindowBatch(*map(torch.from_numpy, arrays))
