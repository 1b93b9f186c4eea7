"""The pictures of docs/page, taken anew with LOCORE_SCREENSHOTS=1: of the sample, and of a folder
as a stranger would have it, for which the sample's views stand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from service.page.sample.sample_folders import SampleFolders
from tests.slow.browser import looking
from tests.slow.own_collections import register_pictures
from tests.slow.page_steps import PHONE, ids, open_matches, settled

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif("LOCORE_SCREENSHOTS" not in os.environ, reason="only when asked for"),
]

PICTURES = Path(__file__).parents[2] / "docs/page"
DARK: dict[str, object] = {"color_scheme": "dark", "viewport": {"width": 1180, "height": 800}}
SHOTS: dict[str, tuple[str, dict[str, object], int | None]] = {
    "desktop": ("collection=sample&query=retina-1.jpg", {}, None),
    "matches": ("collection=sample&query=chelsea-2.jpg", DARK, 1),
    "own": ("collection=my-photographs&image=coffee-1/1.jpg", {}, None),
    "phone": ("collection=sample&query=chelsea-2.jpg", PHONE, None),
}


@pytest.fixture(scope="module")
def own(url: str, data_dir: Path) -> str:
    gallery = SampleFolders(data_dir / "sample").gallery
    files = sorted(gallery.glob("co*/*.jpg")) + sorted(gallery.glob("[car]*/*.jpg"))
    files = list(dict.fromkeys(files))[:160]
    pictures = [(str(file.relative_to(gallery)), file) for file in files]
    register_pictures(url, "my-photographs", pictures)
    return url


@pytest.mark.parametrize("name", SHOTS)
def test_screenshots(browser: Browser, own: str, name: str) -> None:
    address, options, result = SHOTS[name]
    PICTURES.mkdir(exist_ok=True)
    path = PICTURES / f"{name}.png"
    with looking(browser, f"{own}/#{address}", **options) as page:
        settled(page)
        if result is not None:
            open_matches(page, ids(page, "second")[result])
        page.mouse.move(0, 0)
        page.wait_for_timeout(1500)
        if name == "phone":
            tall: Any = {"x": 0, "y": 0, "width": 360, "height": 1100}
            page.screenshot(path=path, clip=tall, full_page=True)
        else:
            page.screenshot(path=path)
    # 256 colours: a third of the bytes.
    shot = Image.open(path).convert("RGB")
    palette = shot.quantize(256, kmeans=2)
    shot.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    assert path.stat().st_size < 300_000
