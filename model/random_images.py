"""Random descriptors, for warming up and for measurements."""

from __future__ import annotations

import numpy as np

from model.config import ModelConfig
from model.descriptors import DescriptorSizes, ImageDescriptors, normalised
from model.windows import Window

DEFAULT_SIZES = DescriptorSizes(128, 512)
"""Of EfficientNet-Lite0's descriptors."""


def random_image(rng: np.random.Generator, config: ModelConfig) -> ImageDescriptors:
    """As large as an image can be for this checkpoint; if it takes any size, of the default
    extractor's sizes."""
    sizes = config.sizes or DEFAULT_SIZES
    rows = config.descriptors_per_image
    locals_ = rng.standard_normal((rows, sizes.local_dim)).astype(np.float32)
    global_ = rng.standard_normal(sizes.global_dim or 1).astype(np.float32)
    return ImageDescriptors(
        normalised(locals_, "locals"),
        np.zeros(rows, np.uint8),
        normalised(global_, "global") if sizes.global_dim else None,
    )


def random_window(config: ModelConfig, images: int) -> Window:
    """A random query and gallery, always the same."""
    rng = np.random.default_rng(0)
    return Window(random_image(rng, config), [random_image(rng, config) for _ in range(images)])
