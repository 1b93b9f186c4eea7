"""Descriptor files of made-up classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.config import ExtractorId
from model.descriptor_file import DescriptorWriter
from model.descriptors import ExtractedImage, ImageDescriptors
from tests.factories import unit

MADE_UP = ExtractorId(name="made-up", version="1")


def write_descriptors(
    path: Path,
    ids: list[str],
    seed: int = 0,
    sizes: tuple[int, int] = (8, 12),
    extractor: ExtractorId = MADE_UP,
) -> None:
    """Made-up descriptors; images of one class, whose names are alike up to a hyphen, are alike."""
    local_dim, global_dim = sizes
    rng = np.random.default_rng(seed)
    classes: dict[str, ImageDescriptors] = {}
    with DescriptorWriter(
        path,
        extractor=extractor.name,
        extractor_version=extractor.version,
        descriptors_per_image=6,
        descriptor_dim=local_dim,
        global_dim=global_dim,
    ) as writer:
        for image_id in ids:
            name = image_id.split("/")[-1].split("-")[0]
            if name not in classes:
                classes[name] = ImageDescriptors(
                    unit(rng, 6, local_dim), np.zeros(6, np.uint8), unit(rng, 1, global_dim)[0]
                )
            like = classes[name]
            assert like.global_ is not None
            writer.append(
                image_id,
                ExtractedImage(
                    rng.random((6, 2), np.float32),
                    like.scales,
                    np.ones(6, np.float32),
                    like.locals + 0.5 * unit(rng, 6, local_dim),
                    like.global_ + 0.9 * unit(rng, 1, global_dim)[0],
                ),
            )


def write_endless(path: Path) -> None:
    """A descriptor file with a flipped bit that HDF5 2.0 never comes through: the size of the first
    string, in the heap of strings, points far beyond it."""
    write_descriptors(path, ["a", "b"])
    data = bytearray(path.read_bytes())
    data[data.index(b"GCOL") + 25] ^= 1
    path.write_bytes(data)
