"""The images of a published list; descriptors are stored in its order."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from model.descriptor_file import DescriptorReader
from model.extraction.extractor import Box
from model.formats.format_error import FormatError
from model.formats.ground_truth import read_ground_truth
from model.formats.image_lists import read_image_list
from model.image_ids import MAX_ID, image_id, portable


def listed_images(path: Path, folder: Path | None) -> dict[str, Path]:
    """Ids and files in the list's order, its paths below `folder`, or below the current one.

    Raises FormatError, also where an image is listed twice (two rows cannot have
    one id), an id would be too long or none of the files is there.
    """
    names = [portable(name) for name in read_image_list(path).names]
    files = {image_id(name): (folder or Path()) / name for name in names}
    if len(files) < len(names):
        (repeated, _), *_ = Counter(map(image_id, names)).most_common(1)
        raise FormatError(f"{path}: {repeated} is listed twice")
    longest = max(files, key=len)
    if len(longest) > MAX_ID:
        raise FormatError(
            f"{path}: the id of {files[longest]} would have {len(longest)} characters, over "
            f"{MAX_ID}"
        )
    if not any(file.is_file() for file in files.values()):
        raise FormatError(
            f"{path}: none of its images is below {folder or Path()}; --relative-to names their "
            "folder"
        )
    return files


def check_continues(output: Path, ids: Sequence[str], listed_in: Path) -> None:
    """A file that exists must hold the list's first images, in its order.

    Raises DescriptorFileError, and FormatError if it holds others.
    """
    if not output.exists():
        return
    with DescriptorReader(output) as reader:
        stored = list(reader.ids)
    if stored != list(ids[: len(stored)]):
        raise FormatError(f"{output}: its rows are not the first lines of {listed_in}")


def listed_boxes(truth: Path, images: dict[str, Path]) -> dict[str, Box]:
    """The part of every image of a list that is asked for.

    Raises FormatError, also where the queries of `truth` are not the images.
    """
    # Which gallery images are relevant to a query does not matter here.
    ground_truth = read_ground_truth(truth, gallery=sys.maxsize)
    if len(ground_truth.queries) != len(images):
        raise FormatError(
            f"{truth}: {len(ground_truth.queries)} queries, but the list has {len(images)} images"
        )
    boxes: dict[str, Box] = {}
    names = ground_truth.query_names or [file.stem for file in images.values()]
    for query, query_name, (name, file) in zip(
        ground_truth.queries, names, images.items(), strict=True
    ):
        if query_name not in (file.stem, file.name, name):
            raise FormatError(f"{truth}: query {query_name!r}, but the list has {name!r}")
        if query.box is None:
            raise FormatError(f"{truth}: query {query_name!r} has no `bbx`")
        left, top, right, bottom = query.box
        boxes[name] = (left, top, right, bottom)
    return boxes
