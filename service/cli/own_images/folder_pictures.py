"""Pictures of a folder, one by one: newly described, or from the descriptor file."""

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
"""Pictures that are prepared at a time."""

_Item = TypeVar("_Item")


@dataclass(frozen=True, eq=False)
class OwnPicture:
    """A picture as it is registered."""

    image_id: str
    record: GalleryRecord
    thumbnail: Thumbnail | None


@dataclass(frozen=True, eq=False)
class NewPicture(OwnPicture):
    """A newly described picture; `features` go to the descriptor file, with the `source` that they
    are of."""

    features: ExtractedImage
    source: Source


def new_pictures(
    extractor: Extractor,
    ids: Iterable[str],
    images: Mapping[str, Path],
    count: int,
    thumbnails: bool,
) -> Iterator[NewPicture | UnreadableImageError]:
    """Describes pictures in the order of `ids`, with at most `count` locals, and with `thumbnails`
    if True."""
    for batch_ids in batches(ids, _AHEAD):
        # Before any is read, so that what changes meanwhile counts as changed the next time.
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
    """Reads pictures at these places of the file. Only `thumbnails` are made again, if True."""
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
    """The label: the name on disk of the folder that the picture is in. None for a picture directly
    in the given folder."""
    if "/" not in image_id:
        return None
    return {"label": path.parent.name.encode(errors="surrogateescape").decode(errors="replace")}


def batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _opened(image_id: str, path: Path, webp: dict[str, bytes] | None) -> Image.Image:
    """Reads the picture, and puts its thumbnail in `webp`."""
    image = read_image(path)
    if webp is not None:
        webp[image_id] = thumbnail(image)
    return image
