"""A picture is what a viewer shows, whatever it is stored as, and costs no more than it says."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from model.extraction import pixels
from model.extraction.images import UnreadableImageError, read_image
from model.extraction.pixels import (
    FORMATS,
    MAX_BYTES,
    MAX_PIXELS,
    PixelsError,
    TooManyPixelsError,
    read_pixels,
)

GREY = np.add.outer(np.arange(24), 4 * np.arange(50)).astype(np.uint8)


def rgb_of(data: bytes) -> NDArray[np.int64]:
    return np.asarray(read_pixels(io.BytesIO(data)).image).astype(np.int64)


def stored(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def grey(values: NDArray[np.generic], form: str = "PNG", **options: object) -> bytes:
    return stored(Image.fromarray(values), form, **options)


def white_is_zero() -> bytes:
    """The tag's entry says so, and the values are turned round."""
    data = grey(65_535 - GREY.astype(np.uint16) * 257, "TIFF")
    entry = b"\x06\x01\x03\x00\x01\x00\x00\x00"
    assert data.count(entry + b"\x01") == 1
    return data.replace(entry + b"\x01", entry + b"\x00")


@pytest.mark.parametrize(
    "data",
    [
        grey(GREY.astype(np.uint16) * 257),
        grey(GREY.astype(np.uint16) * 257, "TIFF"),
        grey(GREY.astype(np.uint16) * 257, "JPEG2000"),
        grey(GREY.astype(np.float32) / 255, "TIFF"),
        white_is_zero(),
    ],
    ids=["png", "tiff", "jp2", "floats", "white is zero"],
)
def test_grey_of_more_bits_is_the_grey_of_8(data: bytes) -> None:
    assert abs(rgb_of(data) - GREY[..., None]).max() <= 1


@pytest.mark.parametrize("white", [255, 1023, 4095])
def test_fewer_bits_in_16_are_not_all_black(white: int) -> None:
    values = (GREY.astype(np.float64) / GREY.max() * white).astype(np.uint16)
    assert rgb_of(grey(values)).max() == 255


@pytest.mark.parametrize(
    "values",
    [
        GREY.astype(np.int32) * 1000 - 90_000,
        GREY.astype(np.float32) * 80 - 7,
        np.where(GREY == 7, np.nan, GREY.astype(np.float32) * 3),
        np.where(GREY == 7, np.inf, GREY.astype(np.float32) * 3),
    ],
    ids=["heights", "metres", "nan", "infinity"],
)
def test_numbers_without_a_white_of_their_own_go_from_black_to_white(
    values: NDArray[np.generic],
) -> None:
    rgb_values = rgb_of(
        grey(values.astype(np.int32 if values.dtype.kind == "i" else np.float32), "TIFF")
    )
    assert (rgb_values.min(), rgb_values.max()) == (0, 255)
    assert len(np.unique(rgb_values)) > 100


def test_nothing_but_nan_is_no_picture() -> None:
    with pytest.raises(PixelsError, match="no pixel is a number"):
        rgb_of(grey(np.full((4, 4), np.nan, np.float32), "TIFF"))


def logo(colour: int, place: int, mode: str) -> Image.Image:
    """A square of one colour on transparent ground."""
    alpha = Image.new("L", (40, 40), 0)
    alpha.paste(255, (place, place, place + 12, place + 12))
    image = Image.new("RGB", (40, 40), (colour,) * 3)
    image.putalpha(alpha)
    return image.convert(mode)


