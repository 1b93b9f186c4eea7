"""Descriptor files of made-up classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.descriptor_file import DescriptorWriter
from model.descriptors import ImageDescriptors
from model.extraction.extractor import ExtractedImage
from tests.factories import unit


def write_descriptors(path: Path, ids: list[str], seed: int = 0) -> None:
    """Made-up descriptors of the tiny model's sizes; images of one class are alike."""
    rng = np.random.default_rng(seed)
    classes: dict[str, ImageDescriptors] = {}
    with DescriptorWriter(
        path,
        extractor="made-up",
        extractor_version="1",
        descriptors_per_image=6,
        descriptor_dim=8,
        global_dim=12,
    ) as writer:
        for image_id in ids:
            name = image_id.split("/")[-1].split("-")[0]
            if name not in classes:
                classes[name] = ImageDescriptors(
                    unit(rng, 6, 8), np.zeros(6, np.uint8), unit(rng, 1, 12)[0]
                )
            like = classes[name]
            assert like.global_ is not None
            writer.append(
                image_id,
                ExtractedImage(
                    rng.random((6, 2), np.float32),
                    like.scales,
                    np.ones(6, np.float32),
                    like.locals + 0.5 * unit(rng, 6, 8),
                    like.global_ + 0.9 * unit(rng, 1, 12)[0],
                ),
            )
