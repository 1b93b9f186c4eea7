"""A picture's pixels as a viewer shows them: RGB of 8 bits, upright, on white, at a bounded cost.

The header tells how much memory decoding takes, before anything is decoded. JPEG and JPEG 2000 are
decoded at a fraction of their size where they are large; what is decoded whole becomes RGB strip by
strip. Bytes of a pixel were measured: Pillow 13.0.0's peak on pictures of 40 million pixels.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

try:
    from pillow_heif import register_heif_opener
except ModuleNotFoundError:
    HEIF: tuple[str, ...] = ()
else:
    register_heif_opener()
    HEIF = ("HEIF",)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", *HEIF)
"""As Pillow calls them. HEIF needs the extra [heif]."""
MAX_SIDE = 65_535
"""Pixels, the longest side of a JPEG. Resizing keeps numbers for every pixel of a side."""
MAX_BYTES = 400_000_000
"""Bytes that decoding one picture may take."""
MAX_PIXELS = 1 << 24
"""A larger picture is shrunk by a whole factor. No extractor needs more pixels."""

_BYTES = {"PNG": 4, "GIF": 4, "BMP": 4, "TIFF": 8, "HEIF": 8, "AVIF": 16, "WEBP": 16}
"""Of a pixel; a strip of a TIFF may be the whole picture."""
_JPEG2000_BYTES = 24
_COEFFICIENT = 2
_JPEG_MAGIC = b"\xff\xd8\xff"
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = (5, 6, 7, 8)
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_WHITES = (255, 1023, 4095)
"""The white of cameras and scanners that store fewer bits in 16."""
_STRIP = 1 << 20
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_FLAT = 8
"""A picture with fewer grey levels looks empty."""

# The limits here are stricter, and for each format its own.
Image.MAX_IMAGE_PIXELS = MAX_SIDE**2
# Pillow warns of metadata, in several lines; the pixels are what counts.
warnings.filterwarnings("ignore", module="PIL")


class PixelsError(ValueError):
    """No picture, a damaged one, or one in a format that is not read."""


class TooManyPixelsError(PixelsError):
    """A picture that would take too much memory; `max_pixels` of its format could be read."""

    def __init__(self, message: str, max_pixels: int) -> None:
        super().__init__(message)
        self.max_pixels = max_pixels


@dataclass(frozen=True, eq=False)
class Pixels:
    """`image`: RGB, upright, perhaps shrunk; `size`: width and height of the picture itself,
    upright."""

    image: Image.Image
    size: tuple[int, int]


def read_pixels(source: Path | io.BytesIO, *, full_size: bool = False) -> Pixels:
    """Reads the first frame or page of a picture; with `full_size` every pixel, for places that
    count in pixels.

    Raises PixelsError, and FileNotFoundError for a path that leads nowhere.
    """
    try:
        with _opened(source) as image:
            size = image.size
            _check(size, _draft_bytes(image, 1 if full_size else _factor(size)))
            _load(image)
            rgb = _as_rgb(image, 1 if full_size else _factor(image.size))
            turn = _orientation(image)
    except (PixelsError, FileNotFoundError):
        raise
    # Decoders raise nearly any error for a damaged file.
    except Exception as error:  # noqa: BLE001
        raise PixelsError(str(error) or type(error).__name__) from None
    if turn in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[turn])
    return Pixels(rgb, size[::-1] if turn in _TURNED else size)


def is_picture(path: Path) -> bool:
    """Whether the first bytes are a picture's, whatever the name ends in."""
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Exception:  # noqa: BLE001
        return False


def _opened(source: Path | io.BytesIO) -> Image.Image:
    try:
        return Image.open(source, formats=FORMATS)
    except Exception:
        file = io.BytesIO(source.read_bytes()) if isinstance(source, Path) else source
        file.seek(0)
        if file.read(len(_JPEG_MAGIC)) != _JPEG_MAGIC:
            raise
        # An error in a JPEG's list of further pictures does not concern the first one.
        file.seek(0)
        return JpegImagePlugin.JpegImageFile(file)


