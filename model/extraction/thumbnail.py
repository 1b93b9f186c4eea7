"""A picture made small, to be shown: WebP of a bounded size."""

from __future__ import annotations

import io

from PIL import Image

MOST_SIDE = 192
"""Pixels."""
MOST_BYTES = 16 << 10

# Side and quality, until one is small enough: the last always is.
_ATTEMPTS = ((MOST_SIDE, 70), (MOST_SIDE, 40), (MOST_SIDE // 2, 40), (MOST_SIDE // 4, 40))


def thumbnail(image: Image.Image) -> bytes:
    """WebP of an RGB picture: sides of at most MOST_SIDE pixels, at most MOST_BYTES."""
    for side, quality in _ATTEMPTS:
        small = image.copy()
        small.thumbnail((side, side))
        data = io.BytesIO()
        small.save(data, "WEBP", quality=quality)
        if data.tell() <= MOST_BYTES:
            break
    return data.getvalue()
