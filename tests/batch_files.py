"""Descriptor files and shortlists of the tiny model's sizes, for re-ranking from files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.descriptor_file import DescriptorWriter
from model.descriptors import ExtractedImage
from tests.factories import GLOBAL_DIM, LOCAL_DIM, tiny_config, unit

CONFIG = tiny_config()
EMPTY = "without-descriptors"


def write_images(path: Path, ids: Sequence[str], seed: int) -> None:
    """Images of one to six descriptors; one whose id ends in `EMPTY` has none."""
    rng = np.random.default_rng(seed)
    with DescriptorWriter(
        path,
        extractor="made-up",
        extractor_version="1",
        descriptors_per_image=CONFIG.descriptors_per_image,
        descriptor_dim=LOCAL_DIM,
        global_dim=GLOBAL_DIM,
    ) as writer:
        for image_id in ids:
            rows = int(rng.integers(1, CONFIG.descriptors_per_image + 1))
            rows = 0 if image_id.endswith(EMPTY) else rows
            writer.append(
                image_id,
                ExtractedImage(
                    rng.random((rows, 2), np.float32),
                    rng.integers(0, 3, rows).astype(np.uint8),
                    np.ones(rows, np.float32),
                    unit(rng, max(rows, 1), LOCAL_DIM)[:rows],
                    unit(rng, 1, GLOBAL_DIM)[0],
                ),
            )


def made_up_lists(
    queries: Sequence[str], gallery: Sequence[str], longest: int, seed: int = 0
) -> list[dict[str, Any]]:
    """One list a query, of any length up to `longest`; every third one with similarities."""
    rng = np.random.default_rng(seed)
    lists: list[dict[str, Any]] = []
    for n, query in enumerate(queries):
        count = int(rng.integers(1, longest + 1))
        one: dict[str, Any] = {
            "query": query,
            "gallery_ids": rng.choice(gallery, count, replace=False).tolist(),
        }
        if n % 3 == 0:
            one["global_scores"] = np.sort(rng.random(count))[::-1].round(4).tolist()
        lists.append(one)
    return lists


def write_lines(path: Path, lines: Iterable[object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
