"""The contract of an extractor, and the register of those that there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.descriptors import ImageDescriptors


@dataclass(frozen=True, eq=False)
class ExtractedImage:
    """One image's features, strongest first; rows of unit length, float32.

    keypoints (n, 2): x and y of each local as fractions of the image's width and height;
    scales (n,): step of the image pyramid, 0 the largest; weights (n,): detection strength;
    descriptors (n, d); global_ (g,).
    """

    keypoints: NDArray[np.float32]
    scales: NDArray[np.uint8]
    weights: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    global_: NDArray[np.float32]

    def for_reranking(self) -> ImageDescriptors:
        return ImageDescriptors(self.descriptors, self.scales, self.global_)


class Extractor(Protocol):
    """Makes descriptors of images. `name` and `version` are stored with all that it makes:
    descriptors of two versions do not mix."""

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


def _efficientnet_lite0() -> Extractor:
    from model.extraction.efficientnet_lite0 import EfficientNetLite0

    return EfficientNetLite0.load()


EXTRACTORS: dict[str, Callable[[], Extractor]] = {"efficientnet-lite0": _efficientnet_lite0}
"""By name; a loader imports its own dependencies, so that one extractor does not need another's."""


class ExtractorError(ValueError):
    """An extractor that is not registered, or whose packages are not installed."""


def load_extractor(name: str) -> Extractor:
    """Raises ExtractorError."""
    try:
        loader = EXTRACTORS[name]
    except KeyError:
        known = ", ".join(sorted(EXTRACTORS))
        raise ExtractorError(f"no extractor {name!r}; there are: {known}") from None
    try:
        return loader()
    except ModuleNotFoundError as error:
        raise ExtractorError(
            f"{name} needs the extra [extract], pip install 'locore[extract]': {error}"
        ) from None
