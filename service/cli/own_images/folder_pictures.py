"""Pictures of a folder as they come: described anew, or from the file that has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from PIL import Image

from model.descriptor_file import DescriptorReader, NoDescriptorError
from model.descriptor_writer import Source, source_of
from model.descriptors import ExtractedImage
from model.extraction.extractor import Extractor
from model.extraction.file_extraction import extracted_images
from model.extraction.images import UnreadableImageError, read_image
from model.extraction.thumbnail import thumbnail
from service.cli.common import extraction_run
from service.gallery.record import GalleryRecord
from service.gallery.thumbnail_store import Thumbnail

_AHEAD = 512
"""Pictures of which more is known at a time than their names."""

_Item = TypeVar("_Item")


@dataclass(frozen=True, eq=False)
class OwnPicture:
    """What is registered of a picture."""

    image_id: str
    record: GalleryRecord
    thumbnail: Thumbnail | None


@dataclass(frozen=True, eq=False)
class NewPicture(OwnPicture):
    """And what is kept of it: the `features`, and which state of the file they are of."""

    features: ExtractedImage
    source: Source


def new_pictures(
    extractor: Extractor,
    ids: Iterable[str],
    images: Mapping[str, Path],
    count: int,
    thumbnails: bool,
) -> Iterator[NewPicture | UnreadableImageError]:
    """In the order of `ids`, with `count` locals at most, and with `thumbnails` if wanted."""
    for batch_ids in batches(ids, _AHEAD):
        # Before any is read: what changes meanwhile counts as changed the next time.
        sources = {image_id: source_of(images[image_id]) for image_id in batch_ids}
        webp: dict[str, bytes] = {}
        openers: dict[str, Callable[[], Image.Image]] = {
            image_id: partial(_opened, image_id, images[image_id], webp if thumbnails else None)
            for image_id in batch_ids
        }
        for image_id, result in extracted_images(extractor, openers, count, extraction_run()):
            if isinstance(result, UnreadableImageError):
                yield result
                continue
            yield NewPicture(
                image_id,
                GalleryRecord(result.for_reranking(), metadata(image_id, images[image_id])),
                Thumbnail(webp.pop(image_id), result.keypoints) if thumbnails else None,
                result,
                sources[image_id],
            )


def file_pictures(
    reader: DescriptorReader, places: Iterable[int], images: Mapping[str, Path], thumbnails: bool
) -> Iterator[OwnPicture | UnreadableImageError | NoDescriptorError]:
    """At these places of the file; only `thumbnails`, if wanted, are made anew."""
    for place in places:
        image_id = reader.ids[place]
        path = images[image_id]
        try:
            record = GalleryRecord(reader[place], metadata(image_id, path))
            webp = thumbnail(read_image(path)) if thumbnails else None
        except (NoDescriptorError, UnreadableImageError) as error:
            yield error
            continue
        keypoints = reader.keypoints(place)[: record.descriptors.count]
        yield OwnPicture(image_id, record, None if webp is None else Thumbnail(webp, keypoints))


def metadata(image_id: str, path: Path) -> dict[str, str] | None:
    """The label: the folder that the picture lies in, as it is called on disk, unless it is the
    one that the id counts from."""
    if "/" not in image_id:
        return None
    return {"label": path.parent.name.encode(errors="surrogateescape").decode(errors="replace")}


def batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _opened(image_id: str, path: Path, webp: dict[str, bytes] | None) -> Image.Image:
    """The picture, whose thumbnail is then in `webp`."""
    image = read_image(path)
    if webp is not None:
        webp[image_id] = thumbnail(image)
    return image
