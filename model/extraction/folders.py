"""Finds pictures: named files, and all pictures below folders."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from model.extraction.pixels import HEIF, is_picture
from model.image_ids import MAX_ID, image_id
from model.progress import Report, silent


def _suffixes(words: str) -> frozenset[str]:
    return frozenset(f".{word}" for word in words.split())


_HEIF_SUFFIXES = _suffixes("heic heif hif")
_COMMON_SUFFIXES = _suffixes(
    "jpg jpeg jpe jfif png apng webp bmp dib tif tiff gif avif jp2 j2k j2c jpc jpx jpf"
)
_OTHER_SUFFIXES = _suffixes("""
    psd psb xcf kra ai eps svg svgz ico icns cur pcx tga dds exr hdr jxl jxr wdp avifs qoi
    pbm pgm ppm pnm pfm pam fits dcm wmf emf djvu
    dng cr2 cr3 crw nef nrw arw sr2 srf orf raf rw2 rwl pef srw x3f erf mrw 3fr fff iiq mef mos dcr
    kdc gpr raw
""")
"""Pictures too. Some are TIFF files whose first picture is a thumbnail."""
SUFFIXES = _COMMON_SUFFIXES | (_HEIF_SUFFIXES if HEIF else frozenset())
_UNREAD_SUFFIXES = (_OTHER_SUFFIXES | _HEIF_SUFFIXES) - SUFFIXES
_RESOURCE_FORK = "._"
"""The prefix of the files in which macOS stores metadata of others."""

_Key = tuple[int, int]


class UnreadableImageError(ValueError):
    """A file is not an image, or is damaged. The message names it."""


def find_images(
    paths: Iterable[Path],
    relative_to: Path | None = None,
    report: Report = silent,
) -> dict[str, Path]:
    """Ids and files: the id of a file is its name, of one in a folder its path below that folder;
    with `relative_to` its path below that.

    Linked folders are followed; a folder that two paths lead to counts once. Of two files with
    one id the first counts. `report` is told, a line each, of what looks like a picture and is left
    out. Nothing but plain files is opened.

    Raises UnreadableImageError if a path does not exist or is not below `relative_to`.
    """
    images: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            files, base = sorted(_pictures(path, report)), relative_to or path
        elif path.is_file():
            files, base = [path], relative_to or path.parent
        elif path.exists():
            raise UnreadableImageError(f"{path}: neither a file nor a folder")
        else:
            raise UnreadableImageError(f"{path}: no such file or folder")
        for file in files:
            if not file.is_relative_to(base):
                raise UnreadableImageError(f"{file}: not below {base}")
            name = image_id(file.relative_to(base))
            if len(name) > MAX_ID:
                report(f"{file}: its id would have {len(name)} characters, over {MAX_ID}")
            elif images.setdefault(name, file) != file:
                report(f"{file}: {images[name]} has its id, {name}")
    return images


def has_picture(folder: Path) -> bool:
    """Whether any file below the folder would be read."""
    return any(True for _ in _pictures(folder, silent))


def _pictures(folder: Path, report: Report) -> Iterator[Path]:
    """Files below `folder` that are to be read, in any order."""
    for file in _files(folder, report):
        suffix = file.suffix.lower()
        if file.name.startswith(_RESOURCE_FORK):
            continue
        looks = suffix in SUFFIXES or suffix in _UNREAD_SUFFIXES
        try:
            plain = stat.S_ISREG(file.stat().st_mode)
        except OSError as error:
            if looks:
                report(f"{file}: {error.strerror}")
            continue
        if not plain:
            if looks:
                report(f"{file}: no plain file")
        elif suffix in _UNREAD_SUFFIXES:
            extra = ", it needs the extra [heif]" if suffix in _HEIF_SUFFIXES else ""
            report(f"{file}: {suffix} is not read{extra}")
        elif suffix in SUFFIXES or is_picture(file):
            yield file


def _files(folder: Path, report: Report) -> Iterator[Path]:
    """All files below `folder`. Links are followed after the folders themselves, so a file is known
    by its own path if it has one."""
    visited: dict[_Key, Path] = {}
    links = deque([folder])

    def key(of: Path) -> _Key:
        status = of.stat()
        return status.st_dev, status.st_ino

    def unreadable(error: OSError) -> None:
        report(f"{error.filename}: {error.strerror}")

    while links:
        start = links.popleft()
        for above, folders, names in os.walk(start, onerror=unreadable):
            here = Path(above)
            try:
                there = visited.setdefault(key(here), here)
            except OSError as error:
                unreadable(error)
                folders.clear()
                continue
            if there != here:
                report(f"{here}: the same folder as {there}")
                folders.clear()
                continue
            links.extend(sorted(here / name for name in folders if (here / name).is_symlink()))
            folders[:] = [name for name in folders if not (here / name).is_symlink()]
            yield from (here / name for name in names)
