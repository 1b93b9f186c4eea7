"""Makes the collection match the folders.

A picture is written to the descriptor file after it is registered. So every picture in the file is
registered, and the next run continues an interrupted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from model.config import ExtractorId
from model.descriptor_cache import cache_file
from model.descriptor_file import DescriptorReader
from model.descriptor_writer import DescriptorWriter, source_of
from model.descriptors import DescriptorSizes
from model.extraction.extractor import Extractor, ExtractorError, ExtractorOptions
from model.extraction.file_extraction import descriptor_writer
from model.extraction.images import UnreadableImageError, find_images
from model.extraction.registry import load_extractor, registered
from service.api.sizes import misfit
from service.cli.common import progress_bar, say
from service.cli.own_images.folder_pictures import NewPicture, batches, file_pictures, new_pictures
from service.cli.own_images.own_collection import OwnCollection

_BATCH = 32
"""Pictures in one registration."""


@dataclass(frozen=True)
class OwnImages:
    """`expected`: the extractor of the checkpoint, if that one is used; `sizes`: those that the
    checkpoint needs; `count`: locals of an image; `cache_folder`: the folder of the descriptor
    files, one for each `store`."""

    folders: tuple[Path, ...]
    extractor: str
    expected: ExtractorId | None
    device: str
    sizes: DescriptorSizes | None
    count: int
    cache_folder: Path
    store: str
    thumbnails: bool


@dataclass
class _Counts:
    """Counts of pictures."""

    described: int = 0
    again: int = 0
    removed: int = 0
    left_out: int = field(default=0)

    def leave_out(self, why: object) -> None:
        self.left_out += 1
        say(f"left out: {why}")


def update_collection(own: OwnImages, collection: OwnCollection) -> str:
    """Updates the collection. Returns what was done, in words. Raises UnreadableImageError if a
    folder has no picture, ExtractorError, DescriptorFileError, and what the collection raises."""
    counts = _Counts()
    images = find_images(own.folders, report=counts.leave_out)
    for folder in own.folders:
        # A disk may be missing: nobody removes all pictures this way on purpose.
        if not any(path.is_relative_to(folder) for path in images.values()):
            raise UnreadableImageError(f"{folder} has no picture, so nothing is removed")
    extractor = _extractor(own)
    variant = own.store, extractor.name, extractor.version, own.count
    file = cache_file(own.cache_folder, collection.name, *variant)
    registered_ids = collection.ids()
    with descriptor_writer(file, extractor, own.count) as writer:
        counts.removed = _remove_absent(writer, images, registered_ids, collection)
        new_ids = [i for i, path in images.items() if not writer.has(i, source_of(path))]
    absent = images.keys() - registered_ids - set(new_ids)
    if absent:
        _register_from_file(file, absent, images, collection, own.thumbnails, counts)
    with descriptor_writer(file, extractor, own.count) as writer:
        _describe(extractor, new_ids, images, collection, writer, own, counts)
    return (
        f"Collection {collection.name} has the pictures: {counts.described} described, "
        f"{counts.again} from {file}, {counts.removed} removed, {counts.left_out} left out."
    )


def _extractor(own: OwnImages) -> Extractor:
    takes_device = "device" in registered(own.extractor).options
    options = ExtractorOptions(device=own.device if takes_device else None)
    extractor = load_extractor(own.extractor, options)
    installed = ExtractorId(name=extractor.name, version=extractor.version)
    if own.expected is not None and not installed.fits(own.expected):
        raise ExtractorError(
            f"{installed.name} is here in version {installed.version}; the checkpoint reads "
            f"descriptors of version {own.expected.version}"
        )
    sizes = DescriptorSizes(extractor.descriptor_dim, extractor.global_dim)
    wrong = None if own.sizes is None else misfit(sizes, own.sizes)
    if wrong is not None:
        raise ExtractorError(
            f"{installed.name} makes {wrong.part} of {wrong.actual} numbers, but the "
            f"checkpoint takes {wrong.expected}"
        )
    return extractor


def _remove_absent(
    writer: DescriptorWriter,
    images: Mapping[str, Path],
    registered_ids: set[str],
    collection: OwnCollection,
) -> int:
    """Removes images whose files are gone. Returns how many. Images that did not come from the
    folders stay: others may have registered them."""
    absent_ids = [image_id for image_id in writer.remembered() if image_id not in images]
    for image_id in absent_ids:
        if image_id in registered_ids:
            collection.remove(image_id)
        writer.forget(image_id)
    return len(absent_ids)


def _register_from_file(
    file: Path,
    absent: set[str],
    images: Mapping[str, Path],
    collection: OwnCollection,
    thumbnails: bool,
    counts: _Counts,
) -> None:
    """Registers what was described before but is not in the collection, for example if the store is
    new."""
    with (
        DescriptorReader(file) as reader,
        progress_bar(f"Registering in {collection.name}", len(absent)) as advance,
    ):
        places = [place for place, image_id in enumerate(reader.ids) if image_id in absent]
        for batch in batches(file_pictures(reader, places, images, thumbnails), _BATCH):
            pictures = [picture for picture in batch if not isinstance(picture, Exception)]
            _leave_out(batch, counts)
            collection.register(pictures)
            counts.again += len(pictures)
            advance(len(batch))


def _describe(
    extractor: Extractor,
    new_ids: list[str],
    images: Mapping[str, Path],
    collection: OwnCollection,
    writer: DescriptorWriter,
    own: OwnImages,
    counts: _Counts,
) -> None:
    with progress_bar(f"Describing for {collection.name}", len(new_ids)) as advance:
        results = new_pictures(extractor, new_ids, images, own.count, own.thumbnails)
        for batch in batches(results, _BATCH):
            pictures = [picture for picture in batch if isinstance(picture, NewPicture)]
            _leave_out(batch, counts)
            collection.register(pictures)
            for picture in pictures:
                writer.append(picture.image_id, picture.features, picture.source)
            counts.described += len(pictures)
            advance(len(batch))


def _leave_out(batch: Iterable[object], counts: _Counts) -> None:
    for picture in batch:
        if isinstance(picture, Exception):
            counts.leave_out(picture)
