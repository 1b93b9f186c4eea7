from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import LoadedModel
from model.descriptors import ImageDescriptors
from service.page.sample.sample_folders import SampleFolders
from tests.e2e.service import OnRedis, RunningService, free_port, running
from tests.e2e.valkey import plain_valkey
from tests.factories import image, load_tiny, tiny_config
from tests.page_sample import EXTRACTOR, serving_page, write_sample

CONFIG = tiny_config()


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    """`locore serve` in this process has all that comes after it log on standard error."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


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


@pytest.fixture(scope="session")
def strict(
    checkpoint: Path, gallery: dict[str, ImageDescriptors], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    """A service with a key and small limits: one re-ranking of two windows at a time. Two images
    are registered."""
    with running(
        checkpoint,
        tmp_path_factory.mktemp("strict"),
        api_key="secret",
        max_payload_bytes=20_000,
        max_images_per_request=20,
        max_queue_tokens=100,
        max_batch_tokens=1_000,
    ) as started:
        started.http.headers["Authorization"] = "Bearer secret"
        assert started.register({i: gallery[i] for i in ("image-000", "image-001")}).is_success
        yield started


@pytest.fixture(scope="session")
def on_redis(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnRedis]:
    """A service whose store is a test's to start, and the store's port."""
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    with ExitStack() as store:
        store.enter_context(plain_valkey(port, folder))
        url = f"redis://127.0.0.1:{port}"
        with running(checkpoint, folder / "data", redis_url=url) as service:
            assert service.metric("locore_store_up") == 1
            store.close()
            yield service, port


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> SampleFolders:
    """A small sample of made-up photographs."""
    return write_sample(tmp_path_factory.mktemp("page") / "sample", EXTRACTOR, 128, 512)


@pytest.fixture(scope="session")
def page(folders: SampleFolders) -> Iterator[RunningService]:
    """A service with that sample."""
    with serving_page(folders) as started:
        yield started
