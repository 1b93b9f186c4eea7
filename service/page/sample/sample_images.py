"""What the page knows of the sample beyond the store: its queries and keypoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from model.descriptor_file import DescriptorFileError, DescriptorReader
from model.descriptors import ImageDescriptors
from service.page.sample.sample_folders import SampleFolders


@dataclass(frozen=True, eq=False)
class SampleImage:
    """`keypoints` (n, 2): x and y of each local descriptor, fractions of width and height."""

    descriptors: ImageDescriptors
    keypoints: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sample:
    """`queries` by id, in file order; `keypoints` of the gallery's images by id: all are files in
    the sample's folders."""

    queries: dict[str, SampleImage]
    keypoints: dict[str, NDArray[np.float32]]


def load_sample(folders: SampleFolders, extractor: str) -> Sample | None:
    """None if there is no complete sample. Raises DescriptorFileError, also where it was made by
    another extractor than `extractor`."""
    if not folders.request.exists():
        return None
    with (
        DescriptorReader(folders.gallery_file) as gallery,
        DescriptorReader(folders.queries_file) as queries,
    ):
        for reader in (gallery, queries):
            if reader.extractor != extractor:
                raise DescriptorFileError(
                    f"{reader.path}: made by the extractor {reader.extractor}, but the "
                    f"checkpoint reads {extractor}"
                )
        of_gallery = {i: image.keypoints for i, image in _images(gallery).items()}
        return Sample(_images(queries), of_gallery)


def _images(reader: DescriptorReader) -> dict[str, SampleImage]:
    images = {}
    for place, (image_id, image) in enumerate(reader):
        images[image_id] = SampleImage(image, reader.keypoints(place)[: image.count])
    return images


def subject_of(image_id: str, *, is_query: bool) -> str:
    """The label: the subject, which is a gallery view's folder and a query view's name."""
    path = PurePosixPath(image_id)
    return path.stem if is_query else path.parent.name
