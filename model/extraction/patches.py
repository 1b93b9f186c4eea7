"""The base of extractors that describe an image patch by patch, on an image pyramid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from model.descriptors import ExtractedImage
from model.extraction.extractor import Box, NoDescriptorsError, PreparedImage
from model.extraction.resizing import resized


@dataclass(frozen=True, eq=False)
class PatchGrid:
    """A step of the pyramid of b images: unit descriptors (b, rows, columns, d), their strengths
    (b, rows, columns), and globals (b, e)."""

    descriptors: Tensor
    strengths: Tensor
    globals_: Tensor


@dataclass(frozen=True)
class PatchSizes:
    """`patch`: pixels of a patch's side; `longest_side`: pixels of an image's longer side at scale
    1; `scales`: the steps of the pyramid. Both sides become whole patches, the nearest."""

    patch: int
    longest_side: int
    scales: tuple[float, ...] = (1.0,)


class PatchExtractor(ABC):
    """A BatchExtractor of a network that makes a PatchGrid. Locals are the strongest patches of all
    scales, the global is the mean of those of the scales, of length 1."""

    def __init__(
        self, name: str, version: str, sizes: PatchSizes, descriptor_dim: int, global_dim: int
    ) -> None:
        self.name = name
        self.version = version
        self.descriptor_dim = descriptor_dim
        self.global_dim = global_dim
        self._sizes = sizes

    @abstractmethod
    def _grid(self, pixels: NDArray[np.uint8]) -> PatchGrid:
        """The patches of images (b, height, width, 3), whose sides are whole patches."""

    def extract(self, image: Image.Image, count: int) -> ExtractedImage:
        """Raises NoDescriptorsError."""
        (features,) = self.extract_batch([self.prepare(image)], count)
        if isinstance(features, NoDescriptorsError):
            raise features
        return features

    def prepare(self, image: Image.Image, box: Box | None = None) -> PreparedImage:
        """Resizes a part by the factor for the whole image, like AMES's code."""
        left, top, right, bottom = _within(image, box)
        part = np.asarray(image.convert("RGB").crop((left, top, right, bottom)))
        width, height = image.size
        base = self._sizes.longest_side / max(width, height)
        return PreparedImage(
            tuple(
                resized(
                    part,
                    self._whole_patches((right - left) * (base * scale)),
                    self._whole_patches((bottom - top) * (base * scale)),
                )
                for scale in self._sizes.scales
            ),
            (left / width, top / height),
            ((right - left) / width, (bottom - top) / height),
        )

    def _whole_patches(self, side: float) -> int:
        return max(round(side / self._sizes.patch), 1) * self._sizes.patch

    @torch.inference_mode()
    def extract_batch(
        self, images: Sequence[PreparedImage], count: int
    ) -> list[ExtractedImage | NoDescriptorsError]:
        grids = [
            self._grid(np.stack([image.pixels[number] for image in images]))
            for number in range(len(self._sizes.scales))
        ]
        pooled = torch.stack([F.normalize(grid.globals_, dim=-1) for grid in grids])
        globals_ = F.normalize(pooled.mean(dim=0), dim=-1).cpu().numpy()
        locals_ = torch.cat([grid.descriptors.flatten(1, 2) for grid in grids], dim=1)
        strengths = torch.cat([grid.strengths.flatten(1) for grid in grids], dim=1)
        places = np.concatenate([_centres(*grid.strengths.shape[1:]) for grid in grids])
        scales = np.repeat(np.arange(len(grids)), [grid.strengths[0].numel() for grid in grids])
        # A stable sort: equal strengths stay in the order of the grid, alone and in a batch.
        order = strengths.sort(dim=1, descending=True, stable=True).indices[:, :count]
        results: list[ExtractedImage | NoDescriptorsError] = []
        for image, x, w, rows, global_ in zip(
            images, locals_, strengths, order, globals_, strict=True
        ):
            strongest = rows.cpu().numpy()
            results.append(
                _checked(
                    ExtractedImage(
                        np.asarray(image.corner + places[strongest] * image.extent, np.float32),
                        scales[strongest].astype(np.uint8),
                        w[rows].cpu().numpy(),
                        x[rows].cpu().numpy(),
                        global_,
                    )
                )
            )
        return results


def _within(image: Image.Image, box: Box | None) -> tuple[int, int, int, int]:
    width, height = image.size
    left, top, right, bottom = (int(side) for side in box or (0, 0, width, height))
    inside = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise NoDescriptorsError(f"no pixel of its {width} x {height} is in the box {box}")
    return inside


def _centres(rows: int, columns: int) -> NDArray[np.float64]:
    """x and y of every patch (rows * columns, 2) as fractions, row by row."""
    y, x = np.divmod(np.arange(rows * columns), columns)
    return np.stack(((x + 0.5) / columns, (y + 0.5) / rows), axis=1)


def _checked(features: ExtractedImage) -> ExtractedImage | NoDescriptorsError:
    if not all(
        np.isfinite(a).all() for a in (features.weights, features.descriptors, features.global_)
    ):
        return NoDescriptorsError("the network makes NaN or infinity of it")
    if not (features.descriptors.any(axis=1).all() and features.global_.any()):
        return NoDescriptorsError("the network makes a descriptor of zeros of it")
    return features