@pytest.mark.parametrize(("mode", "form"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP")])
@pytest.mark.parametrize("colour", [0, 90, 255])
def test_shapes_on_transparent_ground_are_seen(mode: str, form: str, colour: int) -> None:
    first, second = (
        rgb_of(stored(logo(colour, place, mode), form, lossless=True)) for place in (3, 20)
    )
    assert abs(first - second).max() > 60
    # On white, but for what white would hide.
    assert (first[0, 0] == (0 if colour == 255 else 255)).all()


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.fromarray(np.repeat(np.array([[0, 1]], np.uint8), 4, axis=1), "P")
    image.putpalette([255, 0, 255, 0, 0, 0])
    rgb_values = rgb_of(stored(image, "GIF", transparency=0))
    assert rgb_values[0, 0].tolist() == [255, 255, 255]
    assert rgb_values[0, -1].tolist() == [0, 0, 0]


def with_exif(form: str, exif: bytes) -> bytes:
    return stored(Image.fromarray(GREY).convert("RGB"), form, exif=exif)


@given(st.binary(max_size=60), st.sampled_from(["JPEG", "PNG", "WEBP"]))
@settings(max_examples=30, deadline=None)
def test_exif_of_any_bytes_is_no_fault_of_the_pixels(tail: bytes, form: str) -> None:
    assert rgb_of(with_exif(form, b"Exif\x00\x00" + tail)).size == GREY.size * 3
    assert rgb_of(with_exif(form, b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + tail)).size


def test_a_comment_called_exif_is_no_fault_of_the_pixels() -> None:
    comments = PngImagePlugin.PngInfo()
    comments.add_text("exif", "b'Exif\\x00'")
    assert rgb_of(stored(Image.fromarray(GREY), pnginfo=comments)).size == GREY.size * 3


@given(st.binary(min_size=1, max_size=40))
@settings(max_examples=30, deadline=None)
def test_a_damaged_list_of_further_pictures_is_no_fault_of_the_first(tail: bytes) -> None:
    data = stored(Image.fromarray(GREY), "JPEG")
    block = b"MPF\x00II*\x00\x08\x00\x00\x00" + tail
    length = (len(block) + 2).to_bytes(2, "big")
    assert rgb_of(data[:2] + b"\xff\xe2" + length + block + data[2:]).size == GREY.size * 3


@pytest.mark.parametrize(("orientation", "size"), [(3, (50, 24)), (6, (24, 50)), (9, (50, 24))])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_pictures_are_turned_upright_once(
    form: str, orientation: int, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgb_values = read_pixels(io.BytesIO(with_exif(form, exif.tobytes())))
    assert (rgb_values.image.size, rgb_values.size) == (size, size)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_read(form: str) -> None:
    image = Image.fromarray(np.repeat(GREY[..., None], 3, axis=2))
    assert abs(rgb_of(stored(image, form)) - np.asarray(image)).mean() < 12


@pytest.mark.parametrize("size", [(79_999_999, 1), (1, 79_999_999), (65_536, 65_536)])
def test_sides_and_pixels_are_bounded_before_anything_is_decoded(size: tuple[int, int]) -> None:
    header = bytearray(stored(Image.new("L", (1, 1)), "BMP"))
    header[18:26] = b"".join(side.to_bytes(4, "little") for side in size)
    with pytest.raises(TooManyPixelsError, match=f"{size[0]} x {size[1]} pixels"):
        read_pixels(io.BytesIO(header))


def test_what_extractors_do_not_look_at_is_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MAX_PIXELS", 200)
    for form in FORMATS:
        data = io.BytesIO(stored(Image.fromarray(GREY).convert("RGB"), form))
        rgb_values = read_pixels(data)
        assert rgb_values.size == (50, 24)
        assert rgb_values.image.width * rgb_values.image.height <= 200
        assert rgb_values.image.width == pytest.approx(2 * rgb_values.image.height, abs=2)
        data.seek(0)
        assert read_pixels(data, full_size=True).image.size == (50, 24)


MEASURE = """
import sys
from pathlib import Path
from PIL import Image
from model.extraction.pixels import PixelsError, read_pixels
def peak():
    line = next(l for l in open("/proc/self/status") if l.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
Image.init()
before = peak()
try:
    read_pixels(Path(sys.argv[1]))
except PixelsError as error:
    print(error, file=sys.stderr)
print(peak() - before)
"""


def large() -> Iterator[tuple[str, str, dict[str, object]]]:
    yield "RGBA", "PNG", {"compress_level": 1}
    yield "I;16", "PNG", {"compress_level": 1}
    yield "RGB", "JPEG", {"progressive": True, "subsampling": 0}
    yield "RGB", "TIFF", {"compression": "tiff_adobe_deflate", "strip_size": 1 << 30}
    yield "RGB", "WEBP", {"quality": 1, "method": 0}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("mode", "form", "options"), large())
def test_a_picture_takes_the_memory_that_is_set_for_it(
    tmp_path: Path, mode: str, form: str, options: dict[str, object]
) -> None:
    Image.new(mode, (6000, 4000)).save(tmp_path / "x", form, **options)
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "x"],
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
    )
    assert process.stderr == ""
    assert int(process.stdout) < MAX_BYTES * 24e6 / 25e6 + 6 * MAX_PIXELS


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(UnreadableImageError, match=r"x\.jpg: no plain file"):
        read_image(tmp_path / "x.jpg")
