"""Writes descriptors of images to a file, which is continued if it exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from model.descriptor_writer import DescriptorWriter, Source, source_of
from model.descriptors import ExtractedImage
from model.extraction.batch_extraction import extract_in_batches
from model.extraction.extractor import BatchExtractor, Box, Extractor
from model.extraction.images import UnreadableImageError, extract_images, read_image
from model.progress import Report, Tracker, silent, untracked

BATCH = 8
"""Images of one pass of a network."""


@dataclass(frozen=True)
class ExtractionRun:
    """How images are extracted: `workers` read several at a time, and a network processes `batch`
    together. `report` gets a line for each image that is left out; `track` shows the progress."""

    workers: int = 1
    batch: int = BATCH
    report: Report = silent
    track: Tracker = untracked


def extracted_images(
    extractor: Extractor,
    openers: Mapping[str, Callable[[], Image.Image]],
    descriptors: int,
    run: ExtractionRun,
    boxes: Mapping[str, Box] | None = None,
) -> Iterator[tuple[str, ExtractedImage | UnreadableImageError]]:
    """Extracts in the order of `openers`, several images at a time. `boxes` are for an extractor
    that takes batches."""
    if isinstance(extractor, BatchExtractor):
        return extract_in_batches(extractor, openers, descriptors, run.workers, run.batch, boxes)
    return extract_images(extractor, openers, descriptors, run.workers)


def extract_to_file(
    extractor: Extractor,
    images: dict[str, Path],
    output: Path,
    descriptors: int,
    run: ExtractionRun,
    *,
    views: int = 0,
    boxes: Mapping[str, Box] | None = None,
    keep_unreadable: bool = False,
) -> tuple[int, int]:
    """Returns (images written, images that could not be read). Images that `output` has are kept,
    except changed pictures, which are described again in their place. `boxes` are for an extractor
    with batches."""
    openers = _openers(images, views, full_size=bool(boxes))
    sources = _sources(images, views)
    written = skipped = 0
    with descriptor_writer(output, extractor, descriptors) as writer:
        remaining = {
            name: opener for name, opener in openers.items() if not writer.has(name, sources[name])
        }
        changed = remaining.keys() & writer.ids
        if changed:
            run.report(
                f"{len(changed)} images have changed since {output} was written: described again"
            )
        results = extracted_images(extractor, remaining, descriptors, run, boxes)
        for image_id, result in run.track(results, "Extracting", len(remaining)):
            if isinstance(result, UnreadableImageError):
                former = ", what was written of it before stays" if image_id in changed else ""
                run.report(
                    f"{'a row of padding' if keep_unreadable else f'left out{former}'}: {result}"
                )
                skipped += 1
                if keep_unreadable:
                    writer.append(image_id, _nothing(extractor), sources[image_id])
            else:
                writer.append(image_id, result, sources[image_id])
                written += 1
    return written, skipped


def descriptor_writer(output: Path, extractor: Extractor, descriptors: int) -> DescriptorWriter:
    """A writer for what the extractor makes. Raises DescriptorFileError."""
    return DescriptorWriter(
        output,
        extractor=extractor.name,
        extractor_version=extractor.version,
        descriptors_per_image=descriptors,
        descriptor_dim=extractor.descriptor_dim,
        global_dim=extractor.global_dim,
    )


def _nothing(extractor: Extractor) -> ExtractedImage:
    """An image without descriptors: its row is only padding, its global is zeros."""
    return ExtractedImage(
        np.empty((0, 2), np.float32),
        np.empty(0, np.uint8),
        np.empty(0, np.float32),
        np.empty((0, extractor.descriptor_dim), np.float32),
        np.zeros(extractor.global_dim, np.float32),
    )


def _openers(
    images: dict[str, Path], views: int, *, full_size: bool
) -> dict[str, Callable[[], Image.Image]]:
    """`full_size`: boxes count in the pixels of the file."""
    if not views:
        return {
            name: partial(read_image, path, full_size=full_size) for name, path in images.items()
        }
    # The views need an extra of their own.
    from model.extraction.views import numbered_view

    return {
        f"{name}@{view}": partial(numbered_view, name, path, view)
        for name, path in images.items()
        for view in range(views)
    }


def _sources(images: dict[str, Path], views: int) -> dict[str, Source]:
    """The states of files before any is read: one that changes meanwhile counts as changed the next
    time."""
    each = {name: source_of(path) for name, path in images.items()}
    if not views:
        return each
    return {f"{name}@{view}": each[name] for name in images for view in range(views)}
