"""What comes over HTTP is read like a file, and refused in the service's own errors."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from service.errors import TooLargeError, UnprocessableError
from service.uploads import read_upload


def stored(size: tuple[int, int], mode: str = "RGB", form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, form, **options)
    return file.getvalue()


def test_broken_exif_is_no_fault_of_the_pixels() -> None:
    data = stored((20, 10), exif=b"Exif\x00\x00\x00\x00\x00\x08")
    assert read_upload(data).size == (20, 10)


@pytest.mark.parametrize("size", [(70_000, 1), (1, 70_000)])
def test_each_side_has_a_limit(size: tuple[int, int]) -> None:
    with pytest.raises(TooLargeError, match=f"the image has {size[0]} x {size[1]} pixels") as error:
        read_upload(stored(size, "L"))
    assert error.value.details["max_pixels"] == 65_535**2


def test_a_format_that_costs_more_has_a_lower_limit() -> None:
    with pytest.raises(TooLargeError) as error:
        read_upload(stored((6000, 5000), form="WEBP", quality=1, method=0))
    assert error.value.details["max_pixels"] == 25_000_000


def test_what_is_no_picture_is_said_with_the_formats() -> None:
    with pytest.raises(UnprocessableError, match="JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF"):
        read_upload(b"%PDF-1.7")
