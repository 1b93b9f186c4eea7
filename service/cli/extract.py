"""locore extract"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
from PIL import Image

from model.descriptor_file import DescriptorWriter
from model.extraction.extractor import EXTRACTORS, Extractor, load_extractor
from model.extraction.images import (
    UnreadableImageError,
    extract_images,
    find_images,
    read_image,
)
from service.cli.common import any_path, existing_folder, say, tracked


@click.command()
@click.argument("images", nargs=-1, required=True, type=any_path)
@click.option("-o", "--output", required=True, type=any_path, help="The HDF5 file to write.")
@click.option(
    "--extractor",
    "name",
    type=click.Choice(sorted(EXTRACTORS)),
    default="efficientnet-lite0",
    show_default=True,
)
@click.option(
    "--descriptors",
    type=click.IntRange(1, 4096),
    default=48,
    show_default=True,
    help="Local descriptors of an image, the strongest.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default=True,
    help="Images at a time.",
)
@click.option(
    "--relative-to",
    type=existing_folder,
    help="Make ids of the paths below this folder.",
)
@click.option(
    "--views",
    type=click.IntRange(0, 100),
    default=0,
    help="Extract so many random views of each image (crop, angle, light, occlusion) instead of "
    "the image: training lists that need no labels. A view's id is the image's, @ and a number.",
)
@click.option(
    "--fit-whitening",
    is_flag=True,
    help="Learn the extractor's PCA-whitening from the images instead, and write that to OUTPUT.",
)
def extract(
    images: tuple[Path, ...],
    output: Path,
    name: str,
    descriptors: int,
    workers: int,
    relative_to: Path | None,
    views: int,
    fit_whitening: bool,
) -> None:
    """Make descriptors of IMAGES, files or folders, and write them to an HDF5 file.

    An image in a folder gets its path below that folder as id, a single file its name. A file
    that exists is continued: what it has is not made again. Images that cannot be read are
    named and left out.
    """
    found = find_images(images, relative_to)
    if views == 1:
        raise click.UsageError("--views: a view is found by another one, so at least 2")
    if fit_whitening:
        _fit(found, output)
        return
    written, skipped = extract_to_file(
        load_extractor(name), found, output, descriptors, workers=workers, views=views
    )
    click.echo(f"{written} images written to {output}, {skipped} could not be read", err=True)
    if skipped and not written:
        raise UnreadableImageError(f"none of the {skipped} images could be read")


def extract_to_file(
    extractor: Extractor,
    images: dict[str, Path],
    output: Path,
    descriptors: int,
    *,
    workers: int = os.cpu_count() or 1,
    views: int = 0,
) -> tuple[int, int]:
    """(images written, images that could not be read). Those that `output` has stay as they are."""
    found = _openers(images, views)
    written = skipped = 0
    with DescriptorWriter(
        output,
        extractor=extractor.name,
        extractor_version=extractor.version,
        descriptors_per_image=descriptors,
        descriptor_dim=extractor.descriptor_dim,
        global_dim=extractor.global_dim,
    ) as writer:
        left = {name: opener for name, opener in found.items() if name not in writer.ids}
        results = extract_images(extractor, left, descriptors, workers)
        for image_id, result in tracked(results, "Extracting", len(left)):
            if isinstance(result, UnreadableImageError):
                say(f"left out: {result}")
                skipped += 1
            else:
                writer.append(image_id, result)
                written += 1
    return written, skipped


def _openers(images: dict[str, Path], views: int) -> dict[str, Callable[[], Image.Image]]:
    if not views:
        return {name: partial(read_image, path) for name, path in images.items()}
    from model.training.views import numbered_view

    return {
        f"{name}@{view}": partial(numbered_view, name, path, view)
        for name, path in images.items()
        for view in range(views)
    }


def _fit(found: dict[str, Path], output: Path) -> None:
    from model.extraction.efficientnet_lite0 import fit

    def pictures() -> Iterator[Image.Image]:
        for path in tracked(found.values(), "Learning the whitening", len(found)):
            try:
                yield read_image(path)
            except UnreadableImageError as error:
                say(f"left out: {error}")

    try:
        fit(pictures(), output)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
