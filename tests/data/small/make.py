"""Write reference.safetensors with the code of another commit: see README.md."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from model.checkpoint import load_checkpoint
from model.descriptors import ImageDescriptors, normalised
from model.reranker import score_windows
from model.windows import Window

LOCAL_DIM, GLOBAL_DIM = 128, 512
WINDOWS = ((1, 3, 1.0), (3, 6, 1.0), (4, 18, 0.8), (8, 4, 0.0), (12, 5, 0.5), (40, 3, 0.9))
"""Images of the gallery, most locals of an image, the share of images that have a global."""
LONG_QUERY = 2
"""The window whose query has more locals than are read."""


def one(
    rng: np.random.Generator, rows: int, like: NDArray[np.float32], with_global: bool
) -> ImageDescriptors:
    """An image of which half of the locals are like those that all images share."""
    locals_ = rng.standard_normal((rows, LOCAL_DIM))
    locals_[::2] += 1.5 * like[rng.integers(0, len(like), len(locals_[::2])), :LOCAL_DIM]
    global_ = rng.standard_normal(GLOBAL_DIM) + rng.random() * like[0]
    return ImageDescriptors(
        normalised(locals_, "locals").astype(np.float16),
        rng.integers(0, 10, rows).astype(np.uint8),
        normalised(global_, "global").astype(np.float16) if with_global else None,
    )


def main(weights: Path, output: Path) -> None:
    rng = np.random.default_rng(0)
    tensors: dict[str, NDArray[np.generic]] = {}
    windows: list[Window] = []
    for place, (count, most, share) in enumerate(WINDOWS):
        like = rng.standard_normal((8, GLOBAL_DIM)).astype(np.float32)
        images = [
            one(rng, int(rng.integers(1, most + 1)), like, bool(rng.random() < share))
            for _ in range(1 + count)
        ]
        if place == LONG_QUERY:
            images[0] = one(rng, 50, like, with_global=True)
        windows.append(Window(images[0], images[1:]))
        globals_ = [image.global_ for image in images if image.global_ is not None]
        tensors |= {
            f"{place}.counts": np.array([image.count for image in images]),
            f"{place}.locals": np.concatenate([image.locals for image in images]),
            f"{place}.scales": np.concatenate([image.scales for image in images]),
            f"{place}.has_global": np.array([image.global_ is not None for image in images]),
            f"{place}.globals": np.array(globals_, np.float16).reshape(-1, GLOBAL_DIM),
        }
    cpu = torch.device("cpu")
    reranker = load_checkpoint(weights, cpu).reranker
    for place, window in enumerate(windows):
        (logits,) = score_windows(reranker, [window], cpu)
        # They are a column of the logits of all tokens; safetensors writes memory as it lies.
        tensors[f"{place}.logits"] = np.ascontiguousarray(logits)
    save_file(tensors, output)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).with_name("reference.safetensors"))
