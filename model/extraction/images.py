"""Image files to features, several at a time."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from model.extraction.extractor import ExtractedImage, Extractor

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


class UnreadableImageError(ValueError):
    """A file that is no image, or a damaged one; the message names it."""


def read_image(path: Path) -> Image.Image:
    """RGB, turned upright by its EXIF orientation. Raises UnreadableImageError."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise UnreadableImageError(f"{path}: no such file") from None
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise UnreadableImageError(f"{path}: not a readable image ({error})") from None


def image_id(path: Path) -> str:
    """The path as an id that the service takes: other characters as `=` and their bytes in hex."""
    return re.sub(
        r"[^A-Za-z0-9._:/@=+-]",
        lambda found: "".join(f"={byte:02X}" for byte in found[0].encode()),
        path.as_posix(),
    )


def find_images(paths: Iterable[Path], relative_to: Path | None = None) -> dict[str, Path]:
    """Ids and files: a file is known by its name, one in a folder by its path below that folder;
    with `relative_to` all of them by their path below that one.

    Raises UnreadableImageError where a path does not exist, is not below `relative_to`, or two
    files have one id.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            base = relative_to or path
        elif path.is_file():
            files, base = [path], relative_to or path.parent
        else:
            raise UnreadableImageError(f"{path}: no such file or folder")
        for file in files:
            if not file.is_relative_to(base):
                raise UnreadableImageError(f"{file}: not below {base}")
            name = image_id(file.relative_to(base))
            if name in found:
                raise UnreadableImageError(f"two images would have the id {name!r}")
            found[name] = file
    return found


def extract_images(
    extractor: Extractor,
    images: Mapping[str, Callable[[], Image.Image]],
    count: int,
    workers: int,
) -> Iterator[tuple[str, ExtractedImage | UnreadableImageError]]:
    """In the order of `images`, which are opened when it is their turn; one that cannot be read
    comes as its error.

    One image is too small a task for several threads, so each worker takes an image for itself.
    """

    def extract(open_image: Callable[[], Image.Image]) -> ExtractedImage | UnreadableImageError:
        try:
            return extractor.extract(open_image(), count)
        except UnreadableImageError as error:
            return error

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))
    try:
        with ThreadPoolExecutor(workers) as pool:
            waiting: deque[tuple[str, Future[ExtractedImage | UnreadableImageError]]] = deque()
            for name, open_image in images.items():
                waiting.append((name, pool.submit(extract, open_image)))
                if len(waiting) >= 4 * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for name, future in waiting:
                yield name, future.result()
    finally:
        torch.set_num_threads(threads)
