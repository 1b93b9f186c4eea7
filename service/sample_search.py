"""The sample gallery in memory: a first stage over it, and which local descriptors match.

A service has no vector index of its own; the sample is small enough to be searched as a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from model.descriptor_file import DescriptorFileError, DescriptorReader
from model.descriptors import DescriptorSizes, ImageDescriptors
from model.evaluation.retrieval import first_stage_order
from service.sample_folders import SampleFolders


@dataclass(frozen=True, eq=False)
class PlacedImage:
    """`keypoints` (n, 2): x and y of each local descriptor, fractions of width and height."""

    descriptors: ImageDescriptors
    keypoints: NDArray[np.float32]


@dataclass(frozen=True)
class Match:
    """Two descriptors that are each other's nearest: places of their rows, and their cosine."""

    query_row: int
    gallery_row: int
    cosine: float


@dataclass(frozen=True, eq=False)
class Sample:
    """Images by id, in file order; `globals`: (gallery, g), unit rows."""

    gallery: dict[str, PlacedImage]
    queries: dict[str, PlacedImage]
    globals: NDArray[np.float32]

    @property
    def sizes(self) -> DescriptorSizes:
        return next(iter(self.gallery.values())).descriptors.sizes

    def shortlist(self, query: ImageDescriptors, top: int) -> list[tuple[str, float]]:
        """The `top` nearest ids and their cosines, best first. Raises ValueError where the query
        has no global descriptor."""
        if query.global_ is None:
            raise ValueError("the first stage needs a global descriptor of the query")
        order = first_stage_order(query, self.globals)[:top]
        cosines = self.globals[order] @ query.global_
        ids = list(self.gallery)
        return [(ids[place], float(c)) for place, c in zip(order, cosines, strict=True)]

    def relevant(self, query_id: str) -> list[str]:
        """Gallery views of the subject that a sample query shows: those in the folder of its
        name."""
        subject = PurePosixPath(query_id).stem
        return [i for i in self.gallery if PurePosixPath(i).parent.name == subject]


def load_sample(folders: SampleFolders, extractor: str) -> Sample | None:
    """None where there is none that is whole. Raises DescriptorFileError, also where it was made
    by another extractor than `extractor`."""
    if not folders.request.exists():
        return None
    with (
        DescriptorReader(folders.gallery_file) as gallery,
        DescriptorReader(folders.queries_file) as queries,
    ):
        for reader in (gallery, queries):
            if reader.extractor != extractor:
                raise DescriptorFileError(
                    f"{reader.path}: made by the extractor {reader.extractor}, where the "
                    f"checkpoint reads {extractor}"
                )
        return Sample(_placed(gallery), _placed(queries), gallery.globals())


def _placed(reader: DescriptorReader) -> dict[str, PlacedImage]:
    found = {}
    for place, (image_id, image) in enumerate(reader):
        found[image_id] = PlacedImage(image, reader.keypoints(place)[: image.count])
    return found


def mutual_matches(query: ImageDescriptors, gallery: ImageDescriptors) -> list[Match]:
    """Pairs of rows of which each is the other's nearest by cosine, strongest first; padding
    matches nothing."""
    rows, columns = _valid(query), _valid(gallery)
    cosines = query.locals[rows].astype(np.float32) @ gallery.locals[columns].T
    nearest, back = cosines.argmax(axis=1), cosines.argmax(axis=0)
    mutual = np.flatnonzero(back[nearest] == np.arange(len(rows)))
    strength = cosines[mutual, nearest[mutual]]
    return [
        Match(int(rows[mutual[n]]), int(columns[nearest[mutual[n]]]), float(strength[n]))
        for n in np.argsort(-strength, kind="stable")
    ]


def _valid(image: ImageDescriptors) -> NDArray[np.intp]:
    if image.padding is None:
        return np.arange(image.count)
    return np.flatnonzero(~image.padding)
