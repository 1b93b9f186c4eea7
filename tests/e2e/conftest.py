from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import LoadedModel
from model.descriptors import ImageDescriptors
from service.page.sample.sample_folders import SampleFolders
from tests.e2e.service import RunningService, running
from tests.factories import image, load_tiny, tiny_config
from tests.page_sample import EXTRACTOR, serving_page, write_sample

CONFIG = tiny_config()


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="session")
def model(model_dir: Path) -> LoadedModel:
    return load_tiny(model_dir)


@pytest.fixture(scope="session")
def checkpoint(model: LoadedModel, model_dir: Path) -> Path:
    return model_dir / "tiny.safetensors"


@pytest.fixture(scope="session")
def gallery() -> dict[str, ImageDescriptors]:
    """420 images of all sizes; every seventh has no global."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, CONFIG.descriptors_per_image + 1, 420)
    return {
        f"image-{n:03}": image(rng, CONFIG, int(rows), with_global=n % 7 > 0)
        for n, rows in enumerate(sizes)
    }


@pytest.fixture(scope="session")
def query() -> ImageDescriptors:
    return image(np.random.default_rng(1), CONFIG)


@pytest.fixture(scope="session")
def service(
    checkpoint: Path,
    gallery: dict[str, ImageDescriptors],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningService]:
    """One service for all tests that leave it as they found it; `gallery` is registered."""
    with running(checkpoint, tmp_path_factory.mktemp("data")) as started:
        items = list(gallery.items())
        for start in range(0, len(items), 210):
            assert started.register(dict(items[start : start + 210])).is_success
        yield started


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> SampleFolders:
    """A small sample of made-up photographs."""
    return write_sample(tmp_path_factory.mktemp("page") / "sample", EXTRACTOR, 128, 512)


@pytest.fixture(scope="module")
def page(folders: SampleFolders) -> Iterator[RunningService]:
    """A service with that sample."""
    with serving_page(folders) as started:
        yield started
