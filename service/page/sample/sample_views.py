"""The sample gallery: views of real photographs, so that a first start has something to re-rank.

The photographs come with scikit-image (`skimage.data`; sources and licences in its `README.txt`,
see also docs/credits.md). A subject is a part of one of them. Every view of it has another crop,
angle and light, and some are partly hidden, so that a re-ranking can improve on a first stage by
one global vector.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import skimage.data
from PIL import Image

from model.extraction.views import random_view
from service.page.sample.sample_folders import SampleFolders

VIEWS = 6
SEED = 7

# Each photograph and the grid of subjects (columns, rows) that it is cut into.
PHOTOGRAPHS = {
    "astronaut": (2, 2),
    "brick": (1, 1),
    "camera": (2, 2),
    "chelsea": (2, 1),
    "coffee": (3, 2),
    "coins": (3, 2),
    "grass": (1, 1),
    "gravel": (1, 1),
    "hubble_deep_field": (3, 2),
    "immunohistochemistry": (1, 1),
    "moon": (2, 2),
    "retina": (2, 2),
    "rocket": (2, 2),
}


def subjects() -> Iterator[tuple[str, Image.Image]]:
    """(name, picture) of every subject."""
    for name, (columns, rows) in PHOTOGRAPHS.items():
        photograph = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        width, height = photograph.size[0] / columns, photograph.size[1] / rows
        for place in range(columns * rows):
            x, y = place % columns * width, place // columns * height
            part = photograph.crop((round(x), round(y), round(x + width), round(y + height)))
            yield f"{name}-{place + 1}", part


def write_views(folders: SampleFolders) -> Iterator[str]:
    """Writes VIEWS gallery views and one query view of every subject. Yields its name when done.
    Views are the same on every machine."""
    for name, part in subjects():
        rng = np.random.default_rng([SEED, *name.encode()])
        (folders.gallery / name).mkdir(parents=True, exist_ok=True)
        folders.queries.mkdir(parents=True, exist_ok=True)
        for view in range(VIEWS):
            random_view(part, rng).save(folders.gallery / name / f"{view}.jpg", quality=90)
        random_view(part, rng).save(folders.queries / f"{name}.jpg", quality=90)
        yield name
