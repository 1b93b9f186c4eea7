"""The page of `locore eval mine --report`, opened as a person opens it: from the disk.

With LOCORE_SCREENSHOTS=1 the docs' picture is taken anew, of a report on the sample's gallery.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from model.evaluation.report import report
from model.evaluation.verdict import verdict
from service.page.sample.sample_folders import SampleFolders
from tests.e2e.service import LOCORE
from tests.own_folders import write_picture
from tests.slow.browser import looking, serious
from tests.slow.page_steps import PHONE
from tests.verdict_cases import QUERIES, around, circumstances, judgement

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

WIDE: dict[str, object] = {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    first, gains = around(0.5, seed=1), np.zeros(QUERIES)
    gains[:20], gains[50:] = np.linspace(0.4, 0.02, 20), np.linspace(-0.02, -0.2, 10)
    of = judgement(first, first + gains, in_metric=first + 0.2)
    names = (*of.queries, *of.gallery)
    for seed, name in enumerate(names):
        write_picture(folder / name, seed)
    where = circumstances(folder, names=names)
    path = folder / "report.html"
    path.write_text(report(of, where, verdict(of, where)), encoding="utf-8")
    return path


@contextmanager
def opened(browser: Browser, html: Path, options: dict[str, object]) -> Iterator[Page]:
    with looking(browser, html.as_uri(), offline=True, **options) as page:
        yield page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_report_opens_without_a_network(
    browser: Browser, html: Path, size: dict[str, object], scheme: str
) -> None:
    with opened(browser, html, size | {"color_scheme": scheme}) as page:
        assert page.title().startswith("Does re-ranking help on ")
        assert page.get_by_role("heading", name="Worth it").is_visible()
        assert page.locator("article").count() == 20
        page.eval_on_selector_all("img", "all => all.forEach(i => { i.loading = 'eager'; })")
        page.wait_for_function("[...document.images].every(i => i.complete)")
        sizes = page.eval_on_selector_all("img", "all => all.map(i => i.naturalWidth)")
        assert len(sizes) == 20 * 9
        assert min(sizes) > 0
        # Nothing is wider than the window, however narrow that is.
        width = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert width <= 0
        for plot in page.locator("svg").all():
            frame = plot.bounding_box()
            assert frame is not None
            for text in plot.locator("text").all():
                box = text.bounding_box()
                assert box is not None
                assert box["x"] >= frame["x"] - 1
                assert box["x"] + box["width"] <= frame["x"] + frame["width"] + 1
        assert serious(page) == []


@pytest.mark.skipif("LOCORE_SCREENSHOTS" not in os.environ, reason="only when asked for")
def test_screenshot(browser: Browser, data_dir: Path, url: str, tmp_path: Path) -> None:
    shutil.copytree(SampleFolders(data_dir / "sample").gallery, tmp_path / "photos")
    command = [LOCORE, "eval", "mine", "photos", "--report", "report.html"]
    subprocess.run(command, cwd=tmp_path, check=True)
    picture = Path(__file__).parents[2] / "docs" / "own-pictures" / "report.png"
    picture.parent.mkdir(exist_ok=True)
    tall: dict[str, object] = {"viewport": {"width": 1280, "height": 1640}}
    with opened(browser, tmp_path / "report.html", tall) as page:
        page.screenshot(path=picture)
    # 256 colours: a third of the bytes.
    shot = Image.open(picture).convert("RGB")
    palette = shot.quantize(256, kmeans=2)
    shot.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(picture, optimize=True)
    assert picture.stat().st_size < 300_000
