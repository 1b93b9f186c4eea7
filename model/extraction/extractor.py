"""The interface of an extractor; `registry` lists the extractors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.descriptors import ExtractedImage


class Extractor(Protocol):
    """Makes descriptors of images. `name` and `version` are stored with the descriptors: those of
    two versions do not mix."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def descriptor_dim(self) -> int: ...
    @property
    def global_dim(self) -> int: ...

    def extract(self, image: Image.Image, count: int) -> ExtractedImage:
        """The strongest `count` locals (fewer, where the image has fewer) and the global."""
        ...


class NoDescriptorsError(ValueError):
    """An image for which a network returns NaN, infinity or a descriptor of zeros."""


Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, in its pixels."""


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image as a batch takes it: `pixels` a step of the pyramid each, (height, width, 3) uint8.

    `corner` and `extent`: x and y of the part that they show, and its width and height, as
    fractions of the whole image's; keypoints refer to the whole image.
    """

    pixels: tuple[NDArray[np.uint8], ...]
    corner: tuple[float, float] = (0.0, 0.0)
    extent: tuple[float, float] = (1.0, 1.0)


@runtime_checkable
class BatchExtractor(Extractor, Protocol):
    """An extractor that is faster with several images at a time."""

    def prepare(self, image: Image.Image, box: Box | None = None) -> PreparedImage:
        """Prepares the image, or its part in `box`; may run in several threads. Raises
        NoDescriptorsError if no pixel of the image is in the box."""
        ...

    def extract_batch(
        self, images: Sequence[PreparedImage], count: int
    ) -> list[ExtractedImage | NoDescriptorsError]:
        """Like `extract`, for images whose pixels have the same sizes, in their order."""
        ...


@dataclass(frozen=True)
class ExtractorOptions:
    """Options for loading an extractor; None means the extractor's default.

    `weights`: a folder of config.json and safetensors; `detector`: a file of the weights of the
    detector; `scales`: steps of the image pyramid; `device`: a torch device's name.
    """

    weights: Path | None = None
    detector: Path | None = None
    scales: tuple[float, ...] | None = None
    device: str | None = None

    def option_names(self) -> list[str]:
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


class ExtractorError(ValueError):
    """An extractor is not registered, its packages or weights are missing or wrong, or it does not
    have an option."""
