"""Made-up images."""

from __future__ import annotations

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
