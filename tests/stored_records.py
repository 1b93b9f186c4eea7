"""Records as the service stored them once, in tests/data/records, and what they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.descriptors import ImageDescriptors
from model.quantisation import StoreDtype
from service.gallery.record import GalleryRecord

_FOLDER = Path(__file__).parent / "data" / "records"
COLLECTION = "kept"
NAMES = (
    "float16_with_global",
    "float32_without_global",
    "int8_with_global",
    "int4_with_padding",
    "binary_without_global",
    "float16_with_global_3",
    "int4_with_padding_3",
)
_SCALES = np.array([0, 1, 2, 1, 0], np.uint8)
_METADATA = {"url": "https://example.org/ü.jpg", "n": 7}
_PADDING = np.array([False, True, False, False, False])


def stored_bytes(name: str) -> bytes:
    return (_FOLDER / f"{name}.bin").read_bytes()


def source(name: str) -> GalleryRecord:
    """What was stored, before it was rounded."""
    with np.load(_FOLDER / "expected.npz") as arrays:
        locals_, global_ = arrays["locals_16"], arrays["global_16"]
        match name:
            case "float32_without_global":
                image = ImageDescriptors(arrays["locals_32"], np.zeros(3, np.uint8))
                return GalleryRecord(image)
            case "binary_without_global":
                return GalleryRecord(ImageDescriptors(locals_, _SCALES))
            case "int4_with_padding" | "int4_with_padding_3":
                rows = locals_ * ~_PADDING[:, None]
                image = ImageDescriptors(rows, _SCALES, global_, _PADDING)
            case _:
                image = ImageDescriptors(locals_, _SCALES, global_)
    return GalleryRecord(image, _METADATA)


def expected(name: str) -> GalleryRecord:
    """What is read."""
    stored = source(name)
    image, dtype = stored.descriptors, _dtype(name)
    if dtype in ("float32", "float16"):
        global_ = None if image.global_ is None else image.global_.astype(dtype)
        image = ImageDescriptors(image.locals.astype(dtype), image.scales, global_)
    else:
        with np.load(_FOLDER / "decoded.npz") as arrays:
            global_ = arrays["global"] if image.global_ is not None else None
            image = ImageDescriptors(arrays[dtype], image.scales, global_, image.padding)
    return GalleryRecord(image, stored.metadata, dtype)


def _dtype(name: str) -> StoreDtype:
    dtype: StoreDtype = name.split("_")[0]  # type: ignore[assignment]
    return dtype
