"""POST /extract as the page asks it: what is an image, and what is none."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from model.extraction.images import read_image
from model.extraction.registry import load_extractor
from service.api.arrays import PackedArray, unpack
from tests.e2e.service import RunningService, code_of
from tests.page_sample import (
    EXTRACTOR,
    ROWS,
    SUBJECTS,
    VIEWS,
    encoded,
    photograph,
)


def extracted(page: RunningService, picture: bytes) -> httpx.Response:
    kind = {"Content-Type": "image/*"}
    return page.http.post("/extract?timeout_ms=60000", content=picture, headers=kind)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_extraction_is_that_of_the_command(page: RunningService, tmp_path: Path, form: str) -> None:
    data = encoded(photograph(9), form)
    response = extracted(page, data)
    assert response.status_code == 200, response.text
    answer = response.json()
    file = tmp_path / "image"
    file.write_bytes(data)
    expected = load_extractor(EXTRACTOR).extract(read_image(file), ROWS)
    for name, array in (("descriptors", expected.descriptors), ("global", expected.global_)):
        values = unpack(PackedArray.model_validate(answer["query"][name]), array.ndim)
        np.testing.assert_allclose(values, array, atol=2e-4)
    keypoints = unpack(PackedArray.model_validate(answer["keypoints"]), 2)
    np.testing.assert_allclose(keypoints, expected.keypoints, atol=1e-6)
    assert (answer["width"], answer["height"]) == (160, 120)
    shortlist = page.http.post(
        "/page/shortlist", json={"collection": "sample", "query": answer["query"]}
    )
    assert len(shortlist.json()["results"]) == len(SUBJECTS) * VIEWS
    described = {"query": answer["query"], "keypoints": answer["keypoints"]}
    matches = {**described, "collection": "sample", "id": "one/0.jpg"}
    assert page.http.post("/page/matches", json=matches).is_success


def test_extraction_turns_an_image_upright(page: RunningService) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    answer = extracted(page, encoded(photograph(9), exif=exif)).json()
    assert (answer["width"], answer["height"]) == (120, 160)


def bomb() -> bytes:
    """A few bytes that say they are an image of 30,000 x 30,000 pixels."""
    header = bytearray(encoded(photograph(1), "BMP")[:54])
    header[18:26] = (30_000).to_bytes(4, "little") * 2
    return bytes(header)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "not_an_image"),
        (b"Dear Sir or Madam", 422, "not_an_image"),
        (b"%PDF-1.7 and so on", 422, "not_an_image"),
        (encoded(photograph(2))[:700], 422, "not_an_image"),
        (encoded(photograph(2), "PNG")[:-60], 422, "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "not_an_image"),
        (bomb(), 413, "payload_too_large"),
        (b"x" * 400_001, 413, "payload_too_large"),
    ],
    ids=["nothing", "text", "pdf", "half a jpeg", "half a png", "svg", "bomb", "too large"],
)
def test_what_is_no_image_is_refused(
    page: RunningService, content: bytes, status: int, code: str
) -> None:
    response = extracted(page, content)
    assert code_of(response) == (status, code)
    assert "/" not in response.json()["error"]["message"].replace("GET /", "")
