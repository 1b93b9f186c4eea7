"""locore extract"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from PIL import Image

from model.extraction.extractor import (
    ExtractorOptions,
)
from model.extraction.file_extraction import BATCH, extract_to_file
from model.extraction.images import (
    UnreadableImageError,
    find_images,
    read_image,
)
from model.extraction.listing import check_continues, listed_boxes, listed_images
from model.extraction.registry import NAMES, load_extractor, registered
from model.global_rows import GlobalRows, write_raw
from service.cli.common import (
    any_path,
    device_of,
    existing_folder,
    extraction_run,
    say,
    tracked,
)
from service.machine.cores import usable_cores


def _scales(_: click.Context, __: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        scales = tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter("must be numbers, separated by commas") from None
    if not all(0 < scale <= 4 for scale in scales) or len(set(scales)) < len(scales):
        raise click.BadParameter("must be above 0 and at most 4, none of them twice")
    return scales


@click.command()
@click.argument("images", nargs=-1, type=any_path)
@click.option("-o", "--output", required=True, type=any_path, help="The HDF5 file to write.")
@click.option(
    "--extractor",
    "name",
    default="efficientnet-lite0",
    show_default=True,
    metavar="NAME",
    help=f"One of {', '.join(NAMES)}. hf:FOLDER is a vision transformer of Hugging Face in a local "
    "folder: DINOv2, DINOv3, CLIP or SigLIP.",
)
@click.option(
    "--descriptors",
    type=click.IntRange(1, 4096),
    default=48,
    show_default=True,
    help="Local descriptors of an image: the strongest ones.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=usable_cores(),
    show_default=True,
    help="Images to process at a time; with --batch, images to read at a time.",
)
@click.option(
    "--relative-to",
    type=existing_folder,
    help="Ids are paths relative to this folder. With --list: the folder that its paths are in.",
)
@click.option(
    "--list",
    "list_path",
    type=any_path,
    help="Instead of IMAGES: a file that lists them, one `path` or `path,label,width,height` per "
    "line. Their order is kept.",
)
@click.option(
    "--crop",
    type=any_path,
    help="With --list: describe only the part of each image that this gnd_*.pkl gives as `bbx`.",
)
@click.option(
    "--global-file", type=any_path, help="Also write the globals here, as raw float32 rows."
)
@click.option(
    "--views",
    type=click.IntRange(0, 100),
    default=0,
    help="Extract this many random views of each image (crop, angle, light, occlusion) instead of "
    "the image itself, for training without labels. The id of a view is IMAGE@NUMBER.",
)
@click.option(
    "--fit-whitening",
    is_flag=True,
    help="Instead: learn the extractor's PCA-whitening from the images, and write it to OUTPUT.",
)
@click.option(
    "--weights",
    type=existing_folder,
    help="dinov2-vitb14-reg: a folder with config.json and model.safetensors, instead of the hub.",
)
@click.option("--detector", type=any_path, help="dinov2-vitb14-reg: AMES's dinov2_detector.pt.")
@click.option(
    "--scales",
    callback=_scales,
    help="dinov2-vitb14-reg: steps of the image pyramid.  [default: 1.0]",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    help=f"dinov2-vitb14-reg and hf: images of one size in a batch.  [default: {BATCH}]",
)
@click.option(
    "--device",
    metavar="auto|cpu|cuda[:N]",
    help="dinov2-vitb14-reg and hf: the device to compute on.  [default: auto]",
)
def extract(
    images: tuple[Path, ...],
    output: Path,
    name: str,
    descriptors: int,
    workers: int,
    relative_to: Path | None,
    list_path: Path | None,
    crop: Path | None,
    global_file: Path | None,
    views: int,
    fit_whitening: bool,
    weights: Path | None,
    detector: Path | None,
    scales: tuple[float, ...] | None,
    batch: int | None,
    device: str | None,
) -> None:
    """Make descriptors of IMAGES (files or folders) and write them to an HDF5 file.

    The id of an image is its path below the given folder, or the name of a single file. An existing
    OUTPUT is continued: an image is described again only if the picture has changed. Linked folders
    are followed. Images that cannot be read are reported and left out; with --list they keep their
    row, as padding with a global of zeros.
    """
    _check_sources(bool(images), list_path, crop, views, fit_whitening)
    _check_extractor(name, batch, crop, fit_whitening)
    if global_file is not None and (global_file.is_dir() or not global_file.parent.is_dir()):
        raise click.UsageError(f"--global-file: {global_file} cannot be written")
    left_out = 0

    def leave_out(why: str) -> None:
        nonlocal left_out
        left_out += 1
        say(f"left out: {why}")

    if list_path is not None:
        files = listed_images(list_path, relative_to)
        check_continues(output, list(files), list_path)
    else:
        files = find_images(images, relative_to, leave_out)
    if not files:
        raise UnreadableImageError(f"no image that can be read in {', '.join(map(str, images))}")
    if fit_whitening:
        _fit(files, output)
        return
    boxes = {} if crop is None else listed_boxes(crop, files)
    written, skipped = extract_to_file(
        load_extractor(name, ExtractorOptions(weights, detector, scales, _place(name, device))),
        files,
        output,
        descriptors,
        extraction_run(workers, batch or BATCH),
        views=views,
        boxes=boxes,
        keep_unreadable=list_path is not None,
    )
    note = ", their rows are padding" if skipped and list_path is not None else ""
    unread = skipped + left_out
    click.echo(f"{written} images written to {output}, {unread} could not be read{note}", err=True)
    if global_file is not None:
        with GlobalRows(output) as rows:
            write_raw(rows, global_file)
    # Rows that a continued file has already count: its last images may be unreadable.
    if skipped == len(files) * max(views, 1):
        raise UnreadableImageError(f"none of the {skipped} images could be read")


def _check_sources(
    images: bool, list_path: Path | None, crop: Path | None, views: int, fit_whitening: bool
) -> None:
    if images == (list_path is not None):
        raise click.UsageError("give either IMAGES or --list")
    if list_path is not None and (views or fit_whitening):
        raise click.UsageError("--list cannot be used with --views or --fit-whitening")
    if crop is not None and list_path is None:
        raise click.UsageError("--crop needs --list, whose lines are its queries")
    if views == 1:
        raise click.UsageError("--views: at least 2, since views are found by each other")


def _check_extractor(name: str, batch: int | None, crop: Path | None, fit_whitening: bool) -> None:
    """Raises ExtractorError for an unknown extractor, click.UsageError for options that it does not
    have."""
    entry = registered(name)
    for option, value in (("--batch", batch), ("--crop", crop)):
        if value is not None and not entry.batches:
            raise click.UsageError(f"{option} cannot be used with {name}")
    if fit_whitening and name != "efficientnet-lite0":
        raise click.UsageError(
            f"--fit-whitening cannot be used with {name}, which has no whitening"
        )


def _place(name: str, device: str | None) -> str | None:
    if device is None and "device" not in registered(name).options:
        return None
    return str(device_of(device or "auto"))


def _fit(files: dict[str, Path], output: Path) -> None:
    from model.extraction.efficientnet_lite import fit

    def pictures() -> Iterator[Image.Image]:
        for path in tracked(files.values(), "Learning the whitening", len(files)):
            try:
                yield read_image(path)
            except UnreadableImageError as error:
                say(f"left out: {error}")

    try:
        fit(pictures(), output)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
