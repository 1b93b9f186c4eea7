"""Descriptors of a folder's pictures, kept in a file, so that a second run is quick."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from model.descriptor_file import DescriptorReader
from model.descriptors import ImageDescriptors
from model.evaluation.own_pictures import OwnPictures
from model.extraction.extractor import Extractor
from model.extraction.images import UnreadableImageError
from service.cli.common import read_images, say
from service.cli.extract import extract_to_file

_KEPT = Path(".locore") / "mine"
_TIMED_PICTURES = 32


def kept_file(pictures: OwnPictures, extractor: Extractor, count: int) -> Path:
    """The folder's own, for this extractor and so many locals of an image. One that is older than
    a picture in it is removed."""
    what = (pictures.folder.resolve(), extractor.name, extractor.version, count, pictures.views)
    digest = hashlib.sha256(repr(what).encode()).hexdigest()[:8]
    file = _KEPT / f"{pictures.folder.resolve().name}-{digest}.h5"
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and _older(file, pictures):
        say(f"pictures have changed since {file} was written: all are described again")
        file.unlink()
    return file


def described(
    pictures: OwnPictures, extractor: Extractor, file: Path, count: int
) -> dict[str, ImageDescriptors]:
    """The pictures, or their views, with `count` locals at most; `file` is continued. Raises
    DescriptorFileError, and UnreadableImageError where no picture can be read."""
    views = pictures.views
    extract_to_file(extractor, dict(pictures.files), file, count, views=views)
    with DescriptorReader(file) as reader:
        kept = [name for name in reader.ids if _original(name, views) in pictures.files]
    if not kept:
        raise UnreadableImageError(f"{pictures.folder}: no picture could be read")
    return read_images(file, kept)[1]


def seconds_for_a_thousand(
    pictures: OwnPictures, extractor: Extractor, names: Sequence[str], count: int
) -> float:
    """To describe a thousand pictures, by some of `names`, which can be read."""
    originals = dict.fromkeys(_original(name, pictures.views) for name in names)
    files = {name: pictures.files[name] for name in islice(originals, _TIMED_PICTURES)}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        extract_to_file(extractor, files, Path(folder) / "timed.h5", count)
        return (time.perf_counter() - started) * 1000 / len(files)


def _original(name: str, views: int) -> str:
    return name.rpartition("@")[0] if views else name


def _older(file: Path, pictures: OwnPictures) -> bool:
    with DescriptorReader(file) as reader:
        stored = {_original(name, pictures.views) for name in reader.ids}
    written = file.stat().st_mtime
    # A picture that took another's place may be old, but has not been there for long.
    changes = (path.stat() for name, path in pictures.files.items() if name in stored)
    return any(max(change.st_mtime, change.st_ctime) > written for change in changes)
