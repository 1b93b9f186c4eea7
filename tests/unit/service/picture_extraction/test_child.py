"""What comes over HTTP is read like a file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from model.descriptors import ExtractedImage
from model.extraction.extractor import Extractor
from model.extraction.registry import load_extractor
from service.picture_extraction.child import describe
from service.picture_extraction.messages import (
    Answer,
    Described,
    Failed,
    Picture,
    Refused,
    answer_from,
    encode,
    extracted,
)
from tests.pictures import EXTRACTOR, blank, photograph


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return load_extractor(EXTRACTOR)


def told(extractor: Extractor, data: bytes, thumbnail: bool = False) -> Answer:
    """As it arrives."""
    return answer_from(encode(describe(extractor, Picture(data, thumbnail), 7)))


def test_descriptors_arrive_as_they_were_made(extractor: Extractor) -> None:
    data = photograph("chelsea")
    answer = told(extractor, data)
    assert isinstance(answer, Described)
    picture = extracted(answer)
    assert picture.thumbnail is None
    image = Image.open(io.BytesIO(data))
    expected = extractor.extract(image, 7)
    assert picture.size == image.size
    for name, array in vars(expected).items():
        np.testing.assert_array_equal(getattr(picture.features, name), array)
        assert getattr(picture.features, name).dtype == array.dtype


def test_a_thumbnail_is_made_of_the_same_pixels(extractor: Extractor) -> None:
    answer = told(extractor, photograph("chelsea", 400), thumbnail=True)
    assert isinstance(answer, Described)
    assert answer.thumbnail is not None
    with Image.open(io.BytesIO(answer.thumbnail)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (192, round(192 * answer.height / 400)))


def test_broken_exif_is_no_fault_of_the_pixels(extractor: Extractor) -> None:
    answer = told(extractor, blank((20, 10), exif=b"Exif\x00\x00\x00\x00\x00\x08"))
    assert isinstance(answer, Described)
    assert (answer.width, answer.height) == (20, 10)


@pytest.mark.parametrize("size", [(70_000, 1), (1, 70_000)])
def test_each_side_has_a_limit(extractor: Extractor, size: tuple[int, int]) -> None:
    answer = told(extractor, blank(size, "L"))
    assert isinstance(answer, Refused)
    assert answer.max_pixels == 65_535**2
    assert f"has {size[0]} x {size[1]} pixels" in answer.why


def test_a_format_that_costs_more_has_a_lower_limit(extractor: Extractor) -> None:
    answer = told(extractor, blank((6000, 5000), form="WEBP", quality=1, method=0))
    assert isinstance(answer, Refused)
    assert answer.max_pixels == 25_000_000


def test_what_is_no_picture_is_said_with_the_formats(extractor: Extractor) -> None:
    answer = told(extractor, b"%PDF-1.7")
    assert isinstance(answer, Refused)
    assert "JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF" in answer.why
    assert answer.max_pixels is None


class Defective:
    """An extractor that raises what none should."""

    name, version, descriptor_dim, global_dim = "defective", "1", 4, 4

    def extract(self, image: Image.Image, count: int) -> ExtractedImage:
        raise ZeroDivisionError(f"{image.size}, {count}")


def test_a_defect_ends_one_picture_and_not_the_process() -> None:
    assert told(Defective(), blank((20, 10))) == Failed("ZeroDivisionError: (20, 10), 7")
