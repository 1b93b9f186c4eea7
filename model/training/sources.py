"""Makes training data from folders of pictures and their descriptor files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.config import ExtractorId
from model.descriptor_file import DescriptorFileError, read_images
from model.extraction.file_extraction import ExtractionRun, extract_to_file
from model.extraction.images import find_images
from model.extraction.registry import load_extractor
from model.formats.labels import LabelledImages, labels_of_folders, read_labels
from model.progress import Tracker, untracked
from model.training.domains import (
    Domain,
    ImagesById,
    TrainingData,
    labelled_data,
    views_data,
)
from model.training.new_model import DESCRIPTORS
from model.training.training_error import TrainingError
from model.training.training_lists import ListOptions

_VIEWS_OF_AN_IMAGE = 4
_HELD_OUT = 5
"""Views of every fifth image are for validation."""
_EXTRACTOR = "efficientnet-lite0"

File = tuple[Path, ExtractorId, ImagesById]


def images_data(images: Path, folder: Path, resume: bool, run: ExtractionRun) -> TrainingData:
    """Makes training data from a folder of images without labels. Their views are extracted into
    `folder`. Raises TrainingError if there are too few."""
    file = folder / "views.h5"
    files = find_images((images,), report=lambda why: run.report(f"left out: {why}"))
    if not resume:
        file.unlink(missing_ok=True)
    extractor = load_extractor(_EXTRACTOR)
    extract_to_file(extractor, files, file, DESCRIPTORS, run, views=_VIEWS_OF_AN_IMAGE)
    made_by, views = read_images(file, track=run.track)
    # The folder may have changed since: views of deleted images do not count.
    own = {view: image for view, image in views.items() if view.rpartition("@")[0] in files}
    try:
        return views_data(own, made_by, held_out=_HELD_OUT, options=ListOptions())
    except ValueError as error:
        raise TrainingError(str(error)) from None


def folders_data(
    labels: Sequence[Path],
    descriptors: Sequence[Path],
    views: Sequence[Path],
    fold: int | None,
    track: Tracker = untracked,
) -> TrainingData:
    """Makes training data from labelled folders and the descriptor files of their images, any
    number of each. A file belongs to a folder if it has all of the folder's images. Raises
    TrainingError for a folder without a file, FormatError and DescriptorFileError for damaged ones.
    """
    files = [(path, *read_images(path, track=track)) for path in descriptors]
    domains = [_domain(path, files) for path in labels]
    try:
        return labelled_data(
            domains,
            _by_extractor([(path, *read_images(path, track=track)) for path in views]),
            files[0][1],
            fold=fold,
            options=ListOptions(),
        )
    except ValueError as error:
        raise TrainingError(str(error)) from None


def labels_of(path: Path, ids: Sequence[str]) -> LabelledImages:
    """Reads labels from a CSV, or, for a folder without one, from the sub-folders in which the
    images `ids` lie. Raises FormatError."""
    if path.is_dir() and not (path / "labels.csv").exists():
        return labels_of_folders(ids, path)
    return read_labels(path)


def _domain(path: Path, files: Sequence[File]) -> Domain:
    """A folder with its descriptors. If sub-folders are the labels, its images are those of the
    first file whose images are all below `path`."""
    own = None if (path / "labels.csv").exists() or path.is_file() else find_images((path,)).keys()
    for _, _, described in files:
        if own is not None and not described.keys() <= own:
            continue
        images = labels_of(path, list(described))
        if described.keys() >= set(images.ids):
            fitting = [file for file in files if file[2].keys() >= set(images.ids)]
            return Domain(images, _by_extractor(fitting))
    raise TrainingError(f"{path}: no file of --descriptors has all of its images")


def _by_extractor(files: Sequence[File]) -> dict[str, ImagesById]:
    """Merges the files of each extractor. Raises DescriptorFileError for two versions of one
    extractor."""
    versions: dict[str, str] = {}
    merged: dict[str, ImagesById] = {}
    for path, made_by, images in files:
        if versions.setdefault(made_by.name, made_by.version) != made_by.version:
            raise DescriptorFileError(f"{path}: was made by another version of {made_by.name}")
        merged[made_by.name] = {**merged.get(made_by.name, {}), **images}
    return merged
