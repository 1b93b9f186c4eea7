"""What is done: the collection becomes what the folders have.

A picture is written to the file once it is registered. So what the file has was registered as it is
there, and a run that is killed is taken up by the next one.
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
from service.cli.own_images.folder_pictures import NewPicture, batches, kept_pictures, new_pictures
from service.cli.own_images.own_collection import OwnCollection

_TOGETHER = 32
"""Pictures that are registered at a time."""


@dataclass(frozen=True)
class OwnImages:
    """`checkpoints`: what the extractor must go with, where it is the checkpoint's; `sizes`: those
    that the checkpoint asks for; `count`: locals of an image; `kept`: the folder of the file with
    descriptors, which is another one for another `store`."""

    folders: tuple[Path, ...]
    extractor: str
    checkpoints: ExtractorId | None
    device: str
    sizes: DescriptorSizes | None
    count: int
    kept: Path
    store: str
    shown: bool


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


def keep_collection(own: OwnImages, collection: OwnCollection) -> str:
    """What was done, in words. Raises UnreadableImageError where a folder has no picture,
    ExtractorError, DescriptorFileError, and what the collection raises."""
    counts = _Counts()
    images = find_images(own.folders, report=counts.leave_out)
    for folder in own.folders:
        # As where a disk is not there: nobody means to remove all pictures so.
        if not any(path.is_relative_to(folder) for path in images.values()):
            raise UnreadableImageError(f"{folder} has no picture, so nothing is removed")
    extractor = _extractor(own)
    what = own.store, extractor.name, extractor.version, own.count
    file = cache_file(own.kept, collection.name, *what)
    there = collection.ids()
    with descriptor_writer(file, extractor, own.count) as writer:
        counts.removed = _remove_gone(writer, images, there, collection)
        left = [i for i, path in images.items() if not writer.has(i, source_of(path))]
    absent = images.keys() - there - set(left)
    if absent:
        _register_kept(file, absent, images, collection, own.shown, counts)
    with descriptor_writer(file, extractor, own.count) as writer:
        _describe(extractor, left, images, collection, writer, own, counts)
    return (
        f"Collection {collection.name} has the pictures: {counts.described} described, "
        f"{counts.again} from {file}, {counts.removed} removed, {counts.left_out} left out."
    )


def _extractor(own: OwnImages) -> Extractor:
    takes_device = "device" in registered(own.extractor).options
    options = ExtractorOptions(device=own.device if takes_device else None)
    extractor = load_extractor(own.extractor, options)
    here = ExtractorId(name=extractor.name, version=extractor.version)
    if own.checkpoints is not None and not here.fits(own.checkpoints):
        raise ExtractorError(
            f"{here.name} is here in version {here.version}; the checkpoint reads descriptors of "
            f"version {own.checkpoints.version}"
        )
    sizes = DescriptorSizes(extractor.descriptor_dim, extractor.global_dim)
    wrong = None if own.sizes is None else misfit(sizes, own.sizes)
    if wrong is not None:
        raise ExtractorError(
            f"{here.name} makes {wrong.part} of {wrong.actual} numbers, where the checkpoint takes "
            f"{wrong.expected}"
        )
    return extractor


def _remove_gone(
    writer: DescriptorWriter,
    images: Mapping[str, Path],
    there: set[str],
    collection: OwnCollection,
) -> int:
    """How many. Images that did not come from the folders stay: others may have put them there."""
    absent_ids = [image_id for image_id in writer.remembered() if image_id not in images]
    for image_id in absent_ids:
        if image_id in there:
            collection.remove(image_id)
        writer.forget(image_id)
    return len(absent_ids)


def _register_kept(
    file: Path,
    absent: set[str],
    images: Mapping[str, Path],
    collection: OwnCollection,
    thumbnails: bool,
    counts: _Counts,
) -> None:
    """What was described before and is not in the collection, as where the store is new."""
    with (
        DescriptorReader(file) as reader,
        progress_bar(f"Registering in {collection.name}", len(absent)) as advance,
    ):
        places = [place for place, image_id in enumerate(reader.ids) if image_id in absent]
        for some in batches(kept_pictures(reader, places, images, thumbnails), _TOGETHER):
            pictures = [one for one in some if not isinstance(one, Exception)]
            _leave_out(some, counts)
            collection.register(pictures)
            counts.again += len(pictures)
            advance(len(some))


def _describe(
    extractor: Extractor,
    left: list[str],
    images: Mapping[str, Path],
    collection: OwnCollection,
    writer: DescriptorWriter,
    own: OwnImages,
    counts: _Counts,
) -> None:
    with progress_bar(f"Describing for {collection.name}", len(left)) as advance:
        results = new_pictures(extractor, left, images, own.count, own.shown)
        for some in batches(results, _TOGETHER):
            pictures = [one for one in some if isinstance(one, NewPicture)]
            _leave_out(some, counts)
            collection.register(pictures)
            for one in pictures:
                writer.append(one.image_id, one.features, one.source)
            counts.described += len(pictures)
            advance(len(some))


def _leave_out(some: Iterable[object], counts: _Counts) -> None:
    for one in some:
        if isinstance(one, Exception):
            counts.leave_out(one)
