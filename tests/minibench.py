"""Made-up images in the published formats, written by what wrote those: h5py, numpy, pickle."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from model.config import ModelConfig
from model.descriptors import ImageDescriptors, normalised
from tests.factories import GLOBAL_DIM, LOCAL_DIM


@dataclass(frozen=True, eq=False)
class Images:
    """Raw: `locals` (images, n, 5 + d), of which the last rows are padding, and `globals`."""

    locals: NDArray[np.float32]
    globals: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.locals)

    def described(self, place: int, count: int) -> ImageDescriptors:
        """What a re-ranker of `count` locals is to get."""
        rows = self.locals[place, :count]
        rows = rows[rows[:, 3] == 0]
        return ImageDescriptors(
            normalised(rows[:, 5:], "local"),
            rows[:, 2].astype(np.uint8),
            normalised(self.globals[place], "global"),
        )

    def some(self, places: Sequence[int]) -> Images:
        return Images(self.locals[list(places)], self.globals[list(places)])

    def write(self, folder: Path, begin: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / f"{begin}_local.hdf5", "w") as file:
            file.create_dataset("features", data=self.locals)
        stored = np.memmap(
            folder / f"{begin}_global.pt", np.float32, "w+", shape=self.globals.shape
        )
        stored[:] = self.globals
        stored.flush()


def made_up(
    rng: np.random.Generator,
    labels: Sequence[int],
    config: ModelConfig,
    sizes: tuple[int, int] = (LOCAL_DIM, GLOBAL_DIM),
) -> Images:
    """Images of a label are alike. Each has two rows more than a re-ranker takes, the last of them
    padding."""
    kind = np.asarray(labels)
    rows, (dim, global_dim) = config.descriptors_per_image + 2, sizes
    kinds = int(kind.max()) + 1
    of_label = rng.standard_normal((kinds, rows, dim))
    global_ = rng.standard_normal((kinds, global_dim))
    locals_ = np.zeros((len(labels), rows, 5 + dim), np.float32)
    locals_[:, :, :2] = rng.random((len(labels), rows, 2))
    locals_[:, :, 2] = rng.integers(0, 3, (len(labels), rows))
    locals_[:, :, 4] = -np.sort(-rng.random((len(labels), rows)))
    locals_[:, :, 5:] = of_label[kind] + rng.standard_normal((len(labels), rows, dim))
    locals_[:, -1, 3] = 1
    locals_[:, -1, 5:] = 0
    noise = 1.5 * rng.standard_normal((len(labels), global_dim))
    return Images(locals_, (global_[kind] + noise).astype(np.float32))


def nearest(queries: Images, gallery: Images, k: int) -> NDArray[np.float32]:
    """(2, queries, k), as the published lists: cosines of the globals, then indices."""
    cosines = normalised(queries.globals, "query") @ normalised(gallery.globals, "gallery").T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return np.stack((np.take_along_axis(cosines, order, axis=1), order)).astype(np.float32)


def write_pickle(path: Path, value: object, protocol: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol=protocol))


def as_tensor(value: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(value)


def write_list(path: Path, labels: Sequence[int] | None, images: int) -> None:
    """With labels as `path,label,width,height`, else names alone."""
    lines = [f"a/{place}.jpg" for place in range(images)]
    if labels is not None:
        lines = [f"{line},{label},640,480" for line, label in zip(lines, labels, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
