"""Made-up images."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from locore_client import ImageArrays, image_from_arrays

LOCAL_DIM, GLOBAL_DIM = 8, 12


def image(rng: np.random.Generator, rows: int = 6, *, with_global: bool = True) -> ImageArrays:
    return image_from_arrays(
        rng.standard_normal((rows, LOCAL_DIM)),
        rng.integers(0, 3, rows),
        rng.standard_normal(GLOBAL_DIM) if with_global else None,
    )


def images(count: int) -> Iterator[tuple[str, ImageArrays]]:
    rng = np.random.default_rng(5)
    for n in range(count):
        yield f"many/{n:04}", image(rng, 2, with_global=n % 2 > 0)


def picture(seed: int, side: int = 96) -> bytes:
    """A PNG of coloured squares."""
    squares = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    pixels = squares.repeat(8, 0).repeat(8, 1)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
