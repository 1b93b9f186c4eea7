"""Describes the pictures of a folder, with a cache file, and measures the time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from model.descriptor_cache import cache_file
from model.descriptor_file import DescriptorReader, read_images
from model.descriptors import ImageDescriptors
from model.evaluation.own_pictures import OwnPictures
from model.extraction.extractor import Extractor
from model.extraction.file_extraction import ExtractionRun, extract_to_file
from model.extraction.images import UnreadableImageError

_CACHE = Path(".locore") / "mine"
_TIMED_PICTURES = 32


def own_file(pictures: OwnPictures, extractor: Extractor, count: int) -> Path:
    """The cache file of a folder, for this extractor and `count` locals an image."""
    folder = pictures.folder.resolve()
    what = (folder, extractor.name, extractor.version, count, pictures.views)
    return cache_file(_CACHE, folder.name, *what)


def describe(
    pictures: OwnPictures, extractor: Extractor, file: Path, count: int, run: ExtractionRun
) -> dict[str, ImageDescriptors]:
    """Describes the pictures, or their views, with at most `count` locals; continues `file`. Raises
    DescriptorFileError, and UnreadableImageError if no picture can be read."""
    views = pictures.views
    extract_to_file(extractor, dict(pictures.files), file, count, run, views=views)
    with DescriptorReader(file) as reader:
        names = [name for name in reader.ids if _original(name, views) in pictures.files]
    if not names:
        raise UnreadableImageError(f"{pictures.folder}: no picture could be read")
    return read_images(file, names, run.track)[1]


def seconds_for_a_thousand(
    pictures: OwnPictures,
    extractor: Extractor,
    names: Sequence[str],
    count: int,
    run: ExtractionRun,
) -> float:
    """Seconds to describe a thousand pictures, measured on some of `names`."""
    originals = dict.fromkeys(_original(name, pictures.views) for name in names)
    files = {name: pictures.files[name] for name in islice(originals, _TIMED_PICTURES)}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        extract_to_file(extractor, files, Path(folder) / "timed.h5", count, run)
        return (time.perf_counter() - started) * 1000 / len(files)


def _original(name: str, views: int) -> str:
    return name.rpartition("@")[0] if views else name
