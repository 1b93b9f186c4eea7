"""Image files to features, several at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from model.descriptors import ExtractedImage
from model.extraction.extractor import Extractor, NoDescriptorsError
from model.extraction.folders import UnreadableImageError, find_images
from model.extraction.pixels import PixelsError, read_pixels
from model.image_ids import image_id

__all__ = ["UnreadableImageError", "extract_images", "find_images", "image_id", "read_image"]


def read_image(path: Path, *, full_size: bool = False) -> Image.Image:
    """RGB, upright, as a viewer shows it; with `full_size` never shrunk. Raises
    UnreadableImageError."""
    # Opening a pipe waits for a writer.
    if path.exists() and not path.is_file():
        raise UnreadableImageError(f"{path}: no plain file")
    try:
        return read_pixels(path, full_size=full_size).image
    except FileNotFoundError:
        raise UnreadableImageError(f"{path}: no such file") from None
    except PixelsError as error:
        raise UnreadableImageError(f"{path}: not a readable image ({error})") from None


def extract_images(
    extractor: Extractor,
    images: Mapping[str, Callable[[], Image.Image]],
    count: int,
    workers: int,
) -> Iterator[tuple[str, ExtractedImage | UnreadableImageError]]:
    """Extracts in the order of `images`, and opens each in its turn. For an image that cannot be
    read it yields the error. One image is too small a task for several threads, so each worker
    processes one image.
    """

    def extract(
        name: str, open_image: Callable[[], Image.Image]
    ) -> ExtractedImage | UnreadableImageError:
        try:
            return extractor.extract(open_image(), count)
        except UnreadableImageError as error:
            return error
        except NoDescriptorsError as error:
            return UnreadableImageError(f"{name}: {error}")

    # Here and not above: what only reads pictures does without its import, a second or two.
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))
    try:
        with ThreadPoolExecutor(workers) as pool:
            waiting: deque[tuple[str, Future[ExtractedImage | UnreadableImageError]]] = deque()
            for name, open_image in images.items():
                waiting.append((name, pool.submit(extract, name, open_image)))
                if len(waiting) >= 4 * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for name, future in waiting:
                yield name, future.result()
    finally:
        torch.set_num_threads(threads)
