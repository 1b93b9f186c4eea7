from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from model.extraction.thumbnail import MAX_BYTES, MAX_SIDE, thumbnail


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (192, 144)),
        ((300, 900), (64, 192)),
        ((50, 40), (50, 40)),
        ((1, 1), (1, 1)),
        ((60_000, 2), (192, 1)),
    ],
)
def test_it_keeps_the_shape_and_makes_nothing_larger(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    small = opened(thumbnail(Image.new("RGB", size, (200, 30, 30))))
    assert (small.format, small.size) == ("WEBP", expected)
    red, green, blue = np.asarray(small.convert("RGB")).mean((0, 1))
    assert red > 150 > max(green, blue)


def test_even_noise_is_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    data = thumbnail(Image.fromarray(noise))
    assert len(data) <= MAX_BYTES
    tiled = noise[:MAX_SIDE, :MAX_SIDE]
    assert len(thumbnail(Image.fromarray(tiled))) <= MAX_BYTES
