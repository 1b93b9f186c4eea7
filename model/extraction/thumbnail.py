"""A picture made small, to be shown: WebP of a bounded size."""

from __future__ import annotations

import io

from PIL import Image

MAX_SIDE = 192
"""Pixels."""
MAX_BYTES = 16 << 10

# Side and quality, until one is small enough: the last always is.
_ATTEMPTS = ((MAX_SIDE, 70), (MAX_SIDE, 40), (MAX_SIDE // 2, 40), (MAX_SIDE // 4, 40))


def thumbnail(image: Image.Image) -> bytes:
    """WebP of an RGB picture: sides of at most MAX_SIDE pixels, at most MAX_BYTES."""
    for side, quality in _ATTEMPTS:
        small = image.copy()
        small.thumbnail((side, side))
        data = io.BytesIO()
        small.save(data, "WEBP", quality=quality)
        if data.tell() <= MAX_BYTES:
            break
    return data.getvalue()
