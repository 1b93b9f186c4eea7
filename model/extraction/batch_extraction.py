"""Image files to features by an extractor that takes several images at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from PIL import Image

from model.descriptors import ExtractedImage
from model.extraction.extractor import BatchExtractor, Box, NoDescriptorsError, PreparedImage
from model.extraction.images import UnreadableImageError

_WAITING_BATCHES = 8
"""Batches of images that are searched for images of one size. They are in memory."""

_Item = TypeVar("_Item")
_Prepared = PreparedImage | UnreadableImageError
_Result = ExtractedImage | UnreadableImageError


def extract_in_batches(
    extractor: BatchExtractor,
    images: Mapping[str, Callable[[], Image.Image]],
    count: int,
    workers: int,
    batch: int,
    boxes: Mapping[str, Box] | None = None,
) -> Iterator[tuple[str, _Result]]:
    """Extracts in the order of `images`; `boxes` give the part of an image to describe, where it is
    not all of it.

    The workers read and resize, up to `batch` images of one size then go through the network
    together. For an image that cannot be read or has no descriptors it yields an error that names
    it.
    """
    boxes = boxes or {}

    def prepare(item: tuple[str, Callable[[], Image.Image]]) -> _Prepared:
        name, open_image = item
        try:
            return extractor.prepare(open_image(), boxes.get(name))
        except UnreadableImageError as error:
            return error
        except NoDescriptorsError as error:
            return UnreadableImageError(f"{name}: {error}")

    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[_Prepared]] = deque()
        names = iter(images)
        items = iter(images.items())
        look_ahead = _WAITING_BATCHES * batch
        waiting.extend(pool.submit(prepare, item) for item in islice(items, look_ahead))
        while waiting:
            ready = [waiting.popleft().result() for _ in range(len(waiting))]
            # The workers go on while the network computes.
            waiting.extend(pool.submit(prepare, item) for item in islice(items, look_ahead))
            group = list(islice(names, len(ready)))
            yield from zip(group, _features(extractor, group, ready, count, batch), strict=True)


def _features(
    extractor: BatchExtractor, names: list[str], ready: list[_Prepared], count: int, batch: int
) -> list[_Result]:
    results: dict[int, _Result] = {}
    by_size: dict[tuple[tuple[int, ...], ...], list[tuple[int, PreparedImage]]] = {}
    for place, image in enumerate(ready):
        if isinstance(image, UnreadableImageError):
            results[place] = image
        else:
            sizes = tuple(step.shape for step in image.pixels)
            by_size.setdefault(sizes, []).append((place, image))
    for same_size in by_size.values():
        for together in _batched(same_size, batch):
            features = extractor.extract_batch([image for _, image in together], count)
            for (place, _), result in zip(together, features, strict=True):
                if isinstance(result, NoDescriptorsError):
                    results[place] = UnreadableImageError(f"{names[place]}: {result}")
                else:
                    results[place] = result
    return [results[place] for place in range(len(ready))]


def _batched(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
