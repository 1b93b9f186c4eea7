"""Pictures as bytes: photographs that come with scikit-image, and what is none."""

from __future__ import annotations

import io

import skimage.data
from PIL import Image

EXTRACTOR = "efficientnet-lite0"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def photograph(name: str, side: int = 160) -> bytes:
    """A JPEG, whose longer side is `side`."""
    image = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def blank(size: tuple[int, int], mode: str = "RGB", form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, form, **options)
    return file.getvalue()
