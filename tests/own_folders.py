"""Small folders of made-up pictures, and descriptors that a test makes up for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_picture(path: Path, seed: int) -> None:
    """A few large blocks of colour: 36 x 28 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(blocks).resize((36, 28), Image.Resampling.NEAREST).save(path)


def write_folders(root: Path, labels: int, pictures: int) -> list[str]:
    """Ids: `LABEL/LABEL-NUMBER.png`, a sub-folder for each label."""
    ids = [f"{label}/{label}-{n}.png" for label in "abcdefgh"[:labels] for n in range(pictures)]
    for seed, image_id in enumerate(ids):
        write_picture(root / image_id, seed)
    return ids
