"""LOCORE's published training data: GLDv2 by DINOv2."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from model.config import PUBLISHED, ExtractorId
from model.descriptor_file import DescriptorReader
from model.descriptors import DescriptorSizes
from model.formats.globals import open_globals
from model.formats.image_lists import read_image_list
from model.formats.nn_file import read_neighbours
from model.formats.published_images import PublishedImages
from model.training.domains import TrainingData
from model.training.neighbour_lists import NeighbourLists
from model.training.training_error import TrainingError

_EXTRACTORS = {"dinov2": "dinov2-vitb14-reg"}
"""The extractor by the prefix of a published file's name: the files do not name it."""


@dataclass(frozen=True)
class _Files:
    descriptors: Path
    globals_: Path
    neighbours: Path
    images: Path


def gldv2_data(
    folder: Path,
    descriptor_name: str,
    descriptor_dim: int | None,
    longest: int,
    *,
    with_global: bool,
) -> TrainingData:
    """Reads the data in `folder` for lists of up to `longest` images. Rows of `descriptor_dim`
    numbers have no leading columns.

    Raises TrainingError if files are missing or contradict each other, FormatError and
    DescriptorFileError if one is damaged.
    """
    files = _Files(
        folder / f"{descriptor_name}_local.hdf5",
        folder / f"{descriptor_name}_global.pt",
        folder / f"nn_{descriptor_name}.pkl",
        folder / "train_750k.txt",
    )
    needed = [files.descriptors, files.neighbours, files.images]
    missing = [path for path in (*needed, *[files.globals_] * with_global) if not path.exists()]
    if missing:
        raise TrainingError("missing: " + ", ".join(map(str, missing)))
    image_list = read_image_list(files.images)
    if image_list.labels is None:
        raise TrainingError(f"{files.images}: lines have no label")
    with DescriptorReader(files.descriptors, descriptor_dim) as reader:
        count, dim, rows = len(reader), reader.descriptor_dim, reader.descriptors_per_image
        made_by = ExtractorId(
            name=reader.extractor or _EXTRACTORS.get(descriptor_name, descriptor_name),
            version=reader.extractor_version or PUBLISHED,
        )
    if count != len(image_list.names):
        raise TrainingError(
            f"{files.descriptors}: {count} images, but {files.images} names {len(image_list.names)}"
        )
    global_dim = open_globals(files.globals_, count).shape[1] if with_global else 0
    # One more than the list's length: an image may be its own neighbour.
    neighbours = read_neighbours(files.neighbours, count, count, max_neighbours=longest + 1)
    if neighbours.images.shape[1] < 3:
        raise TrainingError(f"{files.neighbours}: lists of fewer than 3 images")
    sizes = DescriptorSizes(dim, global_dim or None)
    images = PublishedImages(
        files.descriptors, files.globals_ if with_global else None, sizes, max_locals=rows
    )
    digest = hashlib.sha256(repr((folder.name, made_by, sizes, rows)).encode())
    digest.update(image_list.labels.tobytes())
    digest.update(neighbours.images.tobytes())
    return TrainingData(
        NeighbourLists(images, neighbours.images, image_list.labels),
        None,
        made_by,
        sizes,
        digest.hexdigest(),
    )
