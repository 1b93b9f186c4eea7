"""Records as version 1 of their format stored them, in tests/data/records, and what they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.descriptors import ImageDescriptors
from service.gallery.record import GalleryRecord

_FOLDER = Path(__file__).parent / "data" / "records"
COLLECTION = "kept"
NAMES = ("float16_with_global", "float32_without_global")


def stored_bytes(name: str) -> bytes:
    return (_FOLDER / f"{name}.bin").read_bytes()


def expected(name: str) -> GalleryRecord:
    """The arrays of the file beside the records, and what else went into them."""
    with np.load(_FOLDER / "expected.npz") as arrays:
        if name == "float16_with_global":
            image = ImageDescriptors(
                arrays["locals_16"].astype(np.float16),
                np.array([0, 1, 2, 1, 0], np.uint8),
                arrays["global_16"].astype(np.float16),
            )
            return GalleryRecord(image, {"url": "https://example.org/ü.jpg", "n": 7})
        return GalleryRecord(ImageDescriptors(arrays["locals_32"], np.zeros(3, np.uint8)))
