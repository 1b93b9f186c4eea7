"""Collections of one's own, as a client registers them: with pictures, and with descriptors
alone."""

from __future__ import annotations

import base64
import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

from locore_client import packed_image
from model.descriptor_file import DescriptorReader
from model.descriptors import ImageDescriptors
from service.page.sample.sample_folders import SampleFolders

DOMAINS = Path(__file__).parents[3] / "shared/data/domains"
"""Photographs that are not in the repository; where they are missing, the sample's views stand in
for them."""
AT_ONCE = 32


def labelled_pictures(data_dir: Path, max_count: int = 96) -> list[tuple[str, Path]]:
    """(id, file), ids as a folder gives them: LABEL/FILE."""
    clothing = DOMAINS / "clothing"
    if clothing.is_dir():
        with (clothing / "labels.csv").open(newline="") as file:
            rows = [row["path"] for row in csv.DictReader(file)]
        by_label: dict[str, list[str]] = {}
        for path in rows:
            by_label.setdefault(Path(path).parent.name, []).append(path)
        paths = [path for some in list(by_label.values())[:8] for path in some[: max_count // 8]]
        return [(path.removeprefix("images/"), clothing / path) for path in paths]
    gallery = SampleFolders(data_dir / "sample").gallery
    files = sorted(gallery.glob("*/*.jpg"))[:max_count]
    return [(str(file.relative_to(gallery)), file) for file in files]


def register_pictures(url: str, collection: str, pictures: Iterable[tuple[str, Path]]) -> None:
    """Labels are the folders' names."""
    images = [
        {
            "id": image_id,
            "image": {"data": base64.b64encode(file.read_bytes()).decode()},
            "metadata": {"label": image_id.split("/")[0]},
        }
        for image_id, file in pictures
    ]
    register(url, collection, images)


def register_descriptors(url: str, collection: str, file: Path, *, with_global: bool) -> None:
    images = []
    with DescriptorReader(file) as reader:
        for image_id, image in reader:
            described = image if with_global else ImageDescriptors(image.locals, image.scales)
            images.append({"id": image_id, **packed_image(described)})
    register(url, collection, images)


def register(url: str, collection: str, images: list[dict[str, Any]]) -> None:
    for start in range(0, len(images), AT_ONCE):
        body = {"collection": collection, "images": images[start : start + AT_ONCE]}
        answer = httpx.post(f"{url}/gallery", json=body, timeout=120)
        assert answer.is_success, answer.text
