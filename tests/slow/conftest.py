"""A tiny checkpoint; for the tests of the page a service with its sample gallery, and a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from service.page.sample.sample_folders import SampleFolders
from tests.factories import save_tiny
from tests.slow.browser import browsing, looking, serving_sample

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample is made once for all; each file of tests starts a service on it."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def url(data_dir: Path) -> Iterator[str]:
    with serving_sample(data_dir) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as chromium:
        yield chromium


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with looking(browser, url) as tab:
        yield tab


@pytest.fixture
def photograph(data_dir: Path, url: str, tmp_path: Path) -> Path:
    """A picture as a person may have one: a gallery view, smaller and mirrored."""
    view = Image.open(SampleFolders(data_dir / "sample").gallery / "retina-1" / "2.jpg")
    path = tmp_path / "my holiday.png"
    view.resize((240, 200)).save(path)
    return path


@pytest.fixture
def other_data(data_dir: Path, url: str, tmp_path: Path) -> Path:
    shutil.copytree(data_dir / "sample", tmp_path / "sample")
    return tmp_path