def _factor(size: tuple[int, int]) -> int:
    """The smallest divisor of both sides that is enough."""
    width, height = size
    factor = 1
    while -(-width // factor) * -(-height // factor) > MAX_PIXELS:
        factor += 1
    return factor


def _draft_bytes(image: Image.Image, factor: int) -> int:
    """Has the decoder shrink by `factor` or the next power of two, if it can; returns the bytes
    that it takes."""
    pixels = image.width * image.height
    levels = (factor - 1).bit_length()
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        image.draft(None, (max(image.width >> levels, 1), max(image.height >> levels, 1)))
        # The coefficients of the whole picture are kept where it comes in several scans.
        across = max(h for _, h, _, _ in image.layer) * max(v for _, _, v, _ in image.layer)
        samples = sum(h * v for _, h, v, _ in image.layer) / across
        return int(_COEFFICIENT * samples * pixels) + 4 * image.width * image.height
    if image.format == "JPEG2000":
        # The plugin's own attribute, in the place of a method of Image.
        image.reduce = levels  # type: ignore[method-assign, assignment]
        return _JPEG2000_BYTES * (pixels >> 2 * levels)
    return _BYTES[image.format or ""] * pixels


def _check(size: tuple[int, int], cost: int) -> None:
    width, height = size
    if max(size) > MAX_SIDE:
        raise TooManyPixelsError(
            f"{width} x {height} pixels, but a side has at most {MAX_SIDE:,}", MAX_SIDE**2
        )
    if cost > MAX_BYTES:
        limit = width * height * MAX_BYTES // cost
        raise TooManyPixelsError(f"{width} x {height} pixels, over {limit:,} in all", limit)


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except Exception:
        # Metadata are looked at after the pixels: what is wrong with them then does not count.
        if getattr(image, "tile", True):
            raise


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; upright where it cannot be read."""
    with contextlib.suppress(Exception):
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1


def _as_rgb(image: Image.Image, factor: int) -> Image.Image:
    """RGB, divided by `factor`. Where transparency over white shows nothing, as with a white logo,
    it is over black."""
    transparent = image.has_transparency_data
    if factor == 1 and image.mode == "RGB" and not transparent:
        return image.copy()
    on_white = _composed(image, factor, _WHITE)
    if not transparent or not _flat(on_white):
        return on_white
    on_black = _composed(image, factor, _BLACK)
    return on_white if _flat(on_black) else on_black


def _flat(image: Image.Image) -> bool:
    dark, bright = image.convert("L").getextrema()
    return float(bright) - float(dark) < _FLAT  # type: ignore[arg-type]


def _composed(image: Image.Image, factor: int, ground: tuple[int, int, int]) -> Image.Image:
    levels = _levels(image)
    width, height = (-(-side // factor) for side in image.size)
    canvas = Image.new("RGB", (width, height))
    for top, strip in _strips(image, factor):
        if levels is not None:
            rgb = _grey(strip, *levels).convert("RGB")
        elif strip.has_transparency_data:
            rgba = strip.convert("RGBA")
            rgb = Image.new("RGB", strip.size, ground)
            rgb.paste(rgba, mask=rgba.getchannel("A"))
        else:
            rgb = strip.convert("RGB")
        canvas.paste(rgb.reduce(factor), (0, top // factor))
    return canvas


def _strips(image: Image.Image, factor: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """(first row, rows from it on), a whole number of times `factor` rows each."""
    rows = max(_STRIP // (image.width * factor), 1) * factor
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _levels(image: Image.Image) -> tuple[float, float] | None:
    """The numbers of black and white in a grey picture of more than 8 bits; None for others.

    Floats from 0 to 1 are what they are. 16 bits go to 65,535, or to the least of the usual whites
    that holds all, if that has 12 bits or fewer. Other numbers have no white of their own: the
    least is black, the greatest white.
    """
    if not image.mode.startswith(("I", "F")):
        return None
    # Infinity and NaN are no grey, and a strip of nothing else has no least.
    ranges = [(v.min(), v.max()) for v in map(_finite, _strips(image)) if v.size]
    if not ranges:
        raise PixelsError("no pixel is a number")
    dark = float(min(low for low, _ in ranges))
    bright = float(max(high for _, high in ranges))
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
        dark, bright = 0, next((w for w in _WHITES if bright <= w), (1 << bits) - 1)
    elif image.mode == "F" and dark >= 0 and bright <= 1:
        dark, bright = 0, 1
    # TIFF's "white is zero", which Pillow heeds in 8 bits alone.
    return (bright, dark) if tags.get(_PHOTOMETRIC) == 0 else (dark, bright)


def _finite(strip: tuple[int, Image.Image]) -> NDArray[np.generic]:
    values = np.asarray(strip[1])
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values


def _grey(strip: Image.Image, black: float, white: float) -> Image.Image:
    values = np.asarray(strip).astype(np.float32)
    grey = (values - black) * (255 / ((white - black) or 1))
    grey = np.nan_to_num(np.clip(grey, 0, 255), nan=0)
    key = strip.info.get("transparency")
    if isinstance(key, int):
        grey[values == key] = 255
    return Image.fromarray(np.rint(grey).astype(np.uint8))
