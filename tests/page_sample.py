"""A small sample gallery as `locore serve --sample` leaves it, and a service that has it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model.config import ExtractorId
from model.descriptor_file import DescriptorReader, DescriptorWriter
from model.descriptors import ExtractedImage
from model.extraction.registry import load_extractor
from service.page.sample.sample_folders import SampleFolders
from tests.e2e.service import RunningService, running
from tests.factories import save_tiny, tiny_config, unit

EXTRACTOR = "efficientnet-lite0"
SUBJECTS, VIEWS, ROWS = ("one", "two", "three"), 2, 20


def photograph(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def made_up(rng: np.random.Generator, dim: int, global_dim: int) -> ExtractedImage:
    return ExtractedImage(
        rng.random((ROWS, 2), np.float32),
        rng.integers(0, 2, ROWS).astype(np.uint8),
        np.sort(rng.random(ROWS, np.float32))[::-1],
        unit(rng, ROWS, dim),
        unit(rng, 1, global_dim)[0],
    )


def write_sample(root: Path, extractor: str, dim: int, global_dim: int) -> SampleFolders:
    """A sample gallery as `locore serve --sample` leaves it, of made-up descriptors."""
    folders, rng = SampleFolders(root), np.random.default_rng(3)
    folders.queries.mkdir(parents=True)
    listed = {
        folders.gallery_file: [f"{s}/{v}.jpg" for s in SUBJECTS for v in range(VIEWS)],
        folders.queries_file: [f"{s}.jpg" for s in SUBJECTS],
    }
    for file, ids in listed.items():
        with DescriptorWriter(
            file,
            extractor=extractor,
            extractor_version="1",
            descriptors_per_image=ROWS,
            descriptor_dim=dim,
            global_dim=global_dim,
        ) as writer:
            for image_id in ids:
                writer.append(image_id, made_up(rng, dim, global_dim))
                picture = (folders.root / file.stem / image_id).with_suffix(".jpg")
                picture.parent.mkdir(parents=True, exist_ok=True)
                photograph(len(writer.ids)).save(picture)
    folders.request.write_text("{}")
    return folders


@contextmanager
def serving_page(folders: SampleFolders) -> Iterator[RunningService]:
    """A service whose checkpoint reads the packaged extractor; the sample is registered."""
    config = tiny_config(
        extractor=ExtractorId(name=EXTRACTOR, version=load_extractor(EXTRACTOR).version),
        descriptors_per_image=ROWS,
    )
    data = folders.root.parent
    (data / "model").mkdir()
    checkpoint = save_tiny(data / "model", config)
    with running(checkpoint, data, max_payload_bytes=400_000) as started:
        with DescriptorReader(folders.gallery_file) as gallery:
            assert started.register(dict(gallery), collection="sample").is_success
        yield started
